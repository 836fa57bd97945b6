"""Links of single workers, and the rates of those that take part in an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Optional

import numpy as np


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
        for name in ("bandwidth", "up"):
            value = getattr(link, name)
            if value is not None and not value > 0:
                raise ValueError(f"{given}: {name} must be positive; give Mbit/s, such as 100")
        if link.latency is not None and not link.latency >= 0:
            raise ValueError(f"{given}: latency must not be negative; give 0 or more")


def written(link: Link) -> str:
    """As on the command line."""
    return "{" + ",".join(f"{name}:{value}" for name, value in vars(link).items() if value is not None) + "}"
