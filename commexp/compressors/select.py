"""The k entries of largest magnitude, exactly, without sorting or copying the vector.

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

import numpy as np
import torch
from torch import Tensor

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
