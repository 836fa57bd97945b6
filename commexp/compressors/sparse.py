"""Messages of k values and their indices: shared by every compressor that picks entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Union

import torch
from torch import Tensor

from commexp.compressors.base import Compressor, CorruptMessageError, Message, log2_binomial
from commexp.compressors.select import Selector
from commexp.compressors.wire import index_bytes, pack_indices, unpack_indices


class Entries(Compressor):
    """Compressors whose messages are ``values`` [W, k] of the vector's type and ``indices``, k places packed by
    wire.pack_indices. Rows may differ in k."""

    _sent: tuple[Message, Tensor] | None = None

    def pack(self, a: Tensor, chosen: Tensor) -> Message:
        """Message of the entries ``chosen`` [W, k] (int64, in any order) of ``a`` [W, J]."""
        k, dim = chosen.shape[1], a.shape[1]
        if not bool((chosen[:, 1:] > chosen[:, :-1]).all()):
            chosen = chosen.sort(1).values
        buffers = {"indices": pack_indices(chosen, dim), "values": a.gather(1, chosen)}
        bits = len(a) * (log2_binomial(dim, k) + 8.0 * k * a.element_size())
        message = Message(buffers, dim, a.dtype, bits, self)
        self._sent = message, chosen
        return message

    def pack_rows(self, a: Tensor, chosen: Sequence[Tensor]) -> Message:
        """The same for rows of different length: one tensor of ascending places per worker."""
        return self._ragged([(c, x[c]) for x, c in zip(a, chosen, strict=True)], a.shape[1], a.dtype)

    def _ragged(self, pairs: Sequence[tuple[Tensor, Tensor]], dim: int, dtype: torch.dtype) -> Message:
        """Message of each worker's (places, values)."""
        rows = {
            "indices": [pack_indices(places[None], dim)[0] for places, _ in pairs],
            "values": [values for _, values in pairs],
        }
        buffers = {name: torch.nn.utils.rnn.pad_sequence(r, batch_first=True) for name, r in rows.items()}
        lengths = {name: [len(r) for r in each] for name, each in rows.items()}
        bits = sum(log2_binomial(dim, k) + 8.0 * k * dtype.itemsize for k in lengths["values"])
        return Message(buffers, dim, dtype, bits, self, lengths)

    def places(self, message: Message) -> Tensor:
        """The indices that a message names, [W, k]. Raises CorruptMessageError."""
        values = message.buffer("values", message.dtype)
        return unpack_indices(message.buffer("indices", torch.uint8), values.shape[1], message.dim)

    def rows(self, message: Message) -> list[tuple[Tensor, Tensor]]:
        """(places, values) of each worker. Raises CorruptMessageError."""
        if not message.lengths:
            return list(zip(self.places(message), message.buffers["values"], strict=True))
        message.buffer("indices", torch.uint8)
        message.buffer("values", message.dtype)
        if set(message.lengths) != {"indices", "values"}:
            raise CorruptMessageError(f"lengths: of {sorted(message.lengths)}; must be of indices and values")
        pairs = []
        for w in range(message.workers):
            values = message.row("values", w)
            pairs.append((unpack_indices(message.row("indices", w)[None], len(values), message.dim)[0], values))
        return pairs

    def decode(self, message: Message) -> Tensor:
        if not message.lengths:
            places = self.places(message)
            values = message.buffers["values"]
            return values.new_zeros(message.workers, message.dim).scatter_(1, places, values)
        rows = self.rows(message)
        out = rows[0][1].new_zeros(message.workers, message.dim)
        for x, (places, values) in zip(out, rows, strict=True):
            x[places] = values
        return out

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        """Adds the entries by index: no [W, J] in between."""
        if not message.lengths:
            places, values = self.places(message), message.buffers["values"]
            flat = (values * weights[:, None]).flatten()
            return values.new_zeros(message.dim).index_add_(0, places.flatten(), flat)
        rows = self.rows(message)
        out = rows[0][1].new_zeros(message.dim)
        for w, (places, mine) in zip(weights, rows, strict=True):
            out.index_add_(0, places, mine * w)
        return out

    def cut(self, message: Message, bounds: Sequence[int]) -> list[Message]:
        edges = torch.tensor(bounds)
        shards: list[list[tuple[Tensor, Tensor]]] = [[] for _ in bounds[1:]]
        for places, values in self.rows(message):
            at = torch.searchsorted(places, edges.to(places.device)).tolist()
            for shard, start, (i, j) in zip(shards, bounds, pairwise(at), strict=False):
                shard.append((places[i:j] - start, values[i:j]))
        widths = [b - a for a, b in pairwise(bounds)]
        return [self._ragged(rows, m, message.dtype) for rows, m in zip(shards, widths, strict=True)]

    def cut_sizes(self, message: Message, bounds: Sequence[int]) -> list[list[int]]:
        edges = torch.tensor(bounds, device=message.buffers["values"].device)
        if message.lengths:
            counts = torch.stack([torch.searchsorted(places, edges) for places, _ in self.rows(message)])
        else:
            places = self.places(message)
            counts = torch.searchsorted(places, edges.expand(len(places), -1).contiguous())
        item, widths = message.dtype.itemsize, [b - a for a, b in pairwise(bounds)]
        return [
            [k * item + index_bytes(k, m) if m else 0 for k, m in zip(row, widths, strict=True)]
            for row in counts.diff(dim=1).tolist()
        ]

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        """The values travel unchanged, so what was sent leaves an exact zero behind."""
        return self.clear_sent(a, message)

    def clear_sent(self, x: Tensor, message: Message) -> Tensor:
        if self._sent is not None and self._sent[0] is message:
            return x.scatter_(1, self._sent[1], 0.0)
        for row, (places, _) in zip(x, self.rows(message), strict=True):
            row[places] = 0.0
        return x


@dataclass
class Sparse(Entries):
    """k of J entries. ``k``: a float in (0, 1] is a ratio of J (rounded, at least one entry), an int a count.

    Raises ValueError if k is no such number, or more than J.
    """

    k: Union[int, float] = 0.01  # noqa: UP007  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        count = isinstance(self.k, int) and not isinstance(self.k, bool)
        if not (self.k >= 1 if count else isinstance(self.k, float) and 0 < self.k <= 1):
            raise ValueError(
                f"k={self.k}: not a share of the entries; give a ratio in (0, 1] such as 0.01, "
                "or a whole number of entries from 1 up"
            )
        self._exponent = 1.0
        self.selector = Selector()

    def entries(self, dim: int) -> int:
        """How many of J = ``dim`` entries are sent: k, or in warm-up J (k/J)^exponent."""
        if isinstance(self.k, float):
            k = max(1, round(self.k * dim))
        elif self.k > dim:
            raise ValueError(f"k={self.k}: more entries than the {dim} parameters; give at most {dim}")
        else:
            k = self.k
        return k if self._exponent == 1.0 else max(k, round(dim * (k / dim) ** self._exponent))

    def warm_up(self, exponent: float) -> None:
        self._exponent = exponent

    def payload(self, dim: int, itemsize: int) -> int:
        k = self.entries(dim)
        return k * itemsize + index_bytes(k, dim)

    def aggregate_payload(self, dim: int, itemsize: int, workers: int) -> int:
        """Every worker's entries, if no two have one in common."""
        k = min(dim, workers * self.entries(dim))
        return min(dim * itemsize, k * itemsize + index_bytes(k, dim))

    def were_sent(self, values: Tensor) -> None:
        """Called by a composition: these values [W, k] travelled instead of the ones that ``pack`` took."""
