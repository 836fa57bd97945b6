"""The virtual clock by hand, the laws of computing times and stragglers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network.test_rates import Booking

from commexp.network import Bernoulli, Compute, Fixed, Link, Markov, Network, NoStragglers, Straggler, VirtualClock
from commexp.topologies import DirectedExponential, Gossip, Mixer

LINK = {"bandwidth": 8.0, "latency": 0.0}  # 1 MB/s


def clock(straggler: Straggler | None = None, links: Any = None, **compute: Any) -> VirtualClock:
    return VirtualClock(Network(**LINK, compute=Compute(**compute)), straggler or NoStragglers(), 4, 0, links)


def test_a_round_computes_and_then_exchanges() -> None:
    virtual = clock(seconds=0.5)
    virtual.round(1, 3.0, [Booking(), Booking("all_gather")])
    assert virtual.now == pytest.approx(1.5 + 1.0 + 1.0)
    virtual.round(2, 0.25, [])
    assert virtual.now == pytest.approx(3.5 + 0.125)


def test_all_wait_for_the_slowest() -> None:
    virtual = clock(seconds=1.0, slow=[3.0])
    virtual.round(1, 2.0, [Booking()])
    assert virtual.times.tolist() == [7.0] * 4
    late = clock(Fixed(workers=[2], slowdown=10.0), seconds=1.0)
    late.round(1, 1.0, [Booking()])
    assert late.times.tolist() == [11.0] * 4


def test_in_gossip_a_worker_waits_for_its_neighbours_alone() -> None:
    """A line 0-1-2-3, worker 0 late: what it costs travels one link a mixing."""
    ends = ([0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2])
    virtual = clock(Fixed(workers=[0], slowdown=10.0), ends, seconds=1.0)
    one = Booking("gossip", bytes_wire=6_000_000)  # of six messages the two in the middle send two each: 2 MB
    virtual.round(1, 1.0, [one])
    assert virtual.times.tolist() == [12.0, 12.0, 3.0, 3.0]
    virtual.round(2, 1.0, [Booking("gossip", bytes_wire=12_000_000, repeats=2)])
    assert virtual.times.tolist() == [26.0, 26.0, 26.0, 17.0]


def test_a_worker_waits_for_those_alone_that_send_to_it_in_this_round() -> None:
    """Worker 1 of 4 is 9 s late in each round: 2, then 3, then 2 wait for it, and the others for what that delayed."""
    graphs = Mixer(DirectedExponential(), Gossip(), 4, 0, push=True).graphs
    network = Network(**LINK, compute=Compute(seconds=1.0))
    virtual = VirtualClock(network, Fixed(workers=[1], slowdown=10.0), 4, 0, graphs=graphs)
    expected = ([2.0, 11.0, 11.0, 2.0], [13.0, 22.0, 13.0, 22.0], [24.0, 33.0, 33.0, 24.0])
    for number, times in enumerate(expected, 1):
        virtual.round(number, 1.0, [Booking("gossip", bytes_wire=4_000_000)])
        assert virtual.times.tolist() == times


@pytest.mark.parametrize("links", [None, {3: Link(bandwidth=8.0, latency=0.001)}])
def test_the_busiest_way_of_a_link_may_be_the_one_in(links: dict[int, Link] | None) -> None:
    """Three send 1 MB each to worker 0: 3 s on a link of 1 MB/s, whether all links are alike or not."""
    edges = ([0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 1, 2])
    virtual = VirtualClock(Network(**LINK, links=links), NoStragglers(), 4, 0, edges)
    virtual.round(1, 0.0, [Booking("gossip", bytes_wire=6_000_000)])
    assert virtual.times[0] == pytest.approx(3.0, abs=1e-5)


def test_even_workers_are_counted_as_the_uneven_are() -> None:
    ends = ([0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2])
    quick = clock(links=ends, seconds=0.3)
    slow = clock(Bernoulli(p=0.0), links=ends, seconds=0.3)
    assert quick.even
    assert not slow.even
    for t in range(1, 6):
        for each in (quick, slow):
            each.round(t, 1.5, [Booking(), Booking("gossip"), Booking("server", direction="up")])
    np.testing.assert_allclose(quick.times, slow.times, rtol=1e-12)


def test_measured_is_what_this_machine_took() -> None:
    virtual = clock(kind="measured")
    virtual.round(1, 64.0, [], measured=0.75)
    assert virtual.now == 0.75
    slow = clock(kind="measured", slow=[2.0])
    slow.round(1, 64.0, [], measured=0.75)
    assert slow.times.tolist() == [1.5, 0.75, 0.75, 0.75]


@pytest.mark.parametrize("kind", ["constant", "shifted_exponential", "lognormal", "pareto"])
def test_the_mean_of_a_law_is_what_it_is_told(kind: str) -> None:
    drawn = Compute(kind=kind, seconds=2.0, spread=0.3).draw(np.random.default_rng(0), 4, 50_000)
    assert drawn.shape == (4, 50_000)
    assert drawn.min() > 0
    error = 4 * drawn.std() / drawn.size**0.5
    assert drawn.mean() == pytest.approx(2.0, abs=max(error, 1e-12))
    assert (drawn.std() > 0) == (kind != "constant")
    still = Compute(kind=kind, seconds=2.0, spread=0.0).draw(np.random.default_rng(0), 4, 10)
    np.testing.assert_allclose(still, 2.0)


def test_a_trace_is_read_from_somewhere_on(tmp_path: Path) -> None:
    (tmp_path / "seconds").write_text("1\n2\n3.5\n")
    compute = Compute(kind="trace", trace=str(tmp_path / "seconds"))
    drawn = compute.draw(np.random.default_rng(0), 50, 4)
    following = {1.0: 2.0, 2.0: 3.5, 3.5: 1.0}
    assert all(following[a] == b for row in drawn.tolist() for a, b in pairwise(row))
    assert set(drawn[:, 0]) == {1.0, 2.0, 3.5}


def test_stragglers_are_as_many_as_they_should_be_and_the_same_for_whoever_asks() -> None:
    for straggler, share in ((Bernoulli(p=0.3), 0.3), (Markov(fall=0.1, recover=0.3), 0.25), (NoStragglers(), 0.0)):
        late = np.array([straggler.late(t, 200, 7) for t in range(1, 401)])
        assert late.mean() == pytest.approx(share, abs=0.015)
        assert (straggler.late(17, 200, 7) == late[16]).all()
    fresh = Markov(fall=0.1, recover=0.3)
    chain = np.array([Markov(fall=0.1, recover=0.3).late(t, 200, 7) for t in (40, 41, 42)])
    assert (fresh.late(42, 200, 7) == chain[2]).all()
    stays = np.array([fresh.late(t, 200, 7) for t in range(1, 401)])
    assert stays[1:][stays[:-1]].mean() == pytest.approx(0.7, abs=0.02)
    assert Fixed(workers=[1, 3]).late(9, 5, 0).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: Compute(kind="weibull"), "compute.kind=weibull: unknown; give one of"),
        (lambda: Compute(seconds=-1), "compute.seconds=-1: must not be negative"),
        (lambda: Compute(kind="shifted_exponential", spread=2), "compute.spread=2: out of range"),
        (lambda: Compute(slow=[0.0]), r"compute.slow=\[0.0\]: must be positive"),
        (lambda: Compute(kind="trace"), "compute.trace=None: goes with compute.kind=trace"),
        (lambda: Compute(kind="trace", trace="/nowhere"), "compute.trace=/nowhere: No such file"),
        (lambda: clock(slow=[1.0] * 5), "network.compute.slow=.*: more factors than the 4 workers"),
        (lambda: Bernoulli(p=1.0), "p=1.0: out of range"),
        (lambda: Markov(fall=0.0), "fall=0.0: out of range"),
        (lambda: Bernoulli(slowdown=0.5), "slowdown=0.5: must not be less than 1"),
        (lambda: clock(Fixed(workers=[4])), r"straggler.workers=\[4\]: there is no worker 4 of 4"),
    ],
)
def test_refusals(make: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        make()


def test_a_traces_bad_line_is_named(tmp_path: Path) -> None:
    for text, line in (("1\nsoon\n", 2), ("-3\n", 1), ("1\ninf\n", 2)):
        (tmp_path / "seconds").write_text(text)
        with pytest.raises(ValueError, match=f"line {line}: "):
            Compute(kind="trace", trace=str(tmp_path / "seconds"))
