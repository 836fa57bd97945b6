"""Messages that no encoder made: decode refuses them, or returns numbers of the right shape; it never breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from commexp.check.drive import DTYPES, Factory, exchange, fresh, normal, placed
from commexp.compressors import Compressor, CorruptMessageError, Message

MESSAGES = 10_000
HOW = ("random bytes", "missing", "truncated", "lengthened", "bit flipped", "other type", "two workers")
OTHER = {torch.uint8: torch.int16, torch.float32: torch.float64, torch.float64: torch.float32}


def corrupt_messages(factory: Factory, dim: int = 40, messages: int = MESSAGES, seed: int = 0) -> None:
    """Random, missing, truncated and lengthened buffers, flipped bits, other types, one buffer of two workers. One that
    is missing or of a wrong length must raise CorruptMessageError; the others raise it or decode to [1, J] of the
    message's type. Random bytes may have any length where the codec ``varies``."""
    rng = np.random.default_rng(seed)
    inputs = [
        *(normal(10, 1, dim, dtype) for dtype in DTYPES),
        placed(torch.zeros(1, dim)),
        placed(torch.eye(1, dim) * -3),
    ]
    per_input = -(-messages // len(inputs))
    done = 0
    for x in inputs:
        codec = fresh(factory, dim)
        sound = exchange(codec, x).messages
        for turn in range(per_input):
            done += 1
            _read(codec, sound[turn % len(sound)], rng, f"message {done} of {per_input * len(inputs)}")


def _read(codec: Compressor, sound: Message, rng: np.random.Generator, count: str) -> None:
    how, message, must = corrupt(sound, rng)
    read: Callable[[Message], Tensor] = codec.decode if sound.last else codec.parts
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
        wanted = (1, sound.dim)
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
    must = how in ("missing", "truncated", "lengthened", "two workers")
    if how == "random bytes":
        buffer = _random(buffer, int(rng.integers(0, 2 * columns + 9)), rng)
        must = buffer.shape[1] != columns and not sound.codec.varies
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


def _random(like: Tensor, columns: int, rng: np.random.Generator) -> Tensor:
    """[1, columns, ...] of random bytes, of the type of ``like``."""
    shape = (1, columns, *like.shape[2:])
    out = torch.empty(shape, dtype=like.dtype)
    if out.numel():
        octets = rng.integers(0, 2 if like.dtype == torch.bool else 256, out.numel() * out.element_size(), np.uint8)
        out = torch.from_numpy(octets).view(like.dtype).view(shape)
    return out.to(like.device)
