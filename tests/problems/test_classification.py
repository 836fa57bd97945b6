"""Batch norm, precision, layout and compilation of torch modules as problems; and which way gradients go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from registry import plan
from torch import nn
from torch.func import functional_call

from commexp.config.messages import UserError
from commexp.problems import GradientOptions, ProblemContext, build_problem
from commexp.problems.gradients import Batch
from commexp.problems.module_problem import ModuleProblem
from commexp.run_folder import Run

W, B = 3, 4


def made(*overrides: str, dtype: torch.dtype = torch.float64, deterministic: bool = False) -> ModuleProblem:
    config = plan(*overrides)
    data, speed = config.dataset.load(W, 0, dtype), GradientOptions(**vars(config.config.speed))
    parts = config.partition.split(data, W, 0)
    context = ProblemContext(parts, range(W), B, 0, torch.device("cpu"), dtype, deterministic, speed)
    problem = build_problem(config.model, data, context)
    assert isinstance(problem, ModuleProblem)
    return problem


BATCH_NORM = ("model=cnn", "model.width=8", "model.norm=batch")
GROUP_NORM = ("model=cnn", "model.width=8", "model.norm=group")


def start(problem: ModuleProblem) -> torch.Tensor:
    return problem.init(torch.Generator().manual_seed(0))


def test_training_leaves_no_trace_in_the_module() -> None:
    """Batch norm keeps nothing from step to step: what is evaluated depends on x alone."""
    problem = made(*BATCH_NORM)
    x = start(problem)
    before = problem.evaluate(x)
    problem.loss_and_grad(x.expand(W, -1), problem.batch(0))
    problem.loss_and_grad(3 * x.expand(W, -1), problem.batch(1))
    problem.evaluate(2 * x)
    assert problem.evaluate(x) == before


def test_statistics_are_those_of_the_model_that_is_evaluated() -> None:
    few = (*BATCH_NORM, "dataset.test=0.8")
    problem = made(*few)
    x = start(problem) * 1.5
    found = problem.evaluate(x)
    module = made(*few).module  # by torch alone: statistics from all training images at once
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats, norm.momentum = True, 1.0
    params = problem.layout.views(x)
    (train, train_labels) = next(iter(problem.feed.train(None)))
    with torch.no_grad():
        functional_call(module.train(), params, (train,))
        for norm in norms:  # torch keeps the unbiased variance
            assert norm.running_var is not None
        logits = functional_call(module.eval(), params, (train,))
    assert found["train_loss"] == pytest.approx(float(F.cross_entropy(logits, train_labels)), rel=1e-3)
    assert found["train_accuracy"] == pytest.approx(float((logits.argmax(1) == train_labels).double().mean()), abs=2e-3)


@pytest.mark.parametrize("model", [BATCH_NORM, GROUP_NORM])
def test_gradient_of_the_training_loss_is_its_slope(model: tuple[str, ...]) -> None:
    problem = made(*model)
    x = start(problem)
    loss, grad = problem.training_gradient(x)
    assert loss == pytest.approx(problem.training_loss(x), rel=1e-12)
    step = 1e-6 * torch.nn.functional.normalize(grad, dim=0)
    slope = (problem.training_loss(x + step) - problem.training_loss(x - step)) / 2e-6
    assert slope == pytest.approx(float(grad.norm()), rel=1e-4)


@pytest.mark.parametrize("model", [BATCH_NORM, GROUP_NORM])
def test_all_workers_see_the_same_common_batch(model: tuple[str, ...]) -> None:
    problem = made(*model)
    x = start(problem).expand(W, -1)
    losses, gradients = problem.common_gradient(x, 5)
    torch.testing.assert_close(gradients, gradients[:1].expand(W, -1), rtol=1e-9, atol=1e-12)
    assert float(losses.std()) < 1e-12
    assert not torch.equal(problem.common_gradient(x, 6)[0], losses)


@pytest.mark.parametrize("workers", ["fold", "vmap", "loop"])
@pytest.mark.parametrize("model", [BATCH_NORM, GROUP_NORM])
def test_every_way_gives_the_same_gradients(model: tuple[str, ...], workers: str) -> None:
    one, loop = made(*model, f"speed.workers={workers}"), made(*model, deterministic=True)
    x = start(one).expand(W, -1)
    torch.testing.assert_close(
        one.loss_and_grad(x, one.batch(3)), loop.loss_and_grad(x, loop.batch(3)), rtol=1e-8, atol=1e-10
    )


def test_a_way_that_the_model_does_not_allow_is_refused_before_anything_runs(run: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match=r"^speed.workers=fold: this model cannot be .*; give auto or loop"):
        run("model=vit", "model.image_size=8", "model.patch=4", "speed.workers=fold", "rounds=1")


@pytest.mark.parametrize("workers", ["fold", "vmap", "loop"])
def test_bfloat16_is_near(workers: str) -> None:
    exact, near = (
        made(*GROUP_NORM, f"speed.workers={workers}", f"speed.amp={a}", dtype=torch.float32) for a in (False, True)
    )
    x = start(exact).expand(W, -1)
    (_, a), (_, b) = exact.loss_and_grad(x, exact.batch(0)), near.loss_and_grad(x, near.batch(0))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b), "nothing was computed in bfloat16"
    assert float((a - b).norm() / a.norm()) < 0.05


@pytest.mark.parametrize("workers", ["fold", "loop"])
def test_channels_last_changes_the_layout_alone(workers: str) -> None:
    one, other = (made(*GROUP_NORM, f"speed.workers={workers}", f"speed.channels_last={c}") for c in (False, True))
    x = start(one).expand(W, -1)
    torch.testing.assert_close(
        other.loss_and_grad(x, one.batch(0)), one.loss_and_grad(x, one.batch(0)), rtol=1e-9, atol=1e-11
    )
    seen: list[bool] = []
    first = next(m for m in other.module.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(
        lambda _, given, __: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    wide = torch.randn(W, B, 1, 8, 8, dtype=torch.float64)
    other.loss_and_grad(x, Batch((wide, torch.zeros(W, B, dtype=torch.long))))
    assert all(seen)
    assert seen


def test_compiled_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated by torch.compile; without its code generator, which takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model = ("model=mlp", "model.hidden=[16]")
    plain, compiled = made(*model), made(*model, "speed.compile=true")
    assert compiled.gradients._run is not compiled.module
    x = start(plain).expand(W, -1)
    for step in (0, 1):
        expected = plain.loss_and_grad((step + 1) * x, plain.batch(step))
        found = compiled.loss_and_grad((step + 1) * x, plain.batch(step))
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.drawn
def test_flatness_at_the_end_of_a_run(run: Callable[..., Run]) -> None:
    found = run(
        "algo=localsgd",
        "algo.tau=4",
        "rounds=20",
        "workers=4",
        "model=mlp",
        "model.hidden=[16]",
        "dataset.test=0.8",
        "flatness=landscape",
        figures=True,
    )
    summary = found.summary
    assert summary["mean_valley"] == -summary["inverse_mean_valley"] > 0
    assert summary["sharpness"] > 0
    assert summary["valley_directions"] == 4
    assert summary["generalisation_gap"] == pytest.approx(
        found.metrics["train_accuracy"].iloc[-1] - found.metrics["test_accuracy"].iloc[-1]
    )
    for name in ("curves", "line", "plane", "partition"):
        assert (found.folder / "figures" / f"{name}.png").stat().st_size > 5000
    partition = pd.read_csv(found.folder / "partition.csv")
    assert partition["samples"].sum() == 359
    assert partition["worker"].nunique() == 4
    alone = run("algo=sgd", "rounds=2", "dataset.test=0.8", "workers=2", "model.width=8", "flatness=valley")
    assert alone.summary["valley_directions"] == 0
    assert not (alone.folder / "line.csv").exists()
