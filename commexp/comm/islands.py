"""Who exchanges for whom: islands of workers, and workers that are several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from commexp.comm.links import Links, PendingTransfer
from commexp.comm.transport import as_bytes


@dataclass
class Members:
    """The N workers of a run as G islands of m = N/G members each. An island is one worker of the exchange: its members
    add up inside, its leader exchanges with the other leaders, and the result goes to all members. Without islands
    every worker is one, m = 1.

    P processes host G/P whole islands each; or, where there are more processes than islands, P/G processes share one.
    Those do the same with equal numbers, each with the gradients of its own members; only the first sends messages.
    A single worker may be shared, too: then each of its processes computes the gradient of a ``part`` of its batch.

    ``size``: G. ``each``: m. ``worker_ids``: the islands of this process, ``member_ids``: its members among the N.
    ``part``: (d, D): the d-th of D parts of the batch. ``leads``: whether this is the first process of its island.
    ``inside``, ``returning``: links among the processes of this island, for sums and for what comes back; they are two,
    since the one may overtake the other. ``between``: links among the first processes of all islands; others have some,
    too, and do not use them.
    """

    size: int
    each: int
    worker_ids: range
    member_ids: range
    part: tuple[int, int] = (0, 1)
    leads: bool = True
    inside: Links = field(default_factory=Links)
    returning: Links = field(default_factory=Links)
    between: Links = field(default_factory=Links)

    @classmethod
    def of(cls, links: Links, workers: int, islands: int | None = None, per_worker: int = 1) -> Members:
        """``islands``: G; None: no islands. ``per_worker``: D, the processes of each worker. ``links``: among all
        processes, which call this together. Raises ValueError where workers, islands and processes do not fit."""
        processes, rank = links.processes, links.rank
        check_spread(workers, islands, per_worker, processes)
        size = workers if islands is None or islands == 1 else islands
        each = workers // size
        if processes <= size:
            here = size // processes
            own = range(rank * here, (rank + 1) * here)
            return cls(size, each, own, range(own.start * each, own.stop * each), between=links)
        share = processes // size
        island, place = divmod(rank, share)
        if per_worker > 1:
            first = rank // per_worker
            members, part = range(first, first + 1), (rank % per_worker, per_worker)
        else:
            here = workers // processes
            members, part = range(rank * here, (rank + 1) * here), (0, 1)
        same = range(island * share, (island + 1) * share)
        inside, returning = links.subgroup(same), links.subgroup(same)
        between = links.subgroup(
            range(place, processes, share)
        )  # all make one: torch counts the groups of each process
        return cls(size, each, range(island, island + 1), members, part, place == 0, inside, returning, between)

    @property
    def grouped(self) -> bool:
        """Whether a gradient of a worker of the exchange is a sum of several."""
        return self.each > 1 or self.inside.collective

    def mean(self, rows: Sequence[Tensor], in_order: bool) -> PendingTransfer[list[Tensor]]:
        """Tensors [W, ...] of the members here -> the means over each island's members, [L, ...]; of parts of a batch,
        the sum. ``in_order``: member by member, so that the bits do not depend on the number of processes."""
        count = len(self.worker_ids)
        if not self.inside.collective:
            return [_added(each.view(count, -1, *each.shape[1:])).div_(self.each) for each in rows]
        flat = torch.cat([each.reshape(len(each), -1) for each in rows], dim=1)  # one transfer for all
        if in_order:
            pieces = yield from self.inside.all_gather(as_bytes(flat))
            total = _added(torch.cat([p.view(flat.dtype).view(flat.shape) for p in pieces])[None])
        else:
            total = yield from self.inside.all_reduce(_added(flat[None]))
        means = torch.split(total.div_(self.each), [each[0].numel() for each in rows], dim=1)
        return [part.view(1, *each.shape[1:]) for part, each in zip(means, rows, strict=True)]

    def expanded(self, rows: Tensor) -> Tensor:
        """Rows of the islands here, [L, ...] -> each for every member here, [W, ...]."""
        members, islands = len(self.member_ids), len(self.worker_ids)
        if members == islands:
            return rows
        if rows.stride(0) == 0:
            return rows[:1].expand(members, *rows.shape[1:])
        return rows.repeat_interleave(members // islands, dim=0)

    def everywhere(self, transfer: PendingTransfer[Tensor], like: Tensor) -> PendingTransfer[Tensor]:
        """What a transfer among the leaders results in, at all processes of each island. ``transfer``: begun by none
        but the leaders. ``like``: a tensor of the shape and type of the result, which may be overwritten."""
        result = like
        if self.leads:
            result = yield from transfer
        if self.returning.collective:
            result = yield from self.returning.broadcast(result.contiguous(), 0)
        return result


def _added(rows: Tensor) -> Tensor:
    """[L, m, ...] -> [L, ...], added from first to last; rows itself where m = 1."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    total = rows[:, 0].clone()
    for i in range(1, rows.shape[1]):
        total += rows[:, i]
    return total


def check_spread(workers: int, islands: int | None, per_worker: int, processes: int, said: str = "") -> None:
    """Raises ValueError where so many processes cannot host the workers, or the islands, evenly. ``said``: the key and
    value that gave their number."""
    said = said or f"{processes} processes"
    if per_worker > 1:
        if processes != workers * per_worker:
            raise ValueError(
                f"launch.per_worker={per_worker}: {workers} workers take {workers * per_worker} processes, not "
                f"{processes}; give launch=torchrun launch.nproc={workers * per_worker}"
            )
        return
    if workers % processes:
        raise ValueError(f"{said}: {workers} workers cannot be spread evenly over it; give a divisor of workers")
    if islands is not None and islands > 1 and processes % islands and islands % processes:
        raise ValueError(f"{said}: would share {islands} islands unevenly; give a divisor or a multiple of {islands}")
