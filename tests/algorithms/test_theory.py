"""algo.lr=theory: the steps by hand, no divergence at them, what a run says of them, and refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from registry import options, plan, target
from scipy.optimize import minimize

from commexp.algorithms import (
    DASHA,
    DIANA,
    DSGT,
    EF21,
    EF21SGDM,
    MARINA,
    SGD,
    Algorithm,
    AlgorithmContext,
    Constants,
    DeMo,
)
from commexp.algorithms.differences.ef21 import growth
from commexp.comm import Communicator, Ledger
from commexp.compressors import QSGD, CodecContext, Compressor, Natural, NoCompression, RandK, Sign, TopK
from commexp.config.messages import UserError
from commexp.network import Participation
from commexp.problems import Data, Problem
from commexp.problems.base import ProblemContext
from commexp.problems.least_squares import LeastSquares
from commexp.problems.logistic import Logistic
from commexp.problems.some_workers import SomeWorkers
from commexp.run_folder import Run
from commexp.topologies import Gossip, Mixer, Ring

N, J, ROUNDS = 3, 6, 20
#: L_rms = 5, max 7; omega of the mean 9/2 = 4.5
C = Constants(4.0, [1.0, 7.0], 0.5, delta=0.36, omega=9.0, size=0.25, gap=0.5)


@pytest.mark.parametrize(
    ("algorithm", "step"),
    [
        (EF21(), 1 / (4 + 5 * 0.8 / 0.2)),  # sqrt(1 - delta) = 0.8, theta = 0.2, beta = 0.64 / 0.2
        (EF21SGDM(eta=0.1), min(0.36 / 100, 0.1 / 28)),
        (DIANA(), 1 / (7 * 28)),
        (MARINA(), 1 / (4 + 5 * math.sqrt(3 * 4.5))),
        (MARINA(p=0.5), 1 / (4 + 5 * math.sqrt(4.5))),
        (DASHA(), 1 / (4 + 5 * math.sqrt(16 * 19 * 4.5))),
    ],
)
def test_steps_by_hand(algorithm: Algorithm, step: float) -> None:
    assert algorithm.theoretical_step(C) == pytest.approx(step, rel=1e-14)


def test_steps_without_compression() -> None:
    exact = Constants(4.0, [1.0, 7.0], 0.5, gap=0.5)
    assert [a.theoretical_step(exact) for a in (SGD(lr=1), EF21(), MARINA(), DASHA())] == [0.25] * 4
    assert SGD(lr=1, weight_decay=1.0).theoretical_step(exact) == 0.2
    assert DIANA().theoretical_step(exact) == 1 / 7
    third = 0.75 / (3 * 0.5 ** (2 / 3) * 7) * ((0.5 / 7) ** 2 / 6) ** (1 / 3)
    second = 0.75**2 / (2 * math.sqrt(2) * 7 * 4.5)
    assert DSGT().theoretical_step(exact) == pytest.approx(min(0.75 / 21, second, third), rel=1e-14)
    everyone = Constants(4.0, [1.0, 7.0], 0.5, gap=1.0)
    assert DSGT().theoretical_step(everyone) == pytest.approx(1 / (2 * math.sqrt(2) * 7), rel=1e-14)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_step_of_ef21_with_a_share_of_the_workers(share: float) -> None:
    """The least over s and r, by a solver; at the share 1 the closed form of all workers."""

    def ratio(logs: np.ndarray) -> float:
        s, r = np.exp(logs)
        below = share * (1 - (1 + s) * 0.64) - (1 - share) * r
        above = share * (1 + 1 / s) * 0.64 + (1 - share) * (1 + 1 / r)
        return float(above / below) if below > 0 else math.inf

    best = min(minimize(ratio, [math.log(0.2), math.log(0.1 * share)], method="Nelder-Mead").fun, math.inf)
    assert growth(0.36, share) == pytest.approx(best, rel=1e-3)
    assert growth(0.36, share) >= best * (1 - 1e-9)
    assert growth(0.36, 0.9999999) == pytest.approx(growth(0.36, 1.0), rel=1e-2)
    some = Constants(4.0, [1.0, 7.0], 0.5, delta=0.36, share=share)
    assert EF21().theoretical_step(some) == 1 / (4 + 5 * math.sqrt(growth(0.36, share)))


def test_workers_that_draw_alike_do_not_average_the_variance() -> None:
    alike = Constants(4.0, [1.0, 7.0], 0.5, delta=None, omega=9.0, independent=False)
    assert DIANA().theoretical_step(alike) == pytest.approx(1 / (7 * 55), rel=1e-14)


@pytest.mark.parametrize(
    ("codec", "omega"),
    [
        (NoCompression(), 0.0), (RandK(k=5, rescale=True), 3.0), (Natural(), 1 / 8), (QSGD(levels=7), 20 / 196),
        (QSGD(levels=1), math.sqrt(20)), (TopK(k=5), None), (RandK(k=5), None), (Sign(), None),
    ],
)  # fmt: skip
def test_omega(codec: Compressor, omega: float | None) -> None:
    assert codec.omega(20) == (omega if omega is None else pytest.approx(omega))


@pytest.mark.parametrize("name", options("compress"))
def test_declared_variance_holds(name: str) -> None:
    """E||C(a) - a||^2 <= omega ||a||^2 on vectors that are hard for some codec: normal, one large entry, all alike."""
    words = {"randk": ["compress.rescale=true"], "kbit": ["compress.rounding=stochastic"]}.get(name, [])
    codec = plan(f"compress={name}", "compress.error_feedback=false", *words).compressor
    dim = 256
    codec.setup(CodecContext(0, range(300)))
    omega = codec.omega(dim)
    assert (omega is None) == (not codec.unbiased)
    if omega is None:
        return
    normal = torch.randn(dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    peak = torch.full((dim,), 1 / (1 + math.sqrt(dim)), dtype=torch.float64)
    peak[3] = 1.0
    for vector in (normal, peak, torch.ones(dim, dtype=torch.float64)):
        sent = codec.decode(codec.encode(vector.expand(300, -1).clone()))
        ratio = (sent - vector).square().sum(1) / vector.square().sum()
        assert float(ratio.mean()) <= omega * 1.02 + 5 * float(ratio.std()) / math.sqrt(300) + 1e-12


def world(rng: np.random.Generator, logistic: bool) -> Problem:
    """A random problem whose workers' data differ in scale by up to 30."""
    m = int(rng.integers(2, 9))
    a = rng.standard_normal((N, m, J)) * np.exp(rng.uniform(-2, 1.4, (N, 1, 1))) * np.exp(rng.uniform(-1, 1, J))
    x = torch.from_numpy(a.reshape(-1, J))
    shards = [torch.arange(n * m, (n + 1) * m) for n in range(N)]
    context = ProblemContext(shards, range(N), None, 0, torch.device("cpu"), torch.float64)
    if logistic:
        y = torch.from_numpy((rng.random(N * m) < 0.5).astype(np.int64))
        return Logistic(Data(x, y, classes=2), context, None, l2=float(np.exp(rng.uniform(-6, 0))))
    x = torch.cat([x, torch.eye(J, dtype=torch.float64).repeat(N, 1)])  # full rank
    own = [torch.cat([rows, N * m + torch.arange(n * J, (n + 1) * J)]) for n, rows in enumerate(shards)]
    y = torch.from_numpy(rng.standard_normal(len(x)) * 3)
    return LeastSquares(Data(x, y), ProblemContext(own, range(N), None, 0, torch.device("cpu"), torch.float64))


