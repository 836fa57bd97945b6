"""What mixing keeps and how fast it contracts: plain, compressed, accelerated."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from algorithms.gossip_world import LR, J, N, exchange, go, workers_of, world
from registry import options
from torch import Tensor

from commexp.algorithms import Choco
from commexp.algorithms.decentralised.gossip import CompressedGossip
from commexp.comm import Communicator
from commexp.compressors import Sign, TopK
from commexp.topologies import Gossip, Hypercube, Ladder, Ring, Star, Topology
from commexp.topologies.gossip import chebyshev_eta, rounds_needed, worst_factor

CHANGING = ("one_peer", "directed_exponential", "random_pairs")


def rows(workers: int = N, dim: int = J, seed: int = 0) -> Tensor:
    return torch.randn(workers, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread(x: Tensor) -> float:
    return float((x - x.mean(0)).norm())


@pytest.mark.parametrize("topology", options("topology"))
def test_mixing_keeps_the_mean(topology: str, graphs: dict[str, Callable[..., Topology]]) -> None:
    x = rows()
    for gossip in (Gossip(), Gossip(rounds=5), Gossip(rounds=5, chebyshev=True)):
        if gossip.chebyshev and topology in (*CHANGING, "exponential", "directed_file"):
            continue
        comm = exchange(graphs[topology](), gossip)
        for t in range(1, 4):
            comm.begin_round(t)
            mixed = comm.gossip(x)
            assert float((mixed.mean(0) - x.mean(0)).abs().max()) < 1e-14
            assert spread(mixed) < spread(x)
    if topology in CHANGING:
        return
    comm = exchange(graphs[topology]())
    for codec in (TopK(k=3), TopK(k=1.0), Sign()):
        compressed = CompressedGossip(comm, codec, 0.4, torch.zeros_like(x))
        y = x
        for _ in range(5):
            y = compressed(y)
            assert float((y.mean(0) - x.mean(0)).abs().max()) < 1e-14


def test_every_entry_and_a_whole_step_is_plain_gossip() -> None:
    comm = exchange(Ladder())
    compressed = CompressedGossip(comm, TopK(k=1.0), 1.0, torch.zeros(N, J, dtype=torch.float64))
    one = other = rows()
    for t in range(20):
        change = rows(seed=t + 1)
        one, other = comm.gossip(one + change), compressed(other + change)
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


def test_choco_with_every_entry_is_gossip_sgd_that_mixes_after_the_step() -> None:
    one, other = Choco(lr=LR, gamma=1.0), Choco(lr=LR)
    go(one, world(Ladder(), codec=TopK(k=1.0)))
    go(other, world(Ladder()))
    np.testing.assert_allclose(workers_of(one), workers_of(other), rtol=0, atol=1e-10)


def test_top_k_alone_brings_a_ring_together_geometrically() -> None:
    x = rows()
    compressed = CompressedGossip(exchange(Ring()), TopK(k=3), 0.3, torch.zeros_like(x))
    found, y = [], x
    for t in range(600):
        if t % 100 == 0:
            found.append(spread(y))
        y = compressed(y)
    factors = [after / before for before, after in pairwise(found[1:])]
    assert max(factors) < 0.2
    assert max(factors) / min(factors) < 5, "each hundred rounds by about the same factor"
    torch.testing.assert_close(y, x.mean(0).expand(N, -1), rtol=0, atol=2 * found[-1])
    assert found[-1] < 1e-4 * found[0]


# --- Chebyshev


def contraction_of(comm: Communicator, x: Tensor) -> float:
    return spread(comm.gossip(x)) / spread(x)


def test_chebyshev_on_a_ring_of_64() -> None:
    x = rows(64, 16)
    plain = exchange(Ring(), workers=64)
    once, y, measured = plain.mixer, x, 0
    assert once is not None
    while spread(y) > 1e-6 * spread(x):
        y, measured = plain.gossip(y), measured + 1

    def accelerated(k: int) -> float:
        comm = exchange(Ring(), Gossip(rounds=k, chebyshev=True), 64)
        mixed = comm.gossip(x)
        assert float((mixed.mean(0) - x.mean(0)).abs().max()) < 1e-12
        return spread(mixed) / spread(x)

    low, high = 1, measured // 4
    assert accelerated(high) <= 1e-6
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if accelerated(middle) <= 1e-6 else (middle + 1, high)
    second = 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 64)
    assert once.second_singular_value == pytest.approx(second, abs=1e-12)
    theory, fast = rounds_needed(1e-6, second, 0.0), rounds_needed(1e-6, second, chebyshev_eta(second))
    assert theory == math.ceil(math.log(1e-6) / math.log(second))
    assert fast <= theory / 4
    assert low <= measured / 4
    assert measured <= theory
    assert low <= fast


@pytest.mark.parametrize("second", [0.0, 0.2, 0.7, 0.97, 0.9997])
def test_the_worst_factor_is_that_of_one_of_the_ends(second: float) -> None:
    grid = np.linspace(-second, second, 20_001)
    for eta in (0.0, chebyshev_eta(second)):
        before = now = np.ones_like(grid)
        for k in range(1, 41):
            before, now = now, (1 + eta) * grid * now - eta * before
            assert worst_factor(k, second, eta) == pytest.approx(float(np.abs(now).max()), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("topology", [Ring(), Ladder(), Star(), Hypercube(), Ring(lazy=True)])
@pytest.mark.parametrize("chebyshev", [False, True])
def test_what_an_exchange_leaves_at_most_is_measured(topology: Topology, chebyshev: bool) -> None:
    """On the identity matrix, so that the result is the exchange's own matrix."""
    for gossip in (
        Gossip(rounds=3, chebyshev=chebyshev),
        Gossip(contraction=0.1, chebyshev=chebyshev),
        Gossip(contraction=1e-5, chebyshev=chebyshev),
    ):
        comm = exchange(topology, gossip, 16)
        mixer = comm.mixer
        assert mixer is not None
        W = mixer.mixings[0].matrix.toarray()
        eigenvalues = np.delete(np.linalg.eigvalsh(W), -1)
        before = now = np.ones_like(eigenvalues)
        for _ in range(mixer.rounds):
            before, now = now, (1 + mixer.eta) * eigenvalues * now - mixer.eta * before
        found = comm.gossip(torch.eye(16, dtype=torch.float64)).numpy()
        norm = float(np.linalg.norm(found - 1 / 16, 2))
        assert norm == pytest.approx(float(np.abs(now).max()), rel=1e-6)
        assert norm <= mixer.contraction * (1 + 1e-9)
        if min(eigenvalues) < -mixer.second_singular_value + 1e-9 or not chebyshev:
            assert norm == pytest.approx(mixer.contraction, rel=1e-6), "no better than promised"
        if gossip.contraction is not None:
            assert norm <= gossip.contraction
            if mixer.rounds > 1:
                fewer = worst_factor(mixer.rounds - 1, mixer.second_singular_value, mixer.eta)
                assert fewer > gossip.contraction, "one mixing fewer would do"
