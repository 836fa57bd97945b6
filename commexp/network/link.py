"""The network of the config: its links, and how long its workers compute."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from commexp.network.compute import Compute
from commexp.network.rates import Link, Rates, check_links, written
from commexp.seeding import numpy_generator


@dataclass
class Network:
    """Workers with one full-duplex link each, all alike but for those with ``links`` of their own, and the time that
    they compute.

    ``bandwidth``: Mbit/s per link, down, and up too unless ``up`` is given. ``latency``: milliseconds per message.
    ``headers``: bytes that travel with a byte of ours, such as 0.046 for TCP over Ethernet (66 with 1,448).
    ``links``: by worker number; what a Link does not say is the network's.
    ``overlap``: a gradient's all-reduce begins while the gradient is still computed, wherever one worker a process
    would do so, see ``overlapped``; else exchanges follow the computing.
    ``compute``: seconds that a worker computes for a gradient, see Compute.

    How long an exchange takes on these links, its own ``seconds`` says (comm/exchanges).
    Raises ValueError if a bandwidth is not positive, a latency or headers negative, or a link without a worker.
    """

    bandwidth: float = 1000.0
    latency: float = 0.1
    up: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    links: Optional[dict[int, Link]] = None  # noqa: UP045
    overlap: bool = False
    headers: float = 0.0
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        for name in ("bandwidth", "up"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: must be positive; give Mbit/s, such as 100")
        if not self.latency >= 0:
            raise ValueError(f"latency={self.latency}: must not be negative; give 0 or more")
        if not self.headers >= 0:
            raise ValueError(f"headers={self.headers}: must not be negative; give 0 or more")
        check_links(self.links or {})

    def rates(self, workers: int) -> Rates:
        """Raises ValueError for the link of a worker that does not exist."""
        up = self.bandwidth if self.up is None else self.up
        table = np.tile([self.bandwidth, up, self.latency], (workers, 1))
        for worker, link in (self.links or {}).items():
            if worker >= workers:
                given = f"network.links={{{worker}:{written(link)}}}"
                raise ValueError(f"{given}: there is no worker {worker} of {workers}; give 0 to {workers - 1}")
            table[worker] = link.beside(self.bandwidth, up, self.latency)
        ours = 1 + self.headers  # of 1 byte at beta
        return Rates(table[:, 0] * 1e6 / 8 / ours, table[:, 1] * 1e6 / 8 / ours, table[:, 2])

    def compute_seconds(self, number: int, gradients: np.ndarray, seed: int, measured: np.ndarray) -> np.ndarray:
        """Seconds that each worker computes in round ``number``, [N]: the sum over its ``gradients`` [N], of which the
        last may be a part of one; or ``measured`` [N], times the worker's factor."""
        workers = len(gradients)
        if self.compute.kind == "measured":
            return np.asarray(measured * self.compute.factors(workers))
        count = math.ceil(gradients.max())
        if not count:
            return np.zeros(workers)
        each = self.compute.draw(numpy_generator(seed, "compute", number), workers, count)
        parts = np.clip(gradients[:, None] - np.arange(count), 0, 1)
        return np.asarray((each * parts).sum(axis=1))
