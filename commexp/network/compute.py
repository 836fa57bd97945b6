"""How long a worker computes for a gradient."""

from __future__ import annotations

import hashlib
import math
from array import array
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Optional

import numpy as np

from commexp.files import Listing, number

KINDS = ("constant", "measured", "shifted_exponential", "lognormal", "pareto", "trace")


@dataclass
class Compute:
    """Seconds T of one gradient of one worker, drawn anew for each:

        constant              seconds
        measured              of a round, not of a gradient: for how long a worker was busy on this machine, with
                              computing, encoding and decoding, see MeasuredRounds; ``seconds`` is unused
        shifted_exponential   seconds (1 - spread + spread E), E ~ Exp(1)
        lognormal             seconds exp(spread Z - spread^2 / 2), Z ~ N(0, 1)
        pareto                seconds (1 - 1/a) U^(-1/a), U ~ U(0, 1], a = 1 + 1/spread
        trace                 the numbers of the file ``trace``, one a line, from a place drawn at random on

    ``kind``: constant, measured, shifted_exponential, lognormal, pareto or trace. ``seconds``: the mean of the drawn
    ones; 0: only communication takes time. ``spread``: of the drawn ones; 0 is constant. ``trace``: a file of seconds.
    In place of ``seconds`` a device may be given: ``flops``: the TFLOP/s that it can do. ``utilisation``: the share of
    them that a training step reaches. Then

        seconds = floating-point operations of a gradient / (10^12 flops utilisation)

    ``coding``: how long a worker encodes or decodes a message: ``measured``, what it takes on this machine, once for
    the codec and the size of the model; or a rate in GB/s of uncompressed vectors; null: no time. It is a part of
    kind=measured. ``slow``: factors of single workers, the first ones (worker 0, 1, ...); all others have 1.
    ``digest``: 16 hex of BLAKE2b of the trace's numbers, which stands for them; filled in.
    Source: Lee et al., arXiv 1512.02673 (shifted exponential).
    Raises ValueError for values out of range, or a file that cannot be read or is not the one of ``digest``.
    """

    kind: str = "constant"
    seconds: float = 0.0
    # OmegaConf reads this spelling on every Python we support
    flops: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045
    utilisation: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045
    spread: float = 0.5
    slow: list[float] = field(default_factory=list)
    coding: Any = field(default=None, metadata={"added": True})
    trace: Optional[str] = field(default=None, metadata={"location": True})  # noqa: UP045
    digest: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"compute.kind={self.kind}: unknown; give one of {', '.join(KINDS)}")
        if not self.seconds >= 0:
            raise ValueError(f"compute.seconds={self.seconds}: must not be negative; give 0 or more")
        self._check_device()
        self._check_coding()
        if not self.spread >= 0 or (self.kind == "shifted_exponential" and self.spread > 1):
            raise ValueError(f"compute.spread={self.spread}: out of range; give a share of the mean such as 0.5")
        if not all(s > 0 for s in self.slow):
            raise ValueError(f"compute.slow={list(self.slow)}: must be positive; give factors such as [10, 10]")
        if (self.kind == "trace") != (self.trace is not None):
            raise ValueError(f"compute.trace={self.trace}: goes with compute.kind=trace; give both or neither")
        self.recorded = np.empty(0) if self.trace is None else read_trace(self.trace)
        content = self.recorded.astype("<f8").tobytes()
        digest = hashlib.blake2b(content, digest_size=8).hexdigest() if content else ""
        if self.digest not in ("", digest):
            raise ValueError(
                f"compute.digest={self.digest}: the trace has changed since; leave it out to take it as it is now"
            )
        self.digest = digest

    def _check_device(self) -> None:
        """Raises ValueError for a device that is not described in full, or beside another time of a gradient."""
        if self.flops is None:
            if self.utilisation is not None:
                given = f"compute.utilisation={self.utilisation}"
                raise ValueError(f"{given}: a share of what no device can do; give network.compute=h100, or flops, too")
            return
        if not self.flops > 0:
            raise ValueError(f"compute.flops={self.flops}: must be positive; give TFLOP/s such as 312")
        if self.utilisation is None:
            given = f"compute.flops={self.flops}"
            raise ValueError(
                f"{given}: a training step reaches a share of it; give network.compute.utilisation, such as 0.4"
            )
        if not 0 < self.utilisation <= 1:
            raise ValueError(
                f"compute.utilisation={self.utilisation}: out of range; give a share in (0, 1] such as 0.4"
            )
        if self.seconds:
            given = f"compute.seconds={self.seconds} network.compute.flops={self.flops}"
            raise ValueError(f"{given}: both say what a gradient takes; give one of the two, or seconds=0")
        if self.kind in ("measured", "trace"):
            given = f"compute.kind={self.kind} network.compute.flops={self.flops}"
            raise ValueError(f"{given}: both say what a gradient takes; give another kind, or no device")

    def _check_coding(self) -> None:
        """Raises ValueError for what is no way to time messages, or is counted already."""
        coding = self.coding
        if coding is None:
            return
        rate = isinstance(coding, int | float) and not isinstance(coding, bool) and 0 < coding < math.inf
        if not rate and coding != "measured":
            raise ValueError(f"compute.coding={coding}: unknown; give measured, GB/s such as 2.0, or null")
        if self.kind == "measured":
            raise ValueError(f"compute.coding={coding}: compute.kind=measured includes it; leave out one of the two")

    def for_gradient(self, flops: float) -> Compute:
        """The same where a gradient takes so many floating-point operations, with ``seconds`` in place of the device;
        itself where there is no device."""
        if self.flops is None or self.utilisation is None:
            return self
        seconds = flops / (1e12 * self.flops * self.utilisation)
        return replace(self, seconds=seconds, flops=None, utilisation=None)

    @property
    def is_instant(self) -> bool:
        """Whether every gradient takes 0 seconds."""
        if self.kind == "trace":
            return not self.recorded.any()
        return self.kind != "measured" and not self.seconds and self.flops is None

    def factors(self, workers: int) -> np.ndarray:
        """[N]. Raises ValueError for more factors than workers."""
        if len(self.slow) > workers:
            given = f"network.compute.slow={list(self.slow)}"
            raise ValueError(f"{given}: more factors than the {workers} workers; give at most {workers}")
        return np.array([*self.slow, *[1.0] * (workers - len(self.slow))])

    def draw(self, rng: np.random.Generator, workers: int, count: int) -> np.ndarray:
        """Seconds of ``count`` gradients of each worker, [N, count]."""
        return np.asarray(self.law(rng, (workers, count)) * self.factors(workers)[:, None])

    def law(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """The same without the workers' factors, of the given shape."""
        if self.kind == "trace":
            starts = rng.integers(len(self.recorded), size=shape[0])
            return np.asarray(self.recorded[(starts[:, None] + np.arange(shape[1])) % len(self.recorded)])
        if self.kind == "constant" or not self.spread:
            return np.full(shape, self.seconds)
        if self.kind == "shifted_exponential":
            return self.seconds * (1 - self.spread + self.spread * rng.exponential(size=shape))
        if self.kind == "lognormal":
            return np.asarray(self.seconds * np.exp(self.spread * rng.standard_normal(shape) - self.spread**2 / 2))
        a = 1 + 1 / self.spread
        return self.seconds * (1 - 1 / a) * (1 + rng.pareto(a, size=shape))


class Trace(Listing):
    key: ClassVar[str] = "compute.trace"


def read_trace(path: str) -> np.ndarray:
    """One number a line, not negative; empty lines and comments (from # on) are passed over. Raises ValueError with the
    line's number for anything else."""
    trace, seconds = Trace(path), array("d")
    for line, words in trace.lines():
        value = number(words[0]) if len(words) == 1 else None
        if value is None or not 0 <= value < math.inf:
            raise trace.bad(f"line {line}: {' '.join(words)[:40]!r} is no number of seconds", "0 or more")
        seconds.append(value)
    if not seconds:
        raise trace.bad("is empty", "a file with seconds, one number a line")
    return np.array(seconds)
