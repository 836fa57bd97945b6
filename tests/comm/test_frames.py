"""Frames: they describe themselves, whoever reads them; and what no encoder made is refused, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from commexp.check.drive import exchange, fresh, normal
from commexp.check.fuzz import corrupt_frames, corrupt_messages
from commexp.comm.frames import bundle, pack_frames, unbundle, unpack_frames
from commexp.compressors import (
    QSGD,
    Composition,
    Compressor,
    CorruptMessageError,
    ErrorFeedback,
    Feedback,
    Int8,
    Layerwise,
    Message,
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

WARM = Feedback(warmup=5)
CODECS: dict[str, Callable[[], Compressor]] = {
    "dense": lambda: ErrorFeedback(NoCompression()),
    "onebit": lambda: OneBit(bound="fixed"),
    "vote": lambda: ErrorFeedback(Sign(vote=True)),
    "terngrad": TernGrad,
    "int8": lambda: Int8(block=7),
    "elias": lambda: QSGD(coding="elias"),
    "threshold": lambda: ErrorFeedback(Threshold(t=1.0, adaptive=False)),
    "regtopk": lambda: ErrorFeedback(RegTopK(k=0.1)),
    "topk in warm-up": lambda: ErrorFeedback(TopK(k=0.1), WARM),
    "randk in warm-up": lambda: ErrorFeedback(RandK(k=0.1), WARM),
    "masking": lambda: ErrorFeedback(TopK(k=4), Feedback(momentum=0.9, masking=True)),
    "composition": lambda: ErrorFeedback(Composition(TopK(k=0.2), QSGD(127, coding="elias")), WARM),
    "two compositions": lambda: Composition(TopK(k=0.5), Composition(RandK(k=0.5), Natural())),
    "layers": lambda: ErrorFeedback(Layerwise(Composition(RandK(k=0.2), Sign()), whole_below=101), WARM),
    "layers of other lengths": lambda: Layerwise(Threshold(), whole_below=101),
    "powersgd": lambda: ErrorFeedback(PowerSGD(rank=1)),
}


@pytest.mark.parametrize("name", [name for name in CODECS if name != "powersgd"])  # which needs all to be in step
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whoever_has_encoded_nothing_reads_them(name: str, dtype: torch.dtype) -> None:
    """Round after round of a warm-up, of which the reader misses one."""
    dim = 1000
    writer, reader = fresh(CODECS[name], dim), fresh(CODECS[name], dim)
    for t in range(4):
        message = writer.encode(normal(t, 3, dim, dtype))
        frames = pack_frames(message, torch.tensor([0.5, 0.25, 2.0]))
        if t == 1:
            continue
        found, weights = unpack_frames(frames[1:], Message({}, dim, dtype, 0.0, reader))
        assert torch.equal(reader.decode(found), writer.decode(message)[1:])
        assert (found.nbytes, weights.tolist()) == (sum(message.sizes[1:]), [0.25, 2.0]), "no byte of a header counts"
        assert found.info_bits == pytest.approx(message.info_bits * 2 / 3)


def test_a_frame_by_hand() -> None:
    (frame,) = pack_frames(TopK(k=2).encode(torch.tensor([[0.0, 3.0, 0.0, -1.0, 0.5]])), torch.ones(1))
    described = b"\x05\0\0\0\0\0\0\0" + b"\x08\x01" + b"\0\0\x02\0"
    described += b"\x07indices\x01\0\x01" + b"\x02\0\0\0\0\0\0\0" + b"\x06values\x08\0\x01" + b"\x02\0\0\0\0\0\0\0"
    octets = bytes(frame.tolist())
    assert octets[: 4 + len(described)] == len(described).to_bytes(4, "little") + described
    assert octets[4 + len(described) + 16 :] == b"\0\x50" + torch.tensor([3.0, -1.0]).numpy().tobytes()


@pytest.mark.parametrize("name", CODECS)
def test_mutations_are_refused_or_read(name: str) -> None:
    dim = 1000 if "layer" in name else 256 if name == "powersgd" else 40
    counts = corrupt_frames(CODECS[name], dim, 300)
    assert min(counts.values()) > 0
    corrupt_messages(CODECS[name], dim, 100)


DTYPES = [torch.int64, torch.bool, torch.uint8]


@pytest.mark.parametrize("name", CODECS)
def test_what_a_message_says_of_itself(name: str) -> None:
    dim = 1000 if "layer" in name else 256 if name == "powersgd" else 40
    codec = fresh(CODECS[name], dim)
    message = exchange(codec, normal(0, 2, dim)).messages[-1]
    first = next(iter(message.buffers))
    spoilt = [{"dim": n} for n in (-1, -5, -(2**40))] + [{"dtype": d} for d in DTYPES]
    spoilt += [{"buffers": {**message.buffers, first: b}} for b in (message.buffers[first][:0], torch.zeros(()))]
    for change in spoilt:
        with pytest.raises(CorruptMessageError):
            codec.decode(replace(message, **change))  # type: ignore[arg-type]


def test_what_is_no_frame_at_all() -> None:
    like = TopK(k=2).encode(normal(0, 2, 40))
    one, other = pack_frames(like, torch.ones(2))
    nan = pack_frames(like, torch.tensor([1.0, float("nan")]))
    for frames in ([], [one, other[:-1]], [one[:3]], [one.float()], [one[None]], [other.new_empty(0)], nan):
        with pytest.raises(CorruptMessageError):
            unpack_frames(frames, like)
    for elsewhere in (replace(like, dim=41), replace(like, dtype=torch.float64)):
        with pytest.raises(CorruptMessageError, match=r"a frame for 40 numbers of torch\.float32; must be"):
            unpack_frames([one], elsewhere)
    piece = bundle([one, other])
    for spoilt, workers in ((piece, 0), (piece, 1), (piece, 3), (piece[:-1], 2), (piece[:5], 2), (piece.long(), 2)):
        with pytest.raises(CorruptMessageError):
            unbundle(spoilt, workers)
