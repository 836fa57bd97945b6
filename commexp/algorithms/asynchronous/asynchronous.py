"""What methods have in common whose workers do not wait for each other: a worker's part, the server's part."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from commexp.algorithms.base import SHARES, Algorithm, AlgorithmContext, WorkItem
from commexp.algorithms.local.solver import check_solver, run_local_solver
from commexp.compressors import Message
from commexp.state import under_prefix, with_prefix

COUNTS = ("had", "messages_received", "done", "calls")  # one number of each worker
ROWS, OWN = "workers.", "own."  # a codec of one worker has one row, which the server's checkpoint keeps whole


@dataclass
class Asynchronous(Algorithm):
    """A server keeps x, worker n the x_n that it was sent last. A round is what the server does next: on the virtual
    clock it takes the message that comes first (and all that come at that moment), among real processes the one that
    has waited longest, and answers. A worker that has an answer does its work and sends a message; nobody waits unless
    the method says so.

    ``solver``: what a step of a worker is, see solver.py. Its rate is lr / (1 + decay c/N), c the messages that the
    server had had when it sent x_n: one clock for all, because workers whose rates differ pull x towards their own
    optimum. ``iterations``: p, steps between two messages. ``slice``: seconds of computing; in place of p, as many
    steps as fit into them at the worker's speed. ``shares``: pi_n, 1/N each (equal) or by the workers' samples.
    Diagnostics: ``calls``, messages to the server; ``staleness``, its mean: updates of x between the moment at which
    worker n was sent x_n and its next message; ``disagreement``: see the methods. Raises ValueError for values out of
    range.
    """

    asynchronous = rejoins = True
    feeds_back = False  # what moved x between two messages of a worker is no aggregate of one message of each
    overwrites = False  # whether a worker whose message has not been read goes on, and sends another in its place
    lr: float = 0.1
    decay: float = 0.0
    solver: str = "sgd"
    iterations: int = 10
    slice: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    shares: str = "equal"

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be positive; give a step size such as 0.1")
        if not self.decay >= 0:
            raise ValueError(f"decay={self.decay}: must not be negative; give 0 for a constant step")
        check_solver(self.solver)
        if self.iterations < 1:
            raise ValueError(f"iterations={self.iterations}: must not be less than 1; give 1 or more")
        if self.slice is not None and not self.slice > 0:
            raise ValueError(f"slice={self.slice}: must be positive; give seconds, or null for iterations")
        if self.shares not in SHARES:
            raise ValueError(f"shares={self.shares}: unknown; give equal or samples")

    def setup(self, context: AlgorithmContext) -> None:
        assert context.async_workers is not None
        self.context, self.workers = context, context.async_workers
        workers = context.comm.size
        self.x = context.start.clone()
        self.sent = context.start.repeat(workers, 1)
        within, seconds = self.workers.gradients_within, self.slice
        self.steps = [within(n, seconds) if seconds else self.iterations for n in range(workers)]
        self.done, self.calls = [0] * workers, [0] * workers  # local steps, and messages, of each worker
        self.version, self.had = 0, [0] * workers  # rounds: so far, and when worker n was sent x
        self.messages_received = [0] * workers  # by the server, at that time
        self.away: set[int] = set()  # workers that are lost
        self.stale: Counter[int] = Counter()
        samples = torch.tensor(self.workers.samples, dtype=torch.float64)
        self.pi = (samples / samples.sum() if self.shares == "samples" else samples * 0 + 1 / workers).tolist()
        self.begin()
        for n in range(workers):
            self.serve(n)

    def begin(self) -> None:
        """What a method needs besides."""

    # -- a worker

    def take(self, n: int, item: WorkItem) -> None:
        """Worker n has an item to work on."""
        self.sent[n], self.had[n], self.messages_received[n] = item.body, item.version, item.messages_received
        self.done[n] = max(self.done[n], item.local_steps)

    def work(self, n: int) -> Tensor:
        """What worker n sends after its work at x_n, [J], before compression."""
        return self.local(n, self.sent[n]) - self.sent[n]

    def message(self, n: int) -> Message:
        """The same as a message."""
        return self.workers.codecs[n].encode(self.work(n)[None])

    def rate(self, messages: int) -> float:
        """After so many messages to the server."""
        return self.lr / (1 + self.decay * messages / len(self.calls))

    def local(self, n: int, x: Tensor) -> Tensor:
        """x [J] after worker n's next local steps from there, [J]."""
        self.workers.select_worker(n)
        rate = self.rate(self.messages_received[n])
        moved = run_local_solver(self.solver, self.context.problem, x, self.done[n], self.steps[n], rate)
        self.done[n] += self.steps[n]
        return moved

    def gradients_for(self, n: int) -> float:
        """How many gradients of a batch worker n computes for its next message."""
        if self.solver == "sgd":
            return float(self.steps[n])
        return 2.0 * self.steps[n] + self.workers.batches(n)

    # -- the server

    def round(self, t: int) -> None:
        self.context.comm.watch.to("wait")
        came = self.expected()
        self.context.comm.watch.to("compute")
        for n in came:
            update = self.workers.update(n)
            if update.base is not None:
                self.sent[n], self.had[n] = update.base.body, update.base.version
            self.done[n] = update.local_steps
            self.stale[self.version - self.had[n]] += 1
            self.calls[n] += 1
            self.receive(n, self.context.comm.to_server(update.message))
        self.version += 1
        for n in self.answered(came):
            self.serve(n)

    def expected(self) -> Sequence[int]:
        """The workers whose messages are dealt with next."""
        return self.workers.arrivals()

    @abstractmethod
    def receive(self, n: int, sent: Tensor) -> None:
        """What the server does with the message of worker n, [J], as it comes out of the compressor."""

    def answered(self, came: Sequence[int]) -> Sequence[int]:
        """Who of those that came, or wait, is sent x now."""
        return came

    def item(self, n: int) -> WorkItem:
        """What worker n is sent now."""
        return WorkItem(self.x, self.version, sum(self.calls), self.done[n])

    def serve(self, n: int) -> None:
        """Sends worker n its next item; it goes to work."""
        item = self.item(n)
        self.take(n, item)
        up = self.context.compressor.payload(self.x.numel(), self.x.element_size())
        if self.workers.serve(n, item, self.gradients_for(n), up) and self.version:
            self.context.comm.from_server(item.body)

    def lost(self, n: int) -> None:
        """Worker n is gone, or has not spoken for too long; others may have waited for it."""
        self.away.add(n)
        if self.living():
            for m in self.answered([]):
                self.serve(m)

    def joined(self, n: int) -> None:
        """Worker n is there: for the first time since this process began, or again."""
        self.away.discard(n)
        for m in self.answered([n]):
            self.serve(m)

    def living(self) -> list[int]:
        return [n for n in range(len(self.calls)) if n not in self.away]

    # -- what is counted, and kept

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        """Of a worker, on average over the workers."""
        full = sum(map(self.workers.batches, range(len(self.steps)))) if self.solver == "svrg" else 0.0
        return [(sum(self.steps) + full) / len(self.steps) ** 2 * n for n in lengths]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        each = sum(map(self.gradients_for, range(len(self.steps)))) / len(self.steps) ** 2
        return [each * n for n in lengths]

    def full_gradients(self, n: int) -> float:
        """How many of them worker n has computed so far."""
        return self.done[n] / self.steps[n] if self.solver == "svrg" else 0

    def samples_done(self) -> float:
        sizes, all_of = self.workers.batch_sizes, self.workers.samples
        return sum(done * sizes[n] + self.full_gradients(n) * all_of[n] for n, done in enumerate(self.done))

    def steps_done(self) -> int:
        return sum(self.done)

    def model(self) -> Tensor:
        return self.x

    def disagreement(self) -> float:
        """The largest distance of a worker's x_n from x."""
        return float((self.sent - self.x)[self.living()].norm(dim=1).max())

    def diagnostics(self) -> dict[str, float]:
        calls = sum(self.calls)
        mean = sum(age * count for age, count in self.stale.items()) / max(1, calls)
        return {"calls": calls, "staleness": mean, "disagreement": self.disagreement()}

    def rows(self) -> dict[str, Tensor]:
        """What a method keeps besides."""
        return {}

    def load_rows(self, rows: Mapping[str, Tensor]) -> None:
        """What ``rows`` gave."""

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """staleness.csv: how many messages had which; workers.csv: what each did; gantt.csv: their first cycles."""
        clock = self.workers.clock
        workers = [
            {
                "worker": n,
                "calls": self.calls[n],
                "iterations": done,
                "overwritten": int(clock.overwritten[n]),
                "busy_seconds": float(clock.busy[n]),
                "idle_seconds": float(clock.idle[n]),
            }
            for n, done in enumerate(self.done)
        ]
        ages = [{"staleness": age, "messages": count} for age, count in sorted(self.stale.items())]
        return {"staleness": ages, "workers": workers, "gantt": [span._asdict() for span in clock.spans]}

    def state_dict(self) -> dict[str, Tensor]:
        kept = {name: torch.tensor(getattr(self, name)) for name in (*COUNTS, "version")}
        kept |= {"x": self.x, "sent": self.sent, **with_prefix("rows", self.rows())}
        kept["stale"] = torch.tensor(sorted(self.stale.items()), dtype=torch.int64).view(-1, 2)
        kept["away"] = torch.tensor(sorted(self.away), dtype=torch.int64)
        for n, codec in enumerate(self.workers.codecs):
            kept |= with_prefix(f"codec.{n}", {k.replace(ROWS, OWN): v for k, v in codec.state_dict().items()})
        return kept

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name in COUNTS:
            setattr(self, name, state[name].tolist())
        self.x, self.sent, self.version = state["x"], state["sent"], int(state["version"])
        self.stale = Counter({int(age): int(count) for age, count in state["stale"].tolist()})
        self.away = set(state["away"].tolist())
        self.load_rows(under_prefix("rows", state))
        for n, codec in enumerate(self.workers.codecs):
            own = under_prefix(f"codec.{n}", state)
            codec.load_state_dict({k.replace(OWN, ROWS): v for k, v in own.items()})
