"""Block designs: the same number of workers holds any two subsets together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from commexp.allocations.base import Replicated

NODES = 20_000  # partial difference sets that the search for one (v, k) tries before it gives up
FARTHEST = 500  # the largest number of workers that an error message suggests


@dataclass
class Design(Replicated):
    """``d`` workers hold each subset, and the same number of workers holds each pair of subsets; the design is exactly
    balanced if that number is d^2/N.

    The first of these designs that exists for N workers: d = N, exactly balanced; M <= (N-1)/(q-1), N a power of a
    prime q, d = N/q: hyperplanes of an affine space, exactly balanced; M < N, d = N/2: a Hadamard matrix, exactly
    balanced; M <= N: symmetric designs with overlap d(d-1)/(N-1), from cyclic difference sets and, for N a power of 4
    and d = (N -+ sqrt N)/2, from products of Hadamard matrices. For M > N only d = N is possible (Fisher's inequality).
    Source: Beth, Jungnickel and Lenz, Design Theory, 1999.
    """

    d: int = 3

    def assign(self, workers: int, seed: int) -> np.ndarray:
        self.refuse_too_few(workers)
        M = self.count(workers)
        if self.d < workers < M:
            raise ValueError(
                f"subsets={M}: no block design has more of them than the {workers} workers; give {workers} or fewer, "
                "or allocation=random"
            )
        held = design(workers, M, self.d)
        if held is None:
            copies = [d for d in range(2, workers - 1) if design(workers, M, d) is not None]
            instead = [
                f"{key}={' or '.join(map(str, fits))}"
                for key, fits in (("d", copies), ("workers", _near(workers, self.subsets or 1, self.d)))
                if fits
            ]
            raise ValueError(
                f"d={self.d}: no block design of {workers} workers and {M} subsets with {self.d} copies is known here; "
                f"give {', or '.join([*instead, 'allocation=random'])}"
            )
        return held


def design(workers: int, subsets: int, d: int) -> np.ndarray | None:
    """S, bool [N, M], as described in ``Design``; None if no design is known here."""
    N, M = workers, subsets
    if d == N:
        return np.ones((N, M), dtype=bool)
    if M > N:
        return None
    q = N // d
    if q * d == N and _primes(q) == [q] and _is_power(N, q) and M * (q - 1) < N:
        return _affine(N, q)[:, :M]
    if M < N == 2 * d and (D := difference_set(N - 1, d - 1)) is not None:
        return np.vstack([_developed(N - 1, D), np.ones(N - 1, dtype=bool)])[:, :M]
    if (D := difference_set(N, d)) is not None:
        return _developed(N, D)[:, :M]
    if _is_power(N, 4) and abs(N - 2 * d) == math.isqrt(N):
        return np.asarray(_menon(N)[:, :M] == (2 * d < N))
    return None


@cache
def difference_set(v: int, k: int) -> tuple[int, ...] | None:
    """k numbers mod v whose nonzero differences each occur lambda = k(k-1)/(v-1) times; None if the search finds none.

    The search tries unions of orbits of x -> p x mod v, where p is a prime divisor of k - lambda: by Hall's multiplier
    theorem every difference set has such a translate if p > lambda and p does not divide v. For v of about 150 or more
    the search may miss an existing set.
    """
    if not 1 <= k < v or k * (k - 1) % (v - 1):
        return None
    if 2 * k > v:
        rest = difference_set(v, v - k)
        return None if rest is None else tuple(sorted(set(range(v)) - set(rest)))
    if k == 1:
        return (0,)
    overlap = k * (k - 1) // (v - 1)
    for p in _primes(k - overlap):
        if math.gcd(p, v) == 1 and (numbers := _united(v, k, overlap, p)) is not None:
            return numbers
    return None


def _united(v: int, k: int, overlap: int, multiplier: int) -> tuple[int, ...] | None:
    """A difference set that is a union of orbits, by backtracking."""
    orbits, seen = [], set[int]()
    for x in range(v):
        if x not in seen:
            orbit = [x]
            while (y := orbit[-1] * multiplier % v) != x:
                orbit.append(y)
            seen.update(orbit)
            orbits.append(np.array(orbit))
    orbits.sort(key=len, reverse=True)
    left = NODES

    def extend(start: int, chosen: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
        nonlocal left
        if len(chosen) == k:
            return chosen
        for i in range(start, len(orbits)):
            orbit = orbits[i]
            if len(chosen) + len(orbit) > k:
                continue
            left -= 1
            if left < 0:
                return None
            cross, own = (orbit[:, None] - chosen).ravel(), (orbit[:, None] - orbit).ravel()
            now = counts + np.bincount(np.concatenate([cross, -cross, own]) % v, minlength=v)
            if now[1:].max() <= overlap:
                made = extend(i + 1, np.append(chosen, orbit), now)
                if made is not None:
                    return made
        return None

    numbers = extend(0, np.empty(0, dtype=np.int64), np.zeros(v, dtype=np.int64))
    return None if numbers is None else tuple(sorted(numbers.tolist()))


def _developed(v: int, numbers: tuple[int, ...]) -> np.ndarray:
    """[v, v]: worker n holds n + x mod v for every x of a difference set."""
    held = np.zeros((v, v), dtype=bool)
    workers = np.arange(v)[:, None]
    held[workers, (workers + np.array(numbers)) % v] = True
    return held


def _affine(N: int, q: int) -> np.ndarray:
    """[N, (N-1)/(q-1)]: workers are the points of an n-dimensional space over the integers mod a prime q, and subsets
    are the hyperplanes through 0, one for each normal vector whose first nonzero entry is 1."""
    n = round(math.log(N, q))
    points = np.arange(N)[:, None] // q ** np.arange(n) % q
    first = np.take_along_axis(points, (points != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    held: np.ndarray = points @ points[first == 1].T % q == 0
    return held


def _menon(N: int) -> np.ndarray:
    """[N, N] with (N - sqrt N)/2 ones in each row and column: the negative entries of Kronecker powers of the 4 x 4
    matrix J - 2 I."""
    factor, product = np.ones((4, 4), dtype=np.int64) - 2 * np.eye(4, dtype=np.int64), np.ones((1, 1), dtype=np.int64)
    while len(product) < N:
        product = np.kron(product, factor)
    negative: np.ndarray = product < 0
    return negative


def _near(workers: int, least: int, d: int) -> list[int]:
    """The nearest smaller and larger numbers of workers, at least ``least``, with a known symmetric design of d
    copies."""
    sizes = [d * (d - 1) // overlap + 1 for overlap in range(1, d) if d * (d - 1) % overlap == 0]
    fewer = sorted((v for v in sizes if least <= v < workers), reverse=True)
    more = sorted(v for v in sizes if max(least, workers + 1) <= v <= FARTHEST)
    known = [next((v for v in side if design(v, v, d) is not None), 0) for side in (fewer, more)]
    return [v for v in known if v]


def _primes(n: int) -> list[int]:
    """The prime divisors of n, the largest first, because its orbits are usually the longest."""
    return [p for p in range(n, 1, -1) if n % p == 0 and all(p % f for f in range(2, math.isqrt(p) + 1))]


def _is_power(n: int, base: int) -> bool:
    """Whether n is a power of ``base`` >= 2."""
    while n % base == 0:
        n //= base
    return n == 1
