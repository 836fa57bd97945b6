"""The clock of workers that wait for nobody, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from commexp.network import Compute, EventClock, Fixed, Network, NoStragglers, Straggler


def clock(straggler: Straggler | None = None, latency: float = 0.0, **compute: Any) -> EventClock:
    network = Network(
        bandwidth=8.0,  # 1 MB/s
        latency=latency,
        compute=Compute(**{"seconds": 1.0, **compute}),
    )
    return EventClock(network, straggler or NoStragglers(), 3, 0)


def test_messages_come_in_the_order_of_arrival() -> None:
    """Worker 0 takes 4 s, the others 1 s; a message takes 0.5 s of the server's link, an answer 0.25 s."""
    events = clock(slow=[4.0])
    for n in range(3):
        events.serve(n, 1, 0, 500_000)
    assert (events.arrivals(), events.now) == ([1], 1.5)
    events.serve(1, 1, 250_000, 500_000)  # is there at 1.75, ready at 2.75
    assert (events.arrivals(), events.now) == ([2], 2.0), "the link was busy until 1.5"
    events.serve(2, 2, 250_000, 500_000)  # there at 2.25, ready at 4.25
    assert (events.arrivals(), events.now) == ([1], 3.25)
    assert (events.arrivals(), events.now) == ([0], 4.5)
    assert (events.arrivals(), events.now) == ([2], 5.0)
    assert events.busy.tolist() == [4.0, 2.0, 3.0]
    assert events.idle.tolist() == [0.0, 0.75, 1.25]
    with pytest.raises(RuntimeError, match="no worker is at work"):
        events.arrivals()


def test_answers_share_the_servers_link() -> None:
    events = clock(latency=100.0)
    for n in range(3):
        events.serve(n, 1, 500_000, 0)
    assert events.ready.tolist() == pytest.approx([1.6, 2.1, 2.6])
    assert events.arrivals() == [0]
    assert events.now == pytest.approx(1.7)


def test_what_comes_at_one_moment_is_dealt_with_at_once_and_a_barrier_waits_for_all() -> None:
    events = clock()
    for n in range(3):
        events.serve(n, 1 + (n == 2), 0, 0)
    assert events.arrivals() == [0, 1]
    barrier = clock(slow=[5.0])
    for n in range(3):
        barrier.serve(n, 1, 0, 1_000_000)
    assert barrier.arrivals(range(3)) == [0, 1, 2]
    assert barrier.now == 6.0


def test_late_workers_and_draws_are_those_of_the_seed() -> None:
    late = clock(Fixed(workers=[1], slowdown=10.0))
    drawn = [clock(kind="lognormal") for _ in range(2)]
    for events in (late, *drawn):
        for n in range(3):
            events.serve(n, 2.5, 0, 0)
    assert late.ready.tolist() == [2.5, 25.0, 2.5]
    assert drawn[0].ready.tolist() == drawn[1].ready.tolist()
    assert len(set(drawn[0].ready.tolist())) == 3


def test_a_checkpoint_holds_all_that_the_clock_knows() -> None:
    one, other = clock(kind="pareto"), clock(kind="pareto")
    for n in range(3):
        one.serve(n, 1, 1000, 1000)
    one.arrivals()
    other.times = one.times.copy()
    for events in (one, other):
        (n,) = events.arrivals()
        events.serve(n, 3, 10, 10)
        events.arrivals()
    assert np.array_equal(one.times, other.times)
