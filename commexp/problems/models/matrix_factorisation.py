"""Matrix factorisation of ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from commexp.problems.base import Problem, ProblemContext
from commexp.problems.data import Data
from commexp.problems.models.base import Model
from commexp.problems.ratings.all_factors import AllFactors
from commexp.problems.ratings.data import Ratings
from commexp.problems.ratings.factorisation import Factorisation
from commexp.problems.ratings.item_factors import ItemFactors

FORMS: dict[str, type[Factorisation]] = {"items": ItemFactors, "all": AllFactors}


@dataclass
class MatrixFactorisation(Model):
    """Predicts ratings as mean + biases + inner products of ``rank`` factors. ``travels``: with items, x holds the
    factors of items, those of users are solved for, and each user belongs to one worker; with all, x holds the factors
    of users and items. ``lam``: the weight of the squared factors relative to the squared errors. ``bias``: whether
    users and items have biases. ``start``: standard deviation of the initial factors. See Factorisation. Raises
    ValueError for a value out of range."""

    rank: int = 16
    lam: float = 5.0
    bias: bool = True
    travels: str = "items"
    start: float = 0.1

    full_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: must not be less than 1; give the number of factors, such as 16")
        if self.travels not in FORMS:
            raise ValueError(f"travels={self.travels}: unknown; give {' or '.join(FORMS)}")
        if not self.lam >= 0:
            raise ValueError(f"lam={self.lam}: must not be negative; give 0 or more, such as 5")
        if self.lam == 0 and self.travels == "items":
            raise ValueError(
                "lam=0.0: the best fit of a user with few ratings would not be unique; give a positive number"
            )
        if not self.start > 0:
            raise ValueError(f"start={self.start}: must be positive, because zero is a stationary point; give 0.1")

    def pools(self, data: Data, shards: Sequence[Tensor]) -> list[int]:
        """With travels=items a sample is a user."""
        if self.travels == "all":
            return super().pools(data, shards)
        users = data.train_x.users
        return [int((torch.bincount(users[rows]) > 0).sum()) for rows in shards]

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        if not isinstance(data.train_x, Ratings):
            raise ValueError("model=matrix_factorisation: needs ratings; give dataset=ratings, movielens or netflix")
        return FORMS[self.travels](data, context, self.rank, self.lam, self.bias, self.start)
