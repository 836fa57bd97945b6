"""A share of the workers in each round: who is drawn, recursions written out in numpy, bytes and seconds by hand, what
is computed and what is not, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from algorithms.test_coding import Vector, go, gradients, seconds, set_up, starts
from registry import assert_one_line, interrupted, plan, untimed

from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.experiment.setup import ExperimentSetup
from commexp.network import Participation
from commexp.problems.logistic import Logistic
from commexp.problems.margins import DenseMargins
from commexp.run_folder import Run

N, J, TAU, ROUNDS, LR = 6, 8, 3, 60, 0.02
LINREG = ("dataset=linreg", f"dataset.dim={J}", "dataset.samples=10")
WORLD = (*LINREG, "seed=3", f"workers={N}", f"algo.tau={TAU}", f"algo.lr={LR}", "participation=0.5")
CANCER = ("dataset=breast_cancer", "model=logistic_regression", "seed=3", f"workers={N}", f"algo.tau={TAU}")
CANCER += ("dtype=float64", "algo.lr=0.1", "partition=dirichlet", "partition.alpha=0.3")
BETAS = (0.9, 0.999)


def close(made: ExperimentSetup, x: Vector) -> None:
    np.testing.assert_allclose(go(made, ROUNDS), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("share", "workers", "count"), [(0.5, 6, 3), (0.1, 100, 10), (0.01, 8, 1), (0.99, 8, 8)])
def test_as_many_as_the_share_says_are_drawn(share: float, workers: int, count: int) -> None:
    """Each as often as any other, by seed and round alone; at 1 all."""
    drawn = Participation(share)
    sets = np.stack([drawn.taking(number, workers, 7) for number in range(1, 2001)])
    assert set(sets.sum(1)) == {count}
    assert drawn.count(workers) == count
    deviation = np.sqrt(count / workers * (1 - count / workers) * 2000)
    assert np.abs(sets.sum(0) - 2000 * count / workers).max() <= 4.5 * deviation
    np.testing.assert_array_equal(drawn.taking(5, workers, 7), sets[4])
    assert count == workers or any((drawn.taking(n, workers, 8) != sets[n - 1]).any() for n in range(1, 20))
    assert Participation().taking(1, workers, 7).all()


def test_local_sgd_is_its_recursion() -> None:
    """Who takes no part keeps its momentum, and receives and sends nothing: bytes by hand."""
    made = set_up(*WORLD, "algo=localsgd", "algo.momentum=0.9")
    x, velocity, booked = starts(made), np.zeros((N, J)), []
    for t in range(ROUNDS):
        here = made.taking(t)
        rows, u = np.repeat(x[None], N, axis=0), velocity.copy()
        for _ in range(TAU):
            u = 0.9 * u + np.stack([gradients(made, rows[n])[n] for n in range(N)])
            rows = rows - LR * u
        velocity[here] = u[here]
        x = rows[here].mean(axis=0)
        links = 8 * J * int(here[1:].sum())  # worker 0 lives with the server
        booked += [(t + 1, way, 1 + here[1:].sum(), 3 * 8 * J, 3 * 8 * J, links) for way in ("down", "up")]
    close(made, x)
    assert made.algorithm.diagnostics() == {"answers": 3 * ROUNDS}
    made.comm.settle()
    found = made.record.ledger.entries
    assert [(e.round, e.direction, e.workers, e.bytes_info, e.bytes_sent, e.bytes_wire) for e in found] == booked


@pytest.mark.parametrize("quorum", [None, 2])
def test_diloco_is_its_recursion(quorum: int | None) -> None:
    """AdamW inside, Top-k with error feedback: who takes no part, or is late, keeps moments, number of steps and
    residual. The clock waits for those that take part alone."""
    late = ("network.compute.kind=lognormal", "network.compute.seconds=0.01", "compress=topk", "compress.k=2")
    asked = () if quorum is None else (f"algo.quorum={quorum}",)
    made = set_up(*WORLD, *late, "algo=diloco", "algo.outer_lr=0.7", "algo.outer_momentum=0.9", *asked)
    x, u, now = starts(made), np.zeros(J), 0.0
    own = [np.zeros((N, J)), np.zeros((N, J)), np.zeros(N), np.zeros((N, J))]  # moments, steps, residuals
    for t in range(ROUNDS):
        here = made.taking(t)
        took = np.where(here, seconds(t, np.full(N, TAU), 0.5, 0.01), np.inf)
        closed = np.sort(took)[(quorum or 3) - 1]
        here = took <= closed
        mean, square, taken, residual = (state.copy() for state in own)
        rows = np.repeat(x[None], N, axis=0)
        for _ in range(TAU):
            g = np.stack([gradients(made, rows[n])[n] for n in range(N)])
            taken += 1
            mean += (1 - BETAS[0]) * (g - mean)
            square += (1 - BETAS[1]) * (g * g - square)
            first, second = ((1 - b ** taken[:, None]) for b in BETAS)
            rows = rows - LR * (mean / first) / (np.sqrt(square / second) + 1e-8)
        whole = rows - x + residual
        sent = np.zeros((N, J))
        for n in range(N):
            largest = np.argsort(-np.abs(whole[n]))[:2]
            sent[n, largest] = whole[n, largest]
        for old, new in zip(own, (mean, square, taken, whole - sent), strict=True):
            old[here] = new[here]
        outward = -sent[here].mean(axis=0)
        u = 0.9 * u + outward
        x = x - 0.7 * (outward + 0.9 * u)
        now += float(closed)
    close(made, x)
    assert made.algorithm.diagnostics() == {"answers": (quorum or 3) * ROUNDS}
    made.record.done = ROUNDS
    made.record.settle()
    exchanged = sum(made.record.clock._seconds(entry) for entry in made.record.ledger.entries)  # type: ignore[union-attr]
    assert made.record.sim == pytest.approx(now + exchanged, rel=1e-9)


def slopes(made: ExperimentSetup, samples: Vector, x: Vector) -> Vector:
    """The gradient of the mean logistic loss of these samples at x."""
    assert isinstance(made.problem, Logistic)
    margins = made.problem.margins
    assert isinstance(margins, DenseMargins)
    signed = margins.signed.numpy()[samples]
    return -(signed.T @ (1 / (1 + np.exp(signed @ x)))) / len(samples)


@pytest.mark.parametrize("batch", ["null", "5"])
@pytest.mark.parametrize("share", [0.5, 1])
def test_fedavg_is_its_recursion(batch: str, share: float) -> None:
    """Weights by the samples of those that take part; workers have unlike numbers of them. The batches are those of
    the run's step, fed in."""
    made = set_up(*CANCER, "algo=fedavg", f"batch_size={batch}", f"participation={share}")
    problem = made.problem
    assert isinstance(problem, Logistic)
    sizes, x = np.array([len(own) for own in problem.own]), starts(made)
    assert len(set(sizes)) == N
    for t in range(ROUNDS):
        here, total = np.flatnonzero(made.taking(t)), np.zeros_like(x)
        for n in here:
            row = x
            for step in range(t * TAU, (t + 1) * TAU):
                drawn = problem.own[n] if problem.sampler is None else problem.sampler.batch(step)[n]
                row = row - 0.1 * slopes(made, drawn.numpy(), row)
            total += sizes[n] * row
        x = total / sizes[here].sum()
    close(made, x)


