"""The DCT around codecs: against scipy and the formula in NumPy; what carries over from the codec inside."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from registry import plan
from scipy.fft import dctn
from torch import Tensor

from commexp.check import run_checks
from commexp.comm import AGGREGATIONS, Communicator, Ledger, check_serves
from commexp.compressors import (
    DCT,
    FP16,
    Chunked,
    CodecContext,
    Compressor,
    ErrorFeedback,
    Feedback,
    KBit,
    Layerwise,
    Natural,
    NoCompression,
    PowerSGD,
    RandK,
    RegTopK,
    TopK,
)
from commexp.config.identity import what_decides
from commexp.config.messages import UserError

SHAPES = {"matrix": (20, 19), "kernel": (9, 2, 3, 3), "bias": (11,)}
J = 20 * 19 + 9 * 18 + 11


def vectors(workers: int = 2, dim: int = J) -> Tensor:
    return torch.randn(workers, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made(codec: Compressor) -> Compressor:
    codec.setup(CodecContext(shapes=SHAPES))
    return codec


def by_formula(v: np.ndarray) -> np.ndarray:
    n = len(v)
    scale = [math.sqrt((1 if i == 0 else 2) / n) for i in range(n)]
    return np.array(
        [scale[i] * sum(v[j] * math.cos(math.pi * (2 * j + 1) * i / (2 * n)) for j in range(n)) for i in range(n)]
    )


def coefficients(row: np.ndarray, side: int) -> np.ndarray:
    """Of one vector of SHAPES, each where its chunk lies."""
    out, start = np.empty_like(row), 0
    for shape in SHAPES.values():
        size = math.prod(shape)
        tensor = row[start : start + size].reshape(shape[0], -1) if len(shape) > 1 else row[None, start : start + size]
        target = np.empty_like(tensor)
        for i in range(0, tensor.shape[0], side):
            for j in range(0, tensor.shape[1], side):
                tile = np.s_[i : i + side, j : j + side]
                target[tile] = dctn(tensor[tile], norm="ortho")
        out[start : start + size] = target.ravel()
        start += size
    return out


def test_tiles_against_scipy() -> None:
    a, codec = vectors(), DCT(NoCompression(), chunk=8)
    made(codec)
    expected = np.stack([coefficients(row, 8) for row in a.numpy()])
    np.testing.assert_allclose(codec.forward(a).numpy(), expected, atol=1e-13)
    np.testing.assert_allclose(codec.forward(a[1]).numpy(), expected[1], atol=1e-13)
    torch.testing.assert_close(codec.inverse(codec.forward(a)), a, atol=1e-13, rtol=0)
    np.testing.assert_allclose(codec.forward(a).norm(dim=1), a.norm(dim=1), rtol=1e-13)


@pytest.mark.parametrize("known", [True, False])
def test_runs_against_the_formula(known: bool) -> None:
    """Where they are asked for, and where the tensors are not known; the last run is shorter."""
    a, codec = vectors(1, 50), DCT(NoCompression(), chunk=16, tiles=not known)
    codec.setup(CodecContext(shapes={"matrix": (10, 5)} if known else {}))
    expected = np.concatenate([by_formula(a[0, s : s + 16].numpy()) for s in (0, 16, 32, 48)])
    np.testing.assert_allclose(codec.forward(a)[0].numpy(), expected, atol=1e-13)


def test_the_largest_coefficients_are_kept() -> None:
    a, codec = vectors(), made(DCT(Chunked(k=5, chunk=64), chunk=8))
    inner = made(Chunked(k=5, chunk=64))
    spectrum = torch.from_numpy(np.stack([coefficients(row, 8) for row in a.numpy()]))
    kept = inner.decode(inner.encode(spectrum))
    message = codec.encode(a)
    torch.testing.assert_close(codec.forward(codec.decode(message)), kept, atol=1e-13, rtol=0)  # type: ignore[attr-defined]
    lost = (a - codec.decode(message)).square().sum(1) / a.square().sum(1)
    torch.testing.assert_close(lost, (spectrum - kept).square().sum(1) / a.square().sum(1))
    assert bool((lost <= 1 - codec.delta(J)).all())  # type: ignore[operator]
    assert message.sizes == [inner.payload(J, 8)] * 2


INNER: list[Callable[[], Compressor]] = [
    lambda: Chunked(k=5, combine="senders"),
    lambda: RandK(k=0.2),
    lambda: PowerSGD(rank=2),
    KBit,
    FP16,
    Natural,
]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("exchange", AGGREGATIONS)
def test_the_sum_is_the_inner_codecs_transformed_back(inner: Callable[[], Compressor], exchange: str) -> None:
    """Over every exchange that carries the messages; no shard of coefficients can be transformed back."""
    a, weights = vectors(3), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    codec, plain = made(DCT(inner(), chunk=8)), made(inner())
    if exchange not in ("all_gather", "server", "all_reduce") or (exchange == "all_reduce" and not plain.sums):
        with pytest.raises(ValueError, match=rf"^exchange={exchange}: "):
            check_serves(codec, exchange)
        return
    got = Communicator(3, Ledger(), exchange).aggregate(codec.encode(a), weights)
    spectrum = codec.forward(a)  # type: ignore[attr-defined]
    expected = codec.inverse(plain.reduce(plain.encode(spectrum), weights))  # type: ignore[attr-defined]
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_what_a_learning_codec_is_told_are_coefficients() -> None:
    a, weights = vectors(), torch.full((2,), 0.5, dtype=torch.float64)
    codec, plain = made(DCT(RegTopK(k=20), chunk=8)), made(RegTopK(k=20))
    for t in range(3):
        told = codec.reduce(codec.encode(a * (t + 1)), weights)
        codec.feedback(told, weights)
        spectrum = plain.reduce(plain.encode(codec.forward(a * (t + 1))), weights)  # type: ignore[attr-defined]
        plain.feedback(spectrum, weights)
        torch.testing.assert_close(told, codec.inverse(spectrum), atol=1e-12, rtol=0)  # type: ignore[attr-defined]


def test_feedback_and_layers_around_it() -> None:
    a = vectors()
    codec = made(ErrorFeedback(Layerwise(DCT(TopK(k=0.1), chunk=8), "layer", whole_below=12), Feedback(warmup=2)))
    sent = torch.zeros_like(a)
    for _ in range(5):
        sent += codec.decode(codec.encode(a))
    torch.testing.assert_close(sent + codec.residual, 5 * a, atol=1e-12, rtol=0)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="masking=True"):
        ErrorFeedback(DCT(TopK(k=0.1)), Feedback(momentum=0.9, masking=True))


def test_two_phases_are_checked_as_those_of_any_codec() -> None:
    assert [r for r in run_checks(lambda: DCT(PowerSGD(rank=1))) if r.reason is not None] == []


def test_on_the_command_line() -> None:
    words = ("compress=topk", "compress.k=0.1")
    plain = plan(*words)
    around: ErrorFeedback = plan(*words, "compress.transform.kind=dct", "compress.transform.chunk=32").compressor  # type: ignore[assignment]
    assert isinstance(around.codec, DCT)
    assert (around.codec.chunk, around.codec.tiles) == (32, True)
    decisive = what_decides(plain.resolved, {"algo": plain.algorithm}, {})["compress"]
    assert "scope" in decisive
    assert "transform" not in decisive, "runs have the names that they had before there was one"
    assert plan(*words, "compress.transform.kind=dct").name != plain.name
    assert isinstance(plan("compress=dct_chunked").compressor.codec, DCT)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("kind=x", "compress.transform.kind=x: unknown; give none or dct"),
        ("chunk=8", "compress.transform.kind=none: chunk and tiles have nothing to act on; give dct"),
        ("kind=dct compress.transform.chunk=0", "compress.transform.chunk=0: must not be less than 1; 64 is usual"),
    ],
)
def test_refusals(words: str, text: str) -> None:
    with pytest.raises(UserError) as refused:
        plan("compress=topk", *f"compress.transform.{words}".split())
    assert str(refused.value) == text
