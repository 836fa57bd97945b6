"""FedProx, FedOpt, SCAFFOLD and ProxSkip against recursions in NumPy, in float64; where they end, what they send."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from algorithms.test_low_communication import LR, J, N, Vector, World, model, trained
from algorithms.test_sgd import context
from registry import interrupted, plan, untimed

from commexp.algorithms import LocalSGD, ProxSkip, Scaffold
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.problems.base import ProblemContext
from commexp.problems.datasets import LinReg
from commexp.problems.least_squares import LeastSquares
from commexp.run_folder import Run

ROUNDS, TAU = 60, 3
LONG = [f"algo.tau={TAU}", f"rounds={ROUNDS}"]


def largest(found: Vector, wanted: Vector) -> float:
    return float(np.abs(found - wanted).max())


def local_steps(x: Vector, world: World, correction: Vector | float = 0.0, mu: float = 0.0) -> Vector:
    """Where TAU steps lead every worker from x [J]; they follow the gradient plus ``correction`` + mu (x_n - x)."""
    world.x = np.tile(x, (N, 1))
    for _ in range(TAU):
        world.x = world.x - LR * (world.gradients() + correction + mu * (world.x - x))
    return world.x


def test_fedprox_is_its_recursion() -> None:
    world = World()
    x = world.start
    for _ in range(ROUNDS):
        x = local_steps(x, world, mu=0.7).mean(0)
    assert largest(model(trained("algo=fedprox", "algo.mu=0.7", *LONG)), x) < 1e-12
    assert np.array_equal(model(trained("algo=fedprox", "algo.mu=0", *LONG)), model(trained("algo=localsgd", *LONG))), (
        "without the term it is local SGD"
    )


@pytest.mark.parametrize("outer", ["adam", "adagrad", "yogi"])
def test_fedopt_is_its_recursion(outer: str) -> None:
    """The server's v begins at the square of its epsilon and nothing is corrected for its beginning."""
    world, epsilon, m, v = World(), 0.05, np.zeros(J), np.full(J, 0.05**2)
    x = world.start
    for _ in range(ROUNDS):
        change = local_steps(x, world).mean(0) - x  # as the paper has it, which adds it
        m = 0.8 * m + 0.2 * change
        square = change * change
        if outer == "adam":
            v = 0.95 * v + 0.05 * square
        elif outer == "adagrad":
            v = v + square
        else:
            v = v - 0.05 * square * np.sign(v - square)
        x = x + 0.03 * m / (np.sqrt(v) + epsilon)
    fields = ["algo.outer_lr=0.03", "algo.outer_betas=[0.8,0.95]", f"algo.outer_epsilon={epsilon}"]
    assert largest(model(trained("algo=fedopt", f"algo.outer={outer}", *fields, *LONG)), x) < 1e-12


@pytest.mark.parametrize("outer_lr", [1.0, 0.6])
def test_scaffold_is_its_recursion(outer_lr: float) -> None:
    """Option II, with c_n and c kept apart as the paper keeps them."""
    world, c, controls = World(), np.zeros(J), np.zeros((N, J))
    x = world.start
    for _ in range(ROUNDS):
        y = local_steps(x, world, correction=c - controls)
        new = controls - c + (x - y) / (TAU * LR)
        x = x + outer_lr * (y - x).mean(0)
        c, controls = c + (new - controls).mean(0), new
    found = trained("algo=scaffold", f"algo.outer_lr={outer_lr}", *LONG)
    assert largest(model(found), x) < 1e-12
    assert isinstance(found.algorithm, Scaffold)
    assert largest(found.algorithm.c.numpy(), c) < 1e-11
    assert largest(found.algorithm.controls.numpy(), controls) < 1e-11


def test_scaffold_divides_by_the_rates_of_the_round() -> None:
    """With a cosine, c_n is the mean of the round's gradients, weighted by their rates."""
    made = trained("algo=scaffold", "algo.tau=4", "rounds=1", "algo.schedule.kind=cosine")
    world, rates = World(), [LR * 0.5 * (1 + np.cos(np.pi * s / 4)) for s in range(4)]
    mean = np.zeros((N, J))
    for rate in rates:
        g = world.gradients()
        mean, world.x = mean + rate / sum(rates) * g, world.x - rate * g
    assert isinstance(made.algorithm, Scaffold)
    assert largest(made.algorithm.controls.numpy(), mean) < 1e-12


