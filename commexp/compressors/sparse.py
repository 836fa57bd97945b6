"""Messages of k values and their indices, shared by every compressor that sends some of the entries; and the k entries
of largest magnitude, found exactly, without sorting or copying the vector.

On the CPU, a row of J entries:

    1. m[i] = max |x| over the i-th group of 32 entries: one pass over J, no temporary of its size
    2. a threshold t: what the last round's suggests, or from a seeded sample of the entries
    3. survivors: the entries above t of the groups with m[i] > t, in order
    4. fewer than k survivors, or far too many: t misled, go back to 2 with the next one; step 1 stands
    5. exactly k of the survivors by partition; of equal entries the first

On a GPU shapes must not depend on data, or the host would wait for it: the k groups of largest maximum hold the k
largest entries, so a top-k over J/g maxima and one over k g entries do, g = sqrt(J/k); nothing synchronises.
Short rows, and shares so large that groups gain nothing on a GPU, take torch.topk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Union

import numpy as np
import torch
from torch import Tensor

from commexp.compressors.base import Compressor, CorruptMessageError, Message, log2_binomial
from commexp.compressors.wire import index_bytes, pack_indices, unpack_indices

GROUP = 32
SHORT = 1 << 17  # below so many entries torch.topk of all workers at once is faster
SAMPLE = 1 << 15
BLOCK = 1 << 13  # groups looked at together: a quarter of a million entries, which stay in the cache
SHRINK = 0.9  # the next round's first guess, as a share of this round's k-th largest magnitude


class Selector:
    """Finds the k largest entries by magnitude of each row of a [W, J], round after round.

    Keeps each row's threshold as its next first guess; the result does not depend on it.
    """

    def __init__(self) -> None:
        self._guess: dict[int, float] = {}

    def largest(self, a: Tensor, k: int) -> Tensor:
        """Indices [W, k], int64, ascending. Of entries of equal magnitude the CPU's long rows keep the first."""
        dim = a.shape[1]
        if k == dim:
            return torch.arange(dim, device=a.device).expand(len(a), -1)
        if a.device.type == "cpu" and dim >= SHORT:
            return torch.stack([self._row(w, x, k) for w, x in enumerate(a)])
        group = 1 << max(0, round(math.log2(dim / k) / 2))
        if dim < SHORT or group < 4:
            return a.abs().topk(k, dim=1, sorted=False).indices.sort(1).values
        return by_tournament(a, k, group)

    def _row(self, row: int, x: Tensor, k: int) -> Tensor:
        groups = len(x) // GROUP
        whole = x[: groups * GROUP].view(groups, GROUP)
        best = torch.maximum(whole.amax(1), whole.amin(1).neg_())
        if bool(best.isnan().any()):
            raise ValueError("a: holds NaN, which has no place in an order; see on_nonfinite")
        guesses = [self._guess[row]] if row in self._guess else []
        while True:
            first = bool(guesses)
            t = guesses.pop() if guesses else sampled_threshold(x, k)
            hit = (best > t).nonzero()[:, 0]
            if first and len(hit) > 2 * k + SAMPLE and 4 * len(hit) > groups:
                continue  # the scale has grown: the sample knows better
            indices, values = survivors(x, whole, hit, t)
            if len(values) >= k:
                break
            if first:
                continue
            ties = k - len(values)  # the sample misled, or many entries are equal to t
            equal = first_equal(x, t, ties)
            if len(equal) == ties:
                return torch.cat([indices, equal]).sort().values
            indices, values = survivors(x, whole, torch.arange(groups, device=x.device), -1.0)
            break
        chosen, threshold = exactly(values, k)
        self._guess[row] = SHRINK * threshold
        return indices[chosen]


