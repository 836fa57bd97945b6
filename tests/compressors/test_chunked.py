"""Chunked Top-k against NumPy: which entries, in which bits, added up by whom."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import bare
from torch import Tensor

from commexp.comm import Communicator, Ledger
from commexp.compressors import (
    Chunked,
    CodecContext,
    Composition,
    Compressor,
    CorruptMessageError,
    ErrorFeedback,
    Feedback,
    KBit,
    Layerwise,
    elias_fano,
)
from commexp.compressors.base import log2_binomial

SHAPES = {"matrix": (70, 130), "kernel": (66, 3, 3, 2), "bias": (70,), "scalar": (), "empty": (0, 3)}
J = 70 * 130 + 66 * 18 + 70 + 1


def vectors(workers: int = 2, dim: int = J, seed: int = 0) -> Tensor:
    draws = torch.randn(workers, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draws * draws.exp()


def made(codec: Compressor) -> Compressor:
    codec.setup(CodecContext(shapes=SHAPES))
    return codec


def chunks(side: int) -> Iterator[np.ndarray]:
    """The places of each chunk of a vector of SHAPES: cut by slices of a matrix of places."""
    start = 0
    for shape in SHAPES.values():
        size = math.prod(shape)
        places = np.arange(start, start + size)
        start += size
        matrix = places.reshape(shape[0], -1) if len(shape) > 1 and size else places[None]
        for i in range(0, matrix.shape[0], side):
            for j in range(0, matrix.shape[1], side):
                yield matrix[i : i + side, j : j + side].ravel()


def runs(dim: int, length: int) -> Iterator[np.ndarray]:
    for start in range(0, dim, length):
        yield np.arange(start, min(dim, start + length))


def reference(a: np.ndarray, cut: Iterator[np.ndarray], k: int | float) -> np.ndarray:
    """One vector [J]."""
    out = np.zeros_like(a)
    for places in cut:
        kept = min(k, len(places)) if isinstance(k, int) else max(1, round(k * len(places)))
        top = places[np.argsort(-np.abs(a[places]), kind="stable")[:kept]]
        out[top] = a[top]
    return out


@pytest.mark.parametrize("k", [1, 5, 100, 0.125, 0.5, 1.0])
def test_the_largest_of_every_tile(k: int | float) -> None:
    a = vectors()
    codec = made(Chunked(k=k, chunk=256))
    expected = np.stack([reference(row, chunks(16), k) for row in a.numpy()])
    message = codec.encode(a)
    np.testing.assert_array_equal(codec.decode(message).numpy(), expected)
    assert message.sizes == [codec.payload(J, 8)] * 2
    counts = [min(k, len(c)) if isinstance(k, int) else max(1, round(k * len(c))) for c in chunks(16)]
    assert codec.entries(J) == sum(counts) == message.buffers["values"].shape[1]  # type: ignore[attr-defined]
    ideal = sum(log2_binomial(len(c), n) + 64 * n for c, n in zip(chunks(16), counts, strict=True))
    assert message.info_bits == pytest.approx(2 * ideal)
    assert codec.delta(J) == min(n / len(c) for c, n in zip(chunks(16), counts, strict=True))


@pytest.mark.parametrize(("dim", "known"), [(10_000, True), (900, False), (4096, False)])
def test_runs_of_the_vector(dim: int, known: bool) -> None:
    """Where they are asked for, and where the tensors are not known."""
    a, codec = vectors(2, dim), Chunked(k=9, tiles=not known)
    codec.setup(CodecContext(shapes={"matrix": (100, 100)} if known else {}))
    expected = np.stack([reference(row, runs(dim, 4096), 9) for row in a.numpy()])
    np.testing.assert_array_equal(codec.decode(codec.encode(a)).numpy(), expected)


def test_bits_by_hand() -> None:
    """64 of 4,096: 6 low bits an entry and 64 + 64 - 1 for what is above, where fixed width takes 12 each."""
    a = vectors(1, 8192).float()
    codec = Chunked(k=64)
    assert elias_fano.set_bits(64, 4096) == 64 * 6 + 127
    assert codec.encode(a).sizes == [2 * 64 * 4 + math.ceil(2 * 511 / 8)]
    assert codec.payload(8192, 4) * 8 / 128 - 32 == 8.0


def test_two_bits_a_value_by_hand() -> None:
    """SparseLoCo's message: 8 bits of index, 2 of value and half a bit of mean and scale, where 12 + 2 without any
    scale are published."""
    codec = bare("chunked_kbit")
    codec.setup(CodecContext(shapes={"weight": (64, 128)}))
    (sent,) = codec.encode(vectors(1, 8192).float()).sizes
    assert sent == codec.payload(8192, 4) == math.ceil(2 * 511 / 8) + 2 * 64 * 2 // 8 + 2 * (2 + 2)
    assert 8 * sent / 128 == 10.5 < 12 + 2


@pytest.mark.parametrize(
    ("k", "n", "bits"),
    [
        (0, 9, 0),
        (9, 9, 0),
        (1, 1, 0),
        (1, 4096, 12),  # fixed width
        (2, 4096, 24),  # fixed width again: 11 low bits each and 2 + 2 - 1 are 25
        (32, 4096, 32 * 6 + 32 + 64 - 1),
        (2000, 4096, 4096),  # a bitmap
    ],
)
def test_the_format_of_the_fewest_bits(k: int, n: int, bits: int) -> None:
    assert elias_fano.set_bits(k, n) == bits
    assert bits >= log2_binomial(n, k) - 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), n=st.integers(1, 5000), share=st.floats(0, 1))
def test_sets_there_and_back(seed: int, n: int, share: float) -> None:
    k, draw = max(1, round(share * n)), np.random.default_rng(seed)
    places = torch.from_numpy(np.stack([np.sort(draw.choice(n, k, replace=False)) for _ in range(3)]))
    flags = elias_fano.encode(places, n)
    assert flags.shape == (3, elias_fano.set_bits(k, n))
    assert torch.equal(elias_fano.decode(flags, k, n), places)


@pytest.mark.parametrize(("k", "n"), [(1, 1000), (9, 1000), (300, 1000)])
def test_bits_of_no_set_are_refused(k: int, n: int) -> None:
    with pytest.raises(CorruptMessageError):
        elias_fano.decode(torch.ones(1, elias_fano.set_bits(k, n), dtype=torch.bool), k, n)


@pytest.mark.parametrize(
    ("exchange", "values"),
    [
        *((exchange, None) for exchange in ("auto", "all_gather", "server", "two_phase")),
        *((exchange, KBit(block=64, levels="statistical")) for exchange in ("auto", "server")),
    ],
)
def test_senders_against_numpy(exchange: str, values: Compressor | None) -> None:
    """Entry j over the weight of the workers that sent it, and no bytes more than without."""
    a, weights = vectors(4), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    plain, codec = (made(Chunked(k=20, combine=c)) for c in ("all", "senders"))
    if values is not None:
        plain, codec = (made(Composition(c, values)) for c in (plain, codec))
    sent = plain.decode(plain.encode(a)).numpy()
    codec.set_round(0)
    message = codec.encode(a)
    masks = np.zeros((4, J))
    entries = codec.entries if isinstance(codec, Composition) else codec
    picked = codec._picked(message) if isinstance(codec, Composition) else message
    np.put_along_axis(masks, entries.places(picked).numpy(), 1.0, 1)  # type: ignore[attr-defined]
    total, among = weights.numpy() @ codec.decode(message).numpy(), weights.numpy() @ masks
    expected = np.divide(total, among, out=np.zeros(J), where=among > 0)
    assert len(np.unique(among.round(9))) > 5, "some entries are sent by one worker, some by several"
    ledgers = Ledger(), Ledger()
    got = Communicator(4, ledgers[0], exchange).aggregate(message, weights)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-14)
    in_order = Communicator(4, Ledger(), exchange, deterministic=True).aggregate(message, weights)
    np.testing.assert_allclose(in_order.numpy(), expected, rtol=1e-12, atol=1e-14)
    Communicator(4, ledgers[1], exchange).aggregate(plain.encode(a), weights)
    assert ledgers[0].bytes_sent == ledgers[1].bytes_sent
    if values is None:
        np.testing.assert_array_equal(codec.decode(message).numpy(), sent)


def test_layers_and_feedback_around_it() -> None:
    """sum(sent) + residual = sum(a), with each tensor's own codec and senders' means."""
    a, weights = vectors(), torch.full((2,), 0.5, dtype=torch.float64)
    codec = ErrorFeedback(Layerwise(Chunked(k=0.05, combine="senders"), "layer", whole_below=71))
    made(codec)
    sent = torch.zeros_like(a)
    for _ in range(4):
        message = codec.encode(a)
        sent += codec.decode(message)
        aggregate = codec.reduce(message, weights)
    torch.testing.assert_close(sent + codec.residual, 4 * a, rtol=1e-9, atol=1e-9)
    bias = slice(70 * 130 + 66 * 18, J)
    torch.testing.assert_close(aggregate[bias], a[:, bias].mean(0))  # whole, so nobody leaves anything out


def test_what_is_sent_whole_leaves_the_others_their_tiles() -> None:
    a = vectors()
    plain, around = made(Chunked(k=5, chunk=256)), made(Layerwise(Chunked(k=5, chunk=256), "model", whole_below=71))
    end = 70 * 130 + 66 * 18
    assert torch.equal(around.decode(around.encode(a))[:, :end], plain.decode(plain.encode(a))[:, :end])


def test_warm_up_sends_more_of_every_chunk() -> None:
    codec = made(ErrorFeedback(Chunked(k=64), Feedback(warmup=1)))
    first, second = (codec.encode(vectors()) for _ in range(2))
    assert first.header["each"] == round(4096 * (64 / 4096) ** 0.5) == 512
    assert second.header["each"] == 64
    again = made(Chunked(k=64))
    assert torch.equal(again.decode(first), codec.decode(first)), "the message says how many"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": 0}, "k=0: not a share"),
        ({"k": 65, "chunk": 64}, "k=65: more than the 64 entries of a chunk; give at most 64"),
        ({"chunk": 0}, "chunk=0: must not be less than 1; "),
        ({"chunk": 1000}, "chunk=1000: no square, as tiles are; give 4096, or tiles=false"),
        ({"combine": "some"}, "combine=some: unknown; give all or senders"),
    ],
)
def test_refusals(fields: dict[str, int | str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Chunked(**fields)  # type: ignore[arg-type]
