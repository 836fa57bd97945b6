"""``algo.lr=theory``: the learning rate that a method's theory allows for the run's problem, times algo.lr_factor."""

from __future__ import annotations

from typing import Any

from commexp.config.messages import UserError

THEORY = "theory"
UNTIL_KNOWN = 1.0  # the learning rate of an algorithm whose step has not been computed yet


def theory_factor(node: dict[str, Any]) -> float | None:
    """Takes ``lr_factor`` out of the algo node, and ``theory`` out of its lr. Returns the factor; None where lr is a
    number. Raises UserError."""
    factor: Any = node.pop("lr_factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
        raise UserError(f"algo.lr_factor={factor}: must be a positive number; give multiples of the step such as 4")
    if node.get("lr") == THEORY:
        node["lr"] = UNTIL_KNOWN
        return float(factor)
    if factor != 1:
        raise UserError(f"algo.lr_factor={factor}: multiplies the step of theory; give algo.lr=theory, or leave it out")
    return None
