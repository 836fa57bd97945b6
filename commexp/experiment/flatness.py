"""The valley in which a finished run's models lie: numbers for its summary, files for its pictures.

The loss is that of a fixed training sample; batch norm takes the sample's own statistics.
"""

from __future__ import annotations

from torch import Tensor

from commexp.diagnostics import examine, line, plane
from commexp.problems import Problem
from commexp.run_folder import Run


def measure(problem: Problem, model: Tensor, workers: Tensor | None) -> dict[str, float]:
    """Mean valley of ``model`` [J] among ``workers`` [N, J], the models before the last exchange; its inverse, and the
    sharpness of the model."""
    apart = model[None] if workers is None else workers.to(model)
    return examine(problem.training_loss, problem.training_gradient, model, apart)


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
