"""Methods on redundant data: what a step is on average and how it varies, the recursions written out in numpy, who
answers before a round is closed, what those who do not keep, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment.test_runner import dies_in_round
from registry import bare, interrupted, plan, untimed

from commexp.algorithms.coded.base import CodedMethod
from commexp.api import run_experiment
from commexp.compressors import Compressor, OneBit
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.run_folder import Run
from commexp.seeding import numpy_generator

DRAWS, ROUNDS, SEED, LR, P = 10_000, 30, 3, 0.05, 0.4
SMALL = ("dataset=linreg", "dataset.dim=6", "dataset.samples=8", f"seed={SEED}", f"algo.lr={LR}", "workers=8")
CODING = (*SMALL, "algo=gradient_coding", "straggler=bernoulli", f"straggler.p={P}")
Vector = np.ndarray


def set_up(*words: str) -> ExperimentSetup:
    return ExperimentSetup(plan(*words, "rounds=100000"), torch.device("cpu"), Run(Path("none")))


def coded(made: ExperimentSetup) -> CodedMethod:
    assert isinstance(made.algorithm, CodedMethod)
    return made.algorithm


def go(made: ExperimentSetup, rounds: int = ROUNDS, after: Callable[[int], None] = lambda t: None) -> Vector:
    for t in range(rounds):
        made.comm.begin_round(t + 1)
        made.algorithm.round(t)
        made.comm.end_round()
        after(t)
    x: Vector = made.algorithm.model().numpy()
    return x


def samples(made: ExperimentSetup) -> tuple[Vector, Vector]:
    """Features [M, D, J] and targets [M, D] of each subset."""
    data = made.plan.dataset.load(made.shard_count, SEED, torch.float64)
    x, y = data.train_x.numpy(), data.train_y.numpy()
    return x.reshape(made.shard_count, -1, x.shape[1]), y.reshape(made.shard_count, -1)


def gradients(made: ExperimentSetup, x: Vector) -> Vector:
    """grad f_k(x), [M, J], from the samples."""
    features, targets = samples(made)
    error = features @ x - targets
    return 2 / features.shape[1] * np.einsum("kdj,kd->kj", features, error)


def starts(made: ExperimentSetup) -> Vector:
    x: Vector = made.algorithm.model().numpy().copy()
    return x


# --- what a step is on average, and how it varies; F = (1/M) sum_k f_k, so variances of the sum are divided by M^2


@cache
def answers() -> Vector:
    """Who answers in so many rounds of FEW, [T, N]."""
    answered = coded(set_up(*FEW)).context.on_time
    return np.stack([answered(t) for t in range(DRAWS)])


def steps(made: ExperimentSetup, codec: Compressor) -> Vector:
    """(x_0 - x_1) / lr, DRAWS times, [T, J]: the method's weights on what so many of its messages decode to."""
    combined = coded(made).combined(0)
    weights = coded(made).weights(answers())
    sent = codec.decode(codec.encode(combined.repeat(DRAWS, 1))).view(DRAWS, *combined.shape)
    drawn: Vector = np.einsum("tn,tnj->tj", weights, sent.numpy())
    return drawn


def check_mean(drawn: Vector, expected: Vector) -> None:
    error = drawn.std(axis=0) / math.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected) <= 4 * error + 1e-12).all()


def check_variance(drawn: Vector, expected: float) -> None:
    squares = np.sum((drawn - drawn.mean(axis=0)) ** 2, axis=1)
    assert squares.mean() == pytest.approx(expected, abs=4 * squares.std() / math.sqrt(len(drawn)))
    assert 4 * squares.std() / math.sqrt(len(drawn)) < 0.1 * expected, "too few draws to tell"


ALLOCATIONS = {
    "single": (),
    "random": ("allocation.d=2", "allocation.subsets=5"),
    "all": ("allocation.subsets=3",),
    "design": ("allocation.d=2", "allocation.subsets=3"),
}
FOUR = ("dataset=linreg", "dataset.dim=5", "dataset.samples=8", f"seed={SEED}", f"algo.lr={LR}", "workers=4")
FEW = (*FOUR, "algo=gradient_coding", "straggler=bernoulli", f"straggler.p={P}")


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_a_step_without_compression(allocation: str) -> None:
    """On average the full gradient; variance p (1-p) sum_n ||l_n||^2, and where pairs are balanced
    p/(1-p) [ ||grad F||^2 / N + sum_k (1/d_k - 1/N) ||grad f_k||^2 ], F the sum."""
    made = set_up(*FEW, f"allocation={allocation}", *ALLOCATIONS[allocation])
    each, sent, drawn = gradients(made, starts(made)), coded(made).combined(0).numpy(), steps(made, bare("none"))
    check_mean(drawn, each.mean(axis=0))
    expected = P * (1 - P) * np.sum(sent**2) / made.shard_count**2
    check_variance(drawn, expected)
    assert made.assignment is not None
    assert (made.assignment.balance.largest == 0) == (allocation in ("all", "design"))
    if made.assignment.balance.largest == 0:
        copies = 1 / made.assignment.copies - 1 / 4
        whole = np.sum(each.sum(axis=0) ** 2) / 4 + np.sum(copies * np.sum(each**2, axis=1))
        assert P / (1 - P) * whole / made.shard_count**2 == pytest.approx(expected, rel=1e-12)