def values(
    made: Algorithm, codec: Compressor, problem: Problem, factor: float, share: float = 1.0
) -> tuple[float, float]:
    """F at the beginning and the end of a run with ``factor`` times the theoretical step. ``share``: of the workers
    that take part in a round."""
    mixer = Mixer(Ring(), Gossip(), N, 0) if made.decentralised else None
    some, drawn = SomeWorkers(problem, range(N)), Participation(share)
    codec.setup(CodecContext(0, some.ids))
    L, own, mu = problem.smoothness()
    itemsize, gap = 8 * J, None if mixer is None else 1 - mixer.second_singular_value
    size = codec.payload(J, 8) / itemsize
    constants = Constants(L, own.tolist(), mu, True, codec.delta(J), codec.omega(J), True, size, gap, share=share)
    made.lr = factor * made.theoretical_step(constants)  # type: ignore[attr-defined]
    start = torch.ones(J, dtype=torch.float64)
    context = AlgorithmContext(problem, Communicator(N, Ledger(), mixer=mixer), codec, ROUNDS, start.clone())
    if share < 1:
        context.problem, context.select = some, some.select
        context.drawn = lambda t: drawn.taking(t + 1, N, 0)
    made.setup(context)
    for t in range(ROUNDS):
        made.round(t)
    return problem.training_loss(start), problem.training_loss(made.model())


