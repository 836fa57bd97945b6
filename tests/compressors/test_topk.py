"""Top-k and its messages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from commexp.compressors import TopK
from commexp.compressors.base import log2_binomial


def test_keeps_the_largest_magnitudes() -> None:
    a = torch.tensor([[1.0, -5.0, 2.0, 0.0, 3.0], [-1.0, -2.0, -3.0, -4.0, -5.0]])
    kept = TopK(k=2).decode(TopK(k=2).encode(a))
    assert kept.tolist() == [[0, -5, 0, 0, 3], [0, 0, 0, -4, -5]]


@pytest.mark.parametrize(
    ("k", "dim", "entries"), [(0.01, 100, 1), (0.7, 100, 70), (1.0, 9, 9), (3, 9, 3), (1e-9, 9, 1)]
)
def test_a_float_is_a_ratio_and_an_integer_a_count(k: float, dim: int, entries: int) -> None:
    assert TopK(k=k).entries(dim) == entries


def test_more_entries_than_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="k=10: more entries than the 9 parameters"):
        TopK(k=10).encode(torch.ones(1, 9))


def test_index_information_is_the_binomial() -> None:
    for n, k in ((10, 3), (100, 1), (57, 57), (64, 32)):
        assert log2_binomial(n, k) == pytest.approx(math.log2(math.comb(n, k)), abs=1e-9)


def test_bytes_by_hand() -> None:
    message = TopK(k=0.01).encode(torch.randn(8, 20_000))
    # a byte of header, 79 blocks of 255 places with a count each, an offset of one byte and a value of four
    assert message.sizes == [1 + 79 + 200 * (1 + 4)] * 8
    assert message.nbytes == 8 * (1 + 79 + 200 * (1 + 4))
    assert message.info_bits == pytest.approx(8 * (200 * 32 + math.log2(math.comb(20_000, 200))), rel=1e-9)


def test_against_a_full_sort_in_numpy() -> None:
    a = np.random.default_rng(0).standard_normal((4, 999)).astype(np.float32)
    expected = np.zeros_like(a)
    for row, out in zip(a, expected, strict=True):
        top = np.argsort(-np.abs(row), kind="stable")[:77]
        out[top] = row[top]
    codec = TopK(k=77)
    assert np.array_equal(codec.decode(codec.encode(torch.from_numpy(a))).numpy(), expected)
