"""Vectors from neighbour to neighbour, point to point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.comm.links import Links, Processes, Steps


def neighbours(x: Tensor, needs: Tensor, own: Sequence[int], links: Links) -> Steps[dict[int, Tensor]]:
    """x_m of every worker m that a worker here needs or is, by m; ``x`` [W, ...]: of the workers ``own``.

    ``needs`` [N, N]: needs[n, m] where n needs x_m. A vector goes once to each process that needs it.
    """
    rows = dict(zip(own, x, strict=True))
    if isinstance(links, Processes):
        here = len(own)
        by_process = needs.view(links.processes, here, -1).any(1)  # [P, N]: who needs whom
        others = [p for p in range(links.processes) if p != links.rank]
        wanted = {p: [m for m in range(p * here, (p + 1) * here) if by_process[links.rank, m]] for p in others}
        given = {p: [m for m in own if by_process[p, m]] for p in others}
        out = {p: torch.cat([rows[m].flatten() for m in ids]) for p, ids in given.items() if ids}
        sizes = {p: len(ids) * x[0].numel() for p, ids in wanted.items() if ids}
        received = yield from links.swap(out, sizes, x)
        for p, packed in received.items():
            rows |= dict(zip(wanted[p], packed.view(-1, *x.shape[1:]), strict=True))
    return rows
