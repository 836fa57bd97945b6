"""PowerSGD: low-rank gradients by one power iteration a round."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import CodecContext, Compressor, CorruptMessageError, Message
from commexp.seeding import generator

LARGE = 2**14  # entries of a matrix from which on a copy of it costs more than taking them one by one


@dataclass
class Stack:
    """Matrices of one shape, m x n, at ``starts`` in the flat vector; the last may be padded with zeros."""

    m: int
    n: int
    starts: list[int]
    size: int  # entries of each that exist; m n but for a vector that was folded into a matrix

    def times(self, a: Tensor, factors: Tensor, transposed: bool = False) -> Tensor:
        """M_l F_l, or M_l^T F_l, for every matrix of [W, J]: [W, L, m or n, r]. Large matrices are not copied."""
        if not self.in_place:
            stack = self.take(a)
            return (stack.mT if transposed else stack) @ factors
        rows = [[self.view(row, s) for s in self.starts] for row in a]
        return torch.stack(
            [torch.stack([(m.mT if transposed else m) @ f for m, f in zip(row, factors, strict=True)]) for row in rows]
        )

    def add_product(self, out: Tensor, p: Tensor, q: Tensor, alpha: float) -> None:
        """M_l <- M_l + alpha P_l Q_l^T in one row [J]."""
        if self.in_place:
            for start, left, right in zip(self.starts, p, q, strict=True):
                self.view(out, start).addmm_(left, right.mT, alpha=alpha)
            return
        for start, product in zip(self.starts, p @ q.mT, strict=True):
            out[start : start + self.size].add_(product.flatten()[: self.size], alpha=alpha)

    @property
    def in_place(self) -> bool:
        return self.size == self.m * self.n >= LARGE

    def view(self, row: Tensor, start: int) -> Tensor:
        return row[start : start + self.size].view(self.m, self.n)

    def take(self, a: Tensor) -> Tensor:
        """[W, J] -> [W, L, m, n]."""
        flat = torch.stack([a[:, s : s + self.size] for s in self.starts], dim=1)
        return torch.nn.functional.pad(flat, (0, self.m * self.n - self.size)).view(len(a), -1, self.m, self.n)


@dataclass
class PowerSGD(Compressor):
    """Each matrix M_n (m x n) of the gradient is sent as two factors of ``rank`` r, in two exchanges that sum:

        P = sum_n w_n M_n Q;    P <- orthonormal columns of P
        Q = sum_n w_n M_n^T P;  aggregate = P Q^T

    r (m + n) numbers a worker instead of m n. What worker n contributes to the aggregate is P P^T M_n: that is what
    error feedback takes off its residual. Q starts at random, equal at all workers, and with ``warm_start`` each
    round starts from the last Q. A tensor of more than two axes is the matrix of its first axis by the rest; vectors,
    and matrices that r columns would not make smaller, travel whole with P. Without shapes (CodecContext) the vector is
    folded into one nearly square matrix. Matrices of one shape are handled as one stack.
    Source: Vogels, Karimireddy and Jaggi, PowerSGD, arXiv 1905.13727, algorithms 1 and 2. Raises ValueError for a rank
    below 1.
    """

    rank: int = 2
    warm_start: bool = True

    sums = True
    shared_state = True
    state = "q=_q"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: must not be less than 1; 2 or 4 is usual")
        self._q: list[Tensor] = []
        self._p: list[Tensor] = []
        self._plain = torch.empty(0, 0)
        self._dim = 0

    def setup(self, setup: CodecContext) -> None:
        super().setup(setup)
        self._dim = 0

    def _lay_out(self, dim: int) -> None:
        """Which parts of a vector of length J = ``dim`` are matrices, which travel whole."""
        if dim == self._dim:
            return
        self._dim = dim
        sizes = {name: math.prod(shape) for name, shape in self._setup.shapes.items()}
        shapes = dict(self._setup.shapes) if sum(sizes.values()) == dim else {}
        stacks: dict[tuple[int, int], Stack] = {}
        whole, start = [], 0
        if not shapes:
            m = math.isqrt(dim - 1) + 1
            n = -(-dim // m)
            if self._smaller(m, n, dim):
                stacks[m, n] = Stack(m, n, [0], dim)
            else:
                whole.append((0, dim))
        for shape in shapes.values():
            size = math.prod(shape)
            m = shape[0] if len(shape) > 1 else size
            n = size // max(1, m)
            if self._smaller(m, n, size):
                stacks.setdefault((m, n), Stack(m, n, [], size)).starts.append(start)
            else:
                whole.append((start, start + size))
            start += size
        self._stacks = list(stacks.values())
        columns = [torch.arange(first, behind) for first, behind in whole]
        self._whole = torch.cat(columns) if columns else torch.empty(0, dtype=torch.int64)

    def _smaller(self, m: int, n: int, size: int) -> bool:
        return self.rank * (m + n) < size and self.rank < min(m, n)

    def _starts(self, like: Tensor) -> list[Tensor]:
        """Q of each stack, [L, n, r]."""
        if not self._q or not self.warm_start:
            self._q = []
            for i, s in enumerate(self._stacks):
                random = torch.empty(len(s.starts), s.n, self.rank, dtype=torch.float64)
                random.normal_(generator=generator(self._setup.seed, self._setup.purpose, "q", i))
                self._q.append(random.to(like))
        return self._q

    def encode(self, a: Tensor) -> Message:
        self._lay_out(a.shape[1])
        self._a = a
        factors = [s.times(a, q).flatten(1) for s, q in zip(self._stacks, self._starts(a), strict=True)]
        self._plain = a[:, self._whole.to(a.device)]
        values = torch.cat([*factors, self._plain], dim=1)
        bits = 8.0 * values.numel() * values.element_size()
        return Message({"p": values}, a.shape[1], a.dtype, bits, self, last=not self._stacks)

    def next_phase(self, message: Message, total: Tensor) -> Message | None:
        if message.last:
            return None
        self._p = [torch.linalg.qr(p).Q for _, p in self._split(total[None], "m")]
        self._plain_total = total[len(total) - len(self._whole) :]
        factors = [s.times(self._a, p, transposed=True) for s, p in zip(self._stacks, self._p, strict=True)]
        values = torch.cat([f.flatten(1) for f in factors], dim=1)
        bits = 8.0 * values.numel() * values.element_size()
        return Message({"q": values}, message.dim, message.dtype, bits, self)

    def _split(self, values: Tensor, side: str) -> Iterator[tuple[Stack, Tensor]]:
        """Each stack's factors in ``values`` [1, ...]: [L, m or n, r]."""
        start = 0
        for s in self._stacks:
            shape = (len(s.starts), getattr(s, side), self.rank)
            yield s, values[0, start : start + math.prod(shape)].view(shape)
            start += math.prod(shape)

    def summands(self, message: Message) -> Tensor:
        if message.dim != self._dim:
            raise CorruptMessageError(f"is for {message.dim} numbers; must be for {self._dim}, as what was encoded")
        name = "q" if message.last and self._stacks else "p"
        return message.buffer(name, message.dtype, self.summand_count(message))

    def summand_count(self, message: Message) -> int:
        first, second = self._lengths()
        return second if message.last and self._stacks else first

    def decode(self, message: Message) -> Tensor:
        values = self.summands(message)
        if not message.last:
            raise CorruptMessageError("p: is the first of two messages and says nothing alone")
        if self._stacks and (not self._p or len(values) != len(self._plain)):
            raise CorruptMessageError(f"q: of {len(values)} workers follows no p of theirs")
        out = values.new_zeros(message.workers, message.dim)
        out[:, self._whole.to(out.device)] = self._plain if self._stacks else values
        for n in range(message.workers) if self._stacks else ():
            self._expand(values[n : n + 1], out[n])
        return out

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        out = total.new_zeros(1, message.dim)
        out[:, self._whole.to(out.device)] = self._plain_total if self._stacks else total
        if self._stacks:
            self._expand(total[None], out[0])
            self._q = [q.clone() for _, q in self._split(total[None], "n")]
        return out[0]

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        values = self.summands(message)
        a[:, self._whole.to(a.device)] -= self._plain if self._stacks else values
        for n in range(message.workers) if self._stacks else ():
            self._expand(values[n : n + 1], a[n], alpha=-1)
        return a

    def _expand(self, values: Tensor, out: Tensor, alpha: float = 1) -> None:
        """Adds alpha P Q^T of one worker's Q [1, ...], or of the aggregate's, to [J]."""
        for (s, q), p in zip(self._split(values, "n"), self._p, strict=True):
            s.add_product(out, p, q, alpha)

    def _lengths(self) -> tuple[int, int]:
        """Numbers in the first and in the second message of a worker."""
        count = [(len(s.starts) * self.rank, s) for s in self._stacks]
        return sum(c * s.m for c, s in count) + len(self._whole), sum(c * s.n for c, s in count)

    def payload(self, dim: int, itemsize: int) -> int:
        """Of both messages."""
        return sum(self.messages(dim, itemsize))

    def messages(self, dim: int, itemsize: int) -> list[int]:
        self._lay_out(dim)
        first, second = self._lengths()
        return [first * itemsize, second * itemsize] if self._stacks else [first * itemsize]