@pytest.mark.parametrize("p", [0.3, None])
def test_proxskip_is_its_recursion(p: float | None) -> None:
    """Coin by coin, as the paper has it; without ``p`` a round has tau local steps on average."""
    made = trained("algo=proxskip", f"algo.p={'null' if p is None else p}", *LONG)
    heads = np.cumsum(made.algorithm.lengths(made.algorithm.steps_in(ROUNDS)))
    assert len(heads) == ROUNDS == len(made.record.planned.ends) - 1
    p = p or 1 / TAU
    assert 0.6 / p < heads[-1] / ROUNDS < 1.5 / p
    world, h = World(), np.zeros((N, J))
    for step in range(1, heads[-1] + 1):
        y = world.x - LR * (world.gradients() - h)
        world.x = y
        if step in heads:
            world.x = np.tile((y - LR / p * h).mean(0), (N, 1))
        h = h + p / LR * (world.x - y)
    assert isinstance(made.algorithm, ProxSkip)
    assert largest(model(made), world.x[0]) < 1e-12
    assert largest(made.algorithm.controls.numpy(), h) < 1e-11


def test_the_coin_is_the_seeds_and_known_before_the_run() -> None:
    made = [plan("algo=proxskip", "algo.p=0.2", f"seed={seed}").algorithm for seed in (0, 0, 1)]
    first, again, other = (each.lengths(2000) for each in made)
    assert first == again != other
    assert sum(first) == sum(other) == 2000, "the last step counts as heads"
    assert made[0].lengths(made[0].steps_in(50)) == first[:50], "a longer run begins as a shorter one"
    assert np.mean(first[:-1]) == pytest.approx(5, rel=0.2)
    assert np.mean(np.array(first[:-1]) == 1) == pytest.approx(0.2, abs=0.06)


def test_proxskip_whose_coin_is_always_heads_is_gradient_descent() -> None:
    found = trained("algo=proxskip", "algo.p=1", f"rounds={ROUNDS}")
    assert largest(model(found), model(trained("algo=sgd", f"rounds={ROUNDS}"))) < 1e-12


def test_scaffold_with_equal_objectives_is_local_sgd() -> None:
    data = LinReg(dim=20, samples=30).load(1, 0, torch.float64)
    assert data.shards is not None
    everyone = ProblemContext(data.shards * 5, range(5), None, 0, torch.device("cpu"), torch.float64)
    ends = []
    for algorithm in (Scaffold(lr=0.02, tau=4), LocalSGD(lr=0.02, tau=4)):
        world = context(4 * ROUNDS)
        world.problem = LeastSquares(data, everyone)
        algorithm.setup(world)
        for t in range(ROUNDS):
            algorithm.round(t)
        ends.append(algorithm.model())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


# -- where they end

UNLIKE = ["dataset.samples=40", "algo.lr=0.1"]  # well conditioned, so that 200 rounds are enough


def quadratics() -> tuple[Vector, Vector, Vector]:
    """Of each f_n the Hessian [N, J, J] and the minimiser [N, J]; of F the minimiser [J]."""
    made = plan("dataset=linreg", f"dataset.dim={J}", *UNLIKE, f"workers={N}", "dtype=float64")
    data = made.dataset.load(N, 0, torch.float64)
    a, b = data.train_x.numpy().reshape(N, -1, J), data.train_y.numpy().reshape(N, -1)
    hessians = 2 / a.shape[1] * np.einsum("ndi,ndj->nij", a, a)
    own = np.stack([np.linalg.lstsq(each, y, rcond=None)[0] for each, y in zip(a, b, strict=True)])
    return hessians, own, np.linalg.lstsq(a.reshape(-1, J), b.ravel(), rcond=None)[0]


def excess(*words: str) -> float:
    """F - F* at the end of a run."""
    setup = trained(*UNLIKE, *words)
    return setup.problem.evaluate(setup.algorithm.model())["excess_loss"]


