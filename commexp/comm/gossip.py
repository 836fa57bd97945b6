"""A mixing matrix among processes: which rows a process sends and receives, and their weighted sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from commexp.comm.links import Links, PendingTransfer
from commexp.topologies import Mixing

Slot = tuple[Tensor | None, Tensor, Tensor]
DENSE = 16  # a product with a dense matrix does so many times the work in the time of a sum over neighbours


class Neighbourhood:
    """What the workers ``own`` of this process receive from other workers under one mixing matrix, and what they send.

    ``ids``: the workers whose vectors are needed here, in order, those of this process included.
    ``degrees``: neighbours that each of the workers here sends to. ``received`` and ``sent``: for each other process,
    the workers whose vectors come from it and go to it.
    """

    def __init__(self, mixing: Mixing, own: range, links: Links) -> None:
        rows = mixing.matrix[own.start : own.stop]
        self.ids = np.union1d(rows.indices, np.arange(own.start, own.stop))
        self.degrees: list[int] = mixing.degrees[own.start : own.stop].tolist()
        self.own, self.links = own, links
        self._columns = np.searchsorted(self.ids, rows.indices)
        self._starts, self._weights = rows.indptr, rows.data
        self._dense: Tensor | None = None
        self._slots: list[Slot] = []
        self.received: dict[int, list[int]] = {}
        self.sent: dict[int, list[int]] = {}
        here = len(own)
        for p in range(links.processes):
            if p == links.rank:
                continue
            theirs = mixing.matrix[p * here : (p + 1) * here].indices
            self.received[p] = self.ids[(self.ids >= p * here) & (self.ids < (p + 1) * here)].tolist()
            self.sent[p] = np.unique(theirs[(theirs >= own.start) & (theirs < own.stop)]).tolist()

    def gathered(self, x: Tensor) -> PendingTransfer[Tensor]:
        """x [W, ...] of the workers here -> that of all workers ``ids``, [M, ...]."""
        if not self.links.collective:
            return x
        rows = dict(zip(self.own, x, strict=True))
        out = {p: torch.cat([rows[m].flatten() for m in ids]) for p, ids in self.sent.items() if ids}
        sizes = {p: len(ids) * x[0].numel() for p, ids in self.received.items() if ids}
        packed_rows = yield from self.links.swap(out, sizes, x)
        for p, packed in packed_rows.items():
            rows |= dict(zip(self.received[p], packed.view(-1, *x.shape[1:]), strict=True))
        return torch.stack([rows[m] for m in self.ids.tolist()])

    def gathered_bytes(self, frames: Sequence[Tensor], equal: bool) -> PendingTransfer[list[Tensor]]:
        """One frame of bytes of each worker here -> those of all workers ``ids``; ``equal``: all are of one length."""
        rows = dict(zip(self.own, frames, strict=True))
        if not self.links.collective:
            return list(frames)
        own = torch.tensor([len(f) for f in frames])
        everyones = own.expand(self.links.processes, -1) if equal else self.links.counts(own)
        lengths = everyones.flatten().tolist()
        out = {p: torch.cat([rows[m] for m in ids]) for p, ids in self.sent.items() if ids}
        sizes = {p: sum(lengths[m] for m in ids) for p, ids in self.received.items() if ids}
        packed_frames = yield from self.links.swap(out, sizes, frames[0])
        for p, packed in packed_frames.items():
            ids = self.received[p]
            rows |= dict(zip(ids, torch.split(packed, [lengths[m] for m in ids]), strict=True))
        return [rows[m] for m in self.ids.tolist()]

    def weighted(self, x: Tensor, in_order: bool) -> Tensor:
        """x [M, ...] of all workers ``ids`` -> row n is sum_m w_nm x_m, [W, ...] for the workers here.

        ``in_order``: neighbour by neighbour, so that a row has the same bits whatever the other rows are. A matrix
        that is mostly zeros is never made dense.
        """
        if not in_order and len(self._weights) * DENSE >= len(self.own) * len(self.ids):
            if self._dense is None or self._dense.dtype != x.dtype:
                self._dense = self._filled().to(x)
            return (self._dense @ x.flatten(1)).view(len(self.own), *x.shape[1:])
        total = x.new_zeros(len(self.own), *x.shape[1:])
        if not self._slots or self._slots[0][2].dtype != x.dtype:
            self._slots = self._columnwise(x)
        for rows, columns, weights in self._slots:
            term = x[columns] * weights.view(-1, *[1] * (x.ndim - 1))
            if rows is None:
                total += term
            else:
                total[rows] += term
        return total

    def _filled(self) -> Tensor:
        matrix = torch.zeros(len(self.own), len(self.ids), dtype=torch.float64)
        rows = np.repeat(np.arange(len(self.own)), np.diff(self._starts))
        matrix[rows, self._columns] = torch.from_numpy(self._weights)
        return matrix

    def _columnwise(self, x: Tensor) -> list[Slot]:
        """The j-th entry of each row that has so many, for j = 0, 1, ...: rows (None: all), columns, weights."""
        counts = np.diff(self._starts)
        slots: list[Slot] = []
        for j in range(int(counts.max(initial=0))):
            rows = np.flatnonzero(counts > j)
            at = self._starts[rows] + j
            some = None if len(rows) == len(counts) else torch.from_numpy(rows).to(x.device)
            columns = torch.from_numpy(self._columns[at].astype(np.int64)).to(x.device)
            slots.append((some, columns, torch.from_numpy(self._weights[at]).to(x)))
        return slots
