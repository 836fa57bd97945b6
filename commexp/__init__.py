"""Experiments in communication-efficient training.

From Python::

    import commexp
    run = commexp.run("algo=regtopk", "compress.k=0.01")
    run.metrics, run.traffic      # pandas DataFrames
    run.summary, run.folder
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from commexp.rundir import Run

__version__ = "0.1.0"


def run(*overrides: str) -> Run:
    """Runs the experiment that ``overrides`` describe, as ``commexp OVERRIDES...`` does, and returns its folder.

    A finished identical run is returned as it is. What the caller has set in torch, Hydra, Python has no part in the
    result, and is afterwards as it was; of several threads that call, one runs at a time. Raises
    commexp.refusals.UserError for a mistake in an override.
    """
    from commexp.api import run_experiment

    return run_experiment(overrides)


__all__ = ["run"]
