"""The column stationarity, ||grad F||^2: right for each problem that has it, and the same by every way to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from problems.test_objective import CANCER, logistic
from torch import nn

from commexp.problems import Data, PerWorkerProblem, ProblemContext
from commexp.problems.clipping import ClippedGradients
from commexp.problems.datasets import Iid
from commexp.problems.least_squares import LeastSquares
from commexp.problems.models import MLP, ResNetSmall
from commexp.problems.module_problem import is_linear
from commexp.problems.prox import L1
from commexp.run_folder import Run

X = torch.linspace(-1, 2, 5, dtype=torch.float64)


@pytest.mark.parametrize("sparse", [False, True])
def test_of_logistic_regression(sparse: bool) -> None:
    made = logistic(sparse, l2=0.3, nonconvex=0.2)
    rng, x = np.random.default_rng(0), X.numpy()
    a, y = rng.normal(size=(50, 5)), 2 * rng.integers(2, size=50) - 1
    own = [-(y[r] / (1 + np.exp(y[r] * (a[r] @ x)))) @ a[r] / len(r) for r in (s.numpy() for s in made.shards)]
    gradient = np.mean(own, axis=0) + 0.3 * x + 2 * 0.2 * x / (1 + x**2) ** 2
    assert made.stationarity(X) == pytest.approx(float(gradient @ gradient), rel=1e-12)
    apart = PerWorkerProblem([logistic(sparse, ids=(n,), l2=0.3, nonconvex=0.2) for n in range(3)], [17, 17, 16])
    assert apart.stationarity(X) == made.stationarity(X)
    assert apart.tells_gradient
    assert ClippedGradients(made, range(3), "stop", clip=1e-6).stationarity(X) == made.stationarity(X)


def test_of_least_squares_with_and_without_an_h() -> None:
    rng = np.random.default_rng(1)
    a, y = rng.normal(size=(30, 5)), rng.normal(size=30)
    data = Data(torch.from_numpy(a), torch.from_numpy(y))
    shards = Iid().split(data, 3, 0)
    made = LeastSquares(data, ProblemContext(shards, [0, 1, 2], None, 0, torch.device("cpu"), torch.float64))
    x = X.numpy()
    gradient = np.mean([2 * a[r].T @ (a[r] @ x - y[r]) / len(r) for r in (s.numpy() for s in shards)], axis=0)
    assert made.stationarity(X) == pytest.approx(float(gradient @ gradient), rel=1e-12)
    made.prox = L1(0.1)
    step = x - gradient
    moved = x - np.sign(step) * np.maximum(abs(step) - 0.1, 0)
    assert made.stationarity(X) == pytest.approx(float(moved @ moved), rel=1e-12)
    assert made.composite(X) == {"stationarity": made.stationarity(X), "nonzero": 1.0}


def test_modules_that_are_linear() -> None:
    assert is_linear(MLP(hidden=[]).module((1, 8, 8), 10))
    assert is_linear(nn.Linear(2, 1))
    for module in (MLP(hidden=[4]).module((1, 8, 8), 10), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), nn.ReLU()):
        assert not is_linear(module)
    assert not is_linear(ResNetSmall(8).module((1, 8, 8), 10))


WITH = {
    "logistic regression": [*CANCER, "algo=topk", "compress.k=2"],
    "an asynchronous method": [*CANCER, "algo=async_sgd"],
    "a perceptron on vectors": ["dataset=breast_cancer", "model.hidden=[4]", "workers=2"],
    "a linear model of images": ["model=mlp", "model.hidden=[]", "workers=2"],
    "least squares": ["dataset=linreg", "dataset.dim=4", "dataset.samples=3"],
}


@pytest.mark.parametrize("kind", WITH)
def test_in_a_run(kind: str, run: Callable[..., Run]) -> None:
    made = run(*WITH[kind], "rounds=4", "eval_every=2")
    column = made.metrics["stationarity"]
    assert (column > 0).all()
    assert made.summary["best_stationarity"] == column.min()
    assert "nonzero" not in made.metrics, "of decentralised methods alone"


@pytest.mark.parametrize("weights", [None, (0.5, 0.3, 0.2)])
def test_of_softmax_regression(weights: tuple[float, ...] | None) -> None:
    """Of images, with the weights of the workers' shards in F."""
    rng = np.random.default_rng(2)
    images, y = rng.normal(size=(20, 1, 2, 3)), np.arange(20) % 4
    x, labels = torch.from_numpy(images), torch.from_numpy(y)
    shards = [torch.arange(0, 9), torch.arange(9, 18), torch.arange(18, 20)]
    context = ProblemContext(shards, [0, 1, 2], 2, 0, torch.device("cpu"), torch.float64, weights=weights)
    made = MLP(hidden=[]).problem(Data(x, labels, x, labels, classes=4), context)
    assert made.tells_gradient
    point = torch.from_numpy(rng.normal(size=4 * 6 + 4))
    matrix, bias = point[:24].numpy().reshape(4, 6), point[24:].numpy()
    scores = np.exp(images.reshape(20, 6) @ matrix.T + bias)
    shares = np.concatenate([np.full(len(r), w / len(r)) for r, w in zip(shards, weights or [1 / 3] * 3, strict=True)])
    wrong = shares[:, None] * (scores / scores.sum(1, keepdims=True) - np.eye(4)[y])
    expected = float(np.square(wrong.T @ images.reshape(20, 6)).sum() + np.square(wrong.sum(0)).sum())
    assert made.stationarity(point) == pytest.approx(expected, rel=1e-12)


def test_networks_on_images_have_no_such_column(run: Callable[..., Run]) -> None:
    words: list[Any] = ["rounds=1", "model.width=8", "workers=2", "batch_size=2"]
    assert "stationarity" not in run(*words).metrics
