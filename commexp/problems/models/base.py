"""What a model choice is: a recipe that turns data into a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from commexp.problems.base import Problem, ProblemContext
from commexp.problems.classification import Classification
from commexp.problems.data import Data


class Model(ABC):
    """A dataclass whose fields are the model's hyper-parameters. ``full_batch``: whether it also takes
    batch_size=null."""

    full_batch: ClassVar[bool] = False

    def pools(self, data: Data, shards: Sequence[Tensor]) -> list[int]:
        """Of how many samples each worker's batches are drawn; ``shards``: those that it has."""
        return [len(rows) for rows in shards]

    @abstractmethod
    def problem(self, data: Data, context: ProblemContext) -> Problem:
        """Raises ValueError for data or a context that this model cannot serve."""


class ImageModel(Model):
    """A model whose ``module`` maps images [b, C, H, W] to logits [b, classes]."""

    @abstractmethod
    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A freshly made module for images of ``shape`` (C, H, W); draws its first values from torch's global
        generator, which the caller has seeded. Raises ValueError for images that it cannot take."""

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        name = type(self).__name__
        shape, classes = data.image_shape, data.classes
        if classes is None or shape is None:
            raise ValueError(f"model={name}: needs labelled images; give dataset=digits, or the dataset's own model")
        return Classification(lambda: self.module(shape, classes), data, context)


def refuse_mini_batches(context: ProblemContext) -> None:
    if context.batch_size is not None:
        raise ValueError(f"batch_size={context.batch_size}: this model takes full-batch gradients; give null")
