"""The network of the config: links of single workers, the rates of those that take part in an exchange, and how long
workers compute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import numpy as np

from commexp.network.compute import Compute
from commexp.seeding import numpy_generator


@dataclass
class Link:
    """A worker's own link: ``bandwidth`` and ``up`` in Mbit/s, ``latency`` in ms; what is not given is the network's.

    Where ``bandwidth`` is given and ``up`` is not, up is bandwidth (network's up) / (network's bandwidth).
    """

    bandwidth: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    latency: Optional[float] = None  # noqa: UP045
    up: Optional[float] = None  # noqa: UP045

    def beside(self, bandwidth: float, up: float, latency: float) -> tuple[float, float, float]:
        """Bandwidth, up and latency of this link in a network with these."""
        faster = 1.0 if self.bandwidth is None else self.bandwidth / bandwidth
        return (
            bandwidth if self.bandwidth is None else self.bandwidth,
            up * faster if self.up is None else self.up,
            latency if self.latency is None else self.latency,
        )


class Pace(NamedTuple):
    """``latency``: the largest, in ms. Rates in bytes/s, ``slower``: the slowest way of any link; ``server_down`` and
    ``server_up``: of worker 0's link; ``down`` and ``up``: the slowest of the other links."""

    latency: float
    slower: float
    server_down: float
    server_up: float
    down: float
    up: float


class Transfer(NamedTuple):
    """What an exchange needs to know for its seconds: ``repeats`` times, one after the other, ``workers`` = n workers
    put ``wire`` = B bytes on all links together. ``pace``: of their links. ``direction``: peers, or up to a server or
    down from it. ``share``: the part of B that the busiest link carries, of a gossip whose graph is known."""

    pace: Pace
    workers: int
    wire: float
    repeats: int = 1
    direction: str = "peers"
    share: float | None = None


@dataclass(frozen=True)
class Rates:
    """Of N workers' links, [N] each: ``down`` and ``up`` in bytes/s, ``latency`` in ms."""

    down: np.ndarray
    up: np.ndarray
    latency: np.ndarray

    @property
    def alike(self) -> bool:
        return all(np.ptp(each) == 0 for each in (self.down, self.up, self.latency))

    def pace(self, taking: np.ndarray | None = None) -> Pace:
        """Of an exchange among the workers ``taking`` part, bool [N]; worker 0 always takes part."""
        ids = np.arange(len(self.down)) if taking is None else np.union1d(0, np.flatnonzero(taking))
        down, up, others = self.down[ids], self.up[ids], slice(1, None) if len(ids) > 1 else slice(None)
        slowest = (min(down.min(), up.min()), down[0], up[0], down[others].min(), up[others].min())
        return Pace(float(self.latency[ids].max()), *map(float, slowest))

    def gossip(self, wire: int, repeats: int, receivers: np.ndarray, senders: np.ndarray) -> np.ndarray:
        """Seconds [N] that each worker takes for one of ``repeats`` mixings with ``wire`` bytes in all, once it and its
        neighbours have begun:

            t_n = max over neighbours m of  max(alpha_n, alpha_m) + max(B_n / beta_n, B_m / beta_m)

        B_n: what worker n sends to all of its neighbours in a mixing; beta_n: the slower of its up and down. A transfer
        goes at the slower of its two ends, each of which all transfers of that worker share.
        """
        degrees = np.bincount(senders, minlength=len(self.down))
        own = wire / repeats * degrees / degrees.sum() / np.minimum(self.down, self.up)
        transfer = np.maximum(self.latency[receivers], self.latency[senders]) / 1e3
        transfer = transfer + np.maximum(own[receivers], own[senders])
        seconds = np.zeros(len(self.down))
        for ends in (receivers, senders):
            np.maximum.at(seconds, ends, transfer)
        return seconds


def check_links(links: Mapping[int, Link]) -> None:
    """Raises ValueError for a negative worker number, a bandwidth that is not positive, a negative latency."""
    for worker, link in links.items():
        given = f"links={{{worker}:{written(link)}}}"
        if worker < 0:
            raise ValueError(f"{given}: there is no worker {worker}; give numbers from 0 on")
        check_link(link, given)


def check_link(link: Link, given: str) -> None:
    """Raises ValueError; ``given``: the link as it was given."""
    for name in ("bandwidth", "up"):
        value = getattr(link, name)
        if value is not None and not value > 0:
            raise ValueError(f"{given}: {name} must be positive; give Mbit/s, such as 100")
    if link.latency is not None and not link.latency >= 0:
        raise ValueError(f"{given}: latency must not be negative; give 0 or more")


def written(link: Link) -> str:
    """As on the command line."""
    return "{" + ",".join(f"{name}:{value}" for name, value in vars(link).items() if value is not None) + "}"


@dataclass
class Network:
    """Workers with one full-duplex link each, all alike but for those with ``links`` of their own, and the time that
    they compute.

    ``bandwidth``: Mbit/s per link, down, and up too unless ``up`` is given. ``latency``: milliseconds per message.
    ``headers``: bytes that travel with a byte of ours, such as 0.046 for TCP over Ethernet (66 with 1,448).
    ``links``: by worker number; what a Link does not say is the network's. ``inside``: the links among the members of
    an island of workers (topology=islands), all alike; what it does not say is the network's.
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
    inside: Link = field(default_factory=Link, metadata={"added": True})

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
        check_link(self.inside, f"inside={written(self.inside)}")

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

    def inside_pace(self) -> Pace:
        """Of an exchange inside islands."""
        up = self.bandwidth if self.up is None else self.up
        down, up, latency = self.inside.beside(self.bandwidth, up, self.latency)
        down, up = (rate * 1e6 / 8 / (1 + self.headers) for rate in (down, up))
        return Pace(latency, min(down, up), down, up, down, up)

    def compute_seconds(self, number: int, gradients: np.ndarray, seed: int, measured: np.ndarray) -> np.ndarray:
        """Seconds that each worker computes in round ``number``, one gradient after the other, [N, count]: of its
        ``gradients`` [N] the last may be a part of one, or none; or ``measured`` [N], times the worker's factor, as a
        whole, [N, 1]."""
        workers = len(gradients)
        if self.compute.kind == "measured":
            return np.asarray(measured * self.compute.factors(workers))[:, None]
        count = math.ceil(gradients.max())
        if not count:
            return np.zeros((workers, 1))
        each = self.compute.draw(numpy_generator(seed, "compute", number), workers, count)
        parts = np.clip(gradients[:, None] - np.arange(count), 0, 1)
        return np.asarray(each * parts)
