"""What a claim can be about: one number, calculated from the metrics of a few runs of one seed.

``frames``: the metrics of each run by the label that the claim gives it. ``metric``: an expression of columns, such as
``stationarity + consensus`` or ``dist_to_opt ** 2``; its value at the last evaluation, or at the round ``at``, or its
mean over the ``last`` share of the evaluations. A target is reached from above: of an accuracy claims take
``1 - test_accuracy``.
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

Frames = Mapping[str, pd.DataFrame]


class Unmeasured(Exception):  # noqa: N818 - no mistake of the program
    """The runs do not have what the quantity needs, in a line."""


def value(frames: Frames, of: str, metric: str, at: int | None = None, last: float | None = None) -> float:
    """A metric of one run."""
    column = _column(frames[of], metric)
    if at is not None:
        if at not in column.index:
            raise Unmeasured(f"{of} has no evaluation at round {at}")
        return float(column[at])
    return float(column.iloc[-max(1, round(len(column) * last)) :].mean()) if last else float(column.iloc[-1])


def ratio(frames: Frames, of: str, to: str, metric: str, at: int | None = None, last: float | None = None) -> float:
    """A metric of one run over that of another."""
    return value(frames, of, metric, at, last) / value(frames, to, metric, at, last)


def difference(
    frames: Frames, of: str, to: str, metric: str, at: int | None = None, last: float | None = None
) -> float:
    """A metric of one run less that of another."""
    return value(frames, of, metric, at, last) - value(frames, to, metric, at, last)


def spread(frames: Frames, metric: str, at: int | None = None, last: float | None = None) -> float:
    """The largest over the smallest of all runs."""
    values = [value(frames, of, metric, at, last) for of in frames]
    return max(values) / min(values)


def drift(frames: Frames, of: str, metric: str, until: int) -> float:
    """How far a metric goes from where it started, as a share of that, up to a round."""
    column = _column(frames[of], metric)
    return float((column[column.index <= until] / column.iloc[0] - 1).abs().max())


def apart(frames: Frames, of: str, to: str, metric: str, since: int, until: int) -> float:
    """How many times a metric of one run is at most that of another, or the other way round, between two rounds."""
    ratios = (_column(frames[of], metric) / _column(frames[to], metric)).dropna()
    logs = ratios[(ratios.index >= since) & (ratios.index <= until)].map(math.log).abs()
    if logs.empty:
        raise Unmeasured(f"{of} and {to} share no evaluation between rounds {since} and {until}")
    return math.exp(logs.max())


def at_equal(frames: Frames, of: str, to: str, metric: str, by: str, upto: float, since: float = 0.0) -> float:
    """A metric of one run over that of another at equal ``by`` (bytes_sent, sim_seconds): the geometric mean over
    what lies between two shares of the way that both have gone."""
    ways = {label: _column(frames[label].iloc[1:], by) for label in (of, to)}
    most = min(float(way.iloc[-1]) for way in ways.values())
    places = np.linspace(since * most, upto * most, 401)[1:]
    logs = [np.interp(places, ways[k], np.log(_column(frames[k].iloc[1:], metric))) for k in (of, to)]
    return float(np.exp((logs[0] - logs[1]).mean()))


def cost_ratio(
    frames: Frames, of: str, to: str, metric: str, by: str, target: float | None = None, near: float = 0.0
) -> float:
    """What one run needs (``by``: sim_seconds, bytes_sent, calls) until its metric has fallen to ``target``, over what
    another needs. Without a target: to the higher of where the two end, but for ``near`` (0.01: 1 %). Never there:
    infinite."""
    columns = [_column(frames[label], metric) for label in (of, to)]
    goal = (1 + near) * max(float(c.iloc[-1]) for c in columns) if target is None else target
    costs = []
    for label, column in zip((of, to), columns, strict=True):
        there = _column(frames[label], by)[column <= goal]
        costs.append(float(there.iloc[0]) if len(there) else math.inf)
    return costs[0] / costs[1] if costs[1] else math.inf


def _column(frame: pd.DataFrame, metric: str) -> pd.Series[float]:
    """By round."""
    try:
        column = _calculated(ast.parse(metric, mode="eval").body, frame.set_index("round"))
    except Exception as error:
        raise Unmeasured(f"metrics.csv has no {metric} ({' '.join(str(error).split())})") from error
    if not isinstance(column, pd.Series):
        raise Unmeasured(f"{metric} names no column of metrics.csv")
    return column.astype(float)


OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.USub: operator.neg,
}  # fmt: skip


def _calculated(node: ast.expr, frame: pd.DataFrame) -> Any:
    """Columns, numbers and + - * / ** between them, and nothing else: a file of claims may be anybody's."""
    if isinstance(node, ast.Name):
        return frame[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_calculated(node.left, frame), _calculated(node.right, frame))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_calculated(node.operand, frame))
    raise ValueError("more than columns and + - * / **")


QUANTITIES: dict[str, Callable[..., float]] = {
    f.__name__: f for f in (value, ratio, difference, spread, drift, apart, at_equal, cost_ratio)
}


def misfit(name: str, arguments: Mapping[str, object]) -> str:
    """What is wrong with a quantity's arguments; empty where nothing is."""
    try:
        inspect.signature(QUANTITIES[name]).bind({}, **arguments)
    except TypeError as error:
        return str(error)
    return ""