def sampled_threshold(x: Tensor, k: int) -> float:
    """A magnitude that a little more than k of the entries are likely to exceed; -1 where the sample is too small to
    say."""
    generator = torch.Generator().manual_seed(0)
    sample = x[torch.randint(len(x), (SAMPLE,), generator=generator)].abs()
    expected = k / len(x) * SAMPLE
    rank = int(expected + 4 * math.sqrt(expected) + 8)
    return -1.0 if rank >= SAMPLE else float(sample.topk(rank, sorted=False).values.min())


def survivors(x: Tensor, whole: Tensor, hit: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Indices and magnitudes of the entries above t in the groups ``hit`` and in the tail behind the last group."""
    places, magnitudes = [], []
    for groups in torch.split(hit, BLOCK):
        block = whole[groups].abs_().flatten()
        above = (block > t).nonzero()[:, 0]
        magnitudes.append(block[above])
        places.append(groups[above // GROUP].mul_(GROUP).add_(above % GROUP))
    tail = x[whole.numel() :].abs()
    above = (tail > t).nonzero()[:, 0]
    return torch.cat([*places, above + whole.numel()]), torch.cat([*magnitudes, tail[above]])


def first_equal(x: Tensor, t: float, count: int) -> Tensor:
    """The first ``count`` places whose magnitude is t, or all if there are fewer."""
    places: list[Tensor] = []
    for start in range(0, len(x), BLOCK * GROUP):
        equal = (x[start : start + BLOCK * GROUP].abs() == t).nonzero()[:count, 0]
        places.append(equal + start)
        count -= len(equal)
        if count == 0:
            break
    return torch.cat(places)


def exactly(values: Tensor, k: int) -> tuple[Tensor, float]:
    """Positions of the k largest values, ascending, the first of equal ones, and the smallest of the k."""
    array = values.float().numpy() if values.element_size() < 4 else values.numpy()
    threshold = float(np.partition(array, len(array) - k)[len(array) - k])
    keep = values > threshold
    keep[(values == threshold).nonzero()[: k - int(keep.sum()), 0]] = True
    return keep.nonzero()[:, 0], threshold


def by_tournament(a: Tensor, k: int, group: int) -> Tensor:
    """Indices [W, k] of the k largest magnitudes, ascending: static shapes, no synchronisation."""
    workers, dim = a.shape
    groups = dim // group
    whole = a[:, : groups * group].view(workers, groups, group)
    best = torch.maximum(whole.amax(2), whole.amin(2).neg_())
    winners = best.topk(min(k, groups), dim=1, sorted=False).indices
    within = torch.arange(group, device=a.device)
    places = (winners[..., None] * group + within).flatten(1)
    tail = torch.arange(groups * group, dim, device=a.device).expand(workers, -1)
    places = torch.cat([places, tail], dim=1)
    chosen = a.gather(1, places).abs_().topk(k, dim=1, sorted=False).indices
    return places.gather(1, chosen).sort(1).values


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
        if self._sent is not None and self._sent[0] is message:
            return self._sent[1]
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

    def cut_sizes(self, message: Message, bounds: Sequence[int]) -> Tensor:
        widths = [b - a for a, b in pairwise(bounds)]
        filled = sum(width > 0 for width in widths)  # the first so many
        edges = torch.tensor(bounds[: filled + 1], device=message.buffers["values"].device)
        if message.lengths:
            counts = torch.stack([torch.searchsorted(places, edges) for places, _ in self.rows(message)])
        else:
            places = self.places(message)
            counts = torch.searchsorted(places.contiguous(), edges.expand(len(places), -1).contiguous())
        counts, item = counts.diff(dim=1).cpu(), message.dtype.itemsize
        kinds, most = sorted(set(widths[:filled])), int(counts.max())
        table = torch.tensor([[k * item + index_bytes(k, m) if k <= m else 0 for k in range(most + 1)] for m in kinds])
        sizes = table[torch.tensor([kinds.index(m) for m in widths[:filled]]), counts]
        return torch.nn.functional.pad(sizes, (0, len(widths) - filled))

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
