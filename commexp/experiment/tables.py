"""What a run consists of, in tables that stand before its first round."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from commexp.experiment.setup import ExperimentSetup

Row = dict[str, Any]


def write_inventory(trial: ExperimentSetup) -> None:
    """partition.csv, allocation.csv and topology.csv, each where there is such a thing; rounds.csv."""
    tables = {
        "partition": partition(trial),
        "allocation": allocation(trial),
        "topology": topology(trial),
        "rounds": rounds(trial),
    }
    for name, rows in tables.items():
        if rows:
            trial.run.write_rows(name, rows)


def partition(trial: ExperimentSetup) -> list[Row]:
    """How many samples of each class every worker has."""
    counts, held = trial.problem.classes_per_worker(), trial.held
    if counts is None:
        return []
    if held is not None:
        counts = torch.tensor(held.held).to(counts) @ counts
    found = [(n, c, m) for n, row in enumerate(counts.tolist()) for c, m in enumerate(row)]
    return _rows(("worker", "class", "samples"), found)


def allocation(trial: ExperimentSetup) -> list[Row]:
    """Who holds which subset, of coded methods."""
    if trial.held is None:
        return []
    return _rows(("worker", "subset"), [(int(n), int(k)) for n, k in zip(*trial.held.held.nonzero(), strict=True)])


def topology(trial: ExperimentSetup) -> list[Row]:
    """The weights off the diagonal, if they are not too many to be looked at; of a graph that changes their mean over
    a period."""
    mixer = trial.comm.mixer
    if mixer is None or not mixer.is_small:
        return []
    return _rows(("worker", "neighbour", "weight"), list(zip(*mixer.mean_links, strict=True)))


def rounds(trial: ExperimentSetup) -> list[Row]:
    """What each round takes of a worker; of coded methods, for each subset that it holds."""
    planned = trial.books.planned
    each = [[b - a for a, b in pairwise(c)] for c in (planned.ends, planned.batches, planned.gradients)]
    return _rows(("round", "steps", "batches", "gradients"), list(zip(range(1, len(planned.ends)), *each, strict=True)))


def _rows(columns: Sequence[str], found: Sequence[tuple[Any, ...]]) -> list[Row]:
    return [dict(zip(columns, row, strict=True)) for row in found]
