"""Messages as bytes between processes, one frame for each worker.

A frame describes itself, so that a process can read it without a message of its own to compare it with:

    n, int32            length of the description
    description         J, the type it decodes to, whether it is the last message, the message's own header, and
                        of each buffer its name, type and shape: the same for all workers
    weight, float64     of the worker in the aggregate
    bits, float64       of information
    counts, int64       how many elements follow of each buffer whose length differs from worker to worker
    buffers             the payload

What stands before the payload is transport overhead, as the headers of TCP are, and not counted as sent.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from commexp.compressors import CorruptMessageError, Message

TYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
)  # fmt: skip
FIXED = struct.Struct("<qBBHH")  # J, type, last, numbers in the header, buffers
BUFFER = struct.Struct("<BBB")  # type, whether its length differs from worker to worker, axes
LENGTH, NUMBER, EIGHT = struct.Struct("<i"), struct.Struct("<q"), 8


class Description(NamedTuple):
    """What all frames of a message have in common. ``buffers``: name, type and shape of a worker's row; no shape where
    a count follows."""

    dim: int
    dtype: torch.dtype
    last: bool
    header: dict[str, int]
    buffers: tuple[tuple[str, torch.dtype, tuple[int, ...] | None], ...]

    @property
    def ragged(self) -> list[str]:
        return [name for name, _, shape in self.buffers if shape is None]


def pack_frames(message: Message, weights: Tensor) -> list[Tensor]:
    """The frames of W workers, uint8 [bytes] each; all of one length if no buffer's length differs."""
    described = _describe(message)
    buffers, device = message.buffers, next(iter(message.buffers.values())).device
    start = torch.frombuffer(bytearray(LENGTH.pack(len(described)) + described), dtype=torch.uint8).to(device)
    numbers = torch.empty(message.workers, 2, dtype=torch.float64)
    numbers[:, 0], numbers[:, 1] = weights, message.info_bits / message.workers
    heads = torch.cat([start.expand(message.workers, -1), numbers.view(torch.uint8).to(device)], dim=1)
    if not message.lengths:
        return list(torch.cat([heads, *(_rows(b) for b in buffers.values())], dim=1))
    ragged = [name for name in buffers if name in message.lengths]
    counts = torch.tensor(list(zip(*(message.lengths[name] for name in ragged), strict=True)), dtype=torch.int64)
    heads = torch.cat([heads, counts.view(torch.uint8).to(device)], dim=1)
    frames = []
    for w, head in enumerate(heads):
        rows = [message.row(n, w) if n in message.lengths else b[w] for n, b in buffers.items()]
        frames.append(torch.cat([head, *(_rows(r[None])[0] for r in rows)]))
    return frames


def unpack_frames(frames: Sequence[Tensor], like: Message) -> tuple[Message, Tensor]:
    """Frames of any number of workers -> their messages and weights. ``like``: says which codec reads them, for
    vectors of which length and type; its buffers do not matter. Raises CorruptMessageError for what ``pack_frames``
    cannot have made of messages for such vectors."""
    if not frames or any(f.dtype != torch.uint8 or f.ndim != 1 for f in frames):
        raise CorruptMessageError("frames are rows of bytes")
    description, start = _read_description(frames[0])
    if (description.dim, description.dtype) != (like.dim, like.dtype):
        raise CorruptMessageError(
            f"a frame for {description.dim} numbers of {description.dtype}; must be for {like.dim} of {like.dtype}"
        )
    behind = start + EIGHT * (2 + len(description.ragged))
    if any(len(f) < behind for f in frames):
        raise CorruptMessageError(f"a frame of {min(map(len, frames))} bytes ends before its payload")
    heads = torch.stack([f[:behind] for f in frames]).cpu()
    if not torch.equal(heads[:, :start], heads[:1, :start].expand(len(frames), -1)):
        raise CorruptMessageError("the frames are described differently")
    numbers = _typed(heads[:, start : start + 2 * EIGHT], torch.float64)
    weights, bits = numbers[:, 0], float(numbers[:, 1].sum())
    if not (bool(weights.isfinite().all()) and bool((numbers[:, 1] >= 0).all()) and math.isfinite(bits)):
        raise CorruptMessageError("a frame's weight or information is no number")
    counts = dict(zip(description.ragged, _typed(heads[:, start + 2 * EIGHT :], torch.int64).T.tolist(), strict=True))
    buffers = _ragged(frames, description, behind, counts) if counts else _even(frames, description, behind)
    message = replace(
        like, buffers=buffers, info_bits=bits, lengths=counts, header=dict(description.header), last=description.last
    )
    return message, weights.to(frames[0].device, like.dtype)


def _even(frames: Sequence[Tensor], description: Description, start: int) -> dict[str, Tensor]:
    if len({len(f) for f in frames}) > 1:
        raise CorruptMessageError("frames differ in length, and do not say that they do")
    block, buffers = torch.stack(list(frames)), {}
    for name, dtype, shape in description.buffers:
        assert shape is not None
        end = start + math.prod(shape) * dtype.itemsize
        if end > block.shape[1]:
            raise CorruptMessageError(f"{name}: the frame of {block.shape[1]} bytes ends before it")
        buffers[name] = _typed(block[:, start:end], dtype).view(len(block), *shape)
        start = end
    _check_end(start, block.shape[1])
    return buffers


