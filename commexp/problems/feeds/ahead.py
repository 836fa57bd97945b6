"""Batches of several steps, drawn at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from commexp.problems.trees import Tree, tensors, tree_map

AHEAD_BYTES = 2**20  # the largest size of the batches of a process that are drawn ahead
ALIGNED = 64  # torch allocates at multiples of so many bytes


class Ahead:
    """The batches of steps that are asked for one after the other. To draw a batch takes dozens of calls, however small
    it is, so ``draw`` is asked for the batches of 1, 2, 4, ... steps at once, [s, W, b, ...] each, of at most ``most``
    bytes or of one step. A step that does not follow the one before is drawn alone, and no batch is given twice."""

    def __init__(self, draw: Callable[[range], Tree], most: int = AHEAD_BYTES) -> None:
        self.draw, self.most = draw, most
        self.following = -1  # the step after the one that was asked for last
        self.ready: list[Tree] = []  # the batches of the steps from ``following`` on, the last one first
        self.count = self.limit = 1  # how many were drawn the last time; how many fit into ``most``

    def batch(self, step: int) -> Tree:
        if step != self.following:
            self.ready, self.count = [], 0
        if not self.ready:
            self.count = max(1, min(2 * self.count, self.limit))
            many = self.draw(range(step, step + self.count))
            self.limit = self.most * self.count // max(1, sum(t.nbytes for t in tensors(many)))
            self.ready = [tree_map(lambda t, i=i: aligned(t[i]), many) for i in reversed(range(self.count))]  # type: ignore[misc]
        self.following = step + 1
        return self.ready.pop()


def aligned(t: Tensor) -> Tensor:
    """Itself, or a copy where it does not begin where a new tensor would: the last bits of matrix products may depend
    on that."""
    return t if t.data_ptr() % ALIGNED == 0 else t.clone()
