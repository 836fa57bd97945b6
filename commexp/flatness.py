"""The valley in which a finished run's models lie, written beside its tables."""

from __future__ import annotations

from torch import Tensor

from commexp.diagnostics import examine, line, plane
from commexp.problems import Problem
from commexp.rundir import Run


def look_around(problem: Problem, model: Tensor, workers: Tensor | None, run: Run) -> dict[str, float]:
    """Mean valley, its inverse and the sharpness of ``model`` [J], for summary.json. Where there are ``workers``
    [N, J], the models before the last exchange: line.csv, the training loss from the first to the second, and with
    three of them plane.csv, on the plane that they span, and where they and their average stand on it.

    The loss is that of a fixed training sample; batch norm takes the sample's own statistics.
    """
    loss = problem.training_loss
    apart = model[None] if workers is None else workers.to(model)
    found = examine(loss, problem.training_gradient, model, apart)
    if len(apart) > 1:
        at, losses = line(loss, apart[0], apart[1])
        rows = zip(at.tolist(), losses.tolist(), strict=True)
        run.write_rows("line", [{"t": t, "train_loss": value} for t, value in rows])
    if len(apart) > 2:
        try:
            spanned = plane(loss, *apart[:3])
        except ValueError:  # the three lie on a line: there is no plane to show
            return found
        grid = [
            {"x": x, "y": y, "train_loss": value}
            for y, row in zip(spanned.y.tolist(), spanned.losses.tolist(), strict=True)
            for x, value in zip(spanned.x.tolist(), row, strict=True)
        ]
        run.write_rows("plane", grid)
        places = [*spanned.models.tolist(), spanned.models.mean(0).tolist()]
        names = ("worker 0", "worker 1", "worker 2", "their average")
        run.write_rows("plane_models", [{"name": n, "x": x, "y": y} for n, (x, y) in zip(names, places, strict=True)])
    return found
