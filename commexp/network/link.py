"""The network of the config: links of single workers, the rates of those that take part in an exchange, and how long
workers compute."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import numpy as np

from commexp.network.changes import Changes, Jitter
from commexp.network.compute import Compute
from commexp.network.outage import Outage
from commexp.network.regions import Regions, Sites
from commexp.network.trace import BandwidthTrace, read_trace
from commexp.seeding import numpy_generator


@dataclass
class Link:
    """A worker's own link. ``bandwidth``: Mbit/s down. ``up``: Mbit/s up. ``latency``: ms. What is not given is the
    network's.

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
    """Of N workers' links, [N] each: ``down`` and ``up`` in bytes/s, ``latency`` in ms; ``own``: whether the latency is
    that of a single link. ``sites``: what lies between them, where they stand apart: between two workers the slowest
    of the three links counts, and the largest of the three latencies."""

    down: np.ndarray
    up: np.ndarray
    latency: np.ndarray
    own: np.ndarray
    sites: Sites | None = None

    @property
    def alike(self) -> bool:
        same = all(np.ptp(each) == 0 for each in (self.down, self.up, self.latency))
        return same and self.sites is None

    def with_latency(self, latency: float) -> Rates:
        """The same where the network has another latency, which single links keep their own beside."""
        return dataclasses.replace(self, latency=np.where(self.own, self.latency, latency))

    def pace(self, taking: np.ndarray | None = None, path: str = "ring") -> Pace:
        """Of an exchange among the workers ``taking`` part, bool [N]; worker 0 always takes part. ``path``: who sends
        to whom, see ``Sites.route``."""
        ids = np.arange(len(self.down)) if taking is None else np.union1d(0, np.flatnonzero(taking))
        down, up, others = self.down[ids], self.up[ids], slice(1, None) if len(ids) > 1 else slice(None)
        slowest = (min(down.min(), up.min()), down[0], up[0], down[others].min(), up[others].min())
        pace = Pace(float(self.latency[ids].max()), *map(float, slowest))
        if self.sites is None or len(ids) == 1:
            return pace
        route = self.sites.route(ids, path)
        return pace._replace(
            latency=max(pace.latency, route.latency),
            slower=min(pace.slower, route.rate),
            down=min(pace.down, route.down),
            up=min(pace.up, route.up),
        )

    def gossip(self, wire: int, repeats: int, receivers: np.ndarray, senders: np.ndarray) -> np.ndarray:
        """Seconds [N] that each worker takes for one of ``repeats`` mixings with ``wire`` bytes in all, once it and its
        neighbours have begun:

            t_n = max over neighbours m of  max(alpha_n, alpha_m) + max(B_n / beta_n, B_m / beta_m)

        B_n: what worker n sends to all of its neighbours in a mixing, or receives, if that is more; beta_n: the slower
        of its up and down. A transfer
        goes at the slower of its two ends, each of which all transfers of that worker share. Between sites it takes at
        least the latency between them and one message's bytes over their rate.
        """
        transfer = self.latencies(receivers, senders) + self.transfers(wire, repeats, receivers, senders)
        seconds = np.zeros(len(self.down))
        for ends in (receivers, senders):
            np.maximum.at(seconds, ends, transfer)
        return seconds

    def latencies(self, receivers: np.ndarray, senders: np.ndarray, network: np.ndarray | None = None) -> np.ndarray:
        """In seconds, of each edge of a gossip, [E]. ``network``: the network's latency then, [E] in ms, if it is not
        the usual one."""
        ends = [self.latency[each] for each in (receivers, senders)]
        if network is not None:
            ends = [np.where(self.own[each], ms, network) for each, ms in zip((receivers, senders), ends, strict=True)]
        latency = np.maximum(*ends)
        if self.sites is not None:
            latency = np.maximum(latency, self.sites.latency[self.sites.place[senders], self.sites.place[receivers]])
        return np.asarray(latency / 1e3)

    def transfers(self, wire: int, repeats: int, receivers: np.ndarray, senders: np.ndarray) -> np.ndarray:
        """Seconds that the bytes of each edge of a gossip take, [E]."""
        into, out = (np.bincount(ends, minlength=len(self.down)) for ends in (receivers, senders))
        own = wire / repeats * np.maximum(into, out) / out.sum() / np.minimum(self.down, self.up)
        transfer = np.maximum(own[receivers], own[senders])
        if self.sites is not None:
            rate = self.sites.rate[self.sites.place[senders], self.sites.place[receivers]]
            transfer = np.maximum(transfer, wire / repeats / len(senders) / rate)
        return np.asarray(transfer)


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
    ``trace``: a file with the bandwidth and the latency over time, see ``read_trace``; the way up and the links of
    single workers keep their ratio to ``bandwidth``, and latencies of single workers stay. ``digest``: of its numbers,
    which stands for them; filled in. ``outage``, ``jitter``: see there. ``regions``: sites with links between them.

    How long an exchange takes on these links, its own ``seconds`` says (comm/exchanges).
    Raises ValueError if a bandwidth is not positive, a latency or headers negative, or a link without a worker; for a
    trace that cannot be read or is not the one of ``digest``, and for a trace of links between regions.
    """

    bandwidth: float = 1000.0
    latency: float = 0.1
    up: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    links: Optional[dict[int, Link]] = None  # noqa: UP045
    overlap: bool = False
    headers: float = 0.0
    compute: Compute = field(default_factory=Compute)
    inside: Link = field(default_factory=Link, metadata={"added": True})
    trace: Optional[str] = field(default=None, metadata={"location": True})  # noqa: UP045
    digest: str = field(default="", metadata={"added": True})
    outage: Outage = field(default_factory=Outage, metadata={"added": True})
    jitter: Jitter = field(default_factory=Jitter, metadata={"added": True})
    regions: Optional[Regions] = field(default=None, metadata={"added": True})  # noqa: UP045

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
        if self.trace is not None and self.regions is not None:
            raise ValueError(
                f"trace={self.trace}: has one bandwidth for all links, and regions have many; give network.outage or "
                "network.jitter with them"
            )
        self.recorded: BandwidthTrace | None = None if self.trace is None else read_trace(self.trace)
        digest = "" if self.recorded is None else self.recorded.digest
        if self.digest not in ("", digest):
            raise ValueError(f"digest={self.digest}: the trace has changed since; leave it out to take it as it is now")
        self.digest = digest

    def changes(self, seed: int) -> Changes | None:
        """How it changes in a run with this seed; None where it does not."""
        if self.recorded is None and not self.outage.lasts and self.jitter.kind == "none":
            return None
        return Changes(self.bandwidth, self.recorded, self.outage, self.jitter, seed)

    def scaled(self, bandwidth: float) -> Network:
        """The same with another bandwidth; all else that has one, links inside islands apart, as much faster or slower
        than it as it was. Latencies stay."""

        def by_factor(rate: float) -> float:
            return rate * bandwidth / self.bandwidth

        def by_factor_or_none(rate: float | None) -> float | None:
            return None if rate is None else by_factor(rate)

        other = copy.copy(self)  # its trace is not read again
        other.bandwidth, other.up = bandwidth, by_factor_or_none(self.up)
        other.links = self.links and {
            n: dataclasses.replace(link, bandwidth=by_factor_or_none(link.bandwidth), up=by_factor_or_none(link.up))
            for n, link in self.links.items()
        }
        if self.recorded is not None:
            other.recorded = self.recorded.faster(bandwidth / self.bandwidth)
        if self.regions is not None:
            rows = {site: [by_factor(mbit) for mbit in row] for site, row in self.regions.bandwidth.items()}
            other.regions = dataclasses.replace(self.regions, bandwidth=rows)
        return other

    def with_compute(self, compute: Compute) -> Network:
        """The same with other computing."""
        other = copy.copy(self)  # as it is scaled; its trace is not read again
        other.compute = compute
        return other

    def rates(self, workers: int) -> Rates:
        """Raises ValueError for the link of a worker that does not exist."""
        up = self.bandwidth if self.up is None else self.up
        table = np.tile([self.bandwidth, up, self.latency], (workers, 1))
        own = np.zeros(workers, dtype=bool)
        for worker, link in (self.links or {}).items():
            if worker >= workers:
                given = f"network.links={{{worker}:{written(link)}}}"
                raise ValueError(f"{given}: there is no worker {worker} of {workers}; give 0 to {workers - 1}")
            table[worker] = link.beside(self.bandwidth, up, self.latency)
            own[worker] = link.latency is not None
        sites = None if self.regions is None else self.regions.sites(workers, self.headers)
        ours = 1 + self.headers  # of 1 byte at beta
        return Rates(table[:, 0] * 1e6 / 8 / ours, table[:, 1] * 1e6 / 8 / ours, table[:, 2], own, sites)

    def server_rates(self) -> tuple[float, float]:
        """Of a server that has no link of its own: down and up, in bytes/s."""
        up = self.bandwidth if self.up is None else self.up
        ours = 1 + self.headers
        return self.bandwidth * 1e6 / 8 / ours, up * 1e6 / 8 / ours

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
