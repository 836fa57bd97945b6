"""What a model choice is: a recipe that turns data into a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from commexp.problems.base import Problem
from commexp.problems.classification import Classification
from commexp.problems.data import Data


@dataclass
class Setting:
    """What a problem needs to know besides data and model; ``batch_size`` None means the full batch."""

    parts: Sequence[Tensor]
    worker_ids: Sequence[int]
    batch_size: int | None
    seed: int
    device: torch.device
    dtype: torch.dtype
    deterministic: bool = False


class Model(ABC):
    """A dataclass whose fields are the model's hyper-parameters."""

    @abstractmethod
    def problem(self, data: Data, setting: Setting) -> Problem:
        """Raises ValueError for data or a setting that this model cannot serve."""


class ImageModel(Model):
    """A model whose ``module`` maps images [b, C, H, W] to logits [b, classes]."""

    @abstractmethod
    def module(self, channels: int, classes: int) -> nn.Module:
        """A freshly made module."""

    def problem(self, data: Data, setting: Setting) -> Problem:
        name = type(self).__name__
        if data.classes is None or data.train_x.ndim != 4:
            raise ValueError(f"model={name}: needs labelled images; give dataset=digits, or the dataset's own model")
        if setting.batch_size is None:
            raise ValueError("batch_size=null: this model trains on mini-batches; give a number such as 16")
        with torch.random.fork_rng(devices=[]):  # layers draw their first values when made; Problem.init redraws
            module = self.module(data.train_x.shape[1], data.classes)
        return Classification(
            module,
            data,
            setting.parts,
            setting.worker_ids,
            setting.batch_size,
            setting.seed,
            setting.device,
            setting.dtype,
            setting.deterministic,
        )


def refuse_mini_batches(setting: Setting) -> None:
    if setting.batch_size is not None:
        raise ValueError(f"batch_size={setting.batch_size}: this model takes full-batch gradients; give null")
