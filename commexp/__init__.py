"""Experiments in communication-efficient training.

From Python::

    import commexp
    run = commexp.run("algo=regtopk", "compress.k=0.01")
    run.metrics, run.traffic      # pandas DataFrames
    run.summary, run.folder
    commexp.sweep("algo=topk,regtopk", "seed=0,1").frame      # a row per run
    commexp.runs("algo=topk", "compress.k<0.1").frame         # of those that there are
    commexp.load("sgd-topk-digits")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commexp.api import load, run, runs, sweep
    from commexp.report.plot import plot

__version__ = "0.1.0"
__all__ = ["load", "plot", "run", "runs", "sweep"]


def __getattr__(name: str) -> Any:
    """Imports what ``commexp`` offers when it is first used: without torch, ``import commexp`` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'commexp' has no attribute {name!r}")
    return getattr(import_module("commexp.report.plot" if name == "plot" else "commexp.api"), name)
