"""Every allocation, how balanced it is, and what each one refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commexp.allocations import (
    All,
    Allocation,
    AllocationFile,
    Assignment,
    Cyclic,
    Design,
    FractionalRepetition,
    Random,
    Single,
    difference_set,
)

KINDS: dict[str, Callable[..., Allocation]] = {
    "single": Single, "all": All, "random": Random, "cyclic": Cyclic, "design": Design,
    "fractional": FractionalRepetition, "file": AllocationFile,
}  # fmt: skip
WORKERS = {"design": 7, "fractional": 8}
COPIES = {"single": 1, "all": 8, "design": 3, "file": 3}


def written(folder: Path, text: str) -> str:
    (folder / "held.txt").write_text(text)
    return str(folder / "held.txt")


@pytest.mark.parametrize("name", KINDS)
def test_every_allocation(name: str, tmp_path: Path) -> None:
    N = WORKERS.get(name, 8)
    rows = Cyclic(3).assign(N, 0).astype(int).tolist()
    path = written(tmp_path, "# held\n" + "\n".join(", ".join(map(str, r)) for r in rows))
    made = KINDS[name](path=path) if name == "file" else KINDS[name]()
    held = made.allocation(N, seed=3)
    d = COPIES.get(name, 2)
    assert held.held.shape == (N, N)
    assert held.held.dtype == bool
    assert held.copies.tolist() == [d] * N
    assert held.loads.sum() == d * N
    if name != "random":
        assert held.loads.tolist() == [d] * N
    assert (made.allocation(N, seed=3).held == held.held).all()


@pytest.mark.parametrize("allocation", [Single(subsets=21), Random(3, subsets=21), Cyclic(3, subsets=21)])
def test_more_and_fewer_subsets_than_workers(allocation: Allocation) -> None:
    for M in (5, 8, 21, 64):
        allocation.subsets = M
        held = allocation.allocation(8, 0)
        assert held.held.shape == (8, M)
        assert set(held.copies) == {getattr(allocation, "d", 1)}
        if not isinstance(allocation, Random):
            assert held.loads.max() - held.loads.min() <= 1
    assert Cyclic(3, subsets=4).assign(8, 0)[:, 1].nonzero()[0].tolist() == [2, 3, 4]


def test_shapes() -> None:
    assert Single(subsets=3).assign(2, 0).tolist() == [[True, False, True], [False, True, False]]
    assert Cyclic(2).assign(3, 0).T.tolist() == [[True, True, False], [False, True, True], [True, False, True]]
    assert FractionalRepetition(2).assign(4, 0).astype(int).tolist() == [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2
    assert All(subsets=2).assign(3, 0).all()


def test_balance_is_what_it_says() -> None:
    S = np.random.default_rng(0).random((9, 6)) < 0.5
    gaps = [
        abs(sum(S[n, j] and S[n, k] for n in range(9)) - S[:, j].sum() * S[:, k].sum() / 9)
        for j in range(6)
        for k in range(6)
        if j != k
    ]
    balance = Assignment(S).balance
    assert balance.largest == pytest.approx(max(gaps), abs=1e-12)
    assert balance.rms == pytest.approx(math.sqrt(np.mean(np.square(gaps))), abs=1e-12)
    assert All().allocation(7, 0).balance.largest == 0
    assert Single().allocation(7, 0).balance.largest == pytest.approx(1 / 7)
    assert All(subsets=1).allocation(7, 0).balance.largest == 0


def test_random_is_balanced_on_average() -> None:
    """E c = d^2/N: a worker holds both of two subsets with probability (d/N)^2."""
    N, d = 10, 3
    seeds = [Random(d).assign(N, seed).astype(int) for seed in range(300)]
    off = ~np.eye(N, dtype=bool)
    means = np.array([(S.T @ S)[off].mean() for S in seeds])
    assert abs(means.mean() - d * d / N) < 4 * means.std(ddof=1) / math.sqrt(len(means))
    shares = np.mean(seeds, axis=0)  # every worker holds every subset equally often
    assert np.abs(shares - d / N).max() < 5 * math.sqrt(d / N * (1 - d / N) / len(seeds))
    assert (seeds[0] == Random(d).assign(N, 0)).all()
    assert (seeds[0] != seeds[1]).any()


SYMMETRIC = [  # N = M, d, overlap
    (7, 3, 1), (13, 4, 1), (21, 5, 1), (31, 6, 1), (57, 8, 1), (73, 9, 1), (91, 10, 1), (133, 12, 1),
    (11, 5, 2), (37, 9, 2), (15, 7, 3), (40, 13, 4), (19, 9, 4), (23, 11, 5), (35, 17, 8), (16, 6, 2),
    (7, 4, 2), (13, 9, 6), (16, 10, 6), (64, 28, 12), (9, 1, 0), (9, 8, 7),
]  # fmt: skip


@pytest.mark.parametrize(("N", "d", "overlap"), SYMMETRIC)
def test_symmetric_designs(N: int, d: int, overlap: int) -> None:
    held = Design(d).allocation(N, 0)
    assert held.copies.tolist() == held.loads.tolist() == [d] * N
    S = held.held.astype(int)
    assert set((S.T @ S)[~np.eye(N, dtype=bool)]) == {overlap}
    gap = abs(overlap - d * d / N)
    assert held.balance.largest == pytest.approx(gap)
    assert held.balance.rms == pytest.approx(gap)
    fewer = Design(d, subsets=N - 1).allocation(N, 0)
    assert set(fewer.copies) == {d}


def test_the_fano_plane_is_not_exactly_balanced() -> None:
    assert Design(3).allocation(7, 0).balance.largest == pytest.approx(2 / 7)


@pytest.mark.parametrize(
    ("N", "M", "d"),
    [(6, 9, 6), (4, 3, 2), (8, 7, 4), (9, 4, 3), (12, 11, 6), (16, 15, 8), (24, 20, 12), (25, 6, 5), (27, 13, 9)],
)
def test_designs_that_are_exactly_balanced(N: int, M: int, d: int) -> None:
    held = Design(d, subsets=M).allocation(N, 0)
    assert held.held.shape == (N, M)
    assert set(held.copies) == {d}
    assert held.balance.largest == 0


def test_difference_sets() -> None:
    for v, k, overlap in SYMMETRIC:
        D = difference_set(v, k)
        if v in (16, 64):
            assert D is None  # there is no cyclic one
        else:
            assert D is not None
            counts = np.bincount(np.subtract.outer(D, D).ravel() % v, minlength=v)
            assert counts[0] == k
            assert set(counts[1:]) == {overlap}
    assert difference_set(43, 7) is None  # no projective plane of order 6
    assert difference_set(8, 3) is None
    assert difference_set(7, 7) is None


def test_large_ones() -> None:
    held = Cyclic(10).allocation(500, 0)
    assert held.balance.largest == pytest.approx(9 - 100 / 500)
    assert Random(10).allocation(100, 0).balance.largest > 1


@pytest.mark.parametrize(
    ("allocation", "workers", "says"),
    [
        (Random(9), 8, "d=9: more copies than the 8 workers; give 8 or fewer"),
        (Cyclic(9), 8, "d=9: more copies"),
        (Design(9), 8, "d=9: more copies"),
        (FractionalRepetition(9), 8, "d=9: more copies"),
        (FractionalRepetition(3), 8, "workers=8: not a multiple of d=3, .*; give 6 or 9"),
        (FractionalRepetition(2, subsets=6), 8, "subsets=6: .*as many as workers; give null, or workers=6"),
        (Design(4), 10, "d=4: no block design of 10 workers and 10 subsets with 4 copies is known here; give "
         "workers=7 or 13, or allocation=random"),
        (Design(2), 7, "d=2: .*give d=3 or 4, or workers=3, or allocation=random"),
        (Design(5, subsets=12), 12, "d=5: .*give workers=21, or allocation=random"),
        (Design(3, subsets=8), 7, "subsets=8: no block design has more of them than the 7 workers; give 7 or fewer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(allocation: Allocation, workers: int, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        allocation.allocation(workers, 0)


@pytest.mark.parametrize(
    ("cls", "fields", "says"),
    [
        (Single, {"subsets": 0}, "subsets=0: must not be less than 1; give"),
        (Random, {"d": 0}, "d=0: must not be less than 1; give"),
        (Design, {"d": -1}, "d=-1: "),
        (AllocationFile, {"path": "/nowhere/held.txt"}, "path=/nowhere/held.txt: No such file or directory; give"),
        (AllocationFile, {"path": "/"}, "path=/: a folder, not a file; give"),
    ],
)
def test_fields_are_checked(cls: type[Allocation], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        cls(**fields)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 0\n0 2\n", "path=.*: line 2 is '0 2'; give N rows of M zeros and ones"),
        ("1 0\n\n1\n", "path=.*: line 3 has 1 numbers, those before it 2; give"),
        ("1 0\n1,0 # both\n", "path=.*: column 1 has no one: .*; give a one in every column"),
        ("# nothing\n", "path=.*: empty; give"),
        ("1 1\n", "workers=2: the allocation in .* has 1; give workers=1"),
        ("1 1 1\n1 1 1\n", "subsets=2: the allocation in .* has 3; give 3, or null"),
    ],
)
def test_files_that_are_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        AllocationFile(written(tmp_path, text), subsets=2).allocation(2, 0)


def test_files_as_they_are_given(tmp_path: Path) -> None:
    path = written(tmp_path, "1, 0,1 # first\n\n0 1\t1\n")
    made = AllocationFile(path)
    assert made.allocation(2, 0).held.tolist() == [[True, False, True], [False, True, True]]
    assert AllocationFile(path, digest=made.digest, subsets=3).allocation(2, 0).loads.tolist() == [2, 2]
    assert len(made.digest) == 16
    written(tmp_path, "1 0 1\n0 1 0\n")
    for build in (lambda: AllocationFile(path, digest=made.digest), lambda: made.allocation(2, 0)):
        with pytest.raises(ValueError, match=rf"^digest={made.digest}: the file has changed since; leave it out"):
            build()
    assert AllocationFile(path).digest != made.digest
    (tmp_path / "held.txt").write_bytes(b"0 1\n\xff\xfe")
    with pytest.raises(ValueError, match=r"^path=.*: not UTF-8 text; give"):
        AllocationFile(path).allocation(2, 0)


def test_a_subset_that_nobody_holds_is_refused() -> None:
    class Lossy(Allocation):
        def assign(self, workers: int, seed: int) -> np.ndarray:
            return np.eye(workers, workers + 1, dtype=bool)

    with pytest.raises(ValueError, match=r"^allocation: no worker holds subset 3; give"):
        Lossy().allocation(3, 0)
