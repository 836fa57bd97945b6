"""Rounds as this machine took them, against medians over the whole table."""

from __future__ import annotations

import numpy as np
import pytest

from commexp.network.measured import WINDOW, MeasuredRounds


def reference(gradients: list[float], compute: np.ndarray, coding: np.ndarray, exchanges: np.ndarray) -> list[float]:
    """The clock after each round, from the rule."""
    first, clock, told = min(3, len(gradients) - 1), 0.0, []
    for t in range(len(gradients)):
        known = [s for s in range(first, t + 1) if exchanges[s]][-WINDOW:]
        rounds = range(t + 1) if len(known) == 1 and t == known[0] else [t]
        if known:
            rate, coded = np.median([compute[s] / gradients[s] for s in known]), np.median([coding[s] for s in known])
            clock += sum(gradients[s] * rate + exchanges[s] * coded for s in rounds)
        told.append(clock)
    return told


@pytest.mark.parametrize("rounds", [1, 2, 4, 5, 150])
def test_medians_without_the_first_rounds(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    gradients = [float(g) for g in rng.integers(1, 5, rounds)]
    compute, coding = rng.exponential(1.0, rounds), rng.exponential(0.1, rounds)
    exchanges = np.array([t % 7 != 5 for t in range(rounds)])
    compute[0], compute[~exchanges], coding[~exchanges] = 400.0, 0.0, 0.0
    measured = MeasuredRounds(gradients)
    each = [measured.seconds(t + 1, compute[t], coding[t], bool(exchanges[t])) for t in range(rounds)]
    assert np.cumsum(each) == pytest.approx(reference(gradients, compute, coding, exchanges))
    assert min(each) >= 0
    if rounds > 1:
        assert sum(each) < 2 * sum(gradients), "what the first round took once is not on the clock"


def test_where_some_rounds_compute_nothing_rounds_count() -> None:
    measured = MeasuredRounds([0.0, 2.0, 0.0, 2.0, 0.0])
    assert [measured.seconds(t, 1.0, 0.5, True) for t in (1, 2, 3, 4, 5)] == [0, 0, 0, 6.0, 1.5]
