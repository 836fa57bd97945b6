"""When a round is closed, and without whom, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from commexp.network import Closing, Network, NoStragglers, VirtualClock

SECONDS = np.array([3.0, 1.0, 2.0, 2.0])
LATE = np.array([True, False, False, True])


@pytest.mark.parametrize(
    ("closing", "answered", "took"),
    [
        (Closing(), [1, 2], 2.0),
        (Closing(first=1), [1], 1.0),
        (Closing(first=2), [1, 2], 2.0),  # of two that are ready at once the one that is not late
        (Closing(first=3), [1, 2, 3], 2.0),
        (Closing(first=4), [0, 1, 2, 3], 3.0),
        (Closing(deadline=2.5), [1, 2, 3], 2.5),
        (Closing(deadline=5.0), [0, 1, 2, 3], 3.0),
        (Closing(deadline=0.5), [], 0.5),
        (Closing(first=2, deadline=1.5), [1], 1.5),
        (Closing(first=1, deadline=1.5), [1], 1.0),
    ],
)
def test_who_answers(closing: Closing, answered: list[int], took: float) -> None:
    mask, seconds = closing.closed(SECONDS, LATE, 0.25)
    assert (np.flatnonzero(mask).tolist(), seconds) == (answered, took)


def test_nobody_answers() -> None:
    mask, seconds = Closing().closed(SECONDS, ~np.zeros(4, dtype=bool), 0.25)
    assert (mask.any(), seconds) == (False, 0.25)


def test_one_that_holds_nothing_says_nothing() -> None:
    for closing in (Closing(), Closing(first=3), Closing(deadline=9.0)):
        clock = VirtualClock(Network(), NoStragglers(), 4, 0, None, np.array([1, 0, 2, 1]), closing)
        assert clock.answered(1).tolist() == [True, False, True, True]


def test_among_equals_the_first_are_others_in_each_round() -> None:
    clock = VirtualClock(Network(), NoStragglers(), 8, 0, None, None, Closing(first=3))
    counts = np.sum([clock.answered(t) for t in range(1, 401)], axis=0)
    assert counts.sum() == 1200
    assert (abs(counts - 150) < 4 * np.sqrt(400 * 3 / 8 * 5 / 8)).all()
