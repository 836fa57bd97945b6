"""Workers with links of their own, by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from registry import plan

from commexp.cli.report import with_bandwidth
from commexp.comm import exchange_named
from commexp.comm.exchanges import Exchange
from commexp.network import Bernoulli, Closing, Compute, Fixed, Link, Network, NoStragglers, VirtualClock
from commexp.network.link import Transfer

LINE = ([0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2])
MB = 1_000_000


@dataclass
class Booking:
    exchange: str = "all_reduce"
    bytes_wire: int = 4 * MB
    workers: int = 4
    repeats: int = 1
    direction: str = "peers"

    @property
    def kind(self) -> Exchange:
        return exchange_named(self.exchange)


def seconds(network: Network, exchange: str, workers: int, wire: int, *more: Any, **named: Any) -> float:
    """Of an exchange among workers 0 to n-1."""
    return exchange_named(exchange).seconds(Transfer(network.rates(workers).pace(), workers, wire, *more, **named))


def network(links: dict[int, Link], latency: float = 0.0, **more: Any) -> Network:
    """1 MB/s where it is not said otherwise."""
    return Network(bandwidth=8.0, latency=latency, links=links, **more)


def test_all_go_at_the_pace_of_the_slowest_link_with_the_largest_latency() -> None:
    slow = network({2: Link(bandwidth=2.0), 3: Link(latency=100.0)})  # 0.25 MB/s; 0.1 s
    assert seconds(slow, "all_reduce", 4, 4 * MB) == pytest.approx(6 * 0.1 + 4.0)
    assert seconds(slow, "all_gather", 4, 4 * MB) == pytest.approx(3 * 0.1 + 4.0)
    assert seconds(slow, "two_phase", 4, 4 * MB) == pytest.approx(3 * 0.1 + 4.0)
    assert seconds(slow, "broadcast", 4, 3 * MB) == pytest.approx(2 * (0.1 + 4.0))
    assert seconds(slow, "gossip", 4, 4 * MB) == pytest.approx(0.1 + 4.0), "nobody knows who is whose neighbour"


def test_a_server_with_a_link_of_its_own() -> None:
    """Five workers: four send 1 MB up. A server ten times as fast takes 0.4 s, so that the workers' 1 s counts."""
    fast = network({0: Link(bandwidth=80.0)})
    assert seconds(fast, "server", 5, 4 * MB, direction="up") == pytest.approx(1.0)
    assert seconds(fast, "server", 5, 4 * MB, direction="down") == pytest.approx(1.0)
    lopsided = network({0: Link(bandwidth=80.0, up=16.0), 4: Link(up=4.0, latency=50.0)})
    assert seconds(lopsided, "server", 5, 4 * MB, direction="up") == pytest.approx(0.05 + 2.0)
    assert seconds(lopsided, "server", 5, 4 * MB, direction="down") == pytest.approx(0.05 + 2.0)
    assert seconds(network({0: Link(latency=7.0)}), "server", 1, 0) == pytest.approx(0.007)


def test_what_is_not_given_is_the_classs() -> None:
    assert Link().beside(50.0, 10.0, 30.0) == (50.0, 10.0, 30.0)
    assert Link(bandwidth=100.0).beside(50.0, 10.0, 30.0) == (100.0, 20.0, 30.0)
    assert Link(up=5.0, latency=1.0).beside(50.0, 10.0, 30.0) == (50.0, 5.0, 1.0)


