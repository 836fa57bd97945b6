"""What a module is trained for: a loss on a batch, and what an evaluation measures besides."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from commexp.metrics import METRICS, Metric, register
from commexp.problems.trees import Tree

Call = Callable[..., Any]  # a module, or something that is called as one
IGNORED = -100  # a target of this value has no part in the loss, as in torch's cross entropy


class TaskError(ValueError):
    """A batch, a module and a loss do not fit together; the text is for the user."""


class Task(ABC):
    """A loss and metrics, each a mean over samples.

    ``losses`` and ``scores`` return one value for each sample, [b], or a scalar, the mean over the batch. ``foldable``:
    whether the module is only called, with tensors that have samples on their first axis, and the losses are [b]; the
    samples of several workers may then stand in one batch. ``has_accuracy``: whether ``accuracy`` is among the scores.
    """

    foldable: bool = True
    has_accuracy: bool = False

    @abstractmethod
    def losses(self, module: Call, batch: Tree) -> Tensor:
        """The losses whose mean is minimised. Raises TaskError for a batch that the task does not fit."""

    def scores(self, module: Call, batch: Tree) -> dict[str, Tensor]:
        """What is measured on a batch: ``loss``, and further metrics by name."""
        return {"loss": self.losses(module, batch)}

    def evaluated(self, train: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
        """The columns of metrics.csv from the mean scores of the training set and of the test set."""
        columns = {f"train_{name}": value for name, value in train.items()}
        return {**columns, **{f"test_{name}": value for name, value in test.items()}}


class Classification(Task):
    """Cross entropy. Batches are inputs [b, ...] and classes [b]; the module maps inputs to logits [b, classes].
    Metrics: train_loss, train_accuracy, test_loss, test_accuracy."""

    has_accuracy = True

    def losses(self, module: Call, batch: Tree) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(logits_of(module(inputs)), targets, reduction="none")

    def scores(self, module: Call, batch: Tree) -> dict[str, Tensor]:
        inputs, targets = batch
        logits = logits_of(module(inputs))
        losses = F.cross_entropy(logits, targets, reduction="none")
        return {"loss": losses, "accuracy": (logits.argmax(1) == targets).to(losses.dtype)}


class Regression(Task):
    """Squared error, mean over the outputs of a sample. Batches are inputs [b, ...] and targets [b] or [b, outputs].
    Metrics: train_loss, test_loss, and their square roots train_rmse, test_rmse."""

    def losses(self, module: Call, batch: Tree) -> Tensor:
        inputs, targets = batch
        outputs = logits_of(module(inputs))
        errors: Tensor = outputs.flatten(1) - targets.to(outputs.dtype).view(len(targets), -1)
        return errors.square().mean(1)

    def evaluated(self, train: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
        roots = {f"{name}_rmse": math.sqrt(s["loss"]) for name, s in (("train", train), ("test", test)) if "loss" in s}
        return {**super().evaluated(train, test), **roots}


class LanguageModelling(Task):
    """Cross entropy of the next token, in nats, mean over the tokens of a window. Batches are tokens [b, T] and the
    tokens that follow them [b, T]; the module maps tokens to logits [b, T, vocabulary]. Targets of IGNORED do not
    count.

    ``bytes_per_token``: of the text, None if unknown. Metrics: train_loss, test_loss, test_perplexity = exp(test_loss)
    and, where the bytes are known, test_bits_per_byte = test_loss / (ln 2 bytes_per_token).
    """

    def __init__(self, bytes_per_token: float | None = None) -> None:
        self.bytes_per_token = bytes_per_token

    def losses(self, module: Call, batch: Tree) -> Tensor:
        tokens, targets = batch
        return token_losses(logits_of(module(tokens)), targets)

    def evaluated(self, train: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
        more = {}
        if "loss" in test:
            more["test_perplexity"] = perplexity(test["loss"])
            if self.bytes_per_token:
                more["test_bits_per_byte"] = test["loss"] / (math.log(2) * self.bytes_per_token)
        return {**super().evaluated(train, test), **more}


class OwnLoss(Task):
    """A user's own loss: called with the module and a batch, it returns a scalar, the mean over the batch. None: the
    loss that the module itself brings, see ``own_loss``. Metrics: train_loss, test_loss."""

    foldable = False

    def __init__(self, loss: Call | None) -> None:
        self.loss = loss or own_loss

    def losses(self, module: Call, batch: Tree) -> Tensor:
        return scalar("loss", self.loss(module, batch))


class WithMetrics(Task):
    """``task`` with a user's own ``metrics`` besides: by name, each called with the module and a batch, and averaged
    over the samples of the test set: the column test_<name>. Raises ValueError for a name that no column may have."""

    def __init__(self, task: Task, metrics: Mapping[str, Call]) -> None:
        self.task, self.metrics = task, dict(metrics)
        self.foldable = task.foldable
        self.has_accuracy = task.has_accuracy or "accuracy" in self.metrics
        for name in self.metrics:
            column = f"test_{name}"
            if column not in METRICS:
                register(Metric(column, f"test {name.replace('_', ' ')}", shown=("table", "curves", "page")))

    def losses(self, module: Call, batch: Tree) -> Tensor:
        return self.task.losses(module, batch)

    def scores(self, module: Call, batch: Tree) -> dict[str, Tensor]:
        own = {name: scalar(f"metrics.{name}", each(module, batch)) for name, each in self.metrics.items()}
        return {**self.task.scores(module, batch), **own}

    def evaluated(self, train: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
        theirs = {name: value for name, value in train.items() if name not in self.metrics}
        columns = self.task.evaluated(theirs, {k: v for k, v in test.items() if k not in self.metrics})
        return {**columns, **{f"test_{name}": test[name] for name in self.metrics if name in test}}


def own_loss(module: Call, batch: Tree) -> Any:
    """The loss of a module that brings its own, or cross entropy.

        module.loss(batch)             where the module has such a method
        module(**batch).loss           for a dict, as in Hugging Face's libraries
        cross entropy of module(x)     for a pair of inputs x and integer targets, [b] or per token [b, T]

    Raises TaskError for any other batch, and for a dict without a loss.
    """
    method = getattr(module, "loss", None)
    if callable(method):
        return method(batch)
    if isinstance(batch, Mapping):
        found = getattr(module(**batch), "loss", None)
        if found is None:
            raise TaskError("loss: the module returns none for this batch; give it targets, or loss=...")
        return found
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor):
        inputs, targets = batch
        logits = logits_of(module(inputs))
        if not targets.is_floating_point():
            return token_losses(logits, targets) if targets.ndim > 1 else F.cross_entropy(logits, targets)
    raise TaskError("loss: the batches are no pair of inputs and integer targets; give loss=...")


def logits_of(output: Any) -> Tensor:
    """The output itself, or its ``logits``; what autocast has made bfloat16 or half becomes float32. Raises TaskError
    for anything else."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TaskError(f"loss: the module returns a {type(output).__name__}, no tensor; give loss=...")
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [b, T, V], targets [b, T] -> mean cross entropy of each sample [b] over its targets that are not
    IGNORED."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
    counted = (targets != IGNORED).sum(1).clamp(min=1)
    return losses.view(targets.shape).sum(1) / counted


def scalar(key: str, value: Any) -> Tensor:
    """Raises TaskError for anything but a number or a tensor with one element."""
    found = value if isinstance(value, Tensor) else torch.as_tensor(value) if isinstance(value, float | int) else None
    if found is None or found.numel() != 1:
        what = f"of shape {list(found.shape)}" if found is not None else f"a {type(value).__name__}"
        raise TaskError(f"{key}: returns no scalar but a value {what}; return the mean over the batch")
    return found.reshape(())


def perplexity(loss: float) -> float:
    """exp(loss); infinity where that is too large."""
    return math.exp(loss) if loss < 700 else math.inf