def test_proxskip_and_scaffold_reach_the_optimum_with_unlike_data() -> None:
    """ProxSkip at 1/L and p = sqrt(mu/L), in as many rounds as sqrt(L/mu) log(1/epsilon) says; both compressed, too."""
    curvature = np.linalg.eigvalsh(quadratics()[0])
    step, p = 1 / curvature.max(), float(np.sqrt(curvature.min() / curvature.max()))
    rounds = int(np.log(1e14) / p)
    assert 0.1 < p < 0.6
    assert excess("algo=localsgd", f"rounds={rounds}") > 1e-3
    assert excess("algo=proxskip", f"algo.p={p}", f"algo.lr={step}", f"rounds={rounds}") < 1e-12
    compressed = ["compress=topk", "compress.k=0.5"]
    for words in (["algo=scaffold"], ["algo=scaffold", *compressed], ["algo=proxskip", *compressed]):
        assert excess(*words, f"algo.tau={TAU}", "algo.lr=0.05", "rounds=250") < 1e-12


def test_the_theory_of_proxskip(run: Callable[..., Run]) -> None:
    """1/L with the largest L of the workers; the summary says which p goes with it."""
    curvature, mean = (np.linalg.eigvalsh(each) for each in (quadratics()[0], quadratics()[0].mean(0)))
    words = ["dataset=linreg", f"dataset.dim={J}", "dataset.samples=40", f"workers={N}", "rounds=3", "algo.p=0.5"]
    found = run("algo=proxskip", *words, "algo.lr=theory", "algo.lr_factor=2", "algo.weight_decay=0.3")
    assert found.summary["lr"] == pytest.approx(2 / (curvature.max() + 0.3), rel=1e-12)
    best = np.sqrt((mean[0] + 0.3) / (curvature.max() + 0.3))
    assert found.summary["theoretical_probability"] == pytest.approx(best, rel=1e-12)
    assert f"| probability of an exchange | best {best:.6g}" in (found.folder / "summary.md").read_text()
    for more, wrong in (
        (["compress=topk"], "no step is known of ProxSkip with compr"),
        (["algo.sam=1"], "the step is"),
    ):
        with pytest.raises(UserError, match=f"^algo.lr=theory: {wrong}"):
            trained("algo=proxskip", "rounds=3", "algo.lr=theory", *more)


def test_fedavg_stands_where_a_hand_computation_says() -> None:
    """A round takes worker n from x to x_n* + (I - lr A_n)^H (x - x_n*); x stands where the mean of these is x. With
    unlike data this is not the optimum, and the further from it the longer the rounds are."""
    hessians, own, optimum = quadratics()
    distances = []
    for tau in (1, 2, 6):
        gone = np.eye(J) - np.linalg.matrix_power(np.eye(J) - 0.1 * hessians, tau)
        stands = np.linalg.solve(gone.mean(0), np.einsum("nij,nj->i", gone, own) / N)
        found = model(trained("algo=localsgd", *UNLIKE, f"algo.tau={tau}", "rounds=200"))
        assert largest(found, stands) < 1e-12
        distances.append(float(np.linalg.norm(found - optimum)))
    assert distances[0] < 1e-12
    assert 0.01 < distances[1] < distances[2]


@pytest.mark.parametrize("algo", ["scaffold", "proxskip"])
@pytest.mark.parametrize("codec", [["compress=topk", "compress.k=0.2"], ["compress=qsgd"], ["compress=randk"]])
def test_what_the_controls_add_up_to(algo: str, codec: list[str]) -> None:
    """Whatever a compressor leaves out, c is the mean of the c_n and the h_n add up to 0."""
    made = trained(f"algo={algo}", "rounds=20", f"algo.lr={LR / 4}", *codec).algorithm
    assert isinstance(made, Scaffold | ProxSkip)
    mean = made.controls.mean(0)
    assert float(made.controls.abs().max()) > 0.1
    torch.testing.assert_close(mean, made.c if isinstance(made, Scaffold) else 0 * mean, rtol=0, atol=1e-12)


# -- some workers per round