def test_rounds_step_by_the_full_gradient_on_average() -> None:
    """The same of rounds as they are run, from one point."""
    made = set_up(*FEW, "allocation.d=2")
    start, drawn = starts(made), []

    def back(t: int) -> None:
        drawn.append((start - coded(made).x.numpy()) / LR)
        coded(made).x.copy_(torch.from_numpy(start))

    go(made, 1000, back)
    check_mean(np.array(drawn), gradients(made, start).mean(axis=0))


@pytest.mark.parametrize("bound", ["fixed", "max"])
def test_a_step_of_one_bit(bound: str) -> None:
    """On average the full gradient; variance (1-p) J sum_n B_n^2 - (1-p)^2 sum_n ||l_n||^2, N B^2 for one B."""
    made = set_up(*FEW, "allocation.d=2")
    sent = coded(made).combined(0).numpy()
    B = 1.25 * np.abs(sent).max()
    bounds = np.full(4, B) if bound == "fixed" else np.abs(sent).max(axis=1)
    expected = (1 - P) * sent.shape[1] * np.sum(bounds**2) - (1 - P) ** 2 * np.sum(sent**2)
    drawn = steps(made, OneBit(bound=bound, B=B))
    check_variance(drawn, expected / made.shard_count**2)
    check_mean(drawn, gradients(made, starts(made)).mean(axis=0))


# --- the recursions


def late(t: int, workers: int, p: float) -> Vector:
    drawn: Vector = numpy_generator(SEED, "stragglers", t + 1).random(workers) < p
    return drawn


def seconds(t: int, loads: Vector, spread: float, mean: float) -> Vector:
    """Computing times of round t: lognormal for each subset that a worker holds."""
    shape = len(loads), int(loads.max())
    drawn = numpy_generator(SEED, "compute", t + 1).standard_normal(shape)
    times = mean * np.exp(spread * drawn - spread**2 / 2)
    return np.array([row[:load].sum() for row, load in zip(times, loads, strict=True)])


@pytest.mark.parametrize("allocation", ["single", "random", "cyclic", "fractional", "all"])
def test_gradient_coding_is_its_recursion(allocation: str) -> None:
    words = ("allocation.d=3",) if allocation in ("random", "cyclic") else ()
    made = set_up(*CODING, "compress=none", f"allocation={allocation}", *words)
    assert made.assignment is not None
    S, p, x = made.assignment.held.astype(float), P, starts(made)
    for t in range(ROUNDS):
        each, total = gradients(made, x), np.zeros(6)
        for n in np.flatnonzero(~late(t, 8, p)):
            total += sum(S[n, k] * each[k] / (S[:, k].sum() * (1 - p)) for k in range(8))
        x = x - LR * total / 8
    np.testing.assert_allclose(go(made), x, rtol=1e-9, atol=1e-9)


