"""Codecs with one mistake each, all of them shipped somewhere; and the sound ones that they spoil."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.compressors import CodecContext, Compressor, CorruptMessageError, Message
from commexp.compressors.wire import pack_bits, packed_bytes, unpack_bits
from commexp.seeding import derive, generator


def finite(a: Tensor) -> Tensor:
    if not bool(a.isfinite().all()):
        raise ValueError("a: holds NaN or infinity")
    return a


class ScaledSign(Compressor):
    """Sound: one bit an entry, and the mean magnitude."""

    def encode(self, a: Tensor) -> Message:
        buffers = {"signs": self.signs(a >= 0), "scale": finite(a).abs().mean(1, keepdim=True)}
        return Message(buffers, a.shape[1], a.dtype, len(a) * (a.shape[1] + 8.0 * a.element_size()), self)

    def signs(self, flags: Tensor) -> Tensor:
        return pack_bits(flags)

    def flags(self, message: Message) -> Tensor:
        return unpack_bits(message.buffer("signs", torch.uint8), message.dim)

    def scale(self, message: Message) -> Tensor:
        return message.buffer("scale", message.dtype, 1)

    def decode(self, message: Message) -> Tensor:
        return torch.where(self.flags(message), self.scale(message), -self.scale(message))

    def payload(self, dim: int, itemsize: int) -> int:
        return packed_bytes(dim, 1) + itemsize

    def delta(self, dim: int) -> float | None:
        return 1 / dim


class TooLarge(ScaledSign):
    def decode(self, message: Message) -> Tensor:
        return 250 * super().decode(message)


class EightBitSigns(ScaledSign):
    def signs(self, flags: Tensor) -> Tensor:
        return flags.to(torch.uint8)

    def flags(self, message: Message) -> Tensor:
        signs = message.buffer("signs", torch.uint8, message.dim)
        if bool((signs > 1).any()):
            raise CorruptMessageError("signs: neither 0 nor 1")
        return signs.bool()


class ScaleInTheCodec(ScaledSign):
    """The scale never travels: only the encoder's own process can decode."""

    kept = torch.ones(1, 1)

    def encode(self, a: Tensor) -> Message:
        message = super().encode(a)
        self.kept = message.buffers["scale"]
        return Message({"signs": message.buffers["signs"]}, a.shape[1], a.dtype, 1.0 * a.numel(), self)

    def scale(self, message: Message) -> Tensor:
        return self.kept.to(message.dtype)

    def payload(self, dim: int, itemsize: int) -> int:
        return packed_bytes(dim, 1)


