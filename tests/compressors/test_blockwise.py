"""Codes of few bits with a scale for each block: against NumPy in float64, bytes and random draws by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from commexp.compressors import FP4, FP8, CodecContext, CorruptMessageError, ErrorFeedback, KBit
from commexp.compressors.blockwise import Blockwise
from commexp.compressors.counter import draws

Array = NDArray[np.float64]
CODECS: list[Blockwise] = [
    *(KBit(bits=bits, block=16) for bits in (1, 2, 4, 8)),
    *(KBit(bits=bits, block=16, levels="statistical", sigmas=2.5) for bits in (2, 8)),
    *(FP8(format=name, block=16) for name in ("e4m3", "e5m2")),
    *(FP4(format=name, block=16) for name in ("e2m1", "e3m0")),
]
FP4_NUMBERS = {"e2m1": [0, 0.5, 1, 1.5, 2, 3, 4, 6], "e3m0": [0, 0.25, 0.5, 1, 2, 4, 8, 16]}


def described(codec: Blockwise) -> str:
    return " ".join(str(v) for v in vars(codec).values() if isinstance(v, str | int))[:40]


def bf16(x: Array, up: bool = False) -> Array:
    """To the nearest, of two the even one; or to the next above."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.int64)
    bits = bits + 0xFFFF if up else bits + 0x7FFF + (bits >> 16 & 1)
    return (bits >> 16 << 16).astype(np.uint32).view(np.float32).astype(np.float64)


def numbers(codec: Blockwise) -> Array:
    """The levels in units of half the range."""
    if isinstance(codec, KBit):
        count = 2**codec.bits
        steps = count if codec.rounding == "nearest" else count - 1
        return (2 * np.arange(count) + 1 - count) / steps
    if isinstance(codec, FP4):
        v = np.array(FP4_NUMBERS[codec.format])
    else:
        assert isinstance(codec, FP8)
        kind = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}[codec.format]
        v = torch.arange(128, dtype=torch.uint8).view(kind).double().numpy()
        v = v[np.isfinite(v)]
    return np.concatenate([-v[::-1], v]) / v.max()


def ranges(codec: Blockwise, x: Array) -> tuple[Array, Array]:
    """Half width and centre for each entry."""
    r, c = np.empty_like(x), np.zeros_like(x)
    for row, rr, cc in zip(x, r, c, strict=True):
        for start in range(0, len(row), codec.block):
            here = slice(start, start + codec.block)
            if isinstance(codec, KBit) and codec.levels == "statistical":
                cc[here] = bf16(np.array([row[here].mean()]))
                rr[here] = bf16(np.array([codec.sigmas * np.sqrt(np.square(row[here] - cc[here]).mean())]), up=True)
            else:
                rr[here] = bf16(np.array([np.abs(row[here]).max()]), up=True)
    return r, c


def gaussian(workers: int, dim: int, seed: int = 0) -> Array:
    """Whose float32 are exact."""
    return np.random.default_rng(seed).standard_normal((workers, dim)).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("codec", CODECS, ids=described)