def test_equal_samples_are_equal_weights() -> None:
    words = (*LINREG, "workers=4", "rounds=9", "algo.lr=0.01", "algo.optimizer=sgd", "algo.momentum=0.5")
    for share in ("1", "0.5"):
        alike = [set_up(*words, f"participation={share}", f"algo={name}") for name in ("localsgd", "fedavg")]
        np.testing.assert_allclose(*(go(made, 9) for made in alike), rtol=1e-13)
    assert plan(*words, "algo=localsgd").name == plan(*words, "algo=localsgd", "participation=1").name
    assert plan(*words, "algo=localsgd").name != plan(*words, "algo=localsgd", "participation=0.5").name


def test_a_tenth_of_a_hundred_books_and_computes_a_tenth(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples, gradients, bytes up and down, and seconds of those ten alone."""
    rows: list[int] = []
    inner = DenseMargins.each

    def each(self: DenseMargins, batch: Any, x: Any) -> Any:
        rows.append(len(x))
        return inner(self, batch, x)

    monkeypatch.setattr(DenseMargins, "each", each)
    words = ("dataset=breast_cancer", "model=logistic_regression", "workers=100", "rounds=20", "algo=localsgd")
    words += ("algo.tau=2", "comm.exchange=server", "batch_size=4", "network.latency=0", "eval_every=20")
    (few, many) = (run(*words, f"participation={share}").metrics.iloc[-1] for share in ("0.1", "1"))
    assert rows == 40 * [10] + 40 * [100]
    assert few["samples"] == many["samples"] / 10 == 20 * 2 * 10 * 4
    assert few["epoch"] == few["samples"] / 455
    assert few["bytes_sent"] == many["bytes_sent"] / 10 == 20 * 2 * 10 * 30 * 4
    assert few["bytes_info"] == many["bytes_info"] / 10
    for row in (few, many):
        assert row["sim_seconds"] == pytest.approx(row["bytes_wire"] / 125e6, rel=1e-9)
    assert 20 * 2 * 9 * 30 * 4 <= few["bytes_wire"] < many["bytes_wire"] / 9


UNLIKE = (*CANCER, "algo=fedavg", "rounds=8", "eval_every=4", "network=mobile")
SMALL_MODULE = ("dataset=digits", "model=mlp", "workers=6", "batch_size=4", "algo=muloco", "rounds=8", "eval_every=4")
CHANGING = ("network.jitter.kind=uniform", "network.compute.kind=lognormal", "network.compute.seconds=0.01")
OTHERS = {
    "full batches of unlike sizes": (*UNLIKE, "batch_size=null", "compress=topk", "algo.momentum=0.9"),
    "a module": (*SMALL_MODULE, "compress=qsgd", "participation=0.4"),
    "a changing network": (
        *UNLIKE,
        *CHANGING,
        "network.links={2:{bandwidth:3}}",
        "straggler=bernoulli",
        "algo.quorum=2",
    ),
}


@pytest.mark.parametrize("words", OTHERS.values(), ids=OTHERS)
def test_a_run_goes_on_bit_for_bit_and_is_priced_anew(words: tuple[str, ...], run: Callable[..., Run]) -> None:
    """The replay on the run's own network has its seconds; samples are those of the workers that took part."""
    whole = run(*words)
    made = plan(*words)
    replayed = Replay(whole).seconds(made.network)
    assert replayed == pytest.approx(list(whole.metrics["sim_seconds"]), rel=1e-12)
    before = [untimed(whole.folder / f"{name}.csv") for name in ("metrics", "traffic")]
    with interrupted(after=3):
        assert run(*words, "rerun=true").status == "interrupted"
    resumed = run(*words)
    assert "resumed after round 3" in (resumed.folder / "run.log").read_text()
    assert [untimed(resumed.folder / f"{name}.csv") for name in ("metrics", "traffic")] == before
    if "batch_size=null" in words:
        setup = set_up(*words)
        drawn = sum(np.array(setup.sizes)[setup.taking(t)].sum() for t in range(8)) * TAU
        assert int(before[0][-1]["samples"]) == drawn


REFUSED = {
    "participation=0": "participation=0.0: out of range",
    "participation=1.5": "participation=1.5: out of range",
    "participation=0.5 algo=sgd": "participation=0.5: algo=sgd needs every worker in every round",
    "participation=0.5 algo=dppf": "participation=0.5: algo=dppf needs every worker in every round",
    "participation=0.5 algo=sparta": "participation=0.5: algo=sparta needs every worker in every round",
    "participation=0.5 algo=dpsgd": "participation=0.5: algo=dpsgd needs every worker in every round",
    "participation=0.5 algo=local_adam": "participation=0.5: algo=desloc needs every worker in every round",
    "participation=0.5 algo=async_ps": "participation=0.5: algo=async_ps needs every worker in every round",
    "participation=0.5 algo=diloco comm.exchange=all_gather": "comm.exchange=all_gather: with participation=0.5",
    "participation=0.5 algo=diloco compress=regtopk": "compress=regtopk: learns from the aggregate",
    "participation=0.5 algo=diloco compress=powersgd": "compress=powersgd: takes a sum over all workers",
    "participation=0.5 algo=diloco algo.fragments=2": "participation=0.5: algo=diloco needs every worker",
    "participation=0.5 algo=diloco algo.quorum=4": "algo.quorum=4: 3 of 6 workers take part in a round",
    "participation=0.5 algo=diloco launch.per_worker=2": "launch.per_worker=2: with algo=diloco participation=0.5",
    "participation=0.5 algo=diloco topology=islands islands=2": "topology=islands: with algo=diloco participation=0.5",
    "algo=localsgd algo.shares=some": "algo.shares=some: unknown",
    "algo=dppf algo.shares=samples": "algo.shares=samples: DPPF moves workers relative to their plain average",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_line(words: str) -> None:
    with pytest.raises(UserError) as caught:
        set_up(*LINREG, f"workers={N}", *words.split())
    assert_one_line(caught.value, REFUSED[words])
