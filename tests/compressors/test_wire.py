"""Wire formats: there and back, sizes by hand, bytes equal to NumPy's, nonsense refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from commexp.compressors import CorruptMessageError, elias, wire

MANY = settings(max_examples=60, deadline=None)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@MANY
@given(seed=st.integers(0, 99), workers=st.integers(1, 3), count=st.integers(1, 70), bits=st.integers(1, 8))
def test_levels_there_and_back(seed: int, workers: int, count: int, bits: int) -> None:
    levels = torch.from_numpy(rng(seed).integers(0, 2**bits, (workers, count), dtype=np.uint8))
    packed = wire.pack_levels(levels, bits)
    assert packed.shape == (workers, math.ceil(count * bits / 8))
    assert torch.equal(wire.unpack_levels(packed, count, bits), levels)
    as_bits = (levels.numpy()[:, :, None] >> np.arange(bits)) & 1
    assert np.array_equal(packed.numpy(), np.packbits(as_bits.reshape(workers, -1), axis=1, bitorder="little"))


@MANY
@given(seed=st.integers(0, 99), count=st.integers(1, 70))
def test_bits_are_the_same_bytes_by_numpy_and_by_torch(seed: int, count: int) -> None:
    flags = torch.from_numpy(rng(seed).random((2, count)) < 0.5)
    packed = wire.pack_bits(flags)
    assert torch.equal(packed, wire.pack_bits_by_torch(flags))
    assert torch.equal(packed[:1], wire.pack_bits(flags[:1]))
    assert torch.equal(wire.unpack_bits_by_torch(packed, count), flags)
    assert torch.equal(wire.unpack_bits(packed[:1], count), flags[:1])
    assert torch.equal(wire.unpack_bits(packed, count), flags)


@MANY
@given(seed=st.integers(0, 99), count=st.integers(1, 40))
def test_trits_there_and_back(seed: int, count: int) -> None:
    trits = torch.from_numpy(rng(seed).integers(0, 3, (2, count), dtype=np.uint8))
    packed = wire.pack_trits(trits)
    assert packed.shape == (2, math.ceil(count / 5))
    assert torch.equal(wire.unpack_trits(packed, count), trits)


@MANY
@given(seed=st.integers(0, 99), dim=st.integers(1, 70_000), share=st.floats(0, 1))
def test_indices_there_and_back(seed: int, dim: int, share: float) -> None:
    k = round(share * dim)
    sets = [np.sort(rng(seed + w).choice(dim, k, replace=False)) for w in range(2)]
    chosen = torch.from_numpy(np.stack(sets).astype(np.int64))
    packed = wire.pack_indices(chosen, dim)
    assert packed.shape == (2, wire.index_bytes(k, dim))
    assert torch.equal(wire.unpack_indices(packed, k, dim), chosen)


@pytest.mark.parametrize(
    ("k", "dim", "size"),
    [
        (0, 1000, 1),
        (1, 1, 1 + 1),
        (3, 255, 1 + 3),
        (3, 256, 1 + 3 + 2),
        (2, 65_535, 1 + 2 * 2),  # one block of two-byte offsets
        (10_000, 11_000_000, 1 + 2 * (10_000 + 168)),
        (1, 11_000_000, 1 + 4),  # int32
        (110_000, 11_000_000, 1 + 110_000 + 43_138),  # one-byte offsets
        (5_000_000, 11_000_000, 1 + 1_375_000),  # a bitmap
    ],
)
def test_the_smallest_format_is_taken(k: int, dim: int, size: int) -> None:
    assert wire.index_bytes(k, dim) == size


@pytest.mark.parametrize(("k", "dim"), [(3, 200), (40, 2000), (30, 60_000), (2, 70_000), (900, 1000)])
def test_damaged_indices_are_refused(k: int, dim: int) -> None:
    chosen = torch.from_numpy(np.sort(rng(0).choice(dim, k, replace=False)).astype(np.int64))[None]
    packed = wire.pack_indices(chosen, dim)
    for damaged in (packed[:, :-1], torch.cat([packed, packed[:, :1]], 1), packed.flip(1) ^ 0xFF, packed.int()):
        with pytest.raises(CorruptMessageError):
            wire.unpack_indices(damaged, k, dim)
    with pytest.raises(CorruptMessageError):
        wire.unpack_indices(packed, k + 1, dim)


@MANY
@given(values=st.lists(st.integers(1, 2**31), max_size=40))
def test_elias_gamma_there_and_back_at_its_known_length(values: list[int]) -> None:
    bits = elias.gamma_encode(torch.tensor(values, dtype=torch.int64))
    assert len(bits) == sum(2 * int(math.log2(v)) + 1 for v in values)
    decoded, read = elias.gamma_decode(torch.cat([bits, torch.ones(5, dtype=torch.bool)]), len(values))
    assert decoded.tolist() == values
    assert read == len(bits)


def test_elias_codes_that_are_not_all_there() -> None:
    bits = elias.gamma_encode(torch.tensor([5, 9, 1]))
    for cut in range(len(bits)):
        with pytest.raises(CorruptMessageError):
            elias.gamma_decode(bits[:cut], 3)


def test_bits_behind_the_last_level_are_refused() -> None:
    with pytest.raises(CorruptMessageError, match="behind the last"):
        wire.unpack_bits(torch.tensor([[0xFF]], dtype=torch.uint8), 7)
    with pytest.raises(CorruptMessageError, match="ternary"):
        wire.unpack_trits(torch.tensor([[243]], dtype=torch.uint8), 5)
