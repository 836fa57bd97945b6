"""What is minimised: data, a model and a loss, with gradients for W workers at once."""

from __future__ import annotations

from commexp.problems.base import WAYS, GradientOptions, Problem, ProblemContext
from commexp.problems.clipping import ClippedGradients
from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.partition import Partition
from commexp.problems.models.base import Model
from commexp.problems.module_problem import ModuleProblem
from commexp.problems.nonfinite import POLICIES, NonFiniteError, NonFiniteGuard
from commexp.problems.per_worker import PerWorkerProblem
from commexp.problems.prox import NoProx, Prox
from commexp.problems.shared import SharedGradients
from commexp.problems.some_workers import SomeWorkers

DEFAULT_BATCH = 16  # the default batch_size: small data are run with it, with several epochs in a batch


def build_problem(model: Model, data: Data, context: ProblemContext, prox: Prox | None = None) -> Problem:
    """The model's loss on the workers' ``data``, with ``prox`` beside it.

    Raises ValueError, in words for the user, if data and model do not fit together, or a batch would be larger than
    what the worker with the most samples has, and than DEFAULT_BATCH.
    """
    problem, batch_size = model.problem(data, context), context.batch_size
    if batch_size is not None:
        largest = max(model.pools(data, context.shards))
        if batch_size > max(largest, DEFAULT_BATCH):
            right = f"{largest} or less" + (", or null for all of a worker's" if model.full_batch else "")
            raise ValueError(
                f"batch_size={batch_size}: none of {len(context.shards)} workers has more than {largest} samples; give "
                f"{right}"
            )
    if (context.loss or context.metrics) and not isinstance(problem, ModuleProblem):
        key = "loss" if context.loss else "metrics"
        raise ValueError(f"{key}: the {type(model).__name__} model has its own; leave it out, or give a torch module")
    problem.prox = prox or NoProx()
    return problem


__all__ = [
    "POLICIES",
    "WAYS",
    "ClippedGradients",
    "Data",
    "Dataset",
    "GradientOptions",
    "Model",
    "ModuleProblem",
    "NoProx",
    "NonFiniteError",
    "NonFiniteGuard",
    "Partition",
    "PerWorkerProblem",
    "Problem",
    "ProblemContext",
    "Prox",
    "SharedGradients",
    "SomeWorkers",
    "build_problem",
]
