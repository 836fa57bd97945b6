"""Messages and frames that no encoder made: they are refused, or read as numbers of the right shape; nothing breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from commexp.check.drive import DTYPES, Factory, exchange, fresh, normal, placed
from commexp.comm.frames import pack_frames, unpack_frames
from commexp.compressors import Compressor, CorruptMessageError, Message

MESSAGES = 10_000
HOW = ("random bytes", "missing", "truncated", "lengthened", "bit flipped", "other type", "two workers", "description")
OTHER = {torch.uint8: torch.int16, torch.float32: torch.float64, torch.float64: torch.float32}


def corrupt_messages(factory: Factory, dim: int = 40, messages: int = MESSAGES, seed: int = 0) -> None:
    """Random, missing, truncated and lengthened buffers, flipped bits, other types, one buffer of two workers, another
    J or other numbers in the header. One that is missing or of a wrong length must raise CorruptMessageError; the
    others raise it or decode to [1, J] of the message's type. Random bytes may have any length where the codec
    ``variable_size``."""
    rng = np.random.default_rng(seed)
    inputs = _inputs(dim)
    per_input = -(-messages // len(inputs))
    done = 0
    for x in inputs:
        codec = fresh(factory, dim)
        sound = exchange(codec, x).messages
        for turn in range(per_input):
            done += 1
            _read(codec, sound[turn % len(sound)], rng, f"message {done} of {per_input * len(inputs)}")


def corrupt_frames(factory: Factory, dim: int = 40, frames: int = MESSAGES, seed: int = 0) -> dict[str, int]:
    """Frames of two workers, one of which is spoilt, or both in the same way: CorruptMessageError, or [2, J] of the
    codec's type. Returns how many were refused and how many were read."""
    rng = np.random.default_rng(seed)
    inputs = [torch.cat([x, 2 * x]) for x in _inputs(dim)]
    counts = {"refused": 0, "read": 0}
    for x in inputs:
        codec = fresh(factory, dim)
        sound = exchange(codec, x).messages
        packed = [pack_frames(message, torch.ones(2)) for message in sound]
        for turn in range(-(-frames // len(inputs))):
            like = sound[turn % len(sound)]
            how, spoilt = _spoilt(packed[turn % len(sound)], rng)
            where = f"frame {sum(counts.values()) + 1} ({how})"
            try:
                message, weights = unpack_frames(spoilt, like)
                out = (codec.decode if message.last else codec.summands)(message)
            except CorruptMessageError:
                counts["refused"] += 1
                continue
            except Exception as error:
                raise AssertionError(f"{where}: {type(error).__name__}, not CorruptMessageError: {error}") from error
            counts["read"] += 1
            assert (out.dtype, len(out), len(weights)) == (like.dtype, 2, 2), f"{where}: {out.dtype}, {list(out.shape)}"
            assert not message.last or out.shape[1] == dim, f"{where}: decodes to {list(out.shape)}"
    return counts


def _spoilt(frames: Sequence[Tensor], rng: np.random.Generator) -> tuple[str, list[Tensor]]:
    how = str(rng.choice(["flipped", "number", "cut", "lengthened", "moved", "noise"]))
    rows = [f.cpu().numpy().copy() for f in frames]
    which = [0, 1] if rng.random() < 0.5 else [int(rng.integers(2))]
    length = min(len(rows[n]) for n in which)
    head = rng.random() < 0.5  # what describes a frame stands at its beginning
    place = int(rng.integers(min(length, 60) if head else length))
    noise = rng.integers(0, 256, int(rng.integers(1, 17)), np.uint8)
    extreme = np.array([rng.choice([-1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63)])], dtype=np.int64)
    for n in which:
        row = rows[n]
        if how == "flipped":
            row[place] ^= np.uint8(noise[0] or 1)
        elif how == "number":
            octets = extreme.view(np.uint8)[: len(row) - place]
            row[place : place + len(octets)] = octets
        elif how == "cut":
            rows[n] = row[:place]
        elif how == "lengthened":
            rows[n] = np.insert(row, place, noise)
        elif how == "moved":
            rows[n] = np.roll(row, place)
        else:
            row[place:] = rng.integers(0, 256, len(row) - place, np.uint8)
    return how, [torch.from_numpy(row).to(frames[0].device) for row in rows]


def _inputs(dim: int) -> list[Tensor]:
    return [
        *(normal(10, 1, dim, dtype) for dtype in DTYPES),
        placed(torch.zeros(1, dim)),
        placed(torch.eye(1, dim) * -3),
    ]


def _read(codec: Compressor, sound: Message, rng: np.random.Generator, count: str) -> None:
    how, message, must = corrupt(sound, rng)
    read: Callable[[Message], Tensor] = codec.decode if sound.last else codec.summands
    try:
        out = read(message)
    except CorruptMessageError:
        return
    except Exception as error:
        words = " ".join(str(error).split())[:100]
        raise AssertionError(f"{count} ({how}): {type(error).__name__}, not CorruptMessageError: {words}") from error
    assert not must, f"{count} ({how}): is decoded as if it were sound"
    assert out.dtype == sound.dtype, f"{count} ({how}): decodes to {out.dtype}; must be {sound.dtype}"
    if sound.last:
        wanted = (1, message.dim)
        assert out.shape == wanted, f"{count} ({how}): decodes to {list(out.shape)}; must be {list(wanted)}"


def corrupt(sound: Message, rng: np.random.Generator) -> tuple[str, Message, bool]:
    """(what was done, one worker's message with one buffer spoilt, whether decode must refuse it)."""
    how = HOW[rng.integers(len(HOW))]
    name = list(sound.buffers)[rng.integers(len(sound.buffers))]
    buffer = sound.buffers[name]
    columns = sound.lengths[name][0] if name in sound.lengths else buffer.shape[1]
    buffer = buffer[:, :columns].contiguous()
    if columns == 0 and how in ("truncated", "bit flipped"):
        how = "lengthened"
    if how == "two workers" and (len(sound.buffers) == 1 or sound.lengths):
        how = "lengthened"  # all buffers of two workers would be a sound message
    if how == "description":
        return _described_otherwise(sound, rng)
    must = how in ("missing", "truncated", "lengthened", "two workers")
    if how == "random bytes":
        buffer = _random(buffer, int(rng.integers(0, 2 * columns + 9)), rng)
        must = buffer.shape[1] != columns and not sound.codec.variable_size
    elif how == "truncated":
        buffer = buffer[:, : int(rng.integers(0, columns))]
    elif how == "lengthened":
        buffer = torch.cat([buffer, _random(buffer, int(rng.integers(1, 9)), rng)], dim=1)
    elif how == "two workers":
        buffer = torch.cat([buffer, buffer])
    elif how == "bit flipped":
        octets = buffer.view(torch.uint8).clone()
        flat = octets.view(-1)
        flat[rng.integers(flat.numel())] ^= 1 if buffer.dtype == torch.bool else 1 << int(rng.integers(8))
        buffer = octets.view(buffer.dtype).view(buffer.shape)
    elif how == "other type":
        buffer = buffer.to(OTHER.get(buffer.dtype, torch.float32))
    kept = {k: b for k, b in sound.buffers.items() if k != name or how != "missing"}
    if how != "missing":
        kept[name] = buffer
    lengths = {k: [buffer.shape[1]] if k == name else n for k, n in sound.lengths.items()}
    what = f"{name} {how}" if how == "missing" else f"{name} {how}, {columns} -> {buffer.shape[1]} columns"
    return what, replace(sound, buffers=kept, lengths=lengths), must


def _described_otherwise(sound: Message, rng: np.random.Generator) -> tuple[str, Message, bool]:
    """The same buffers, another J, header or lengths."""
    number = int(rng.choice([-(2**40), -1, 0, 1, sound.dim - 1, sound.dim + 1, 8 * sound.dim]))
    if rng.random() < 0.5:
        return f"dim {sound.dim} -> {number}", replace(sound, dim=number), number < 0
    kind = "lengths" if sound.lengths else "header"
    numbers: dict[str, Any] = {**getattr(sound, kind)}
    numbers[str(rng.choice([*numbers, "other"]))] = [number] if sound.lengths else number
    changed: Any = {kind: numbers}
    return f"{kind} {numbers}", replace(sound, **changed), False


def _random(like: Tensor, columns: int, rng: np.random.Generator) -> Tensor:
    """[1, columns, ...] of random bytes, of the type of ``like``."""
    shape = (1, columns, *like.shape[2:])
    out = torch.empty(shape, dtype=like.dtype)
    if out.numel():
        octets = rng.integers(0, 2 if like.dtype == torch.bool else 256, out.numel() * out.element_size(), np.uint8)
        out = torch.from_numpy(octets).view(like.dtype).view(shape)
    return out.to(like.device)
