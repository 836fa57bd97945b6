"""Gram-matrix gradients against the samples themselves; the paper's generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from commexp.problems.base import ProblemContext
from commexp.problems.datasets import LinReg
from commexp.problems.least_squares import LeastSquares
from commexp.seeding import generator

N, J, D = 4, 12, 50


def made(dtype: torch.dtype = torch.float64) -> tuple[LeastSquares, list[np.ndarray], list[np.ndarray]]:
    data = LinReg(dim=J, samples=D).load(N, 0, dtype)
    assert data.shards is not None
    problem = LeastSquares(data, ProblemContext(data.shards, range(N), None, 0, torch.device("cpu"), dtype))
    return problem, [data.train_x[p].numpy() for p in data.shards], [data.train_y[p].numpy() for p in data.shards]


def test_loss_and_gradient_are_those_of_the_samples() -> None:
    problem, features, targets = made()
    stacked = torch.randn(N, J, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for x in (stacked, stacked[0].expand(N, -1)):
        losses, grads = problem.loss_and_grad(x, problem.batch(0))
        for n, row in enumerate(x.numpy()):
            error = features[n] @ row - targets[n]
            np.testing.assert_allclose(losses[n], np.mean(error**2), rtol=1e-10)
            np.testing.assert_allclose(grads[n], 2 / D * features[n].T @ error, rtol=1e-9, atol=1e-9)


def test_optimum_is_pooled_least_squares() -> None:
    problem, features, targets = made()
    pooled = np.linalg.lstsq(np.concatenate(features), np.concatenate(targets), rcond=None)[0]
    np.testing.assert_allclose(problem.optimum().numpy(), pooled, rtol=1e-9)
    metrics = problem.evaluate(torch.from_numpy(pooled))
    assert metrics["dist_to_opt"] < 1e-10
    error = np.concatenate([f @ pooled - t for f, t in zip(features, targets, strict=True)])
    np.testing.assert_allclose(metrics["train_loss"], np.mean(error**2), rtol=1e-9)


def test_excess_loss_is_exact_where_the_difference_of_losses_is_not() -> None:
    """Against the samples in float64; in float32 down to the rounding of x itself."""
    problem, features, _ = made()
    narrow, own, _ = made(torch.float32)
    best, way = problem.optimum(), torch.randn(J, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for size in (1.0, 1e-3, 1e-6):
        x = best + size * way
        gap = np.mean([np.mean((rows @ (size * way.numpy())) ** 2) for rows in features])  # grad F(x*) = 0
        assert problem.evaluate(x)["excess_loss"] == pytest.approx(gap, rel=1e-8)
        if size > 1e-4:
            loss = problem.evaluate(x)["train_loss"] - problem.evaluate(best)["train_loss"]
            assert loss == pytest.approx(gap, rel=1e-6)
        shifted = narrow.optimum() + size * way.float()
        off = (shifted.double() - narrow.optimum().double()).numpy()
        gap = np.mean([np.mean((rows @ off) ** 2) for rows in own])
        assert narrow.evaluate(shifted)["excess_loss"] == pytest.approx(gap, rel=1e-4)
    assert problem.evaluate(best)["excess_loss"] == 0


def test_start_is_that_of_a_linear_layer() -> None:
    problem, _, _ = made()
    x = problem.init(generator(0, "start"))
    assert float(x.abs().max()) <= 1 / np.sqrt(J)
    assert torch.equal(x, problem.init(generator(0, "start")))
    assert not torch.equal(x, problem.init(generator(1, "start")))


def test_generator_has_the_papers_variances() -> None:
    data = LinReg(dim=100, samples=500).load(400, 0, torch.float64)
    assert data.shards is not None
    fits = [torch.linalg.lstsq(data.train_x[p], data.train_y[p, None]).solution.squeeze() for p in data.shards]
    truths = torch.stack(fits)
    shift = truths.mean(1)
    assert abs(float(shift.var()) - 5.01) < 4 * 5 * np.sqrt(2 / 399)
    assert abs(float((truths - shift[:, None]).var()) - 1.0) < 0.05
    left = torch.cat([data.train_y[p] - data.train_x[p] @ t for p, t in zip(data.shards, fits, strict=True)])
    assert abs(float(left.square().sum() / (400 * (500 - 100))) - 0.5) < 0.01
    assert abs(float(data.train_x.var()) - 1.0) < 0.01


def test_a_workers_data_do_not_depend_on_how_many_there_are() -> None:
    few, many = (LinReg(dim=3, samples=4).load(n, 7, torch.float64) for n in (2, 5))
    assert torch.equal(few.train_x, many.train_x[:8])


def test_columns_differ_and_truths_have_something_in_common() -> None:
    given = {"dim": 5, "samples": 20_000, "shift_variance": 0.0, "noise_variance": 0.0, "own_variance": 0.0}
    data = LinReg(**given, common_variance=4.0, condition=100.0).load(2, 0, torch.float64)  # type: ignore[arg-type]
    assert data.shards is not None
    sizes = data.train_x.square().mean(0)
    assert sizes.tolist() == pytest.approx([100 ** (-j / 4) for j in range(5)], rel=0.05)
    one, other = (torch.linalg.lstsq(data.train_x[rows], data.train_y[rows, None]).solution for rows in data.shards)
    assert torch.allclose(one, other, atol=1e-9)
    assert 0.2 < one.square().mean() < 20
    for words, says in (
        ({"condition": 0.5}, "condition=0.5: must not be less than 1"),
        ({"own_variance": -1.0}, "own"),
    ):
        with pytest.raises(ValueError, match=f"^{says}"):
            LinReg(**words)  # type: ignore[arg-type]
