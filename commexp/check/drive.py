"""Inputs, and the loop that one round drives: shared by all checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from commexp.compressors import CodecContext, Compressor, Message
from commexp.seeding import generator

Factory = Callable[[], Compressor]

SIZES = (1, 7, 8, 9, 255, 256, 1000, 65537)
DTYPES = (torch.float32, torch.float64)
SHAPES: dict[int, Mapping[str, Sequence[int]]] = {
    256: {"weight": (16, 16)},
    1000: {"weight": (30, 30), "bias": (100,)},
    65537: {"kernel": (256, 64, 2, 2), "bias": (1,)},
}
"""Which tensors a vector of so many entries is made of; where none are named it is one vector."""


def fresh(factory: Factory, dim: int, worker_ids: Sequence[int] | None = None) -> Compressor:
    """A codec set up for vectors of length ``dim``; two of them with the same arguments must behave alike."""
    codec = factory()
    codec.setup(CodecContext(seed=3, worker_ids=worker_ids, shapes=SHAPES.get(dim, {}), purpose="check"))
    return codec


_device = torch.device("cpu")


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """The inputs of checks lie there meanwhile."""
    global _device
    before, _device = _device, device
    try:
        yield
    finally:
        _device = before


def placed(x: Tensor) -> Tensor:
    return x.to(_device)


def normal(seed: int, workers: int, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers [W, J]."""
    return placed(_drawn(seed, workers, dim).to(dtype, copy=True))


@lru_cache(50)
def _drawn(seed: int, workers: int, dim: int) -> Tensor:
    """Once for all checks and types."""
    return torch.randn(workers, dim, generator=generator(seed, "check", workers, dim), dtype=torch.float64)


def odd_inputs() -> dict[str, Tensor]:
    """Small vectors [2, J] that codecs have stumbled over."""
    inputs = {
        "zero": torch.zeros(2, 17),
        "all negative": -normal(0, 2, 33).abs() - 1,
        "all equal": torch.full((2, 17), 0.25),
        "one element": torch.tensor([[3.0], [-2.0]]),
        "not a multiple of 8": normal(1, 2, 13),
        "huge": normal(2, 2, 33) * 1e30,
        "tiny": normal(3, 2, 33) * 1e-30,
        "one spike": torch.eye(2, 40),
    }
    return {label: placed(x) for label, x in inputs.items()}


@dataclass
class Round:
    """One exchange among W workers. ``messages``: of every phase. ``decoded``: the last one's, [W, J]."""

    messages: list[Message]
    decoded: Tensor
    aggregate: Tensor


def exchange(codec: Compressor, a: Tensor, weights: Tensor | None = None) -> Round:
    """Encodes, drives every phase as ``Compressor.reduce`` does, and decodes the last message."""
    weights = a.new_full((len(a),), 1.0 / len(a)) if weights is None else weights
    messages = [codec.encode(a)]
    while True:
        total = codec.total(messages[-1], weights)
        following = codec.next_phase(messages[-1], total)
        if following is None:
            break
        messages.append(following)
    decoded = codec.decode(messages[-1])
    return Round(messages, decoded, codec.finalize(messages[-1], total))


def decoded(codec: Compressor, a: Tensor) -> Tensor:
    """C(a), [W, J]; what an exchange adds up is left out where no later phase is made of it."""
    return codec.decode(codec.encode(a)) if codec.phases == 1 else exchange(codec, a).decoded


def whole_round(codec: Compressor, a: Tensor, weights: Tensor | None = None) -> Round:
    """The same, then ``feedback`` with the aggregate, as in every round of a run."""
    done = exchange(codec, a, weights)
    codec.feedback(done.aggregate, weights)
    return done


def row_bytes(message: Message, worker: int) -> dict[str, bytes]:
    """What one worker sends, buffer by buffer."""
    out = {}
    for name, buffer in message.buffers.items():
        row = buffer[worker]
        if name in message.lengths:
            row = row[: message.lengths[name][worker]]
        out[name] = row.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return out


def assert_same_bytes(sent: Message, wanted: Message, rows: Sequence[int], where: str) -> None:
    """Row i of ``sent`` against row ``rows[i]`` of ``wanted``: every buffer's bytes."""
    for i, j in enumerate(rows):
        one, other = row_bytes(sent, i), row_bytes(wanted, j)
        assert list(one) == list(other), f"{where}: buffers {list(one)} against {list(other)}"
        for name in one:
            sizes = f"{len(one[name])} against {len(other[name])} bytes"
            assert len(one[name]) == len(other[name]), f"{where}: {name} of worker {j}: {sizes}"
            differ = sum(x != y for x, y in zip(one[name], other[name], strict=True))
            assert not differ, f"{where}: {name} of worker {j}: {differ} of {len(one[name])} bytes differ"
