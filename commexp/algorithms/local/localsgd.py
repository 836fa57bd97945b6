"""Local SGD: average the models every tau steps."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.algorithms.local.base import LocalMethod


@dataclass
class LocalSGD(LocalMethod):
    """After every ``tau`` local steps x_n <- x_A on every worker. With tau = 1 and SGD without momentum that is
    synchronous SGD. The compressed difference x_n - x_A of the last exchange is Qsparse-local-SGD's message.

    Source: Stich, arXiv 1805.09767, algorithm 1; Basu et al., arXiv 1906.02367 (compressed).
    """

    def exchange(self, t: int) -> None:
        self.average = self.averaged()
        self.go_on_from(self.average)
