"""What a band or a bar around a mean over seeds shows, and how figures say so."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy.special import stdtrit

#: by the word of --band
BANDS = {
    "std": "mean ± standard deviation",
    "se": "mean ± standard error",
    "range": "mean and range (least to greatest)",
    "ci95": "mean and its 95 % confidence interval (t)",
}


def band(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the band over the last axis of ``values``, which are those of the runs; deviations have
    n - 1. NaN where there is one run alone, but for the range."""
    if kind == "range":
        return values.min(axis=-1), values.max(axis=-1)
    mean, half = values.mean(axis=-1), factor(kind, values.shape[-1]) * deviation(values)
    return mean - half, mean + half


def deviation(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return values.std(axis=-1, ddof=1) if values.shape[-1] > 1 else np.full(values.shape[:-1], np.nan)


def factor(kind: str, count: int) -> float:
    """How many standard deviations of ``count`` values the half of a band is."""
    if kind == "std" or count < 2:
        return 1.0
    quantile = float(stdtrit(count - 1, 0.975)) if kind == "ci95" else 1.0
    return quantile / math.sqrt(count)


def told(kind: str, counts: Iterable[int], what: str = "bands") -> str:
    """'bands: mean ± standard deviation over 3 seeds'; nothing where no method has several. ``counts``: runs of each
    method."""
    several = sorted({count for count in counts if count > 1})
    if not several:
        return ""
    seeds = f"{several[0]}" if len(several) == 1 else f"{several[0]} to {several[-1]}"
    return f"{what}: {BANDS[kind]} over {seeds} seeds"
