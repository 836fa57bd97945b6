"""Local methods with a quorum against recursions written out in numpy: who is left out of a round, what that worker
keeps, when the round closes; what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from algorithms.test_coding import Vector, go, gradients, late, seconds, set_up, starts
from experiment.test_runner import dies_in_round
from registry import assert_one_line, interrupted, plan, untimed

from commexp.algorithms.local.base import LocalMethod
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.run_folder import Run

N, J, TAU, ROUNDS, MEAN = 6, 8, 3, 25, 0.01
LINREG = ("dataset=linreg", f"dataset.dim={J}", "dataset.samples=10")
MANY = ("seed=3", f"workers={N}", f"algo.tau={TAU}")
WORLD = (*LINREG, *MANY)
LATE = ("straggler=bernoulli", "straggler.p=0.3", "network.compute.kind=lognormal", f"network.compute.seconds={MEAN}")
INNER, OUTER, BETAS, K = 0.02, 0.7, (0.9, 0.999), 2
DILOCO = (*WORLD, *LATE, "algo=diloco", f"algo.lr={INNER}", f"algo.outer_lr={OUTER}", "algo.outer_momentum=0.9")


def answering(t: int, quorum: int, grace: float) -> tuple[Vector, float]:
    """Who answers in round t, bool [N], and how long the round computes."""
    took = seconds(t, np.full(N, TAU), 0.5, MEAN) * np.where(late(t, N, 0.3), 10, 1)
    closed = min(np.sort(took)[quorum - 1] + grace, took.max())
    return took <= closed, float(closed)


def steps_of_adamw(made: ExperimentSetup, x: Vector, mean: Vector, square: Vector, taken: Vector) -> Vector:
    """Where TAU steps lead every worker from x; the moments [N, J] and the numbers of steps [N] go along."""
    rows = np.repeat(x[None], N, axis=0)
    for _ in range(TAU):
        g = np.stack([gradients(made, rows[n])[n] for n in range(N)])
        taken += 1
        mean += (1 - BETAS[0]) * (g - mean)
        square += (1 - BETAS[1]) * (g * g - square)
        first, second = ((1 - b ** taken[:, None]) for b in BETAS)
        rows = rows - INNER * (mean / first) / (np.sqrt(square / second) + 1e-8)
    return rows


@pytest.mark.parametrize(("quorum", "grace"), [(4, 0.0), (3, 0.01)])
def test_diloco_with_a_quorum_is_its_recursion(quorum: int, grace: float) -> None:
    """AdamW inside, Top-k with error feedback: who is late keeps moments, number of steps and residual."""
    made = set_up(*DILOCO, f"algo.quorum={quorum}", f"algo.grace={grace}", "compress=topk", f"compress.k={K}")
    x, u, answers, now = starts(made), np.zeros(J), 0, 0.0
    own = [np.zeros((N, J)), np.zeros((N, J)), np.zeros(N), np.zeros((N, J))]  # moments, steps, residuals
    numbers = set()
    for t in range(ROUNDS):
        here, closed = answering(t, quorum, grace)
        mean, square, taken, residual = (state.copy() for state in own)
        whole = steps_of_adamw(made, x, mean, square, taken) - x + residual
        sent = np.zeros((N, J))
        for n in range(N):
            largest = np.argsort(-np.abs(whole[n]))[:K]
            sent[n, largest] = whole[n, largest]
        for old, new in zip(own, (mean, square, taken, whole - sent), strict=True):
            old[here] = new[here]
        outward = -sent[here].mean(axis=0)  # x - x_A
        u = 0.9 * u + outward
        x = x - OUTER * (outward + 0.9 * u)
        answers, now = answers + int(here.sum()), now + closed
        numbers.add(int(here.sum()))
    assert len(numbers) == (1 if grace == 0 else len(numbers))
    assert max(numbers) > quorum or grace == 0
    np.testing.assert_allclose(go(made, ROUNDS), x, rtol=1e-12, atol=1e-12)
    assert made.algorithm.diagnostics() == {"answers": answers}
    made.record.done = ROUNDS
    made.record.settle()
    entries = made.record.ledger.entries
    assert sum(e.bytes_info for e in entries if e.direction == "down") == ROUNDS * N * J * 8
    exchanged = sum(made.record.clock._seconds(entry) for entry in entries)
    assert made.record.sim == pytest.approx(now + exchanged, rel=1e-9)


def test_local_sgd_with_a_quorum_is_its_recursion() -> None:
    """A momentum of each worker's own."""
    words = ("algo=localsgd", f"algo.lr={INNER}", "algo.momentum=0.9", "algo.quorum=2")
    made = set_up(*WORLD, *LATE, *words)
    x, velocity = starts(made), np.zeros((N, J))
    for t in range(ROUNDS):
        here, _ = answering(t, 2, 0.0)
        rows, u = np.repeat(x[None], N, axis=0), velocity.copy()
        for _ in range(TAU):
            u = 0.9 * u + np.stack([gradients(made, rows[n])[n] for n in range(N)])
            rows = rows - INNER * u
        velocity[here] = u[here]
        x = rows[here].mean(axis=0)
    np.testing.assert_allclose(go(made, ROUNDS), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("words", ["algo.quorum=6", "algo.quorum=1 algo.grace=1"])
def test_where_all_answer_nothing_changes(words: str) -> None:
    """Bit for bit; also where the grace is long enough for everyone."""
    with_all, without = (set_up(*DILOCO, *more) for more in (words.split(), ()))
    np.testing.assert_array_equal(go(with_all, 8), go(without, 8))
    assert with_all.algorithm.diagnostics() == {"answers": 8 * N}


@pytest.mark.parametrize(
    "words",
    [
        "dataset=digits model=mlp batch_size=4 algo=muloco compress=topk",
        "algo=qsr algo.momentum=0.9 algo.growth=0.005 algo.schedule.kind=cosine comm.exchange=all_gather",
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    words: str, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = () if "dataset" in words else LINREG
    overrides = (*world, *MANY, *LATE, "algo.quorum=4", "rounds=10", "eval_every=5", *words.split())
    whole = run(*overrides)
    tables = [untimed(whole.folder / f"{name}.csv") for name in ("metrics", "traffic")]
    assert int(tables[0][-1]["answers"]) < 10 * N
    with interrupted(after=4):
        assert run(*overrides, "rerun=true").status == "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr("commexp.algorithms.local.base.LocalMethod.round", dies_in_round(6, LocalMethod))
        with pytest.raises(KeyboardInterrupt):
            run(*overrides)
    resumed = run(*overrides)
    assert "resumed after round 4" in (resumed.folder / "run.log").read_text()
    assert [untimed(resumed.folder / f"{name}.csv") for name in ("metrics", "traffic")] == tables


REFUSED = {
    "algo=diloco algo.quorum=7": "algo.quorum=7: there are 6 workers",
    "algo=diloco algo.quorum=0": "algo.quorum=0: must not be less than 1",
    "algo=diloco algo.quorum=3 algo.grace=-1": "algo.grace=-1.0: must not be negative",
    "algo=diloco algo.grace=1": "algo.grace=1.0: begins when a quorum has answered",
    "algo=diloco algo.quorum=3 algo.fragments=2": "algo.quorum=3: a worker that is left out",
    "algo=streaming_diloco algo.quorum=3 algo.fragments=1": "algo.quorum=3: a worker that is left out",
    "algo=dppf algo.quorum=3": "algo.quorum=3: after an exchange of DPPF",
    "algo=easgd algo.quorum=3": "algo.quorum=3: after an exchange of EASGD",
    "algo=sparta algo.quorum=3": "algo.quorum=3: after an exchange of SPARTA",
    "algo=local_adam algo.quorum=3": "algo.quorum=3: after an exchange of DESLOC",
    "algo=noloco algo.quorum=3": "algo.quorum=3: after an exchange of NoLoCo",
    "algo=diloco algo.quorum=3 compress=powersgd": "compress: PowerSGD takes a sum over all workers",
    "algo=diloco algo.quorum=3 comm.exchange=all_reduce": "comm.exchange=all_reduce: needs every worker",
    "algo=diloco algo.quorum=3 network.compute.kind=measured": "network.compute.kind=measured: who answers",
    "algo=diloco algo.quorum=3 network.compute.seconds=0": "network.compute.seconds=0.0: all workers",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_line(words: str) -> None:
    with pytest.raises(UserError) as caught:
        set_up(*WORLD, *LATE, *words.split())
    assert_one_line(caught.value, REFUSED[words])


def test_real_processes_give_another_result_unless_the_clock_decides() -> None:
    """So it has another name; and codecs that learn from the aggregate are refused there."""
    real, quorum = ("launch=torchrun", "launch.nproc=3"), (*DILOCO, "algo.quorum=4")
    assert plan(*quorum).name != plan(*quorum, *real).name
    exact = (*quorum, "comm.deterministic=true")
    assert plan(*exact).name == plan(*exact, *real).name
    assert plan(*DILOCO).name == plan(*DILOCO, *real).name == plan(*DILOCO, "algo.quorum=null").name
    with pytest.raises(UserError, match=r"^compress=RegTopK: learns from the aggregate, which the server alone"):
        plan(*quorum, "compress=regtopk").check_processes(3, "launch.nproc=3")
