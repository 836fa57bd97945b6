"""What a model choice is: a recipe that turns data into a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from commexp.problems.base import Problem, Setting
from commexp.problems.classification import Classification
from commexp.problems.data import Data


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
        with torch.random.fork_rng(devices=[]):  # layers draw their first values when made; Problem.init redraws
            module = self.module(data.train_x.shape[1], data.classes)
        return Classification(module, data, setting)


def refuse_mini_batches(setting: Setting) -> None:
    if setting.batch_size is not None:
        raise ValueError(f"batch_size={setting.batch_size}: this model takes full-batch gradients; give null")
