"""The interface of an allocation: which of M subsets of the data each of N workers holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class Balance:
    """The deviation from pair-wise balance: the ``largest`` value and the root mean square of |c_{k1 k2} - d_k1 d_k2 /
    N| over all pairs of subsets k1 != k2, where c workers hold both. Both are zero for exact balance or a single
    subset."""

    largest: float
    rms: float


@dataclass(frozen=True, eq=False)
class Assignment:
    """``held``: bool [N, M], read-only: whether worker n holds subset k."""

    held: np.ndarray

    def __post_init__(self) -> None:
        own = np.array(self.held, dtype=bool)
        own.flags.writeable = False
        object.__setattr__(self, "held", own)

    @property
    def workers(self) -> int:
        return int(self.held.shape[0])

    @property
    def subsets(self) -> int:
        return int(self.held.shape[1])

    @cached_property
    def copies(self) -> np.ndarray:
        """d_k, int [M]: how many workers hold subset k."""
        return np.asarray(self.held.sum(axis=0))

    @cached_property
    def loads(self) -> np.ndarray:
        """int [N]: how many subsets worker n holds."""
        return np.asarray(self.held.sum(axis=1))

    def subsets_of(self, workers: Sequence[int]) -> list[int]:
        """The subsets that any of these workers holds; subset 0 if they hold none, so that the list is not empty."""
        return np.flatnonzero(self.held[list(workers)].any(axis=0)).tolist() or [0]

    def subsets_per_process(self, processes: int) -> float:
        """The mean number of subsets for which a process computes gradients, with ``processes`` equal processes."""
        each = np.split(np.arange(self.workers), processes)
        return sum(len(self.subsets_of(own.tolist())) for own in each) / processes

    @cached_property
    def balance(self) -> Balance:
        S = self.held.astype(np.float32)  # counts up to 2^24 are exact
        gaps = (S.T @ S).astype(np.float64)
        gaps -= np.outer(self.copies, self.copies) / self.workers
        np.fill_diagonal(gaps, 0)
        pairs = self.subsets * (self.subsets - 1)
        return Balance(float(np.abs(gaps).max()), float(np.sqrt(np.sum(gaps**2) / max(1, pairs))))


@dataclass(kw_only=True)
class Allocation(ABC):
    """A dataclass whose fields are the hyper-parameters. ``subsets``: M; null means as many as workers."""

    subsets: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        if self.subsets is not None and self.subsets < 1:
            raise ValueError(
                f"subsets={self.subsets}: must not be less than 1; give 1 or more, or null for as many as workers"
            )

    @abstractmethod
    def assign(self, workers: int, seed: int) -> np.ndarray:
        """S, bool [N, M]: whether worker n holds subset k. Raises ValueError if this number of workers is
        impossible."""

    def allocation(self, workers: int, seed: int) -> Assignment:
        """Raises ValueError if this number of workers is impossible, or if no worker holds some subset."""
        made = Assignment(self.assign(workers, seed))
        lost = np.flatnonzero(made.copies == 0)
        if len(lost):
            raise ValueError(f"allocation: no worker holds subset {lost[0]}; give every subset to at least one worker")
        return made

    def code(self, workers: int, seed: int) -> np.ndarray:
        """B [N, M], zero where worker n does not hold subset k. Worker n sends B[n] times the gradients [M, J]; the
        messages of any N - d + 1 workers determine the full sum. Source: Tandon, Lei, Dimakis and Karampatziakis,
        Gradient Coding, ICML 2017 (arXiv 1612.03301). Raises ValueError if there is no such code."""
        raise ValueError("allocation: it has no exact code; give allocation=fractional or cyclic")

    def count(self, workers: int) -> int:
        """M."""
        return workers if self.subsets is None else self.subsets


@dataclass
class Replicated(Allocation):
    """``d`` workers hold each subset, 1 <= d <= N."""

    d: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d < 1:
            raise ValueError(f"d={self.d}: must not be less than 1; give a number of copies, such as 2")

    def refuse_too_few(self, workers: int) -> None:
        """Raises ValueError if d > N."""
        if self.d > workers:
            raise ValueError(f"d={self.d}: more copies than the {workers} workers; give {workers} or fewer")

    def refuse_other_subsets(self, workers: int, what: str) -> None:
        """Raises ValueError if M != N."""
        if self.count(workers) != workers:
            raise ValueError(
                f"subsets={self.subsets}: {what} has as many as workers; give null, or workers={self.subsets}"
            )
