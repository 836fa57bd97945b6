"""Long curves with no more points than a screen or a column of paper shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

SPREAD, WHOLE = 220, 300  # rows at equal distances of a long curve; curves of at most so many rows are kept whole


def thinned(frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The same rows of all, which are one method's: evenly over the longest, each one's last, and those where a column
    is least or greatest of all."""
    longest = max(map(len, frames), default=0)
    if longest <= WHOLE:
        return list(frames)
    kept = {*np.linspace(0, longest - 1, SPREAD).round().astype(int), *(len(f) - 1 for f in frames if len(f))}
    for column in dict.fromkeys(c for f in frames for c in f):
        values = [f[column].to_numpy(dtype=float) for f in frames if column in f and len(f)]
        for sign in (1, -1):
            signed = [np.where(np.isfinite(v), sign * v, np.inf) for v in values]
            kept.add(int(min(signed, key=lambda v: float(v.min())).argmin()))
    rows = np.array(sorted(kept), dtype=int)
    return [f.iloc[rows[rows < len(f)]] for f in frames]
