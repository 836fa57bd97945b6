"""SPARTA: a random share of the parameters is averaged after every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext, Sent
from commexp.algorithms.local.diloco import OUTER, DiLoCo
from commexp.compressors import Compressor
from commexp.compressors.randk import draw
from commexp.seeding import derive

NONE = "none"


@dataclass
class SPARTA(DiLoCo):
    """A round is one local step of every worker. Then a random set S of max(1, round(share J)) entries, drawn anew from
    the common seed, so that no indices travel, is averaged:

        x_n[S] <- a[S] + (1/N) sum_n C(x_n[S] - a[S])       a: the entries' values when they were averaged last

    Without compression these are the averages of the x_n[S]. With ``share=1`` all entries are averaged in every step.

    ``outer``: none, or that of DiLoCo, which then follows every ``tau`` steps: SPARTA with DiLoCo. With none, the model
    that is evaluated is the average of the workers, which is not booked.

    Source: Exo Labs, SPARTA (2025), and EXO Gym's sparta strategy; share = 0.005 as there. Raises ValueError for values
    out of range, and for compressors with error feedback: what they keep belongs to entries that come back after about
    1/share steps.
    """

    state = "agreed entries_codec"
    samples_workers = False
    outer_choices = (NONE, *OUTER)
    share: float = 0.005
    outer: str = NONE

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: out of range; give a share of the entries in (0, 1] such as 0.005")
        if self.fragments > 1 or self.delay or self.mix:
            raise ValueError(
                f"fragments={self.fragments}, delay={self.delay}, mix={self.mix}: SPARTA draws the entries of every "
                "exchange anew; give 1, 0 and 0"
            )

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        if context.compressor.stateful_per_worker:
            raise ValueError(
                "compress.error_feedback=true: SPARTA exchanges other entries in every step, and what is left out of "
                "them would be added to those; give false"
            )
        self.entries_codec = self.copied_codec("entries", {})
        self.agreed = context.start.clone()  # a
        self.count = self.exchanged({}, len(context.start))

    @property
    def cycle(self) -> int:
        return 1 if self.outer == NONE else self.tau

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        due = self.outer != NONE and (t + 1) % self.tau == 0
        return [Sent(self.exchanged(shapes, dim)), *([Sent(dim, shapes)] if due else [])]

    def exchanged(self, shapes: object, dim: int) -> int:
        return max(1, round(self.share * dim))

    def periods(self, steps: int) -> list[int]:
        return [1] * steps

    def lengths(self, steps: int) -> list[int]:
        return self.periods(steps)

    def steps_in(self, rounds: int) -> int:
        return rounds

    @property
    def replaces(self) -> bool:
        return False

    def exchange(self, t: int) -> None:
        comm, seed = self.context.comm, self.context.codec_context.seed
        entries = draw([derive(seed, "sparta", t)], self.count, len(self.agreed))[0].to(self.x.device)
        summed = comm.begin(self.entries_codec, self.weights, self.count)
        known = self.agreed[entries]
        known = known + summed.finish(self.x[:, entries] - known)
        self.agreed[entries] = known
        self.x[:, entries] = known
        if self.outer != NONE and (t + 1) % self.tau == 0:
            super().exchange(t)
            self.agreed.copy_(self.pulled_average)

    def centre_of_workers(self) -> Tensor:
        return self.context.comm.watched_mean(self.x) if self.outer == NONE else super().centre_of_workers()

    def model(self) -> Tensor:
        return self.centre_of_workers() if self.outer == NONE else super().model()
