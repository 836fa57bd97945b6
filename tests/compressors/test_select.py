"""Exact selection against a full sort, on every kind of row, and the GPU's way on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from commexp.compressors import TopK, sparse
from commexp.compressors.sparse import Selector, by_tournament

J = sparse.SHORT + 77


def rows() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(J, generator=g)
    return {
        "heavy": normal * torch.randn(J, generator=g).exp(),
        "all equal": torch.full((J,), -0.25),
        "zero": torch.zeros(J),
        "sorted": normal.sort().values,
        "one spike": torch.zeros(J).index_fill_(0, torch.tensor([J - 1]), -5.0),
        "few values": (normal * 2).round(),
        "periodic": torch.arange(J).remainder(32).eq(5) * normal,
        "half precision": normal.half(),
        "bfloat": normal.bfloat16(),
        "double": normal.double(),
    }


ROWS = rows()


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("k", [1, 13, J // 1000, J // 100, J // 10, J // 2, J - 1, J])
def test_equals_a_stable_full_sort(name: str, k: int) -> None:
    x = ROWS[name]
    order = np.argsort(-x.double().abs().numpy(), kind="stable")[:k]
    found = Selector().largest(x[None], k)
    assert np.array_equal(found[0].numpy(), np.sort(order))


def test_a_threshold_carried_over_changes_nothing() -> None:
    selector, x = Selector(), ROWS["heavy"]
    for scale in (1.0, 1.0, 1e3, 1e-3, 1e30, 0.0, 1.0):
        a = torch.stack([x, x.flip(0)]) * scale
        assert torch.equal(selector.largest(a, 999), Selector().largest(a, 999))


@pytest.mark.parametrize("name", ["heavy", "all equal", "one spike", "few values"])
@pytest.mark.parametrize(("dim", "k"), [(1000, 10), (1037, 10), (999, 200), (64, 40)])
def test_tournament_finds_the_same_magnitudes(name: str, dim: int, k: int) -> None:
    a = torch.stack([ROWS[name][:dim], ROWS[name][-dim:]])
    found = by_tournament(a, k, 4)
    assert bool((found[:, 1:] > found[:, :-1]).all())
    expected = a.abs().topk(k, dim=1).values
    assert torch.equal(a.gather(1, found).abs().sort(1, descending=True).values, expected)


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    TopK(k=0.01).encode(ROWS["heavy"][None])
    assert torch.equal(state, torch.get_rng_state())


def test_nan_is_refused() -> None:
    x = torch.full((1, J), torch.nan)
    with pytest.raises(ValueError, match="holds NaN"):
        Selector().largest(x, 5)