@pytest.mark.parametrize("dim", [16 * 9, 16 * 9 + 5])
def test_every_entry_becomes_the_nearest_level(codec: Blockwise, dim: int) -> None:
    x = gaussian(3, dim) + 0.3
    r, c = ranges(codec, x)
    levels = c[..., None] + r[..., None] * numbers(codec)
    nearest = np.take_along_axis(levels, np.abs(levels - x[..., None]).argmin(2)[..., None], 2)[..., 0]
    got = codec.decode(codec.encode(torch.from_numpy(x))).numpy()
    off, least = np.abs(got - x), np.abs(nearest - x)
    assert (off <= least + 2.0**-10 * np.abs(x) + 1e-12).all()  # those in the middle but for float16's rounding
    assert np.abs(got[..., None] - levels).min(2).max() < 1e-12
    assert (np.abs(got - nearest) < 1e-12).mean() > 0.99


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_bytes_by_hand(bits: int) -> None:
    """Entry i of a block of m is b bits of byte i mod p from bit b (i // p) on, p = ceil(m b / 8)."""
    codec, dim = KBit(bits=bits, block=24), 24 * 2 + 13
    x = gaussian(2, dim, seed=1)
    message = codec.encode(torch.from_numpy(x))
    r, _ = ranges(codec, x)
    codes = np.clip(np.floor((x / r + 1) / 2 * 2**bits), 0, 2**bits - 1).astype(int)
    expected = [bytearray() for _ in range(2)]
    for row, own in zip(codes, expected, strict=True):
        for start in range(0, dim, 24):
            block = row[start : start + 24]
            packed = bytearray(math.ceil(len(block) * bits / 8))
            for i, code in enumerate(block):
                packed[i % len(packed)] |= int(code) << bits * (i // len(packed))
            own += packed
    assert [row.tobytes() for row in message.buffers["codes"].numpy()] == [bytes(e) for e in expected]
    assert message.sizes == [codec.payload(dim, 8)] * 2 == [2 * 3 * bits + math.ceil(13 * bits / 8) + 3 * 2] * 2


def test_two_bits_are_a_sixteenth_of_fp32_and_the_scales() -> None:
    dim = 1_000 * 256
    sizes = {name: b.numel() * b.element_size() for name, b in KBit().encode(torch.ones(1, dim)).buffers.items()}
    assert sizes == {"codes": 4 * dim // 16, "scales": 2 * 1_000}
    assert KBit().payload(dim, 4) == 64_000 + 2_000 == 4 * dim / 16 * (1 + 1 / 32)
    assert KBit(levels="statistical").payload(dim, 4) == 64_000 + 4_000
    assert [KBit(bits=b).payload(dim, 4) - 2_000 for b in (1, 4, 8)] == [32_000, 128_000, 256_000]
    assert [FP4().payload(dim, 4), FP8().payload(dim, 4)] == [130_000, 258_000]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_stochastic_rounding_has_the_right_mean_and_variance(bits: int) -> None:
    codec = KBit(bits=bits, block=40, rounding="stochastic")
    x = gaussian(1, 100)
    levels, (r, _) = numbers(codec), ranges(codec, x)
    rows = torch.from_numpy(x).repeat(50, 1)
    seen = torch.cat([codec.decode(codec.encode(rows)) for _ in range(40)]).numpy()
    step = (levels[1] - levels[0]) * r[0]
    place = (seen / r[0] - levels[0]) / (levels[1] - levels[0])
    assert np.abs(place - place.round()).max() < 1e-9
    p = (x[0] / r[0] - levels[0]) / (levels[1] - levels[0]) % 1
    variance = p * (1 - p) * step**2
    assert np.abs((seen.mean(0) - x[0]) / np.sqrt(variance / len(seen) + (step / 2**16) ** 2)).max() < 4.5
    assert abs(seen.var(0).sum() / variance.sum() - 1) < 0.05
    off = seen.reshape(40, 50, 100) - x
    for one, other in ((off[:, :-1], off[:, 1:]), (off[:-1], off[1:])):  # neighbouring workers, rounds
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4.5 / math.sqrt(one.size)


def test_draws_by_numpy() -> None:
    seed, start, stop = 0x1234_5678_9ABC_DEF1, 1000, 3001
    i = np.arange(start // 2, 1501, dtype=np.uint64)
    x = (i * 0x1234_5679 + 0x9ABC_DEF1) % 2**32
    x = (x ^ x >> np.uint64(16)) * 0x7FEB352D % 2**32
    x = (x ^ x >> np.uint64(15)) * 0x846CA68B % 2**32
    x ^= x >> np.uint64(16)
    expected = x.astype("<u4").view("<i2")[: stop - start]
    assert np.array_equal(draws(seed, start, stop, torch.device("cpu")).numpy(), expected)


def test_draws_are_uniform_and_independent() -> None:
    """Of a stream and of streams side by side: values by a chi-square test of each byte, pairs by correlations."""
    count, cpu = 1 << 16, torch.device("cpu")
    streams = np.stack([draws(seed, 0, count, cpu).numpy() for seed in (0, 1, 2**33, 3 * 2**33, 7**20, 2**62 + 3)])
    for stream in streams:
        for octet in (stream & 255, stream >> 8 & 255):
            chi = np.square(np.bincount(octet, minlength=256) - count / 256).sum() / (count / 256)
            assert abs(chi - 255) < 5 * math.sqrt(2 * 255)
    allowed = 5 / math.sqrt(count)
    assert np.abs(np.corrcoef(streams) - np.eye(len(streams))).max() < allowed
    for lag in (1, 2, 3, 4, 8, 64, 256, 4096):
        for stream in streams:
            assert abs(np.corrcoef(stream[:-lag], stream[lag:])[0, 1]) < allowed
            assert abs(np.mean((stream[:-lag] ^ stream[lag:] & 1) & 1) - 0.5) < allowed  # the lowest bit


@pytest.mark.parametrize("codec", [*CODECS[:6], KBit(bits=4, block=16, rounding="stochastic")], ids=described)
def test_pieces_of_a_vector_are_encoded_alike(codec: Blockwise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is encoded together, and cut out of a message as it is encoded from its place in the vector."""
    dim, x = 16 * 40 + 3, torch.from_numpy(gaussian(3, 16 * 40 + 3)).float()
    seeds = [5, 6, 7] if codec.stochastic else []
    whole = codec.encode_stretch(x, seeds=seeds)
    monkeypatch.setattr("commexp.compressors.pieces.PIECE", 64)
    bounds = [0, 160, 160, 320, dim]
    for (a, b), cut in zip(pairwise(bounds), codec.cut(whole, bounds), strict=True):
        if a == b:
            continue
        alone = codec.encode_stretch(x[:, a:b], a, seeds)
        assert cut.dim == b - a
        assert {n: t.tolist() for n, t in cut.buffers.items()} == {n: t.tolist() for n, t in alone.buffers.items()}
        assert torch.equal(codec.decode(cut), codec.decode(whole)[:, a:b])


@pytest.mark.parametrize(
    "codec",
    [
        *(KBit(bits=b, block=8, rounding=how) for b in (2, 4, 8) for how in ("nearest", "stochastic")),
        *(KBit(bits=b, block=64, levels="statistical") for b in (4, 8)),
        *(KBit(bits=b, block=64, levels="statistical", rounding="stochastic") for b in (4, 8)),
        *(FP8(format=name) for name in ("e4m3", "e5m2")),
        *(FP4(format=name, block=b) for name in ("e2m1", "e3m0") for b in (8, 256)),
    ],
    ids=described,
)  # fmt: skip
def test_contracts_as_it_says_also_where_it_is_hardest(codec: Blockwise) -> None:
    delta, d = codec.delta(10**6), codec.block
    assert delta is not None
    levels = numbers(codec)
    middles = np.unique((levels[1:] + levels[:-1]) / 2)[:: 1 + len(levels) // 32]
    hard = np.zeros((len(middles) + 3, d))
    hard[: len(middles)] = middles[:, None] * (1 - 1e-3)
    hard[:-1, 0] = 1.0
    hard[-2, 0] = 100.0
    hard[-1] = gaussian(1, d)
    x = torch.from_numpy(hard).float().double()
    drawn = [codec.decode(codec.encode(x)) for _ in range(20 if codec.stochastic else 1)]
    lost = torch.stack([(x - got).square().sum(1) / x.square().sum(1) for got in drawn])
    assert float((lost.mean(0) - 5 * lost.std(0, correction=0) / math.sqrt(len(drawn))).max()) <= 1 - delta
    assert float(lost.mean(0).max()) > 0.2 * (1 - delta)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_residual_stays_within_what_is_given(bits: int) -> None:
    """max |e| <= max |g| / (L - 1), on vectors of one large entry in a block, which do not contract in norm."""
    fed, largest = ErrorFeedback(KBit(bits=bits, block=64)), 0.0
    assert fed.codec.delta(64) is None or bits == 4
    rng = np.random.default_rng(0)
    for _ in range(60):
        g = np.where(rng.random((1, 640)) < 0.02, rng.choice([-1.0, 1.0], (1, 640)), 0.0)
        fed.encode(torch.from_numpy(g))
        assert fed.residual is not None
        largest = max(largest, float(fed.residual.abs().max()))
    assert 0.1 / (2**bits - 1) < largest <= (1 + 2**-6) / (2**bits - 1)


@pytest.mark.parametrize(
    ("codec", "given"),
    [
        (KBit(rounding="stochastic"), ""),
        (KBit(bits=4, rounding="stochastic"), "block=104"),
        (KBit(bits=1, levels="statistical"), "sigmas=2"),
        (KBit(bits=2, levels="statistical", rounding="stochastic"), "sigmas=3"),
    ],
)
def test_error_feedback_is_refused_around_what_expands(codec: KBit, given: str) -> None:
    with pytest.raises(ValueError, match=r"^error_feedback=true: KBit .*; give error_feedback=false") as refused:
        ErrorFeedback(codec)
    assert str(refused.value).endswith(f", or {given}" if given else "false")
    if given:
        name, _, value = given.partition("=")
        changed: Any = {name: type(getattr(codec, name))(value)}
        x, fed = torch.from_numpy(gaussian(1, 2000)), ErrorFeedback(replace(codec, **changed))
        for _ in range(100):
            fed.encode(x)
        assert fed.residual is not None
        assert float(fed.residual.norm() / x.norm()) < 10


@pytest.mark.parametrize(
    ("make", "fields", "words"),
    [
        (KBit, {"bits": 3}, "bits=3: .*; give 1, 2, 4 or 8"),
        (KBit, {"block": 12}, "block=12: must be a multiple of 8, 8 to 4096; 256 is usual"),
        (FP8, {"block": 8192}, "block=8192: "),
        (KBit, {"levels": "max"}, "levels=max: unknown; give uniform or statistical"),
        (KBit, {"rounding": "up"}, "rounding=up: unknown; give nearest or stochastic"),
        (KBit, {"sigmas": 0.0}, "sigmas=0.0: must be positive"),
        (FP8, {"format": "e2m1"}, "format=e2m1: unknown; give e4m3 or e5m2"),
        (FP4, {"format": "e4m3"}, "format=e4m3: unknown; give e2m1 or e3m0"),
    ],
)
def test_fields_out_of_range(make: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        make(**fields)


def test_scales_and_codes_that_no_encoder_writes() -> None:
    x = torch.ones(1, 300)
    for codec in (KBit(levels="statistical"), FP8(), FP8(format="e5m2")):
        message = codec.encode(x)
        spoilt = [("scales", float("nan")), ("scales", -1.0), ("scales", math.inf)]
        spoilt += [("codes", 0x7F)] if isinstance(codec, FP8) else [("centres", math.inf)]
        for name, value in spoilt:
            buffer = message.buffers[name].clone()
            buffer[0, -1] = value
            with pytest.raises(CorruptMessageError, match=f"^{name}: one is"):
                codec.decode(replace(message, buffers={**message.buffers, name: buffer}))


def test_extremes_of_the_range() -> None:
    x = torch.tensor([[3.4e38, -3.4e38, 1.0, 0.0], [1e-34, -1e-35, 0.0, 0.0]]).repeat(1, 2)
    for codec in (KBit(bits=8, block=8), FP8(block=8), FP4(block=8), KBit(block=8, levels="statistical")):
        codec.setup(CodecContext())
        got = codec.decode(codec.encode(x))
        assert bool(got.isfinite().all())
        assert float((got[0, :2] / x[0, :2] - 1).abs().max()) < (0.3 if codec.bits < 4 else 0.01)
        assert float(got[1].abs().max()) <= 1e-34 * codec.centred
    wide = torch.tensor([[1e300, -1.0] * 4], dtype=torch.float64)
    assert float(KBit(bits=8, block=8).decode(KBit(bits=8, block=8).encode(wide))[0, 0]) > 3.3e38
