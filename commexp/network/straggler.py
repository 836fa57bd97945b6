"""Who is late in which round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from commexp.seeding import numpy_generator


@dataclass(kw_only=True)
class Straggler(ABC):
    """A dataclass; its fields are its hyper-parameters. ``slowdown``: a late worker computes so many times as long.
    Who is late is a function of the seed and the round alone, so that all processes agree."""

    slowdown: float = 10.0

    def __post_init__(self) -> None:
        if not self.slowdown >= 1:
            raise ValueError(f"slowdown={self.slowdown}: must not be less than 1; give how many times as long it takes")

    @abstractmethod
    def share(self, workers: int) -> float:
        """The share of late workers, on average."""

    @abstractmethod
    def late(self, number: int, workers: int, seed: int) -> np.ndarray:
        """Whether each worker is late in round ``number`` = 1, 2, ...: bool [N]."""


@dataclass
class NoStragglers(Straggler):
    """No worker is ever late."""

    def share(self, workers: int) -> float:
        return 0.0

    def late(self, number: int, workers: int, seed: int) -> np.ndarray:
        return np.zeros(workers, dtype=bool)


@dataclass
class Bernoulli(Straggler):
    """Each worker in each round with probability ``p``, independently of all else."""

    p: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.p < 1:
            raise ValueError(f"p={self.p}: out of range; give a probability in [0, 1)")

    def share(self, workers: int) -> float:
        return self.p

    def late(self, number: int, workers: int, seed: int) -> np.ndarray:
        return numpy_generator(seed, "stragglers", number).random(workers) < self.p


@dataclass
class Fixed(Straggler):
    """The ``workers`` named, always."""

    workers: list[int] = field(default_factory=lambda: [0])

    def share(self, workers: int) -> float:
        return len(set(self.workers)) / workers

    def late(self, number: int, workers: int, seed: int) -> np.ndarray:
        """Raises ValueError for a worker that does not exist."""
        beyond = [n for n in self.workers if not 0 <= n < workers]
        if beyond:
            raise ValueError(f"straggler.workers={list(self.workers)}: there is no worker {beyond[0]} of {workers}")
        mask = np.zeros(workers, dtype=bool)
        mask[self.workers] = True
        return mask


@dataclass
class Markov(Straggler):
    """A worker in time falls behind with probability ``fall``, a late one recovers with probability ``recover``. In
    every round a worker is late with probability fall / (fall + recover)."""

    fall: float = 0.1
    recover: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("fall", "recover"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: out of range; give a probability in (0, 1]")
        self._chain: dict[tuple[int, int], list[np.ndarray]] = {}

    def share(self, workers: int) -> float:
        return self.fall / (self.fall + self.recover)

    def late(self, number: int, workers: int, seed: int) -> np.ndarray:
        chain = self._chain.setdefault((workers, seed), [])
        while len(chain) < number:
            drawn = numpy_generator(seed, "stragglers", len(chain) + 1).random(workers)
            if chain:
                chain.append(np.where(chain[-1], drawn >= self.recover, drawn < self.fall))
            else:
                chain.append(drawn < self.share(workers))
        return chain[number - 1]
