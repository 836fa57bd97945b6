"""Bits per worker, the abscissa of papers on compressed methods, from traffic.csv.

    bits_up      8/N times the bytes that the workers have sent: to a server, or to each other
    bits_down    8/N times the bytes that have come back: a server sends a copy to each worker that gets one
    bits_both    their sum, 8/N times ``bytes_sent``

N counts all workers, also those that do not take part in a round. A message counts once, with the size of its buffers,
however many workers it reaches: among peers (all-reduce, all-gather, gossip, broadcast) ``bits_up`` is what a worker
hands to the exchange, and what it receives from them is not counted. Where each worker is the server of a part of the
vector (``two_phase``, ``quantised_all_reduce``), the sums that come back count once, too, as ``bits_down``; so does
what the leader of an island passes on to its members.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

BITS = ("bits_up", "bits_down", "bits_both")


def bits_per_worker(traffic: pd.DataFrame, workers: int, rounds: Any) -> pd.DataFrame:
    """The columns BITS: what the ``rounds`` up to each of these numbers have taken together, a row for each.
    ``traffic``: a run's traffic.csv. ``workers``: N. Raises LookupError, TypeError or ValueError for other tables."""
    order = np.argsort(numbers := traffic["round"].to_numpy(dtype=float), kind="stable")
    sent, ends = traffic["bytes_sent"].to_numpy(dtype=float)[order], np.asarray(rounds, dtype=float)
    back = (traffic["direction"] == "down").to_numpy()[order]
    until = np.searchsorted(numbers[order], ends, side="right")

    def total(counted: np.ndarray) -> np.ndarray:
        """Bytes are whole numbers, of which float64 adds up 9e15 exactly."""
        return np.concatenate([[0.0], np.cumsum(np.where(counted, sent, 0.0))])[until] * 8 / workers

    return pd.DataFrame(dict(zip(BITS, (total(~back), total(back), total(back | ~back)), strict=True)))
