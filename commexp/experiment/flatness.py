"""The valley in which a finished run's models lie: numbers for its summary, tables for its pictures.

The loss is that of a fixed training sample; batch norm takes the sample's own statistics.
"""

from __future__ import annotations

import math

from torch import Tensor

from commexp.diagnostics import examine, line, plane
from commexp.experiment.setup import ExperimentSetup
from commexp.problems import Problem
from commexp.run_folder import Run


def valley_summary(setup: ExperimentSetup) -> dict[str, float]:
    """Mean valley of the model among the workers' models before the last exchange, its inverse, the model's sharpness
    and its generalisation gap. With flatness=landscape also writes the landscape's tables. All processes call this
    together; empty but on the first."""
    model, workers = setup.algorithm.model(), setup.algorithm.worker_models()
    if setup.links.rank:
        return {}
    problem, last = setup.problem, setup.record.rows[-1]
    around = model[None] if workers is None else workers.to(model)
    measured = examine(problem.training_loss, problem.training_gradient, model, around)
    if setup.plan.config.flatness == "landscape" and workers is not None:
        write_landscape(problem, around, setup.run)
    gap = last.get("train_accuracy", math.nan) - last.get("test_accuracy", math.nan)
    return {**measured, "generalisation_gap": gap}


def write_landscape(problem: Problem, workers: Tensor, run: Run) -> None:
    """line.csv: the training loss from the first of ``workers`` [N, J] to the second. With three of them plane.csv,
    on the plane that they span, and plane_models.csv, where they and their average stand on it."""
    loss = problem.training_loss
    if len(workers) > 1:
        at, losses = line(loss, workers[0], workers[1])
        rows = zip(at.tolist(), losses.tolist(), strict=True)
        run.write_rows("line", [{"t": t, "train_loss": value} for t, value in rows])
    if len(workers) > 2:
        try:
            spanned = plane(loss, *workers[:3])
        except ValueError:  # they lie on a line: there is no plane to show
            return
        grid = [
            {"x": x, "y": y, "train_loss": value}
            for y, row in zip(spanned.y.tolist(), spanned.losses.tolist(), strict=True)
            for x, value in zip(spanned.x.tolist(), row, strict=True)
        ]
        run.write_rows("plane", grid)
        places = [*spanned.models.tolist(), spanned.models.mean(0).tolist()]
        names = ("worker 0", "worker 1", "worker 2", "their average")
        run.write_rows("plane_models", [{"name": n, "x": x, "y": y} for n, (x, y) in zip(names, places, strict=True)])