def test_ignoring_stragglers_is_its_recursion() -> None:
    made = set_up(*SMALL, "algo=ignore", "straggler=bernoulli", "straggler.p=0.8", "allocation.subsets=11")
    x, empty = starts(made), 0
    owner = np.arange(11) % 8
    for t in range(ROUNDS):
        each, here = gradients(made, x), ~late(t, 8, 0.8)
        if here.any():
            x = x - LR * 8 / 11 * each[here[owner]].sum(axis=0) / here.sum()
        empty += not here.any()
    assert empty
    np.testing.assert_allclose(go(made), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("allocation", ["fractional", "cyclic"])
@pytest.mark.parametrize("first", [None, 4])
def test_exact_coding_is_gradient_descent_wherever_it_can_decode(allocation: str, first: int | None) -> None:
    """N - d + 1 = 6 of 8 answers always suffice; of 4 answers, those of one in each group for fractional repetition,
    those of a code of rank 4 < 6 for the cyclic one never."""
    words = ("network.compute.kind=lognormal", "network.compute.seconds=0.01", "straggler=bernoulli", "straggler.p=0.3")
    closes = () if first is None else (f"algo.first={first}",)
    d = 2 if allocation == "fractional" else 3
    made = set_up(*SMALL, "algo=exact_coding", f"allocation={allocation}", f"allocation.d={d}", *words, *closes)
    x, decoded = starts(made), 0
    for t in range(ROUNDS):
        took = seconds(t, np.full(8, d), 0.5, 0.01) * np.where(late(t, 8, 0.3), 10, 1)
        here = np.argsort(took)[: first or 8 - d + 1]
        if first is None or (allocation == "fractional" and len(set(here // 2)) == 4):
            x, decoded = x - LR * gradients(made, x).mean(axis=0), decoded + 1
    assert decoded == ROUNDS if first is None else (decoded < ROUNDS / 2)
    np.testing.assert_allclose(go(made), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("close", ["first", "deadline", "both"])
def test_who_answers_before_a_round_is_closed(close: str) -> None:
    """And how long it takes, and what gradient coding makes of it."""
    first = 3 if close != "deadline" else None
    deadline = 0.02 if close != "first" else None
    closes = [f"algo.first={first}"] * (first is not None) + [f"algo.deadline={deadline}"] * (deadline is not None)
    p = 1 - 3 / 8 if close == "first" else 0.5
    drawn = ("network.compute.kind=lognormal", "network.compute.seconds=0.01", "network.compute.slow=[3]")
    given = () if close == "first" else ("algo.p=0.5",)
    made = set_up(*CODING, "compress=none", "allocation.d=2", *drawn, *closes, *given)
    assert made.assignment is not None
    S, loads, x, answers, now = made.assignment.held, made.assignment.loads, starts(made), 0, 0.0
    for t in range(ROUNDS):
        took = seconds(t, loads, 0.5, 0.01) * np.where(late(t, 8, P), 10, 1)
        took[0] *= 3
        speaking = int((loads > 0).sum())  # one that holds nothing says nothing
        order = np.argsort(np.where(loads > 0, took, np.inf))[: min(first or 8, speaking)]
        closed = took[order[-1]]
        if deadline is not None and closed > deadline:
            order, closed = order[took[order] <= deadline], deadline
        weights = S[order] / (S.sum(axis=0) * (1 - p))
        x = x - LR * (weights @ gradients(made, x)).sum(axis=0) / 8
        answers, now = answers + len(order), now + closed
    np.testing.assert_allclose(go(made), x, rtol=1e-9, atol=1e-9)
    assert made.algorithm.diagnostics() == {"answers": answers}
    made.record.done = ROUNDS
    made.record.settle()
    exchanged = sum(made.record.clock._seconds(entry) for entry in made.record.ledger.entries)
    assert made.record.sim == pytest.approx(now + exchanged, rel=1e-9)


@pytest.mark.parametrize("method", ["gradient_coding", "ignore", "exact_coding"])
def test_a_round_in_which_nobody_answers_changes_nothing(method: str) -> None:
    p = ("algo.p=0.4",) if method == "gradient_coding" else ()
    everyone = ("allocation=cyclic",) if method == "gradient_coding" else ()  # who holds nothing is ready at once
    made = set_up(*SMALL, f"algo={method}", *p, *everyone, "network.compute.seconds=0.01", "algo.deadline=0.001")
    before = starts(made)
    np.testing.assert_array_equal(go(made, 3), before)
    assert made.algorithm.diagnostics() == {"answers": 0}
    made.comm.settle()
    assert all(entry.bytes_sent == 0 for entry in made.record.ledger.entries if entry.direction == "up")


def test_whose_message_did_not_count_keeps_the_residual() -> None:
    """Signs with error feedback, by hand: late workers' residuals stand still."""
    made = set_up(*CODING, "compress=sign", "allocation.d=2")
    assert made.assignment is not None
    p, x, residual = P, starts(made), np.zeros((8, 6))
    rows = made.assignment.held / (made.assignment.copies * (1 - p))
    kept: list[Vector] = []
    go(made, ROUNDS, lambda t: kept.append(made.plan.compressor.state_dict()["workers.residual"].numpy().copy()))
    for t in range(ROUNDS):
        whole = residual + rows @ gradients(made, x)
        sent = np.where(whole < 0, -1, 1) * np.abs(whole).mean(axis=1, keepdims=True)
        here = ~late(t, 8, p)
        residual = np.where(here[:, None], whole - sent, residual)
        np.testing.assert_allclose(kept[t], residual, rtol=1e-9, atol=1e-9)
        x = x - LR * sent[here].sum(axis=0) / 8
    np.testing.assert_allclose(starts(made), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "words",
    [
        "algo=gradient_coding straggler=bernoulli straggler.p=0.4",
        "algo=gradient_coding straggler=markov compress=sign algo.momentum=0.9",
        "algo=gradient_coding straggler=bernoulli compress=regtopk compress.k=2 comm.exchange=all_gather",
        "algo=ignore straggler=bernoulli straggler.p=0.8 compress=topk compress.k=2",
        "algo=exact_coding straggler=bernoulli network.compute={kind:lognormal,seconds:0.01}",
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    words: str, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (*SMALL, *words.split(), "rounds=12", "eval_every=4")
    whole = run(*overrides)
    tables = [untimed(whole.folder / f"{name}.csv") for name in ("metrics", "traffic")]
    with interrupted(after=6):
        halted = run(*overrides, "rerun=true")
    assert (halted.status, halted.summary["round"]) == ("interrupted", 6)
    with monkeypatch.context() as patch:
        patch.setattr("commexp.algorithms.coded.base.CodedMethod.round", dies_in_round(8, CodedMethod))
        with pytest.raises(KeyboardInterrupt):
            run(*overrides)
    resumed = run(*overrides)
    assert resumed.status == "completed"
    assert "resumed after round 6" in (resumed.folder / "run.log").read_text()
    assert [untimed(resumed.folder / f"{name}.csv") for name in ("metrics", "traffic")] == tables


REFUSED = {
    "algo=sgd allocation=random": "allocation=random: algo=sgd has no use",
    "algo=gradient_coding comm.exchange=all_reduce": "comm.exchange=all_reduce: messages of OneBit",
    "algo=gradient_coding compress=none comm.exchange=all_reduce": "comm.exchange=all_reduce: needs every worker",
    "algo=exact_coding allocation.subsets=16": "allocation.subsets=16: fractional repetition has as many",
    "algo=exact_coding allocation=cyclic allocation.subsets=16": "allocation.subsets=16: the cyclic code has as many",
    "algo=exact_coding allocation=random": "allocation: it has no exact code",
    "algo=ignore allocation=random": "allocation: algo=ignore cannot use copies",
    "algo=gradient_coding algo.first=9": "algo.first=9: there are 8 workers",
    "algo=gradient_coding algo.first=0": "algo.first=0: must not be less than 1",
    "algo=gradient_coding compress=powersgd": "compress: PowerSGD takes a sum over all workers",
    "algo=gradient_coding algo.deadline=1": "algo.p=null: the share of workers",
    "algo=gradient_coding algo.deadline=0 algo.p=0.5": "algo.deadline=0.0: must be positive",
    "algo=gradient_coding algo.p=1": "algo.p=1.0: out of range",
    "algo=gradient_coding straggler=fixed straggler.workers=[0,1,2,3,4,5,6,7]": "straggler: all workers are late",
    "algo=gradient_coding algo.first=3 network.compute.kind=measured": "network.compute.kind=measured: who answers",
    "algo=exact_coding network.compute.kind=measured": "network.compute.kind=measured: who answers",
    "algo=gradient_coding allocation.d=9": "allocation.d=9: more copies than the 8 workers",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_line(words: str, tmp_path: Path) -> None:
    tiny = ("dataset=linreg", "dataset.dim=6", "dataset.samples=8", "workers=8", "rounds=2")
    with pytest.raises(UserError) as caught:
        run_experiment([*tiny, *words.split(), f"outputs={tmp_path / 'outputs'}"], figures=False)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(REFUSED[words]), text
    assert "; " in text.partition(":")[2], text
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("algo", ["gradient_coding", "ignore", "exact_coding"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_round_without_answers_leaves_torchs_optimiser_as_it_was(algo: str, optimizer: str) -> None:
    """Rounds 1 and 4 of six have no answers; torch.optim's own optimiser takes the gradients of the other four."""
    more = ["allocation=fractional", "allocation.d=2", "algo.first=7"] if algo == "exact_coding" else []
    momentum = 0.9 if optimizer == "sgd" else 0.0
    words = [f"algo.optimizer={optimizer}", f"algo.momentum={momentum}", "algo.weight_decay=0.1"]
    made = set_up(*SMALL, f"algo={algo}", "compress=none", *more, *words)
    method, silent = coded(made), (0, 3)
    method.context.on_time = lambda t: np.full(8, t not in silent)
    x = torch.nn.Parameter(torch.from_numpy(starts(made)))
    if optimizer == "sgd":
        other: torch.optim.Optimizer = torch.optim.SGD([x], LR, momentum=momentum, weight_decay=0.1)
    else:
        other = torch.optim.AdamW([x], LR, weight_decay=0.1)
    state = {}
    for t in range(6):
        made.comm.begin_round(t + 1)
        method.load_state_dict(state or method.state_dict())  # as after a resumption
        method.round(t)
        made.comm.end_round()
        state = method.state_dict()
        if t not in silent:
            x.grad = torch.from_numpy(gradients(made, x.detach().numpy()).mean(axis=0))
            other.step()
        torch.testing.assert_close(method.model(), x.detach(), rtol=1e-10, atol=1e-12)
