"""EXTRA, NIDS and K-GT: recursions to the last digits, what they have in common, the minimum, the steps of theory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from algorithms.gossip_world import CPU, LR, exchange, go, workers_of, world
from algorithms.test_d2 import least_squares
from algorithms.test_gossip_references import Reference

from commexp.algorithms import D2, KGT, NIDS, Algorithm, AlgorithmContext, Constants, Extra
from commexp.algorithms.decentralised.base import StepMethod
from commexp.compressors import NoCompression
from commexp.problems import Data
from commexp.problems.base import ProblemContext
from commexp.problems.least_squares import LeastSquares
from commexp.run_folder import Run
from commexp.topologies import DirectedExponential, ErdosRenyi, Gossip, Ladder, Ring

LONG = 60
CASES: dict[str, tuple[Algorithm, Callable[[Reference], np.ndarray]]] = {
    "extra": (Extra(lr=LR), lambda r: r.extra(LONG)),
    "nids": (NIDS(lr=LR), lambda r: r.nids(LONG)),
    "kgt": (KGT(lr=0.1, tau=3, outer_lr=0.8), lambda r: r.kgt(3, 0.1, 0.8, LONG)),
}


@pytest.mark.parametrize("name", CASES)
def test_sixty_rounds_of_the_recursion(name: str) -> None:
    method, reference = CASES[name]
    go(method, replace(world(Ladder()), steps=3 * LONG), LONG)
    expected = reference(Reference())
    assert np.abs(expected - expected.mean(0)).max() > 1e-3
    np.testing.assert_allclose(workers_of(method), expected, rtol=0, atol=1e-12)


def test_nids_without_a_prox_is_exact_diffusion_after_its_first_step() -> None:
    """That of Yuan et al.: psi = x - lr g, phi = psi + x - psi of before, x = (I + W)/2 phi."""
    problem, nids, diffusion = least_squares(), NIDS(lr=0.1), D2(lr=0.1)
    go(nids, world(Ladder(), problem=problem), 1)
    diffusion.setup(world(Ladder(lazy=True), problem=problem))
    diffusion.x, diffusion.psi = nids.x, nids.psi
    for t in range(1, LONG):
        for each in (nids, diffusion):
            each.context.comm.begin_round(t + 1)
            each.round(t)
        np.testing.assert_allclose(workers_of(nids), workers_of(diffusion), rtol=0, atol=1e-12)
    assert float((nids.x - nids.x.mean(0)).abs().max()) > 1e-5


def test_kgt_keeps_sum_c_at_0_and_comes_to_the_minimum_with_local_steps() -> None:
    problem = least_squares()
    method = KGT(lr=0.02, tau=4)

    def after(t: int) -> None:
        assert float(method.c.sum(0).abs().max()) < 1e-11

    go(method, replace(world(Ladder(), problem=problem), steps=4 * 1200), 1200, after)
    assert float((method.x - problem.optimum()).norm(dim=1).max()) < 1e-9


def theory(problem: LeastSquares, method: StepMethod, made: AlgorithmContext) -> float:
    (L, own, mu), mixer = problem.smoothness(), made.comm.mixer
    assert mixer is not None
    return method.theoretical_step(Constants(L, own.tolist(), mu, least=mixer.least))


@pytest.mark.parametrize("kind", [Extra, NIDS])
def test_it_comes_to_the_minimum_at_the_step_of_theory(kind: type[StepMethod]) -> None:
    problem, method = least_squares(), kind()
    made = world(Ladder(), problem=problem)
    method.lr = theory(problem, method, made)
    go(method, made, 700)
    best = problem.optimum()
    lowest, found = (problem.training_loss(x) for x in (best, method.model()))
    assert abs(found - lowest) < 1e-12 * max(1.0, lowest)
    assert float((method.x - best).norm(dim=1).max()) < 1e-10


def test_the_steps_of_theory_by_hand() -> None:
    """A ring of 4 with Metropolis weights: eigenvalues 1, 1/3, 1/3, -1/3. Mixed twice: none below 0."""
    constants = Constants(3.0, [1.0, 5.0, 2.0, 4.0], 0.1, least=exchange(Ring(), workers=4).mixer.least)  # type: ignore[union-attr]
    assert Extra().theoretical_step(constants) == pytest.approx((1 - 1 / 3) / 2 / 5)
    assert NIDS().theoretical_step(constants) == 1 / 5
    assert exchange(Ring(), Gossip(rounds=2), workers=4).mixer.least == 0  # type: ignore[union-attr]
    for method in (Extra(), NIDS()):
        with pytest.raises(ValueError, match=r"^lr=theory: .*; give batch_size=null"):
            method.theoretical_step(replace(constants, whole=False))
    with pytest.raises(ValueError, match=r"^lr=theory: needs symmetric weights"):
        Extra().theoretical_step(replace(constants, least=None))


@pytest.mark.parametrize("kind", [Extra, NIDS])
def test_at_the_step_of_theory_none_of_100_random_problems_diverges(kind: type[StepMethod]) -> None:
    rng = np.random.default_rng(1)
    for seed in range(100):
        workers, dim = int(rng.integers(2, 7)), int(rng.integers(1, 5))
        rows = torch.from_numpy(rng.standard_normal((workers, 6, dim)) * rng.lognormal(0, 1, (workers, 1, 1)))
        targets = torch.from_numpy(rng.standard_normal((workers, 6)))
        parts = list(torch.arange(6 * workers).view(workers, 6))
        data = Data(rows.flatten(0, 1), targets.flatten())
        problem = LeastSquares(data, ProblemContext(parts, range(workers), None, 0, CPU, torch.float64))
        topology = ErdosRenyi(p=0.7) if workers > 3 else Ring()
        start = torch.full((dim,), 3.0, dtype=torch.float64)
        comm = exchange(topology, workers=workers)
        made, method = AlgorithmContext(problem, comm, NoCompression(), 50, start), kind()
        method.lr = theory(problem, method, made)
        go(method, made, 50)
        best = problem.optimum()
        assert float((method.x - best).norm()) <= workers**0.5 * float((start - best).norm()) + 1e-12, seed


def test_what_each_sends_by_hand(run: Callable[..., Run]) -> None:
    """A ring of 4: a vector of 5 doubles to 2 neighbours; K-GT two vectors; NIDS none in its first round."""
    words = ["dataset=linreg", "dataset.dim=5", "dataset.samples=6", "workers=4", "topology=ring", "rounds=6"]
    for algo, vectors in (("extra", 6), ("nids", 5), ("kgt", 12)):
        assert run(*words, f"algo={algo}").metrics["bytes_wire"].iloc[-1] == 4 * 2 * 5 * 8 * vectors


def test_a_directed_or_changing_graph_is_refused() -> None:
    for name, method in (("extra", Extra()), ("nids", NIDS())):
        with pytest.raises(ValueError, match=rf"^algo={name}: needs plain gossip with symmetric weights .*; give "):
            method.setup(world(DirectedExponential()))
