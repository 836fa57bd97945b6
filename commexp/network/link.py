"""Seconds on a virtual clock for what the ledger booked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from commexp.network.compute import Compute
from commexp.network.rates import Link, Pace, Rates, check_links, written
from commexp.seeding import numpy_generator


@dataclass
class Network:
    """Workers with one full-duplex link each, of the same class but for those with ``links`` of their own, and the time
    that they compute.

    ``bandwidth``: Mbit/s per link, down, and up too unless ``up`` is given. ``latency``: milliseconds per message.
    ``headers``: bytes that travel with a byte of ours, such as 0.046 for TCP over Ethernet (66 with 1,448).
    ``links``: by worker number; what a Link does not say is the class's.
    ``overlap``: a gradient's all-reduce begins while it is still computed, wherever one worker a process would do so,
    see ``overlapped``; else exchanges follow the computing.
    ``compute``: seconds that a worker computes for a gradient, see Compute.

    n workers take part, B bytes on all links (comm/cost.py), beta_n = the slower of worker n's up and down in bytes/s,
    beta the slowest of these, alpha_n = its latency in s, alpha the largest:

        all_reduce (ring)   2 (n-1) alpha + B / (n beta)
        all_gather (ring)   (n-1) alpha + B / (n beta)
        two_phase           (n-1) alpha + B / (n beta) for each phase
        gossip              alpha + B s / beta          s: the share of the worker with the most neighbours, 1/n if even
        broadcast (tree)    ceil(log2 n) (alpha + B / ((n-1) beta))
        server, up          alpha + max(B / down_0, max_n B / ((n-1) up_n)): all come in over the server's own link,
        server, down        alpha + max(B / up_0, max_n B / ((n-1) down_n))  which is worker 0's; n = 1, 2, ...

    Where links differ, each worker takes its own time to gossip, B_n bytes being its own:

        gossip              max over neighbours m of  max(alpha_n, alpha_m) + max(B_n / beta_n, B_m / beta_m)

    a transfer goes at the slower of its two ends, each of which is shared by all transfers of that worker. Where it is
    not known who is whose neighbour, all take as long as the slowest link with an even share.

    Of r exchanges one after the other, with B bytes in all, r latencies.
    Source: Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH, 2005.
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

    def seconds(
        self,
        exchange: str,
        workers: int,
        wire: float,
        repeats: int = 1,
        direction: str = "peers",
        share: float | None = None,
        pace: Pace | None = None,
    ) -> float:
        """Duration of ``repeats`` exchanges among ``workers`` that put ``wire`` bytes on all links. ``share``: of
        these, on the busiest link of a gossip. ``pace``: of the links of those who take part, if not workers 0 to
        n-1."""
        pace = pace or self.rates(workers).pace()
        alpha, n = repeats * pace.latency / 1e3, workers
        if exchange == "server":
            of_server, of_worker = (pace.server_up, pace.down) if direction == "down" else (pace.server_down, pace.up)
            return alpha + max(wire / of_server, wire / max(1, n - 1) / of_worker)
        if exchange == "broadcast":
            return math.ceil(math.log2(n)) * (alpha + wire / max(1, n - 1) / pace.slower)
        hops = {"all_reduce": 2 * (n - 1), "all_gather": n - 1, "two_phase": n - 1, "gossip": 1}
        if exchange not in hops:
            raise ValueError(f"exchange={exchange}: no cost model for it")
        return hops[exchange] * alpha + wire * (share or 1 / n) / pace.slower

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
