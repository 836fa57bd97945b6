"""The synthetic logistic regression: its scales, its labels, its seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from commexp.problems.datasets import LogReg

N, D, J = 5, 400, 8


def by_worker(**fields: float) -> tuple[np.ndarray, np.ndarray]:
    data = LogReg(dim=J, samples=D, **fields).load(N, 0, torch.float64)
    assert isinstance(data.train_x, torch.Tensor)
    assert data.shards is not None
    assert [len(rows) for rows in data.shards] == [D] * N
    return data.train_x.numpy().reshape(N, D, J), data.train_y.numpy().reshape(N, D)


def test_smoothness_differs_between_workers_by_the_spread() -> None:
    x, _ = by_worker(spread=100.0)
    largest = [np.linalg.eigvalsh(a.T @ a / D)[-1] for a in x]
    assert largest[-1] / largest[0] == pytest.approx(100, rel=0.25)
    assert np.allclose(np.diff(np.log(largest)), np.log(100) / 4, atol=0.35)


def test_features_have_the_condition() -> None:
    x, _ = by_worker(spread=1.0, condition=64.0)
    spread = x.reshape(-1, J).var(0)
    assert spread[0] / spread[-1] == pytest.approx(64, rel=0.2)
    assert spread.mean() == pytest.approx(1.0, rel=0.1)


def test_labels_follow_the_true_parameter_of_all_workers_or_of_each() -> None:
    def angles(own_variance: float) -> np.ndarray:
        x, y = by_worker(spread=1.0, own_variance=own_variance)
        means = np.stack([(2 * b - 1) @ a / D for a, b in zip(x, y, strict=True)])  # along the true parameter
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return (means @ means.T)[np.triu_indices(N, 1)]

    assert angles(0.0).min() > 0.7
    assert abs(angles(1e4).mean()) < 0.4


def test_a_value_out_of_range_is_refused() -> None:
    for wrong in ({"dim": 0}, {"samples": 0}, {"spread": 0.5}, {"condition": 0.9}, {"own_variance": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LogReg(**wrong)
