"""Shards of unlike sizes: F = (1/N) sum_n f_n has one meaning for all models and in all that is taken of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from registry import plan
from torch import Tensor
from torch.func import functional_call

from commexp.experiment.setup import ExperimentSetup
from commexp.problems import Problem
from commexp.problems.feeds.base import common_rows
from commexp.problems.module_problem import ModuleProblem
from commexp.run_folder import Run

UNEVEN = ["workers=5", "partition=random_shares", "partition.ratio=10", "batch_size=4", "rounds=2", "dtype=float64"]
CANCER = ["dataset=breast_cancer", "model=mlp", "model.hidden=[5]"]
DIGITS = ["dataset=digits", "model=cnn", "model.width=4", "model.layers=1", "model.groups=2"]


def built(*words: str) -> tuple[ExperimentSetup, list[Tensor]]:
    made = plan(*UNEVEN, *words)
    data = made.dataset.load(5, 0, torch.float64)
    parts = made.partition.split(data, 5, 0)
    assert len({len(rows) for rows in parts}) > 1
    return ExperimentSetup(made, torch.device("cpu"), Run(Path("none"))), parts


def losses(problem: Problem, made: ExperimentSetup, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of every training sample: its cross entropy [m], and whether it is told right."""
    assert isinstance(problem, ModuleProblem)
    data = made.plan.dataset.load(5, 0, torch.float64)
    out = functional_call(problem.module, problem.layout.views(x), (data.train_x,))
    return F.cross_entropy(out, data.train_y, reduction="none"), (out.argmax(1) == data.train_y).double()


def moved(made: ExperimentSetup) -> Tensor:
    x = made.algorithm.model()
    return x + 0.3 * torch.randn(len(x), generator=torch.Generator().manual_seed(1), dtype=x.dtype)


def test_networks_have_the_mean_over_workers() -> None:
    made, parts = built(*CANCER)
    problem, x = made.problem, moved(made)
    each, right = losses(problem, made, x)
    wanted = sum(float(each[rows].mean()) for rows in parts) / 5
    assert abs(wanted - float(each.mean())) > 1e-3, "else there is nothing to tell"
    found = problem.evaluate(x)
    assert found["train_loss"] == pytest.approx(wanted, rel=1e-12)
    assert found["train_accuracy"] == pytest.approx(sum(float(right[rows].mean()) for rows in parts) / 5, rel=1e-12)
    assert problem.training_loss(x) == pytest.approx(wanted, rel=1e-12)
    assert problem.training_gradient(x)[0] == pytest.approx(wanted, rel=1e-12)
    assert float(problem.local_gradient(x.expand(5, -1))[0].mean()) == pytest.approx(wanted, rel=1e-12)


def test_a_fixed_choice_of_samples_weighs_workers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("EVALUATION_SAMPLES", 60), ("STATISTICS_SAMPLES", 23)):
        monkeypatch.setattr(f"commexp.problems.module_problem.{name}", size)
    made, parts = built("dataset=digits", "model=mlp", "model.hidden=[5]")
    problem, x = made.problem, moved(made)
    assert isinstance(problem, ModuleProblem)
    for (rows, shares), size in ((problem.evaluation_samples, 60), (problem.diagnostic_samples, 23)):
        assert len(rows) == len(rows.unique()) <= size
        assert shares is not None
        for part in parts:
            assert float(shares[torch.isin(rows, part)].sum()) == pytest.approx(1 / 5)
    rows, shares = problem.diagnostic_samples
    assert shares is not None
    inputs = problem.feed.chosen(rows)
    each = torch.cat(
        [
            F.cross_entropy(functional_call(problem.module, problem.layout.views(x), (i,)), t, reduction="none")
            for i, t in inputs
        ]
    )
    assert problem.training_loss(x) == pytest.approx(float(each @ shares), rel=1e-12)
    assert problem.training_gradient(x)[0] == pytest.approx(float(each @ shares), rel=1e-12)


@pytest.mark.parametrize(
    "model",
    [CANCER, ["dataset=breast_cancer", "model=logistic_regression"], DIGITS, [*DIGITS, "model.norm=batch"]],
    ids=["mlp", "logistic", "cnn", "batch norm"],
)
def test_the_objective_without_a_proximal_term_is_the_train_loss(model: list[str], run: Callable[..., Run]) -> None:
    words = [*UNEVEN, *model, "algo=dsgt", "prox=l1", "prox.weight=0", "algo.lr=0.1"]
    table = run(*words, "topology=ring").metrics
    assert table["objective"].tolist() == pytest.approx(table["train_loss"].tolist(), rel=1e-12)


def test_equal_shards_have_the_plain_mean_to_the_last_digit() -> None:
    made = ExperimentSetup(plan("dataset=digits", "workers=3", "model=mlp"), CPU, NONE)
    problem, x = made.problem, moved(made)
    assert isinstance(problem, ModuleProblem)
    assert problem.evaluation_samples[1] is None
    loss, right, count = 0.0, 0, 0
    for inputs, targets in problem.feed.train(None):
        out = functional_call(problem.module, problem.layout.views(x), (inputs,))
        loss, count = loss + float(F.cross_entropy(out, targets, reduction="sum")), count + len(targets)
        right += int((out.argmax(1) == targets).sum())
    found = problem.evaluate(x)
    assert found["train_loss"] == pytest.approx(loss / count, rel=1e-6)
    assert found["train_accuracy"] == right / count


CPU, NONE = torch.device("cpu"), Run(Path("none"))


def test_the_common_batch_is_f_on_average() -> None:
    parts = [torch.arange(2), torch.arange(2, 30)]
    drawn = torch.cat([common_rows(parts, 50, 0, step) for step in range(100)])
    assert float((drawn < 2).double().mean()) == pytest.approx(0.5, abs=0.04)
    assert len(drawn.unique()) == 30


@pytest.mark.parametrize("model", ["logistic_regression", "mlp"])
def test_workers_that_weigh_by_their_samples(model: str) -> None:
    """algo.shares=samples: what is minimised is the mean over samples."""
    words = ["dataset=breast_cancer", f"model={model}", "algo=async_ps", "algo.shares=samples"]
    made, parts = built(*words, "network.compute.seconds=0.01")
    x, problem = moved(made), made.problem
    each = [p.local_gradient(x[None])[0][0] for p in problem.problems]  # type: ignore[attr-defined]
    sizes = torch.tensor([len(rows) for rows in parts], dtype=torch.float64)
    wanted = float(torch.stack(each) @ sizes / sizes.sum())
    assert problem.evaluate(x)["train_loss"] == pytest.approx(wanted, rel=1e-12)
    with torch.no_grad():  # as where the valley is measured
        assert problem.training_gradient(x)[0] == pytest.approx(wanted, rel=1e-12)
        assert problem.training_loss(x) == pytest.approx(wanted, rel=1e-12)


def test_ratings_have_no_such_weights() -> None:
    with pytest.raises(
        Exception, match=r"^algo\.shares=samples: F already gives all ratings equal weights; give equal$"
    ):
        ExperimentSetup(
            plan(
                "dataset=ratings",
                "model=matrix_factorisation",
                "partition=by_user",
                "algo=ssp",
                "algo.shares=samples",
                "network.compute.seconds=0.01",
                "workers=2",
            ),
            CPU,
            NONE,
        )
