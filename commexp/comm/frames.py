"""Messages as bytes between processes, one frame for each worker.

A frame is the worker's weight in the aggregate (float64), how many elements follow of each buffer whose length
differs from worker to worker (int64 each), and then the buffers. What a buffer is called and what type it has is known
to both sides from a message of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from commexp.compressors import CorruptMessageError, Message

WEIGHT = torch.float64.itemsize


def pack_frames(message: Message, weights: Tensor) -> list[Tensor]:
    """The frames of W workers, uint8 [bytes] each; all of one length if no buffer's length differs."""
    heads = weights.to(torch.float64)[:, None].view(torch.uint8)
    if not message.lengths:
        return list(torch.cat([heads, *(_rows(b) for b in message.buffers.values())], dim=1))
    names = sorted(message.lengths)
    frames = []
    for w, head in enumerate(heads):
        counts = torch.tensor([message.lengths[n][w] for n in names], dtype=torch.int64, device=head.device)
        rows = [message.row(n, w) if n in message.lengths else b[w] for n, b in message.buffers.items()]
        frames.append(torch.cat([head, counts.view(torch.uint8), *(_rows(r[None])[0] for r in rows)]))
    return frames


def unpack_frames(frames: Sequence[Tensor], like: Message) -> tuple[Message, Tensor]:
    """Frames of any number of workers -> their messages and weights. ``like``: a message of the same codec for the
    same vector. Raises CorruptMessageError for a frame that is too short or too long."""
    if like.lengths:
        return _unpack_ragged(frames, like)
    block = torch.stack(list(frames))
    weights = _typed(block[:, :WEIGHT], torch.float64)[:, 0].to(like.dtype)
    buffers, start = {}, WEIGHT
    for name, b in like.buffers.items():
        end = start + b[0].numel() * b.element_size()
        if end > block.shape[1]:
            raise CorruptMessageError(f"{name}: the frame of {block.shape[1]} bytes ends before it")
        buffers[name] = _typed(block[:, start:end], b.dtype).view(len(block), *b.shape[1:])
        start = end
    _check_end(start, block.shape[1])
    return replace(like, buffers=buffers), weights


def _unpack_ragged(frames: Sequence[Tensor], like: Message) -> tuple[Message, Tensor]:
    names = sorted(like.lengths)
    heads = torch.stack([f[: WEIGHT * (1 + len(names))] for f in frames])
    weights = _typed(heads[:, :WEIGHT], torch.float64)[:, 0].to(like.dtype)
    counts = dict(zip(names, _typed(heads[:, WEIGHT:], torch.int64).T.tolist(), strict=True))
    rows: dict[str, list[Tensor]] = {name: [] for name in like.buffers}
    for w, frame in enumerate(frames):
        start = heads.shape[1]
        for name, b in like.buffers.items():
            count = counts[name][w] if name in counts else b[0].numel()
            end = start + count * b.element_size()
            if not start <= end <= len(frame):
                raise CorruptMessageError(f"{name}: {count} elements in a frame of {len(frame)} bytes")
            rows[name].append(_typed(frame[start:end][None], b.dtype)[0])
            start = end
        _check_end(start, len(frame))
    buffers = {name: torch.nn.utils.rnn.pad_sequence(r, batch_first=True) for name, r in rows.items()}
    return replace(like, buffers=buffers, lengths=counts), weights


def bundle(frames: Sequence[Tensor]) -> Tensor:
    """The frames of W workers as one piece, uint8: their lengths (int64 each) first."""
    lengths = torch.tensor([len(f) for f in frames], dtype=torch.int64, device=frames[0].device)
    return torch.cat([lengths.view(torch.uint8), *frames])


def unbundle(piece: Tensor, workers: int) -> list[Tensor]:
    """What ``bundle`` put together. Raises CorruptMessageError for a piece that it cannot have made."""
    head = workers * torch.int64.itemsize
    lengths = _typed(piece[None, :head], torch.int64)[0].tolist() if len(piece) >= head else []
    if len(lengths) != workers or min(lengths) < 0 or head + sum(lengths) != len(piece):
        raise CorruptMessageError(f"{len(piece)} bytes are not the frames of {workers} workers")
    return list(torch.split(piece[head:], lengths))


def _rows(buffer: Tensor) -> Tensor:
    """[W, ...] -> uint8 [W, bytes]."""
    return buffer.flatten(1).contiguous().view(torch.uint8)


def _typed(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [W, n bytes] at any address -> [W, n]."""
    if not packed.numel():
        return packed.new_empty(packed.shape, dtype=dtype)  # what is empty has no address to be viewed from
    return packed.clone(memory_format=torch.contiguous_format).view(dtype)


def _check_end(start: int, length: int) -> None:
    if start != length:
        raise CorruptMessageError(f"a frame of {length} bytes where {start} belong to the message")