WORLDS: dict[str, tuple[Callable[[], Any], Callable[[], Compressor]]] = {
    "sgd": (lambda: SGD(lr=1), NoCompression),
    "ef21": (EF21, lambda: TopK(k=1)),
    "ef21_sgdm": (EF21SGDM, lambda: TopK(k=1)),
    "diana": (DIANA, lambda: RandK(k=2, rescale=True, shared=False)),
    "marina": (MARINA, lambda: RandK(k=2, rescale=True, shared=False)),
    "dasha": (DASHA, lambda: RandK(k=2, rescale=True, shared=False)),
    "dsgt": (DSGT, NoCompression),
}


@pytest.mark.parametrize("name", WORLDS)
def test_none_diverges_at_the_theoretical_step(name: str) -> None:
    """100 random problems, half of them logistic. Far beyond the step all methods diverge on the quadratic ones."""
    rng, (method, codec) = np.random.default_rng(7), WORLDS[name]
    for i in range(100):
        first, last = values(method(), codec(), world(rng, logistic=i % 2 == 1), 1.0)
        assert last < first, f"problem {i}"
    first, last = values(method(), codec(), world(rng, logistic=False), 2.1 if name == "sgd" else 1000.0)
    assert not last < first


@pytest.mark.parametrize("name", ["ef21", "diana", "dasha"])
def test_none_diverges_at_the_step_for_a_share_of_the_workers(name: str) -> None:
    rng, (method, codec) = np.random.default_rng(8), WORLDS[name]
    for i in range(100):
        first, last = values(method(), codec(), world(rng, logistic=i % 2 == 1), 1.0, 0.5)
        assert last < first, f"problem {i}"
    first, last = values(method(), codec(), world(rng, logistic=False), 1000.0, 0.5)
    assert not last < first


def test_the_steps_for_all_workers_are_those_for_a_share_of_nearly_all() -> None:
    """DIANA's. DASHA's is another bound there, which allows less."""
    told = {}
    for share in (1.0, 0.999999):
        constants = Constants(3.0, [1.0, 5.0, 2.0, 4.0], 0.1, omega=3.0, share=share)
        told[share] = DIANA().theoretical_step(constants), DASHA().theoretical_step(constants)
    assert told[0.999999][0] == pytest.approx(told[1.0][0], rel=1e-5)
    assert told[1.0][0] == pytest.approx(1 / (5 * (1 + 6 * 3 / 4)), rel=1e-12)
    assert told[0.999999][1] < told[1.0][1]


def test_all_methods_with_a_step_are_tested() -> None:
    known = {name for name in options("algo") if "theoretical_step" in vars(target("algo", name))}
    elsewhere = {"extra", "nids", "proxskip"}  # test_exact_methods.py, test_federated.py
    assert known - {"demo", "sam", "topk", "regtopk", "wait"} - elsewhere == set(WORLDS), "a step is tested"
    assert not DeMo(lr=1.0).has_theory


LOGISTIC = ("dataset=breast_cancer", "model=logistic_regression", "model.l2=0.01", "dtype=float64", "rounds=20")


