"""Methods with local steps against references written out worker by worker in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from algorithms.test_sgd import J, N, context, problem
from registry import bare, options, plan
from torch import Tensor

from commexp.algorithms import DPPF, EASGD, LSGD, MGRAWA, QSR, SGD, Algorithm, DiLoCo, LocalSGD, PostLocalSGD, Schedule
from commexp.comm import Communicator, Ledger
from commexp.compressors import ErrorFeedback, NoCompression, TopK
from commexp.problems import Problem
from commexp.run_folder import Run

STEPS, LR = 24, 0.02


def go(algorithm: Algorithm, steps: int = STEPS, **world: object) -> tuple[Algorithm, Communicator]:
    made = context(steps, **world)  # type: ignore[arg-type]
    algorithm.setup(made)
    for t in range(len(algorithm.lengths(steps))):
        algorithm.round(t)
    made.comm.settle()
    return algorithm, made.comm


def local_steps(x: list[Tensor], count: int) -> list[Tensor]:
    """Plain gradient steps of every worker on its own objective."""
    objective = problem()
    for _ in range(count):
        gradients = objective.loss_and_grad(torch.stack(x), None)[1]
        x = [row - LR * g for row, g in zip(x, gradients, strict=True)]
    return x


def start() -> Tensor:
    return torch.linspace(-1, 1, J, dtype=torch.float64)


def pushed(x: list[Tensor], towards: Tensor, pull: float, push: float) -> list[Tensor]:
    average = torch.stack(x).mean(0)
    return [row - pull * (row - towards) + push * (row - average) / (row - average).norm() for row in x]


def reference(tau: int, move: Callable[[list[Tensor], int], list[Tensor]]) -> list[Tensor]:
    """Workers at the end; ``move``: from where local steps lead, at the end of round t, to where the exchange does."""
    x = [start()] * N
    for t in range(STEPS // tau):
        x = move(local_steps(x, tau), t)
    return x


def push_at(t: int, tau: int, size: float) -> float:
    return size * (1 - math.cos(math.pi * (t + 1) * tau / STEPS)) / 2


def assert_workers(algorithm: Algorithm, expected: list[Tensor]) -> None:
    torch.testing.assert_close(algorithm.x, torch.stack(expected), rtol=1e-9, atol=1e-11)  # type: ignore[attr-defined]


@pytest.mark.parametrize("tau", [1, 3])
def test_local_sgd_averages_models(tau: int) -> None:
    algorithm, _ = go(LocalSGD(lr=LR, tau=tau))
    assert_workers(algorithm, reference(tau, lambda x, t: [torch.stack(x).mean(0)] * N))


@pytest.mark.parametrize("push_schedule", ["constant", "increasing", "decreasing"])
def test_dppf(push_schedule: str) -> None:
    algorithm, _ = go(DPPF(lr=LR, tau=4, pull=0.3, push=0.5, push_schedule=push_schedule))

    def move(x: list[Tensor], t: int) -> list[Tensor]:
        rising = push_at(t, 4, 0.5)
        push = {"constant": 0.5, "increasing": rising, "decreasing": 0.5 - rising}[push_schedule]
        average = torch.stack(x).mean(0)
        return [row + (average - row) * (0.3 - push / (row - average).norm()) for row in x]

    assert_workers(algorithm, reference(4, move))


@pytest.mark.parametrize("push", [0.0, 0.4])
def test_easgd(push: float) -> None:
    algorithm, _ = go(EASGD(lr=LR, tau=4, beta=0.8, push=push))
    centre = start()

    def move(x: list[Tensor], t: int) -> list[Tensor]:
        nonlocal centre
        old, average = centre, torch.stack(x).mean(0)
        centre = 0.2 * old + 0.8 * average
        return pushed(x, old, 0.8 / N, push_at(t, 4, push))

    assert_workers(algorithm, reference(4, move))
    torch.testing.assert_close(algorithm.model(), centre, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("push", [0.0, 0.4])
def test_lsgd(push: float) -> None:
    algorithm, _ = go(LSGD(lr=LR, tau=1, pull=0.3, push=push))
    objective = problem()
    x = [start()] * N
    for t in range(STEPS):
        losses = objective.loss_and_grad(torch.stack(x), None)[0]
        x = local_steps(x, 1)
        average = torch.stack(x).mean(0)
        x = pushed(x, x[int(losses.argmin())], 0.3, push_at(t, 1, push))
    assert_workers(algorithm, x)
    torch.testing.assert_close(algorithm.model(), average, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("push", [0.0, 0.4])
def test_mgrawa(push: float) -> None:
    algorithm, _ = go(MGRAWA(lr=LR, tau=4, pull=0.3, push=push, smoothing=0.4))
    objective, smoothed = problem(), torch.zeros(N, dtype=torch.float64)

    def move(x: list[Tensor], t: int) -> list[Tensor]:
        nonlocal smoothed
        norms = [(objective.mean_gram @ row - objective.mean_cross).norm() for row in x]
        smoothed = 0.4 * smoothed + 0.6 * torch.stack(norms)
        share = (1 - 0.4 ** (t + 1)) / smoothed
        return pushed(x, (share / share.sum()) @ torch.stack(x), 0.3, push_at(t, 4, push))

    assert_workers(algorithm, reference(4, move))


def test_diloco_is_torchs_nesterov_on_what_workers_moved() -> None:
    algorithm, _ = go(DiLoCo(lr=LR, tau=4, optimizer="sgd", outer_lr=0.7, outer_momentum=0.9))
    outer = torch.nn.Parameter(start())
    optimizer = torch.optim.SGD([outer], 0.7, momentum=0.9, nesterov=True)
    for _ in range(STEPS // 4):
        outer.grad = outer.detach() - torch.stack(local_steps([outer.detach()] * N, 4)).mean(0)
        optimizer.step()
    torch.testing.assert_close(algorithm.model(), outer.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_worker_has_torchs_optimiser_of_its_own(optimizer: str) -> None:
    momentum = 0.9 if optimizer == "sgd" else 0.0
    algorithm, _ = go(LocalSGD(lr=LR, tau=6, momentum=momentum, weight_decay=0.01, optimizer=optimizer))
    objective = problem()
    rows = [torch.nn.Parameter(start()) for _ in range(N)]
    if optimizer == "sgd":
        own: list[torch.optim.Optimizer] = [torch.optim.SGD([r], LR, momentum=0.9, weight_decay=0.01) for r in rows]
    else:
        own = [torch.optim.AdamW([r], LR, weight_decay=0.01) for r in rows]
    for step in range(STEPS):
        gradients = objective.loss_and_grad(torch.stack([r.detach() for r in rows]), None)[1]
        for row, gradient, each in zip(rows, gradients, own, strict=True):
            row.grad = gradient
            each.step()
        if (step + 1) % 6 == 0:
            average = torch.stack([r.detach() for r in rows]).mean(0)
            for row in rows:
                row.data = average.clone()
    torch.testing.assert_close(algorithm.model(), average, rtol=1e-9, atol=1e-11)


def test_sam_takes_the_gradient_uphill() -> None:
    algorithm, _ = go(SGD(lr=LR, sam=0.3))
    objective, x = problem(), start()
    for _ in range(STEPS):
        ascent = objective.loss_and_grad(x.expand(N, -1), None)[1]
        up = torch.stack([x + 0.3 * g / g.norm() for g in ascent])
        x = x - LR * objective.loss_and_grad(up, None)[1].mean(0)
    torch.testing.assert_close(algorithm.model(), x, rtol=1e-10, atol=1e-12)


class Noise(Problem):
    """No objective: gradients are noise of a given size."""

    shapes = {"x": (J,)}  # noqa: RUF012
    dim, samples, samples_per_step = J, 1, 1

    def __init__(self, size: float) -> None:
        self.size = size

    def init(self, generator: torch.Generator) -> Tensor:
        return torch.zeros(J, dtype=torch.float64)

    def batch(self, step: int) -> int:
        return step

    def loss_and_grad(self, x: Tensor, batch: object, ready: object = None) -> tuple[Tensor, Tensor]:
        assert isinstance(batch, int)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(batch), dtype=x.dtype)
        return x.new_zeros(len(x)), self.size * noise

    def fresh(self, step: int, size: int) -> int:
        return step

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(len(x)), torch.zeros_like(x)  # noise has no mean

    common_gradient = training_gradient = evaluate = None  # type: ignore[assignment]


@pytest.mark.parametrize("pull", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("push", [0.1, 0.5])
def test_the_valleys_width_settles_at_push_over_pull(pull: float, push: float) -> None:
    world = context(400)
    world.problem = Noise(1e-3)
    algorithm = DPPF(lr=1.0, tau=4, pull=pull, push=push, push_schedule="constant")
    algorithm.setup(world)
    widths = []
    for t in range(100):
        algorithm.round(t)
        widths.append(algorithm.diagnostics()["valley_width"])
    assert widths[0] < 1.1 * push
    assert all(width == pytest.approx(push / pull, rel=0.03) for width in widths[-20:])
    assert algorithm.diagnostics()["valley_limit"] == push / pull


def test_without_noise_a_worker_at_the_average_is_not_pushed() -> None:
    world = context(8)
    world.problem = Noise(0.0)
    algorithm = DPPF(lr=1.0, tau=4, push=0.5, push_schedule="constant")
    algorithm.setup(world)
    algorithm.round(0)
    assert torch.equal(algorithm.x, world.start.expand(N, -1))


@pytest.mark.parametrize("codec", ["none", "topk", "onebit"])
def test_dppf_with_full_pull_and_no_push_is_local_sgd_bit_for_bit(codec: str) -> None:
    one, _ = go(DPPF(lr=LR, tau=4, pull=1.0, push=0.0), codec=plan(f"compress={codec}").compressor)
    other, _ = go(LocalSGD(lr=LR, tau=4), codec=plan(f"compress={codec}").compressor)
    assert torch.equal(one.model(), other.model())
    assert torch.equal(one.x, other.x)  # type: ignore[attr-defined]


@pytest.mark.parametrize("other", [DPPF(lr=LR, tau=1, pull=1.0, push=0.0), LocalSGD(lr=LR, tau=1)])
def test_an_exchange_after_every_step_is_synchronous_sgd(other: Algorithm) -> None:
    expected = go(SGD(lr=LR))[0].model()
    torch.testing.assert_close(go(other)[0].model(), expected, rtol=1e-6, atol=1e-6)


def test_diloco_with_a_plain_outer_step_is_local_sgd() -> None:
    one = go(DiLoCo(lr=LR, tau=4, optimizer="sgd", outer_lr=1.0, outer_momentum=0.0))[0].model()
    torch.testing.assert_close(one, go(LocalSGD(lr=LR, tau=4))[0].model(), rtol=1e-9, atol=1e-11)


def test_rounds_of_qsr_by_hand() -> None:
    """lr_t = 0.8 (1 + cos(pi (t - 8) / 56)) / 2 after 8 steps of warm-up, over 64 steps; growth 0.4."""
    schedule = Schedule(kind="cosine", warmup=8)
    lengths = QSR(lr=0.8, tau=3, growth=0.4, schedule=schedule).lengths(64)
    by_hand, done = [], 0
    while done < 64:
        rate = 0.8 * (done + 1) / 8 if done < 8 else 0.4 * (1 + math.cos(math.pi * (done - 8) / 56))
        rule = 3 if done < 8 else max(3, math.floor(0.16 / rate**2))
        by_hand.append(min(rule, 64 - done))
        done += by_hand[-1]
    assert lengths == by_hand
    assert lengths[:3] == [3, 3, 3], "H = tau in warm-up, although (growth / rate)^2 is 16 at its first step"
    assert max(lengths) > 3
    assert sum(lengths) == 64
    # the rule itself: rates 0.2 and 0.1 give 4 and 16
    flat = Schedule(kind="constant")
    assert QSR(lr=0.2, tau=1, growth=0.4, schedule=flat).lengths(10) == [4, 4, 2]
    assert QSR(lr=0.1, tau=1, growth=0.4, schedule=flat).lengths(40) == [16, 16, 8]
    assert QSR(lr=0.8, tau=5, growth=0.4, schedule=flat).lengths(12) == [5, 5, 2]


def test_lengths_of_the_others() -> None:
    assert LocalSGD(lr=LR, tau=4).lengths(10) == [4, 4, 2]
    assert PostLocalSGD(lr=LR, tau=4, switch=0.5).lengths(12) == [1] * 6 + [4, 2]
    assert SGD(lr=LR).lengths(3) == [1, 1, 1]


def test_post_local_with_momentum_is_synchronous_until_the_switch() -> None:
    one = go(PostLocalSGD(lr=LR, momentum=0.9, tau=4, switch=1.0))[0].model()
    torch.testing.assert_close(one, go(SGD(lr=LR, momentum=0.9))[0].model(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tau", [2, 8])
def test_bytes_are_one_in_tau_of_an_exchange_after_every_step(tau: int) -> None:
    dense = go(SGD(lr=LR))[1].ledger.bytes_sent
    for method in (LocalSGD(lr=LR, tau=tau), DPPF(lr=LR, tau=tau), EASGD(lr=LR, tau=tau), DiLoCo(lr=LR, tau=tau)):
        assert go(method)[1].ledger.bytes_sent * tau == dense


def test_bytes_of_leader_and_weighted_average_by_hand() -> None:
    rounds, model, number = STEPS // 4, J * 8, 8
    last = N * model  # the average, once
    assert go(LSGD(lr=LR, tau=4))[1].ledger.bytes_sent == rounds * (N * number + model) + last
    assert go(MGRAWA(lr=LR, tau=4))[1].ledger.bytes_sent == rounds * (N * number + N * model) + last
    wire = rounds * ((N - 1) * N * number + (N - 1) * model) + 2 * (N - 1) * model
    assert go(LSGD(lr=LR, tau=4))[1].ledger.bytes_wire == wire
    pushed = go(LSGD(lr=LR, tau=4, push=0.1))[1].ledger.bytes_sent
    assert pushed == rounds * (N * number + model + N * model)


@pytest.mark.parametrize("name", options("compress"))
@pytest.mark.parametrize("method", [LocalSGD, DPPF, EASGD, DiLoCo])
def test_every_codec_goes_with_every_difference(name: str, method: type[LocalSGD]) -> None:
    codec = plan(f"compress={name}", *(["compress.k=0.2"] if name in ("topk", "regtopk", "randk") else [])).compressor
    algorithm, comm = go(method(lr=0.005, tau=2), 60, codec=codec)
    objective = problem()
    before, after = (objective.evaluate(x)["dist_to_opt"] for x in (start(), algorithm.model()))
    assert after < 0.9 * before
    assert comm.ledger.bytes_sent > 0


def test_what_compression_leaves_out_does_not_add_up() -> None:
    """The followed average stays near the true one, however long; without workers being pulled it would wander."""
    gaps = []
    for steps in (200, 2000):
        world = context(steps, codec=bare("onebit"))
        world.problem = Noise(0.01)
        algorithm = DPPF(lr=1.0, tau=1, pull=0.5, push=0.1, push_schedule="constant")
        algorithm.setup(world)
        for t in range(steps):
            algorithm.round(t)
        assert algorithm.before_exchange is not None
        gaps.append(float((algorithm.before_exchange.mean(0) - algorithm.average).norm()))
    assert gaps[1] < 3 * gaps[0]


def test_error_feedback_brings_local_sgd_to_the_same_place() -> None:
    exact = go(LocalSGD(lr=0.005, tau=2), 1500)[0].model()
    sparse = go(LocalSGD(lr=0.005, tau=2), 1500, codec=ErrorFeedback(TopK(k=0.3)))[0].model()
    without = go(LocalSGD(lr=0.005, tau=2), 1500, codec=TopK(k=0.3))[0].model()
    assert float((sparse - exact).norm()) < 0.3 * float((without - exact).norm())


BAD = {
    "tau": (LocalSGD, 0),
    "switch": (PostLocalSGD, 1.5),
    "growth": (QSR, 0.0),
    "push": (DPPF, -0.1),
    "pull": (DPPF, 2.0),
    "push_schedule": (EASGD, "linear"),
    "beta": (EASGD, 0.0),
    "smoothing": (MGRAWA, 1.0),
    "outer_lr": (DiLoCo, 0.0),
    "outer_momentum": (DiLoCo, 1.0),
    "optimizer": (SGD, "lion"),
    "betas": (SGD, [0.9]),
    "sam": (SGD, -1.0),
}


@pytest.mark.parametrize("field", BAD)
def test_fields_out_of_range_are_refused(field: str) -> None:
    method, value = BAD[field]
    with pytest.raises(ValueError, match=f"^{field}=.*;"):
        method(**{"lr": LR, field: value})  # type: ignore[arg-type]


def test_length_in_steps_makes_runs_comparable(run: Callable[..., Run]) -> None:
    small = ("dataset=linreg", "dataset.dim=10", "workers=4", "steps=48", "eval_every=12", "algo.lr=0.01")
    found = {a: run(*small, *a.split()) for a in ("algo=sgd", "algo=localsgd algo.tau=4", "algo=localsgd algo.tau=16")}
    for name, one in found.items():
        assert one.status == "completed", name
        assert one.metrics["step"].iloc[-1] == 48
        assert one.metrics["samples"].iloc[-1] == found["algo=sgd"].metrics["samples"].iloc[-1]
    dense, four, sixteen = (one.metrics for one in found.values())
    assert list(dense["step"]) == list(four["step"]) == [0, 12, 24, 36, 48]
    assert list(sixteen["step"]) == [0, 16, 32, 48]
    assert found["algo=localsgd algo.tau=4"].summary["bytes_against_dense"] == 0.25
    assert found["algo=localsgd algo.tau=16"].summary["bytes_against_dense"] == 0.0625


def test_clock_counts_gradients(run: Callable[..., Run]) -> None:
    small = ("dataset=linreg", "dataset.dim=10", "workers=4", "steps=8", "algo.lr=0.01", "network.compute.seconds=1.0")
    small = (*small, "network.bandwidth=1e9", "network.latency=0")
    assert run(*small, "algo=localsgd", "algo.tau=4").summary["sim_seconds"] == pytest.approx(8, rel=1e-3)
    assert run(*small, "algo=sam").summary["sim_seconds"] == pytest.approx(16, rel=1e-3)
    assert run(*small, "algo=mgrawa", "algo.tau=4").summary["sim_seconds"] == pytest.approx(16, rel=1e-3)


def test_gather_broadcast_and_a_look_that_is_not_booked() -> None:
    comm = Communicator(3, Ledger())
    x = torch.arange(6.0).view(3, 2)
    assert torch.equal(comm.gather(x), x)
    assert torch.equal(comm.broadcast(x, 1), x[1])
    assert torch.equal(comm.watched(x), x)
    comm.settle()
    gathered, sent = comm.ledger.entries
    assert (gathered.exchange, gathered.bytes_sent, gathered.bytes_wire) == ("all_gather", 24, 48)
    assert (sent.exchange, sent.bytes_sent, sent.bytes_wire) == ("broadcast", 8, 16)


def test_plain_messages_alone_where_whole_models_travel() -> None:
    from commexp.config.messages import UserError

    for name in ("lsgd", "mgrawa"):
        with pytest.raises(UserError, match=f"compress=topk: algo={name} exchanges whole models"):
            plan(f"algo={name}", "compress=topk")
    assert isinstance(plan("algo=lsgd").compressor, NoCompression)