class PlainTopK(Compressor):
    """Sound: a tenth of the entries, indices as int32."""

    index_type = torch.int32
    sparse = True

    def entries(self, dim: int) -> int:
        return max(1, dim // 10)

    def choose(self, a: Tensor) -> Tensor:
        return a.abs().topk(self.entries(a.shape[1]), dim=1).indices.sort(1).values

    def encode(self, a: Tensor) -> Message:
        chosen = self.choose(a)
        buffers = {"values": a.gather(1, chosen), "indices": chosen.to(self.index_type)}
        return Message(buffers, a.shape[1], a.dtype, 8.0 * chosen.numel() * a.element_size(), self)

    def places(self, message: Message) -> Tensor:
        indices = message.buffer("indices", self.index_type, self.entries(message.dim)).long()
        if bool(((indices < 0) | (indices >= message.dim)).any()):
            raise CorruptMessageError("indices: out of range")
        return indices

    def decode(self, message: Message) -> Tensor:
        values = message.buffer("values", message.dtype, self.entries(message.dim))
        return values.new_zeros(message.workers, message.dim).scatter_(1, self.places(message), values)

    def payload(self, dim: int, itemsize: int) -> int:
        return self.entries(dim) * (itemsize + self.index_type.itemsize)

    def delta(self, dim: int) -> float | None:
        return self.entries(dim) / dim


class LongIndices(PlainTopK):
    index_type = torch.int64


class UncountedIndices(PlainTopK):
    def payload(self, dim: int, itemsize: int) -> int:
        return self.entries(dim) * itemsize


class UnreadOption(PlainTopK):
    """``k`` never reaches ``encode``."""

    k = 0.5

    def delta(self, dim: int) -> float | None:
        return max(1, round(self.k * dim)) / dim


class RandomK(PlainTopK):
    """Sound: entries at random."""

    stochastic = True
    rounds = 0

    def choose(self, a: Tensor) -> Tensor:
        ids = range(len(a)) if self._setup.worker_ids is None else self._setup.worker_ids
        rows = [self.draw(a.shape[1], (self._setup.seed, worker, self.rounds)) for worker in ids]
        self.rounds += 1
        return torch.stack(rows).sort(1).values

    def draw(self, dim: int, key: tuple[int, ...]) -> Tensor:
        return torch.randperm(dim, generator=generator(*key))[: self.entries(dim)]

    def state_dict(self) -> dict[str, Tensor]:
        return {"rounds": torch.tensor(self.rounds)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # type: ignore[override]
        self.rounds = int(state["rounds"])


class ReseedsTheWorld(RandomK):
    def draw(self, dim: int, key: tuple[int, ...]) -> Tensor:
        torch.default_generator.manual_seed(derive(*key))  # torch.manual_seed would visit every accelerator, too
        return torch.randperm(dim)[: self.entries(dim)]


class WithReplacement(RandomK):
    def draw(self, dim: int, key: tuple[int, ...]) -> Tensor:
        return torch.randint(dim, (self.entries(dim),), generator=generator(*key))

    def delta(self, dim: int) -> float | None:
        return None


class DenseValues(Compressor):
    """Sound: every entry as it is."""

    def change(self, a: Tensor) -> Tensor:
        return a.clone()

    def encode(self, a: Tensor) -> Message:
        return Message({"values": self.change(finite(a))}, a.shape[1], a.dtype, 0.0, self)

    def decode(self, message: Message) -> Tensor:
        return message.buffer("values", message.dtype, message.dim)

    def payload(self, dim: int, itemsize: int) -> int:
        return dim * itemsize


class SignedMaximum(DenseValues):
    """A threshold that looks at max(x) instead of max(|x|)."""

    def change(self, a: Tensor) -> Tensor:
        return torch.where(a.abs() > 0.5 * a.amax(1, keepdim=True), a, 0.0)

    def delta(self, dim: int) -> float | None:
        return 1 / dim


class FourBitsOnPaper(DenseValues):
    def change(self, a: Tensor) -> Tensor:
        step = a.abs().amax(1, keepdim=True) / 7
        return torch.where(step > 0, (a / step).round() * step, 0.0)

    def payload(self, dim: int, itemsize: int) -> int:
        return packed_bytes(dim, 4)


class ForgetsAtResume(DenseValues):
    """Keeps a running mean that ``state_dict`` does not know."""

    memory: Tensor | None = None

    def setup(self, setup: CodecContext) -> None:
        super().setup(setup)
        self.memory = None

    def change(self, a: Tensor) -> Tensor:
        self.memory = a.clone() if self.memory is None else (self.memory + a) / 2
        return self.memory.clone()


SOUND = (ScaledSign, PlainTopK, RandomK, DenseValues)

#: codec, the one check that it must fail, words of the reason
WRONG: list[tuple[type[Compressor], str, str]] = [
    (TooLarge, "scale", "decoded is 250.0 times too large"),
    (EightBitSigns, "size", "sends 8 bits an entry, declares 1.001 (J = 65537"),
    (LongIndices, "integer width", "indices is int64: 8 bytes a number"),
    (ReseedsTheWorld, "global generators", "torch's global generator was used: its next number is 0."),
    (WithReplacement, "distinct entries", "of 25 indices are different (J = 256)"),
    (SignedMaximum, "negation", "C(-x) differs from -C(x) at"),
    (UnreadOption, "scale", "of ||x||^2, delta = 0.4848 allows 0.5152"),
    (UncountedIndices, "size", "sends 6.399 bits an entry, declares 3.2 (J = 65537"),
    (FourBitsOnPaper, "size", "sends 32 bits an entry, declares 4 (J = 65537,"),
    (ForgetsAtResume, "resume", "resumed after 4 (state: none)"),
    (ScaleInTheCodec, "self-contained", "a second codec decodes"),
]
