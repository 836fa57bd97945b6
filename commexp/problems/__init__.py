"""The problem that is minimised: data, a model and a loss, with gradients for W workers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from commexp.problems.base import WAYS, GradientOptions, Problem, ProblemContext
from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.partition import Partition
from commexp.problems.models.base import Model
from commexp.problems.nonfinite import POLICIES, NonFiniteError, NonFiniteGuard
from commexp.problems.per_worker import PerWorkerProblem
from commexp.problems.prox import NoProx, Prox

DEFAULT_BATCH = 16  # the default batch_size: small data may be smaller, so that a batch spans several epochs


def build_problem(
    dataset: Dataset,
    partition: Partition,
    model: Model,
    workers: int,
    worker_ids: Sequence[int],
    batch_size: int | None,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    deterministic: bool = False,
    speed: GradientOptions | None = None,
    prox: Prox | None = None,
    one_by_one: bool = False,
    by_samples: bool = False,
) -> Problem:
    """Loads the data, splits them over ``workers``, and returns the problem of the workers ``worker_ids``; with
    ``one_by_one`` a PerWorkerProblem. ``by_samples``: the weight of a worker in F is proportional to its number of
    samples; otherwise all weights are equal.

    Raises ValueError or FileNotFoundError, with a message for the user, if the components do not fit together, or if a
    batch is larger than both DEFAULT_BATCH and the largest shard.
    """
    data = dataset.load(workers, seed, dtype)
    shards = partition.split(data, workers, seed)
    speed = replace(speed or GradientOptions(), workers="loop") if one_by_one else speed or GradientOptions()
    context = ProblemContext(shards, worker_ids, batch_size, seed, device, dtype, deterministic, speed)
    if by_samples:
        context.weights = [len(rows) / sum(map(len, shards)) for rows in shards]
    problem = model.problem(data, context)
    if batch_size is not None:
        largest = max(model.pools(data, shards))
        if batch_size > max(largest, DEFAULT_BATCH):
            right = f"{largest} or less" + (", or null for all of a worker's" if model.full_batch else "")
            raise ValueError(
                f"batch_size={batch_size}: none of {workers} workers has more than {largest} samples; give {right}"
            )
    if one_by_one:
        each = [problem.for_worker(w) for w in range(len(worker_ids))]
        problem = PerWorkerProblem(each, problem.local_sizes)
    problem.prox = prox or NoProx()
    return problem


__all__ = [
    "POLICIES",
    "WAYS",
    "Data",
    "Dataset",
    "GradientOptions",
    "Model",
    "NoProx",
    "NonFiniteError",
    "NonFiniteGuard",
    "Partition",
    "PerWorkerProblem",
    "Problem",
    "Prox",
    "build_problem",
]
