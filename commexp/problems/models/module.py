"""A user's own torch module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from commexp.problems.base import Problem, ProblemContext
from commexp.problems.data import Data
from commexp.problems.models.base import Model
from commexp.problems.module_problem import ModuleProblem
from commexp.problems.own import called, imported


@dataclass
class OwnModule(Model):
    """The module that ``factory`` returns: the full name of a function or class, called with ``arguments``. Its
    initialisation, drawn from the run's seed, is x_0. ``digest``: of a module or function that was handed over from
    Python instead, see ``commexp.run``; it has then no ``factory``. What the module is trained for, see
    module_problem.task_of. Raises ValueError for a factory that cannot be imported, fails, or returns no module.
    """

    factory: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        if bool(self.factory) == bool(self.digest):
            raise ValueError("factory=: empty; give the full name of a function that returns a torch module")
        self._make: Callable[..., Any] | None = None

    def resolve(self) -> None:
        """Imports the factory. Called where the config is the user's own."""
        if self.factory:
            self._make = imported("model.factory", self.factory)

    def hand_over(self, model: nn.Module | Callable[[], nn.Module]) -> None:
        """Takes a module, of which every use makes a copy, or a function that returns a new one."""
        self._make = (lambda: copy.deepcopy(model)) if isinstance(model, nn.Module) else model

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        return ModuleProblem(self._made, data, context, trial=True)

    def _made(self) -> nn.Module:
        if self._make is None:
            raise ValueError("model.digest: this run's model was handed over from Python; run it from there")
        module = called(f"model.factory={self.factory}" if self.factory else "model", self._make, self.arguments)
        if not isinstance(module, nn.Module):
            raise ValueError(f"model: returns a {type(module).__name__}, no torch module; return an nn.Module")
        return module