def test_a_run_says_what_its_step_is_made_of(run: Callable[..., Run]) -> None:
    made = run(*LOGISTIC, "algo=ef21", "compress.k=0.2", "algo.lr=theory", "algo.lr_factor=4")
    told = json.loads((made.folder / "summary.json").read_text())
    assert told["lr"] == 4 * told["theoretical_step"]
    assert (told["delta"], told["strong_convexity"], told["lr_factor"]) == (0.2, 0.01, 4.0)
    left = math.sqrt(0.8)
    step = 1 / (told["smoothness"] + told["smoothness_rms"] * left / (1 - left))
    assert told["theoretical_step"] == pytest.approx(step, rel=1e-12)
    text = (made.folder / "summary.md").read_text()
    assert f"{told['lr']:.6g}, 4 x the step {told['theoretical_step']:.6g}" in text
    assert (made.config["algo"]["lr"], made.config["algo"]["lr_factor"]) == ("theory", 4.0)
    same = run(*LOGISTIC, "algo=ef21", "compress.k=0.2", f"algo.lr={told['lr']!r}")
    assert same.name != made.name
    assert list(same.metrics["train_loss"]) == list(made.metrics["train_loss"])


def test_names() -> None:
    names = {plan(*LOGISTIC, "algo=ef21", *more).name for more in (["algo.lr=theory"], ["algo.lr=1"], [],
             ["algo.lr=theory", "algo.lr_factor=2"])}  # fmt: skip
    assert len(names) == 4
    assert plan("algo.lr_factor=1").name == plan().name
    assert "lr_factor" not in plan().resolved["algo"]
    assert plan("algo.lr=theory", "algo=ef21").lr_factor == 1.0


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("algo.lr_factor=4", "algo.lr_factor=4: multiplies the step of theory; give algo.lr=theory, or leave it out"),
        ("algo.lr=theory algo.lr_factor=0", "algo.lr_factor=0: must be a positive number; give multiples"),
        ("algo.lr=theory algo.lr_factor=much", "algo.lr_factor=much: must be a positive number"),
        ("algo=dppf algo.lr=theory", "algo.lr=theory: no step is known for algo=dppf; give a number, or algo=ef21, "),
        ("algo=demo algo.lr=theory", "algo.lr=theory: no step is known for algo=demo"),
        ("algo=dsgt algo.lr=theory prox=l1", "algo.lr=theory: no step is known with a proximal term; give a number"),
        ("algo.lr=theory topology=islands islands=2", "algo.lr=theory: no step is known for workers in islands"),
    ],
)
def test_refusals(words: str, wrong: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(*words.split())
    assert str(refused.value).startswith(wrong)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("", "algo.lr=theory: the smoothness of this model's loss is not known; give a number, or "
         "model=linear_regression or logistic_regression"),
        (f"{' '.join(LOGISTIC)}", "algo.lr=theory: the step is known for gradients over all samples; give "
         "batch_size=null"),
        (f"{' '.join(LOGISTIC)} batch_size=null compress=topk", "algo.lr=theory: no step is known of SGD with "),
        (f"{' '.join(LOGISTIC)} batch_size=null algo.momentum=0.9", "algo.lr=theory: the step is that of gradient "),
        (f"{' '.join(LOGISTIC)} algo=diana model.nonconvex=0.1", "algo.lr=theory: DIANA's step is known for convex "),
        (f"{' '.join(LOGISTIC)} algo=diana algo.alpha=1", "algo.alpha=1.0: above 1 / (1 + omega), so that no step is "),
        (f"{' '.join(LOGISTIC)} algo=dasha algo.a=1", "algo.a=1.0: the step is known for 1 / (2 omega + 1); give "),
        (f"{' '.join(LOGISTIC)} batch_size=null algo=dsgt topology=one_peer", "algo.lr=theory: the step is known for "),
        (f"{' '.join(LOGISTIC)} batch_size=null algo=dsgt model.l2=0", "algo.lr=theory: DSGT's step is known for "),
    ],
)  # fmt: skip
def test_refused_with_the_problem(words: str, wrong: str, run: Callable[..., Run]) -> None:
    with pytest.raises(UserError) as refused:
        run("algo.lr=theory", *words.split(), "rounds=1")
    assert str(refused.value).startswith(wrong)