def _ragged(
    frames: Sequence[Tensor], description: Description, begin: int, counts: dict[str, list[int]]
) -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {name: [] for name, _, _ in description.buffers}
    for w, frame in enumerate(frames):
        start = begin
        for name, dtype, shape in description.buffers:
            count = counts[name][w] if shape is None else math.prod(shape)
            end = start + count * dtype.itemsize
            if not start <= end <= len(frame):
                raise CorruptMessageError(f"{name}: {count} elements in a frame of {len(frame)} bytes")
            row = _typed(frame[start:end][None], dtype)[0]
            rows[name].append(row if shape is None else row.view(shape))
            start = end
        _check_end(start, len(frame))
    return {
        name: torch.nn.utils.rnn.pad_sequence(r, batch_first=True) if name in counts else torch.stack(r)
        for name, r in rows.items()
    }


def _describe(message: Message) -> bytes:
    header, buffers = message.header, message.buffers
    out = [FIXED.pack(message.dim, TYPES.index(message.dtype), message.last, len(header), len(buffers))]
    for name, number in header.items():
        out += [_named(name), NUMBER.pack(number)]
    for name, b in buffers.items():
        shape = () if name in message.lengths else b.shape[1:]
        out += [_named(name), BUFFER.pack(TYPES.index(b.dtype), name in message.lengths, len(shape))]
        out += [NUMBER.pack(n) for n in shape]
    return b"".join(out)


def _named(name: str) -> bytes:
    return struct.pack("<B", len(name.encode())) + name.encode()


def _read_description(frame: Tensor) -> tuple[Description, int]:
    """What a frame's description says, and where it ends."""
    start = LENGTH.size
    (length,) = LENGTH.unpack(_octets(frame[:start])) if len(frame) >= start else (-1,)
    if not 0 <= length <= len(frame) - start:
        raise CorruptMessageError(f"a frame of {len(frame)} bytes cannot begin with a description of {length}")
    return _parse(_octets(frame[start : start + length])), start + length


@lru_cache(maxsize=64)  # they are the same round after round
def _parse(octets: bytes) -> Description:
    at = 0

    def take(form: struct.Struct) -> tuple[int, ...]:
        nonlocal at
        at += form.size
        return form.unpack_from(octets, at - form.size)

    def name() -> str:
        nonlocal at
        (length,) = take(struct.Struct("<B"))
        at += length
        text = octets[at - length : at].decode()
        if len(text.encode()) != length:
            raise ValueError("a name is cut short")
        return text

    try:
        dim, dtype, last, numbers, count = take(FIXED)
        header = {name(): take(NUMBER)[0] for _ in range(numbers)}
        buffers = []
        for _ in range(count):
            called, (kind, ragged, axes) = name(), take(BUFFER)
            shape = tuple(take(NUMBER)[0] for _ in range(axes))
            if min(shape, default=0) < 0 or math.prod(max(1, n) for n in shape) >= 2**48 or (ragged and axes):
                raise ValueError(f"{called}: no shape")
            buffers.append((called, TYPES[kind], None if ragged else shape))
        description = Description(dim, TYPES[dtype], bool(last), header, tuple(buffers))
        if at != len(octets) or max(last, 0) > 1 or len(header) != numbers:
            raise ValueError("longer or shorter than what it says")
        if not buffers or len({called for called, _, _ in buffers}) != count:
            raise ValueError("no buffers, or two of one name")
    except (struct.error, ValueError, IndexError) as error:  # UnicodeDecodeError is a ValueError
        raise CorruptMessageError(f"a frame's description cannot be read: {error}") from error
    return description


def bundle(frames: Sequence[Tensor]) -> Tensor:
    """The frames of W workers as one piece, uint8: their lengths (int64 each) first."""
    lengths = torch.tensor([len(f) for f in frames], dtype=torch.int64, device=frames[0].device)
    return torch.cat([lengths.view(torch.uint8), *frames])


def unbundle(piece: Tensor, workers: int) -> list[Tensor]:
    """What ``bundle`` put together. Raises CorruptMessageError for a piece that it cannot have made."""
    if workers < 1 or piece.dtype != torch.uint8 or piece.ndim != 1:
        raise CorruptMessageError(f"{list(piece.shape)} of {piece.dtype} are not the frames of {workers} workers")
    head = workers * torch.int64.itemsize
    lengths = _typed(piece[None, :head], torch.int64)[0].tolist() if len(piece) >= head else []
    if len(lengths) != workers or min(lengths) < 0 or head + sum(lengths) != len(piece):
        raise CorruptMessageError(f"{len(piece)} bytes are not the frames of {workers} workers")
    return list(torch.split(piece[head:], lengths))


def _rows(buffer: Tensor) -> Tensor:
    """[W, ...] -> uint8 [W, bytes]."""
    return buffer.flatten(1).contiguous().view(torch.uint8)


def _octets(x: Tensor) -> bytes:
    return x.cpu().numpy().tobytes()


def _typed(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [W, n bytes] at any address -> [W, n]."""
    if dtype == torch.bool and bool((packed > 1).any()):
        raise CorruptMessageError("a byte is neither true nor false")
    if not packed.numel():
        return packed.new_empty(len(packed), packed.shape[1] // dtype.itemsize, dtype=dtype)  # it has no address
    return packed.clone(memory_format=torch.contiguous_format).view(dtype)


def _check_end(start: int, length: int) -> None:
    if start != length:
        raise CorruptMessageError(f"a frame of {length} bytes where {start} belong to the message")
