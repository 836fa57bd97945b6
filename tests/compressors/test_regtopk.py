"""RegTop-k against a reference that keeps full vectors and follows the paper line by line, in NumPy float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from commexp.compressors import ErrorFeedback, RegTopK


class Reference:
    """arXiv 2501.05633, algorithm 1, with everything in vectors of length J."""

    def __init__(self, workers: int, dim: int, k: int, mu: float, weights: np.ndarray) -> None:
        self.k, self.mu, self.w = k, mu, weights
        self.residual = np.zeros((workers, dim))
        self.sent_before = np.zeros((workers, dim), bool)
        self.sent = np.zeros((workers, dim))
        self.aggregate = np.zeros(dim)

    def round(self, gradients: np.ndarray) -> np.ndarray:
        sent = np.zeros_like(gradients)
        for n, gradient in enumerate(gradients):
            a = gradient + self.residual[n]
            delta = np.full(len(a), 1e8)
            mine = self.w[n] * self.sent[n]
            known = self.sent_before[n]
            delta[known] = (self.aggregate[known] - mine[known]) / mine[known]
            score = np.abs(a) * np.tanh(np.abs(1 + delta) / self.mu)
            top = np.argsort(-score, kind="stable")[: self.k]
            sent[n, top] = a[top]
            self.sent_before[n] = False
            self.sent_before[n, top] = True
            self.residual[n] = a - sent[n]
        self.sent = sent
        self.aggregate = self.w @ sent
        return self.aggregate


@pytest.mark.parametrize("mu", [0.5, 4.0])
@pytest.mark.parametrize("uneven", [False, True])
def test_follows_the_paper(mu: float, uneven: bool) -> None:
    rng = np.random.default_rng(0)
    workers, dim, k = 5, 60, 13
    weights = rng.dirichlet(np.ones(workers)) if uneven else np.full(workers, 1 / workers)
    reference = Reference(workers, dim, k, mu, weights)
    codec = ErrorFeedback(RegTopK(k=k, mu=mu))
    w = torch.from_numpy(weights)
    common = rng.standard_normal(dim)
    for _ in range(60):
        gradients = common + 3 * rng.standard_normal((workers, dim))
        message = codec.encode(torch.from_numpy(gradients))
        aggregate = codec.reduce(message, w)
        codec.feedback(aggregate, w)
        np.testing.assert_allclose(aggregate.numpy(), reference.round(gradients), rtol=1e-9, atol=1e-12)
    assert codec.residual is not None
    np.testing.assert_allclose(codec.residual.numpy(), reference.residual, rtol=1e-9, atol=1e-9)


def test_first_round_is_topk_and_cancelled_entries_give_way() -> None:
    codec = RegTopK(k=1, mu=1.0)
    a = torch.tensor([[10.0, 1.0], [-10.0, 1.0]])
    message = codec.encode(a)
    assert codec.places(message).flatten().tolist() == [0, 0]
    codec.feedback(codec.reduce(message, torch.tensor([0.5, 0.5])))
    assert codec.places(codec.encode(a)).flatten().tolist() == [1, 1]


def test_remembers_only_what_it_sent() -> None:
    codec = RegTopK(k=7)
    codec.feedback(codec.reduce(codec.encode(torch.randn(3, 1000)), torch.full((3,), 1 / 3)))
    assert {name: tuple(v.shape) for name, v in codec.state_dict().items()} == {
        "workers.indices": (3, 7),
        "workers.values": (3, 7),
        "workers.aggregate": (3, 7),
        "workers.weights": (3,),
    }


@pytest.mark.parametrize("a", [[1.0, 2.0, 0.5], [2.0, 1.0, 0.5], [0.5, 1.0, 2.0]])
@pytest.mark.parametrize("others", [0.0, 3.0])
def test_an_entry_sent_as_zero_tells_nothing(a: list[float], others: float) -> None:
    """Its ratio would be 0/0, or infinite where other workers sent it: the next choice is that of Top-k."""
    codec = RegTopK(k=2)
    zeros = codec.encode(torch.zeros(1, 3))
    codec.feedback(codec.reduce(zeros, torch.ones(1)) + others, torch.ones(1))
    expected = torch.tensor([[x if x > 0.5 else 0.0 for x in a]])
    assert torch.equal(codec.decode(codec.encode(torch.tensor([a]))), expected)


def test_feedback_before_anything_was_sent_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="nothing has been encoded"):
        RegTopK().feedback(torch.zeros(3))
