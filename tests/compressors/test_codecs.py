"""Each codec against a reference in NumPy float64, or against what its paper proves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from commexp.compressors import (
    BF16,
    FP16,
    QSGD,
    CodecContext,
    Composition,
    Compressor,
    ErrorFeedback,
    Feedback,
    Int8,
    Layerwise,
    Natural,
    NoCompression,
    OneBit,
    PowerSGD,
    RandK,
    RegTopK,
    Sign,
    TernGrad,
    Threshold,
    TopK,
)


def gradient(workers: int = 3, dim: int = 600, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(workers, dim, generator=g, dtype=torch.float64)


def there_and_back(codec: Compressor, a: Tensor) -> Tensor:
    return codec.decode(codec.encode(a))


def draws(codec: Compressor, a: Tensor, number: int = 3000) -> Tensor:
    """One vector as fifty workers send it in round after round, decoded, [number, J]."""
    return torch.cat([there_and_back(codec, a[:1].repeat(50, 1)) for _ in range(number // 50)])


@pytest.mark.parametrize(("codec", "digits"), [(FP16(), 11), (BF16(), 8)])
def test_casts_round_to_nearest_and_saturate(codec: Compressor, digits: int) -> None:
    a = gradient().float()
    assert float(((there_and_back(codec, a) - a) / a).abs().max()) <= 2.0**-digits
    huge = torch.tensor([[3e38, -3.4e38, 1.0]])
    largest = torch.finfo(torch.float16 if isinstance(codec, FP16) else torch.bfloat16).max
    torch.testing.assert_close(there_and_back(codec, huge), huge.clamp(-largest, largest), rtol=2.0**-digits, atol=0.0)


def test_sign_is_the_mean_magnitude_with_the_sign() -> None:
    a = gradient().numpy()
    expected = np.where(a < 0, -1, 1) * np.abs(a).mean(1, keepdims=True)
    np.testing.assert_allclose(there_and_back(Sign(), torch.from_numpy(a)).numpy(), expected, rtol=1e-12)
    error, norm1 = np.square(a - expected).sum(1), np.abs(a).sum(1)
    np.testing.assert_allclose(error, np.square(a).sum(1) - norm1**2 / a.shape[1], rtol=1e-9)


def test_majority_vote() -> None:
    a = torch.tensor([[1.0, -2.0, 3.0], [1.0, 2.0, -3.0], [-1.0, 2.0, 3.0]])
    weights = torch.full((3,), 1 / 3)
    for codec, scale in ((Sign(vote=True), 2 * (1 + 1 + 1) / 3), (Sign(vote=True, scaled=False), 1.0)):
        torch.testing.assert_close(codec.reduce(codec.encode(a), weights), torch.full((3,), scale))
    tie = Sign(vote=True)
    assert tie.reduce(tie.encode(a[:2]), torch.full((2,), 0.5)).tolist()[1] == 0


@pytest.mark.parametrize(
    ("codec", "variance"),
    [
        (OneBit(), lambda a: a.abs().max() ** 2 - a**2),
        (OneBit(bound="fixed", B=9.0), lambda a: 81 - a**2),
        (TernGrad(), lambda a: a.abs().max() * a.abs() - a**2),
    ],
)
def test_variance_by_formula(codec: Compressor, variance: Callable[[Tensor], Tensor]) -> None:
    a = gradient(1, 40)
    seen = draws(codec, a)
    expected = variance(a[0])
    mean_error = (seen.mean(0) - a[0]).abs() / (expected.clamp_min(1e-12) / len(seen)).sqrt()
    assert float(mean_error.max()) < 5
    assert float((seen.var(0).sum() / expected.sum() - 1).abs()) < 0.05


def test_onebit_with_a_fixed_bound_sends_j_bits() -> None:
    assert OneBit(bound="fixed").payload(8000, 4) == 1000
    assert OneBit(bound="fixed").encode(gradient(2, 8000)).sizes == [1000, 1000]


@pytest.mark.parametrize("coding", ["fixed", "elias"])
@pytest.mark.parametrize("levels", [1, 4, 7, 127])
def test_qsgd_stays_on_its_levels_and_within_its_variance(coding: str, levels: int) -> None:
    codec, d = QSGD(levels=levels, bucket=100, coding=coding), 100
    a = gradient(1, 250)
    seen = draws(codec, a, 600)
    for start in (0, 100, 200):
        v, got = a[0, start : start + d], seen[:, start : start + d]
        norm = v.norm()
        steps = got / norm * levels
        torch.testing.assert_close(steps, steps.round(), atol=1e-9, rtol=0)
        bound = min(len(v) / levels**2, math.sqrt(len(v)) / levels) * norm**2
        assert float((got - v).square().sum(1).mean()) <= 1.05 * bound
        down = (v.abs() / norm * levels) % 1
        spread = (down * (1 - down)).sqrt() * norm / levels
        assert bool(((got.mean(0) - v).abs() <= 5 * spread / math.sqrt(600) + norm / levels / 100).all())


def test_both_codings_of_qsgd_decode_to_the_same() -> None:
    a = gradient(2, 1000).float()
    assert torch.equal(*(there_and_back(QSGD(coding=c), a) for c in ("fixed", "elias")))


def test_natural_rounds_to_powers_of_two_within_nine_eighths() -> None:
    a = gradient(1, 60)
    seen = draws(Natural(), a, 2000)
    assert bool((seen.abs().log2() % 1 == 0).all())
    assert float((seen.mean(0) - a[0]).abs().max()) < 0.1
    assert float(seen.square().sum(1).mean()) <= 9 / 8 * float(a.square().sum()) * 1.01


def test_int8_against_numpy() -> None:
    a = gradient(2, 1000).numpy()
    padded = np.pad(a, ((0, 0), (0, 24))).reshape(2, 4, 256)
    largest = np.abs(padded).max(2, keepdims=True)
    expected = (np.round(padded / largest * 127) / 127 * largest).reshape(2, -1)[:, :1000]
    np.testing.assert_allclose(there_and_back(Int8(), torch.from_numpy(a)).numpy(), expected, rtol=1e-12)


def test_threshold_looks_at_magnitudes_and_sends_nothing_for_nothing() -> None:
    a = torch.tensor([[-4.0, -1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, -1.0]])
    assert there_and_back(Threshold(t=0.5), a).tolist() == [[-4, 0, 3, 0], [0, 0, 0, 0], [1, 1, 1, -1]]
    fixed = Threshold(t=2.0, adaptive=False)
    assert there_and_back(fixed, a).tolist() == [[-4, 0, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert fixed.encode(a).sizes == [1 + 2 + 2 * 4 - 1, 1, 1]  # a bitmap of four bits is a byte


def test_randk_draws_every_entry_equally_often_and_without_replacement() -> None:
    for codec, workers in ((RandK(k=5), 1), (RandK(k=5, shared=False), 10)):
        sets = [codec.places(codec.encode(gradient(workers, 20))) for _ in range(2000 // workers)]
        assert all(len(set(row)) == 5 for s in sets for row in s.tolist())
        counts = torch.bincount(torch.cat(sets).flatten(), minlength=20)
        assert float((counts - 500).abs().max()) < 5 * math.sqrt(2000 * 0.25 * 0.75)


def test_randk_shared_or_not() -> None:
    a = gradient(4, 100)
    shared, own = RandK(k=10), RandK(k=10, shared=False)
    assert len({tuple(p) for p in shared.places(shared.encode(a)).tolist()}) == 1
    assert len({tuple(p) for p in own.places(own.encode(a)).tolist()}) == 4
    assert set(shared.encode(a).buffers) == {"values"}


def matrices(workers: int = 2) -> tuple[Tensor, CodecContext]:
    return gradient(workers, 20 * 12 + 20 * 12 + 7 + 30 * 10), CodecContext(
        shapes={"a": (20, 12), "b": (20, 3, 4), "bias": (7,), "c": (30, 10)}
    )


def test_powersgd_against_the_paper_by_hand() -> None:
    a, setup = matrices()
    codec = PowerSGD(rank=2)
    codec.setup(setup)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    codec.encode(a)
    q = {i: m.clone().numpy() for i, m in enumerate(codec._starts(a))}
    blocks = {0: [(0, 20, 12), (240, 20, 12)], 1: [(487, 30, 10)]}
    for _ in range(3):
        message = codec.encode(a)
        got = codec.reduce(message, weights).numpy()
        expected = np.zeros(a.shape[1])
        expected[480:487] = weights.numpy() @ a[:, 480:487].numpy()
        for i, places in blocks.items():
            for layer, (start, m, n) in enumerate(places):
                each = a[:, start : start + m * n].view(2, m, n).numpy()
                p = np.linalg.qr(sum(w * x @ q[i][layer] for w, x in zip(weights.numpy(), each, strict=True)))[0]
                new = sum(w * x.T @ p for w, x in zip(weights.numpy(), each, strict=True))
                expected[start : start + m * n] = (p @ new.T).ravel()
                q[i][layer] = new
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_powersgd_finds_a_matrix_of_its_rank_and_the_rank_counts() -> None:
    g = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 40, 3, generator=g, dtype=torch.float64)
    low = (left[:30] @ right.T).reshape(1, -1)
    errors, sizes = [], []
    for rank in (1, 2, 3):
        codec = PowerSGD(rank=rank)
        codec.setup(CodecContext(shapes={"w": (30, 40)}))
        for _ in range(4):
            out = codec.reduce(codec.encode(low), torch.ones(1, dtype=torch.float64))
        errors.append(float((out - low[0]).norm() / low.norm()))
        sizes.append(codec.payload(1200, 4))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-10
    assert sizes == [280, 560, 840]


def test_composition_is_one_after_the_other() -> None:
    a = gradient(3, 500)
    codec = Composition(TopK(k=50), Int8())
    top = TopK(k=50)
    picked = top.encode(a)
    expected = torch.zeros_like(a).scatter(1, top.places(picked), there_and_back(Int8(), picked.buffers["values"]))
    assert torch.equal(there_and_back(codec, a), expected)
    assert codec.encode(a).sizes == [codec.payload(500, 8)] * 3


@pytest.mark.parametrize(("entries", "values"), [(Sign(), QSGD()), (TopK(), PowerSGD())])
def test_compositions_that_make_no_sense(entries: Compressor, values: Compressor) -> None:
    with pytest.raises(ValueError, match=r"does not pick k entries|needs two exchanges"):
        Composition(entries, values)


def test_regtopk_learns_from_the_values_that_travelled() -> None:
    codec = Composition(RegTopK(k=4), Int8(block=2))
    a = gradient(2, 50)
    message = codec.encode(a)
    assert torch.equal(codec.entries._memory["values"], codec._picked(message).buffers["values"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_layers_one_by_one_and_small_tensors_whole(scope: str) -> None:
    a, setup = matrices()
    codec = Layerwise(TopK(k=0.1), scope, whole_below=10)
    codec.setup(setup)
    decoded = there_and_back(codec, a)
    assert torch.equal(decoded[:, 480:487], a[:, 480:487])
    if scope == "layer":
        for start, size in ((0, 240), (240, 240), (487, 300)):
            piece = a[:, start : start + size]
            assert torch.equal(decoded[:, start : start + size], there_and_back(TopK(k=0.1), piece))
    else:
        rest = torch.cat([a[:, :480], a[:, 487:]], dim=1)
        assert torch.equal(torch.cat([decoded[:, :480], decoded[:, 487:]], dim=1), there_and_back(TopK(k=0.1), rest))
    assert codec.encode(a).sizes == [codec.payload(787, 8)] * 2


@pytest.mark.parametrize("inner", [TopK, RegTopK, Natural, RandK, lambda: Sign(vote=True), Threshold, NoCompression])
@pytest.mark.parametrize("scope", ["layer", "model"])
def test_layerwise_telescopes_around_any_codec(inner: Callable[[], Compressor], scope: str) -> None:
    a, setup = matrices()
    codec = ErrorFeedback(Layerwise(inner(), scope, whole_below=10))
    codec.setup(setup)
    sent, weights = torch.zeros_like(a), torch.full((2,), 0.5, dtype=torch.float64)
    for _ in range(5):
        message = codec.encode(a)
        sent += codec.decode(message)
        codec.feedback(codec.reduce(message, weights), weights)
    torch.testing.assert_close(sent + codec.residual, 5 * a, rtol=1e-9, atol=1e-9)


def test_state_of_layers_that_share_memory_can_be_saved() -> None:
    a, setup = matrices()
    codec, weights = ErrorFeedback(Layerwise(RegTopK(k=0.1))), torch.full((2,), 0.5, dtype=torch.float64)
    codec.setup(setup)
    codec.feedback(codec.reduce(codec.encode(a), weights), weights)
    state = load(save(codec.state_dict()))
    for layer in ("0", "3"):
        assert torch.equal(state[f"codec.{layer}.workers.weights"], weights)


def test_a_layer_with_fewer_entries_than_k_is_refused() -> None:
    _, setup = matrices()
    codec = Layerwise(TopK(k=50), "layer")
    codec.setup(setup)
    with pytest.raises(ValueError, match="k=50: more entries than the 7"):
        codec.payload(787, 4)


def test_momentum_correction_and_masking_against_numpy() -> None:
    """arXiv 1712.01887, algorithm 1 with the momentum correction of section 3.1, line by line."""
    m, k, a = 0.9, 7, gradient(1, 60)
    codec = ErrorFeedback(TopK(k=k), Feedback(momentum=m, masking=True))
    u, v = np.zeros(60), np.zeros(60)
    for t in range(12):
        g = gradient(1, 60, seed=t)
        u = m * u + g[0].numpy()
        v = v + u
        top = np.argsort(-np.abs(v), kind="stable")[:k]
        sent = np.zeros(60)
        sent[top] = v[top]
        u[top] = v[top] = 0
        np.testing.assert_allclose(codec.decode(codec.encode(g))[0].numpy(), sent, rtol=1e-10, atol=1e-12)
    assert a.shape == (1, 60)


def test_decay_and_warm_up() -> None:
    codec = ErrorFeedback(TopK(k=1), Feedback(decay=0.5))
    a = torch.tensor([[4.0, 2.0]])
    codec.encode(a)
    assert codec.residual is not None
    assert codec.residual.tolist() == [[0, 1]]
    warm = ErrorFeedback(TopK(k=0.001), Feedback(warmup=2))
    sent = [warm.encode(gradient(1, 1000)).buffers["values"].shape[1] for _ in range(4)]
    assert sent == [100, 10, 1, 1]
    again = ErrorFeedback(TopK(k=0.001), Feedback(warmup=2))
    again.load_state_dict({"round": torch.tensor(1)})
    assert again.encode(gradient(1, 1000)).buffers["values"].shape[1] == 10
