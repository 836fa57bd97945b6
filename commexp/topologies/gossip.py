"""Gossip: the mixing matrix of each round, the number of mixings, and Chebyshev acceleration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Optional, TypeVar

from torch import Tensor

from commexp.seeding import numpy_generator
from commexp.topologies.base import Topology
from commexp.topologies.mixing import Mixing, second_singular_value

X = TypeVar("X", Tensor, float)
MOST_ROUNDS = 100_000
MOST_LINKS = 50_000


@dataclass
class Gossip:
    """``rounds``: K, the number of mixings in one exchange. ``contraction``: chooses the smallest K for which an
    exchange shrinks distances from the mean at least by this factor, on every graph with the same lambda.
    ``chebyshev``: accelerates the mixing, see ``mixed``. Raises ValueError for a value out of range."""

    rounds: int = 1
    chebyshev: bool = False
    contraction: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}: must not be less than 1; give K, the mixings of one exchange")
        if self.contraction is None:
            return
        if not 0 < self.contraction < 1:
            raise ValueError(f"contraction={self.contraction}: out of range; give a factor in (0, 1) such as 0.01")
        if self.rounds != 1:
            raise ValueError(f"rounds={self.rounds}: the contraction already determines them; give one of the two")


class Mixer:
    """The mixing matrices W_t of ``workers`` workers, and the number K of mixings per exchange.

    ``second_singular_value``: lambda; for a graph that changes, that of the product over a period, per round; failures
    of links are ignored. ``eta``: of the Chebyshev recursion, 0 for plain gossip. ``constant``: whether W_t is the same
    in all rounds. ``push``: for push-sum, whose weights need not be doubly stochastic. Raises ValueError for an
    unsuitable graph (see Topology), or one that does not support this gossip.
    """

    def __init__(self, topology: Topology, gossip: Gossip, workers: int, seed: int, push: bool = False) -> None:
        self.mixings, self.push = topology.mixings(workers, seed), push
        if not push and not all(m.doubly_stochastic for m in self.mixings):
            raise ValueError(
                f"weights={topology.weights}: not doubly stochastic on this graph, so that only push-sum finds the "
                "average; give algo=sgp, or an undirected graph with weights=metropolis"
            )
        self.failure, self.seed = topology.failure, seed
        self.second_singular_value = second_singular_value(self.mixings)
        self.constant = len(self.mixings) == 1 and not self.failure
        self.symmetric = all(m.symmetric for m in self.mixings)
        if (gossip.chebyshev or gossip.contraction) and not (self.constant and self.symmetric):
            key = "chebyshev=true" if gossip.chebyshev else f"contraction={gossip.contraction}"
            raise ValueError(
                f"gossip.{key}: needs symmetric weights that stay the same in every round; leave it out, or give "
                "another topology"
            )
        self.eta = chebyshev_eta(self.second_singular_value) if gossip.chebyshev else 0.0
        self.rounds = gossip.rounds
        if gossip.contraction is not None:
            self.rounds = rounds_needed(gossip.contraction, self.second_singular_value, self.eta)

    def at(self, number: int) -> Mixing:
        """W_t in round ``number`` = 1, 2, ...; the same links fail in every process."""
        mixing = self.mixings[(number - 1) % len(self.mixings)]
        if not self.failure:
            return mixing
        drawn = numpy_generator(self.seed, "links", number).random(len(mixing.links()[0]))
        return mixing.without(drawn < self.failure)

    @property
    def is_small(self) -> bool:
        """Whether the number of links is small enough to write them to a file."""
        return sum(len(m.matrix.data) for m in self.mixings) <= MOST_LINKS

    @cached_property
    def mean_links(self) -> tuple[list[int], list[int], list[float]]:
        """Rows, columns and weights of the off-diagonal entries of the mean matrix over a period."""
        mean = sum(m.matrix for m in self.mixings) / len(self.mixings)
        coordinates = mean.tocoo()
        off = coordinates.row != coordinates.col
        return tuple(part[off].tolist() for part in (coordinates.row, coordinates.col, coordinates.data))

    @cached_property
    def graphs(self) -> list[tuple[list[int], list[int]]]:
        """Receivers and senders in each round of the period, for push-sum on a graph that changes; else none, and
        ``mean_links`` stand for all rounds."""
        changes = self.push and len(self.mixings) > 1 and self.is_small
        return [(m.edges()[0].tolist(), m.edges()[1].tolist()) for m in self.mixings] if changes else []

    @property
    def least(self) -> float | None:
        """A lower bound of the eigenvalues of W^K, which is one of them if negative; None unless W is symmetric, the
        same in all rounds, and not accelerated."""
        if not (self.constant and self.symmetric and self.eta == 0):
            return None
        return self.mixings[0].smallest_eigenvalue ** self.rounds if self.rounds % 2 else 0.0

    @property
    def contraction(self) -> float:
        """The largest factor by which one exchange scales distances from the mean."""
        return worst_factor(self.rounds, self.second_singular_value, self.eta)


def chebyshev_eta(second: float) -> float:
    """eta = (1 - sqrt(1 - lambda^2)) / (1 + sqrt(1 - lambda^2))."""
    root = math.sqrt(max(0.0, 1 - second**2))
    return (1 - root) / (1 + root)


def mixed(x: X, step: Callable[[X], X], rounds: int, eta: float) -> X:
    """u_K of  u_{k+1} = (1 + eta) W u_k - eta u_{k-1},  u_0 = u_{-1} = x;  ``step`` is the product with W.

    With eta = 0 it is W^K x. The mean does not change. With eta = ``chebyshev_eta`` distances from the mean shrink like
    eta^(K/2): the exponent has sqrt(2 (1 - lambda)), where plain gossip has 1 - lambda. Source: Liu and Morse,
    Accelerated linear iterations for distributed averaging, 2011; used so by arXiv 2110.01594.
    """
    before = x
    for _ in range(rounds):
        after = step(x)
        if eta:
            after = after * (1 + eta) - before * eta
        before, x = x, after
    return x


def worst_factor(rounds: int, second: float, eta: float) -> float:
    """The largest factor over all eigenvalues in [-``second``, ``second``], which is attained at one of the two
    ends."""
    return max(abs(mixed(1.0, lambda u: second * u, rounds, eta)), abs(mixed(1.0, lambda u: -second * u, rounds, eta)))


def rounds_needed(contraction: float, second: float, eta: float) -> int:
    """The smallest K with ``worst_factor`` at most ``contraction``. Raises ValueError if it exceeds MOST_ROUNDS."""
    ends = {end: (1.0, 1.0) for end in (second, -second)}
    for needed in range(1, MOST_ROUNDS + 1):
        ends = {end: (now, (1 + eta) * end * now - eta * before) for end, (before, now) in ends.items()}
        if max(abs(now) for _, now in ends.values()) <= contraction:
            return needed
    raise ValueError(
        f"gossip.contraction={contraction}: takes more than {MOST_ROUNDS:,} mixings on this graph; give a larger one, "
        "or a topology with a wider spectral gap"
    )