SOME = [*LONG, "participation=0.5", "seed=3"]


def drawn(setup: ExperimentSetup) -> list[Vector]:
    """The workers of each round."""
    found = [np.flatnonzero(setup.taking(t)) for t in range(ROUNDS)]
    assert {len(each) for each in found} == {N // 2}
    assert len({tuple(each) for each in found}) > 3
    return found


def test_scaffold_with_some_workers_is_its_recursion() -> None:
    """Who does not take part keeps c_n; c moves by the share of those that do, and stays the mean of all c_n."""
    setup = trained("algo=scaffold", *SOME)
    world = World("seed=3")
    x, c, controls = world.start, np.zeros(J), np.zeros((N, J))
    for some in drawn(setup):
        y = local_steps(x, world, correction=c - controls)[some]
        new = controls[some] - c + (x - y) / (TAU * LR)
        x = x + (y - x).mean(0)
        c = c + len(some) / N * (new - controls[some]).mean(0)
        controls[some] = new
    assert isinstance(setup.algorithm, Scaffold)
    assert largest(model(setup), x) < 1e-12
    assert largest(setup.algorithm.c.numpy(), c) < 1e-11
    assert largest(setup.algorithm.controls.numpy(), controls) < 1e-11
    assert largest(c, controls.mean(0)) < 1e-11


def test_scaffold_weighs_workers_by_their_samples() -> None:
    """x and c are means weighted by samples; c moves by the share of the samples that take part."""
    unlike = ["partition=random_shares", "participation=0.5", "algo.shares=samples"]
    setup = trained("algo=scaffold", f"algo.tau={TAU}", "rounds=20", *unlike)
    data = setup.plan.dataset.load(N, 0, torch.float64)
    shards = [rows.numpy() for rows in setup.plan.partition.split(data, N, 0)]
    samples = [(data.train_x.numpy()[rows], data.train_y.numpy()[rows]) for rows in shards]
    share = np.array([len(rows) for rows in shards]) / len(data.train_x)
    assert share.max() > 2 * share.min()
    x, c, controls = World().start, np.zeros(J), np.zeros((N, J))
    for t in range(20):
        some = np.flatnonzero(setup.taking(t))
        y = np.tile(x, (N, 1))
        for _ in range(TAU):
            gradients = np.stack([2 / len(b) * a.T @ (a @ row - b) for (a, b), row in zip(samples, y, strict=True)])
            y = y - LR * (gradients - controls + c)
        new = controls - c + (x - y) / (TAU * LR)
        x = x + share[some] @ (y - x)[some] / share[some].sum()
        c = c + share[some] @ (new - controls)[some]
        controls[some] = new[some]
    assert isinstance(setup.algorithm, Scaffold)
    assert largest(model(setup), x) < 1e-12
    assert largest(setup.algorithm.c.numpy(), share @ controls) < 1e-11
    assert largest(setup.algorithm.c.numpy(), c) < 1e-11


def test_fedprox_and_fedopt_with_some_workers_are_their_recursions() -> None:
    prox = trained("algo=fedprox", "algo.mu=0.7", *SOME)
    adam = trained("algo=fedopt", "algo.outer_epsilon=0.05", *SOME)
    world, m, v = World("seed=3"), np.zeros(J), np.full(J, 0.05**2)
    x = z = world.start
    for some in drawn(prox):
        x = local_steps(x, world, mu=0.7)[some].mean(0)
        d = z - local_steps(z, world)[some].mean(0)
        m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d * d
        z = z - 0.01 * m / (np.sqrt(v) + 0.05)
    assert largest(model(prox), x) < 1e-12
    assert largest(model(adam), z) < 1e-12


def test_scaffold_with_some_workers_and_a_codec_ends_at_the_optimum() -> None:
    words = ["algo=scaffold", f"algo.tau={TAU}", "algo.lr=0.05", "rounds=200", "participation=0.5"]
    assert excess(*words, "compress=qsgd") < 1e-12
    assert excess("algo=localsgd", *words[1:]) > 1e-3


@pytest.mark.parametrize("compress", ["topk", "qsgd"])
def test_a_run_with_some_workers_goes_on_bit_for_bit(compress: str, run: Callable[..., Run]) -> None:
    """c_n, c and both compressors are in the checkpoint."""
    words = ["algo=scaffold", "dataset=linreg", f"dataset.dim={J}", "workers=6", "participation=0.5", "rounds=8"]
    words += ["eval_every=4", f"compress={compress}", "algo.lr=0.01"]
    whole = run(*words)
    before = [untimed(whole.folder / f"{name}.csv") for name in ("metrics", "traffic")]
    with interrupted(after=3):
        assert run(*words, "rerun=true").status == "interrupted"
    resumed = run(*words)
    assert "resumed after round 3" in (resumed.folder / "run.log").read_text()
    assert [untimed(resumed.folder / f"{name}.csv") for name in ("metrics", "traffic")] == before


# -- bytes


def test_bytes_by_hand() -> None:
    """Scaffold: two vectors up and two down; the others one each. Of half of the workers half of it."""
    vector = N * J * 8
    for algo, vectors in (("scaffold", 2), ("fedprox", 1)):
        setup = trained(f"algo={algo}", "rounds=5", "participation=0.5")
        setup.record.done = 5
        setup.record.settle()
        for direction in ("up", "down"):
            entries = [e for e in setup.record.ledger.entries if e.direction == direction]
            assert sum(e.bytes_sent for e in entries) == 5 * vectors * vector // 2
    for algo, vectors in (("scaffold", 2), ("proxskip", 1), ("fedprox", 1), ("fedopt", 1)):
        setup = trained(f"algo={algo}", "rounds=5", "comm.exchange=server")
        setup.record.done = 5
        setup.record.settle()
        for direction in ("up", "down"):
            entries = [e for e in setup.record.ledger.entries if e.direction == direction]
            assert sum(e.bytes_sent for e in entries) == 5 * vectors * vector
            assert sum(e.bytes_wire for e in entries) == 5 * vectors * vector * (N - 1) // N


# -- refusals

REFUSED = {
    "algo=fedprox algo.mu=-1": "algo.mu=-1.0: must not be negative",
    "algo=fedopt algo.outer=nesterov": "algo.outer=nesterov: unknown; give one of adam, adagrad, yogi",
    "algo=fedopt algo.outer_epsilon=0": "algo.outer_epsilon=0.0: must be positive",
    "algo=fedopt algo.outer_momentum=0.9": "algo.outer_momentum=0.9: outer=adam has its own",
    "algo=scaffold algo.outer_lr=0": "algo.outer_lr=0.0: must be positive",
    "algo=scaffold algo.momentum=0.9": "algo.momentum=0.9: Scaffold reads gradients from plain steps; give 0",
    "algo=scaffold algo.optimizer=adamw": "algo.optimizer=adamw: Scaffold reads gradients from SGD's steps; give sgd",
    "algo=scaffold algo.fragments=2": "algo.fragments=2, delay=0, mix=0.0, inside=1: Scaffold needs all of x_n",
    "algo=proxskip algo.quorum=2": "algo.quorum=2: after an exchange of ProxSkip",
    "algo=proxskip participation=0.5": "participation=0.5: algo=proxskip needs every worker in every round",
    "algo=proxskip algo.p=0": "algo.p=0.0: out of range; give a probability",
    "algo=proxskip algo.p=1.5": "algo.p=1.5: out of range; give a probability",
    "algo=proxskip algo.delay=1": "algo.fragments=1, delay=1, mix=0.0, inside=1: ProxSkip needs all of x_n",
    "algo=proxskip compress=powersgd": "compress=powersgd: the aggregate is not the mean of what the workers have sent",
    "algo=scaffold compress=sign compress.vote=true": "compress=sign: the aggregate is not the mean of what",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(words: str) -> None:
    with pytest.raises(UserError) as refused:
        trained(*words.split(), "rounds=2")
    assert str(refused.value).startswith(REFUSED[words])
    assert (
        "; give " in str(refused.value) or "; the paper" in str(refused.value) or "; 1 averages" in str(refused.value)
    )
    assert "\n" not in str(refused.value)
