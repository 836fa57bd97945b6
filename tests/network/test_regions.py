"""Workers at sites with links between them, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from network.test_rates import LINE, MB, Booking, seconds
from registry import options, plan

from commexp.cli.report import with_bandwidth
from commexp.comm import exchange_named
from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.network import Closing, Compute, EventClock, Fixed, Link, Network, NoStragglers, Regions, VirtualClock
from commexp.network.link import Transfer
from commexp.run_folder import Run

#: Mbit/s and ms from the site of the row to that of the column; 8 Mbit/s is 1 MB/s
LATENCY = {"a": [1.0, 100.0, 300.0], "b": [100.0, 2.0, 50], "c": [200.0, 50, 3.0]}
BANDWIDTH = {"a": [800.0, 8.0, 2.0], "b": [8.0, 800.0, 16], "c": [4.0, 16, 800.0]}
NAMES = "abc"


def network(workers: str = "", **more: Any) -> Network:
    """``workers``: the site of each, in letters."""
    return Network(**{"bandwidth": 80.0, "latency": 0.0, "regions": Regions(LATENCY, BANDWIDTH, [*workers]), **more})


def took(network: Network, exchange: str, workers: int, wire: int, direction: str = "peers") -> float:
    kind = exchange_named(exchange)
    return kind.seconds(Transfer(network.rates(workers).pace(path=kind.path), workers, wire, direction=direction))


def between(sender: str, receiver: str) -> tuple[float, float]:
    """Seconds of latency and MB/s."""
    column = NAMES.index(receiver)
    return LATENCY[sender][column] / 1e3, BANDWIDTH[sender][column] / 8


def test_a_ring_has_the_worst_link_of_neighbours_in_the_order_of_their_numbers() -> None:
    """a b c: 0 sends to 1 at 1 MB/s, 1 to 2 at 2, 2 to 0 at 0.5; a to c is never used."""
    three = network("abc")
    assert took(three, "all_reduce", 3, 3 * MB) == pytest.approx(4 * 0.2 + 1 / 0.5)
    assert took(three, "all_gather", 3, 3 * MB) == pytest.approx(2 * 0.2 + 1 / 0.5)
    assert took(network("acb"), "all_reduce", 3, 3 * MB) == pytest.approx(4 * 0.3 + 1 / 0.25)
    assert took(network("bbcc"), "all_reduce", 4, 4 * MB) == pytest.approx(6 * 0.05 + 1 / 2)
    assert took(network("aaaa"), "all_reduce", 4, 4 * MB) == pytest.approx(6 * 0.001 + 1 / 10), "their own links"
    assert took(network("a"), "all_reduce", 1, 0) == 0.0


def test_where_each_sends_to_each_the_worst_pair_counts() -> None:
    for exchange, workers, sites, hops, size in (
        ("two_phase", 3, "abc", 2, 1.0),
        ("broadcast", 3, "abc", 2, 1.5 * 2),
        ("gossip", 3, "abc", 1, 1.0),
        ("quantised_all_reduce", 4, "abca", 3, 0.75),
    ):
        assert took(network(sites), exchange, workers, 3 * MB) == pytest.approx(hops * 0.3 + size / 0.25), exchange
    assert took(network("bcb"), "two_phase", 3, 3 * MB) == pytest.approx(2 * 0.05 + 1 / 2)
    assert took(network("bb"), "two_phase", 2, 2 * MB) == pytest.approx(0.002 + 1 / 10)


def test_a_server_is_reached_from_each_workers_site() -> None:
    """Workers 1 and 2 at b and c send 1 MB each to worker 0 at a: 0.5 MB/s from c; 0.25 MB/s to it."""
    served = network("abc")
    assert took(served, "server", 3, 2 * MB, "up") == pytest.approx(0.3 + 1 / 0.5)
    assert took(served, "server", 3, 2 * MB, "down") == pytest.approx(0.3 + 1 / 0.25)
    slow = network("bca", links={0: Link(bandwidth=4.0), 2: Link(latency=400.0)})
    assert took(slow, "server", 3, 2 * MB, "up") == pytest.approx(0.4 + 2 / 0.5)
    late = network("abc", compute=Compute(seconds=1.0))  # without worker 2, who is late, b alone counts
    clock = VirtualClock(late, Fixed(workers=[2]), 3, 0, closing=Closing())
    clock.round(1, 1.0, [Booking("server", 1 * MB, 2, direction="up")])
    assert clock.now == pytest.approx(1.0 + 0.1 + 1 / 1.0)


@pytest.mark.parametrize("links", [{}, {2: Link(bandwidth=4.0, latency=120.0)}])
def test_gossip_edge_by_edge(links: dict[int, Link]) -> None:
    """A line 0-1-2-3 at sites a, c, b, b; each message 1 MB."""
    sites = "acbb"
    clock = VirtualClock(network(sites, links=links), NoStragglers(), 4, 0, LINE)
    clock.round(1, 0.0, [Booking("gossip", 6 * MB)])
    rate, alpha = [10.0] * 4, [0.0] * 4
    if links:
        rate[2], alpha[2] = 0.5, 0.12
    wanted = [0.0] * 4
    degree = [1, 2, 2, 1]
    for n, m in zip(*LINE, strict=True):
        latency, path = between(sites[m], sites[n])
        edge = max(alpha[n], alpha[m], latency) + max(degree[n] / rate[n], degree[m] / rate[m], 1 / path)
        wanted[n], wanted[m] = max(wanted[n], edge), max(wanted[m], edge)
    np.testing.assert_allclose(clock.times, wanted, rtol=1e-12)


def test_workers_stand_in_blocks_or_where_they_are_told() -> None:
    def placed(given: Network, workers: int) -> list[int]:
        sites = given.rates(workers).sites
        assert sites is not None
        return sites.place.tolist()

    assert placed(network(), 7) == [0, 0, 0, 1, 1, 2, 2]
    assert placed(network(), 2) == [0, 1]
    assert placed(network("cab"), 3) == [2, 0, 1]


def test_the_server_of_those_who_wait_for_nobody_is_at_worker_0s_site() -> None:
    events = EventClock(network("ac", compute=Compute(seconds=1.0)), NoStragglers(), 2, 0)
    for n in range(2):
        events.serve(n, 1, 500_000, 500_000)
    there = [0.05 + 0.001, 0.05 + 0.5 / 0.25 + 0.3]  # 10 MB/s at the site itself; a to c 0.25 MB/s and 300 ms
    assert events.ready.tolist() == pytest.approx([1 + there[0], 1 + there[1]])
    assert events.arrivals() == [0]
    assert events.now == pytest.approx(1 + there[0] + 0.001 + 0.05)
    assert events.arrivals() == [1]
    assert events.now == pytest.approx(1 + there[1] + 0.2 + 0.5 / 0.5)


def test_an_island_stands_at_one_site() -> None:
    """The leaders, workers 0 and 2, are at a and c: 4 Mbit/s from c."""
    given = network("aacc", inside=Link(bandwidth=800.0))
    clock = VirtualClock(given, NoStragglers(), 4, 0, islands=2)
    clock.round(1, 0.0, [Booking(workers=2, bytes_wire=2 * MB)])
    assert clock.now == pytest.approx(2 * 0.3 + 1 / 0.25)
    with pytest.raises(ValueError, match=r"^network.regions: the workers of an island stand at several sites; give"):
        VirtualClock(network("acca"), NoStragglers(), 4, 0, islands=2)


def test_headers_and_another_bandwidth_go_with_them() -> None:
    assert took(network("abc", headers=0.25), "all_reduce", 3, 3 * MB) == pytest.approx(0.8 + 1.25 * 2)
    faster = with_bandwidth(network("abc", links={1: Link(up=8.0)}), 160.0)
    assert took(faster, "all_reduce", 3, 3 * MB) == pytest.approx(0.8 + 1.0)
    assert faster.links == {1: Link(up=16.0)}
    given = network("abc")
    assert given.regions is not None
    assert given.regions.bandwidth == BANDWIDTH, "the other network has rows of its own"
    assert seconds(network("aaa"), "all_reduce", 3, 3 * MB) == took(network("aaa"), "all_reduce", 3, 3 * MB)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: Regions({"a": [1]}, {"b": [1]}), r"regions.bandwidth=\['b'\]: not the sites of regions.latency; give"),
        (lambda: Regions({"a": [1], "b": [1, 2]}, {"a": [1], "b": [1]}), r"regions.latency=\{a:\[1\]\}: 1 of 2 num"),
        (lambda: Regions({"a": [-1]}, {"a": [1]}), r"regions.latency=\{a:\[-1\]\}: -1 is out of range; give 0 or more"),
        (lambda: Regions({"a": [1]}, {"a": [0]}), r"regions.bandwidth=\{a:\[0\]\}: 0 is out of range; give Mbit/s"),
        (lambda: Regions({"a": [1]}, {"a": ["x"]}), r"regions.bandwidth=\{a:\['x'\]\}: 'x' is out of range"),
        (lambda: Regions({"a": [1]}, {"a": [1]}, ["b"]), r"regions.workers=\[b\]: no such site; give some of a"),
        (lambda: network("ab").rates(3), r"network.regions.workers=\['a', 'b'\]: 2 sites for 3 workers; give one"),
    ],
)  # fmt: skip
def test_refusals(make: Callable[[], object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        make()


def test_presets_are_symmetric_and_replayed(run: Callable[..., Run]) -> None:
    found = [plan(f"network={name}").network.regions for name in options("network") if name.startswith("regions_")]
    assert len(found) >= 2
    for regions in found:
        assert regions is not None
        for rows in (regions.latency, regions.bandwidth):
            table = np.array([*rows.values()])
            assert (table == table.T).all()
    small = ("dataset=linreg", "dataset.dim=20", "dataset.samples=10", "workers=4", "rounds=4", "eval_every=2")
    words = ("network=regions_world", "network.regions.workers=[tokyo,london,london,ohio]", "network.links={1:{up:5}}")
    for method in (("algo=dpsgd", "topology=ring"), ("compress=topk", "compress.k=3", "comm.exchange=server")):
        here, there = run(*small, *method, *words), run(*small, *method)
        assert Replay(there).seconds(plan(*words).network) == list(here.metrics["sim_seconds"])
    with pytest.raises(UserError, match=r"^RUN=.*network.regions.workers=.*: 1 sites for 4 workers; give one for each"):
        Replay(there).seconds(plan("network=regions_europe", "network.regions.workers=[london]").network)
    with pytest.raises(UserError, match=r"^network.regions.latency=\{oregon:\[5\]\}: 1 of 8 numbers; give one to each"):
        plan("network=regions_world", "network.regions.latency.oregon=[5]")
