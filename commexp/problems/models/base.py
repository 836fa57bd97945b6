"""The interface of a model: it turns data into a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from commexp.problems.base import Problem, ProblemContext
from commexp.problems.data import Data
from commexp.problems.module_problem import ModuleProblem


class Model(ABC):
    """A dataclass whose fields are the model's hyper-parameters. ``full_batch``: whether it supports
    batch_size=null."""

    full_batch: ClassVar[bool] = False

    def resolve(self) -> None:
        """As Dataset.resolve."""
        return

    def pools(self, data: Data, shards: Sequence[Tensor]) -> list[int]:
        """The number of samples from which each worker draws its batches; ``shards``: its training samples."""
        return [len(rows) for rows in shards]

    @abstractmethod
    def problem(self, data: Data, context: ProblemContext) -> Problem:
        """Raises ValueError for data or a context that the model does not support."""


class ImageModel(Model):
    """A model whose ``module`` maps images [b, C, H, W] to logits [b, classes]."""

    @abstractmethod
    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A newly initialised module for images of ``shape`` (C, H, W); draws the initial values from torch's global
        generator, which the caller seeds. Raises ValueError for images that the model does not support."""

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        name = type(self).__name__
        shape, classes = data.image_shape, data.classes
        if classes is None or shape is None:
            raise ValueError(f"model={name}: needs labelled images; give dataset=digits, or the dataset's own model")
        trial = not type(self).__module__.startswith("commexp.")
        return ModuleProblem(lambda: self.module(shape, classes), data, context, trial)


def refuse_mini_batches(context: ProblemContext) -> None:
    if context.batch_size is not None:
        raise ValueError(f"batch_size={context.batch_size}: this model takes full-batch gradients; give null")
