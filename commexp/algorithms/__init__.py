"""Algorithms, one file each."""

from commexp.algorithms.base import Algorithm, Context
from commexp.algorithms.schedule import Schedule
from commexp.algorithms.sgd import SGD

__all__ = ["SGD", "Algorithm", "Context", "Schedule"]