def test_in_gossip_each_worker_has_its_own_time() -> None:
    """A line 0-1-2-3, each message 1 MB. The ends send one in 1 s, the middle two in 2 s; worker 3 at a quarter of the
    rate takes 4 s, and so does 2, which waits for it; 1 waits for 2 in the round after."""
    clock = VirtualClock(network({3: Link(bandwidth=2.0)}), NoStragglers(), 4, 0, LINE)
    clock.round(1, 0.0, [Booking("gossip", 6 * MB)])
    assert clock.times.tolist() == [2.0, 2.0, 4.0, 4.0]
    clock.round(2, 0.0, [Booking("gossip", 6 * MB)])
    assert clock.times.tolist() == [4.0, 6.0, 8.0, 8.0]
    twice = VirtualClock(network({3: Link(bandwidth=2.0)}), NoStragglers(), 4, 0, LINE)
    twice.round(1, 0.0, [Booking("gossip", 12 * MB, repeats=2)])
    assert twice.times.tolist() == clock.times.tolist(), "two mixings one after the other"
    late = VirtualClock(network({3: Link(latency=500.0)}, latency=100.0), NoStragglers(), 4, 0, LINE)
    late.round(1, 0.0, [Booking("gossip", 6 * MB)])
    np.testing.assert_allclose(late.times, [2.1, 2.1, 2.5, 2.5])


def test_only_those_who_answer_slow_the_server_down() -> None:
    """Of four workers number 1 is late, number 3 slow. With three answers, worker 0's among them, 2 MB go up."""
    for slow, took in ((1, 2.0), (3, 8.0)):
        given = network({slow: Link(bandwidth=1.0)}, compute=Compute(seconds=1.0))
        clock = VirtualClock(given, Fixed(workers=[1]), 4, 0, closing=Closing())
        clock.round(1, 1.0, [Booking("server", 2 * MB, 3, direction="up")])
        assert clock.times.tolist() == [1.0 + took] * 4


def test_links_that_are_like_the_others_change_no_bit() -> None:
    same = {0: Link(), 1: Link(bandwidth=7.3), 2: Link(latency=0.7, up=3.1), 3: Link(7.3, 0.7, 3.1)}
    for straggler in (NoStragglers(), Bernoulli(p=0.4)):
        clocks = [
            VirtualClock(Network(7.3, 0.7, 3.1, links, Compute(seconds=0.3)), straggler, 4, 0, LINE)
            for links in (None, {}, same)
        ]
        for t in range(1, 9):
            booked = [Booking(), Booking("gossip", repeats=3), Booking("server", direction="up"), Booking("broadcast")]
            for clock in clocks:
                clock.round(t, 1.7, booked)
        assert clocks[0].times.tolist() == clocks[1].times.tolist() == clocks[2].times.tolist()


def test_links_of_another_bandwidth_keep_their_proportion() -> None:
    given = Network(100.0, 1.0, 50.0, {1: Link(bandwidth=10.0), 2: Link(up=5.0, latency=3.0)})
    assert with_bandwidth(given, 100.0) is given
    faster = Network(1000.0, 1.0, 500.0, {1: Link(bandwidth=100.0), 2: Link(up=50.0, latency=3.0)})
    assert with_bandwidth(given, 1000.0) == faster


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: network({-1: Link()}), r"links=\{-1:\{\}\}: there is no worker -1; give"),
        (lambda: network({3: Link(bandwidth=0.0)}), r"links=\{3:\{bandwidth:0.0\}\}: bandwidth must be positive; give"),
        (lambda: network({3: Link(up=-1.0)}), r"links=\{3:\{up:-1.0\}\}: up must be positive"),
        (lambda: network({3: Link(8.0, -1.0)}), r"links=\{3:\{bandwidth:8.0,latency:-1.0\}\}: latency must not be"),
        (
            lambda: VirtualClock(network({4: Link(latency=5.0)}), NoStragglers(), 4, 0),
            r"network.links=\{4:\{latency:5.0\}\}: there is no worker 4 of 4; give 0 to 3",
        ),
    ],
)
def test_refusals(make: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        make()


def test_from_the_command_line() -> None:
    made = plan("network=mobile", "network.links={3:{bandwidth:10,latency:50},0:{up:1000}}")
    assert made.network.links == {3: Link(bandwidth=10.0, latency=50.0), 0: Link(up=1000.0)}
    assert made.resolved["network"]["links"][3] == {"bandwidth": 10.0, "latency": 50.0, "up": None}
