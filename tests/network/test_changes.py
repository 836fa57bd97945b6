"""Networks that change while they are used, against a reference that goes from one change to the next."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network.test_rates import LINE, MB, Booking
from registry import plan

from commexp.cli.report import with_bandwidth
from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.network import (
    Closing,
    Compute,
    EventClock,
    Fixed,
    Jitter,
    Link,
    Network,
    NoStragglers,
    Outage,
    VirtualClock,
)
from commexp.network.outage import Outages
from commexp.run_folder import Run
from commexp.seeding import numpy_generator

#: Mbit/s and ms from seconds 0, 2 and 3 on, again from 4 on: 1 MB/s, half of it, and nothing
ROWS = [(0.0, 8.0, 100.0), (2.0, 4.0, 200.0), (3.0, 0.0, 50.0)]
PERIOD = 4.0


@pytest.fixture
def trace(tmp_path: Path) -> str:
    (tmp_path / "trace.txt").write_text("# s Mbit/s ms\n" + "\n".join(" ".join(map(str, row)) for row in ROWS) + "\n")
    return str(tmp_path / "trace.txt")


def row_at(moment: float) -> tuple[float, float, float]:
    """Bandwidth and latency at a moment, and the second at which they change."""
    whole, rest = divmod(moment, PERIOD)
    i = max(i for i, row in enumerate(ROWS) if row[0] <= rest)
    until = ROWS[i + 1][0] if i + 1 < len(ROWS) else PERIOD
    return ROWS[i][1], ROWS[i][2], whole * PERIOD + until


def reference(
    begun: float, latency: float, work: float, rows: bool = True, outages: Sequence[tuple[float, float]] = ()
) -> float:
    """When ``latency`` seconds and then ``work`` seconds at 8 Mbit/s have gone by."""
    now = begun
    for amount, by_bandwidth in ((latency, False), (work, rows)):
        while amount > 1e-12:
            bandwidth, _, change = row_at(now) if by_bandwidth else (8.0, 0.0, math.inf)
            for begins, ends in outages:
                if begins <= now < ends:
                    bandwidth, change = 0.0, min(change, ends)
                elif now < begins:
                    change = min(change, begins)
            rate = bandwidth / 8
            last = rate * (change - now) >= amount if rate else False
            now, amount = (now + amount / rate, 0.0) if last else (change, amount - rate * (change - now))
    return now


def ms_at(moment: float) -> float:
    return row_at(moment)[1] / 1e3


def clock(network: Network, **more: Any) -> VirtualClock:
    return VirtualClock(network, more.pop("straggler", NoStragglers()), 4, more.pop("seed", 0), **more)


def test_bytes_and_latencies_take_what_the_reference_says(trace: str) -> None:
    rng = np.random.default_rng(0)
    begun, latency, work = rng.uniform(0, 30, 400), rng.uniform(0, 1, 400), rng.uniform(0, 9, 400)
    latency[:50], work[50:100] = 0.0, 0.0
    regular = [(k * 1.7, k * 1.7 + 0.6) for k in range(1, 60)]
    for given, rows, outages in (
        (Network(8.0, trace=trace), True, []),
        (Network(8.0, outage=Outage(every=1.7, lasts=0.6)), False, regular),
        (Network(8.0, trace=trace, outage=Outage(every=1.7, lasts=0.6)), True, regular),
    ):
        changes = given.changes(0)
        assert changes is not None
        ended = changes.moved(changes.waited(begun, latency), work)
        wanted = [reference(*each, rows, outages) for each in zip(begun, latency, work, strict=True)]
        np.testing.assert_allclose(ended, wanted, rtol=1e-12)
        alone = [
            float(changes.moved(changes.waited(*each[:2]), each[2])) for each in zip(begun, latency, work, strict=True)
        ]
        assert alone == ended.tolist()
        np.testing.assert_allclose(given.changes(1).waited(3.0, 0.0), 3.0)


def test_an_all_reduce_by_hand(trace: str) -> None:
    """4 MB among four take 1 s at 8 Mbit/s, six latencies of the second at which it begins before that. From second 3
    on nothing is carried until 4."""
    virtual = clock(Network(8.0, trace=trace, compute=Compute(seconds=0.9)))
    virtual.round(1, 1.0, [Booking()])  # 0.9, latencies to 1.5; half by 2, half of the rest by 3
    assert virtual.times.tolist() == pytest.approx([3.0] * 4)
    virtual.round(2, 1.0, [Booking(), Booking("all_gather", 0)])  # 3.9 (50 ms), 4.2 to 5.2 (100 ms), 5.5
    assert virtual.times.tolist() == pytest.approx([5.5] * 4)
    virtual.round(3, 0.5, [Booking("all_reduce", 6 * MB)])  # 5.95, 6.55 (row of 100 ms); 0.45 by 7, nothing to 8
    assert virtual.now == pytest.approx(8 + 1.5 - 0.5 * 0.45)


def test_an_exchange_goes_on_after_an_outage() -> None:
    given = Network(8.0, 0.0, outage=Outage(every=1.5, lasts=1.0), compute=Compute(seconds=1.0))
    virtual = clock(given)
    virtual.round(1, 1.0, [Booking()])  # half by 1.5, the rest from 2.5 on, and 3 is the next outage
    assert virtual.now == pytest.approx(3.0)
    virtual.round(2, 1.25, [Booking()])  # 4.25; 0.25 by 4.5, 0.5 from 5.5 to 6, the rest from 7 on
    assert virtual.now == pytest.approx(7.25)
    quiet = clock(given)
    quiet.round(1, 1.6, [])
    quiet.round(2, 0.0, [Booking(bytes_wire=0)])
    assert quiet.now == pytest.approx(1.6), "nothing is sent, so nothing waits"


def test_drawn_outages_are_those_of_the_seed_and_of_the_law() -> None:
    law = Outage("exponential", every=10.0, lasts=2.0)
    drawn = Outages(law, 3)
    begins, ends = drawn.next(np.array([0.0, 7.5, 40_000.0]))
    again = [Outages(law, 3).next(np.array([moment])) for moment in (40_000.0, 7.5, 0.0)]
    assert [float(each[0][0]) for each in again] == begins.tolist()[::-1]
    assert (ends > begins).all()
    assert Outages(law, 4).next(np.zeros(1))[0] != begins[0]
    length, pause = drawn._ends - drawn._begins, drawn._begins[1:] - drawn._ends[:-1]
    assert length.mean() == pytest.approx(2.0, rel=0.1)
    assert pause.mean() == pytest.approx(8.0, rel=0.1)
    assert length.std() == pytest.approx(2.0, rel=0.15)
    one = clock(Network(8.0, 1.0, outage=law, compute=Compute(seconds=1.0)), seed=3)
    edges = list(zip(drawn._begins[:20].tolist(), drawn._ends[:20].tolist(), strict=True))
    now = 0.0
    for t in range(1, 20):
        one.round(t, 1.0, [Booking()])
        now = reference(now + 1.0, 6e-3, 1.0, False, edges)
        assert one.now == pytest.approx(now, rel=1e-12)


@pytest.mark.parametrize("kind", ["uniform", "lognormal", "pareto"])
def test_jitter_has_the_mean_1_and_is_drawn_for_each_exchange(kind: str) -> None:
    jitter = Jitter(kind, 0.3)
    drawn = np.array([jitter.draw(np.random.default_rng(i)) for i in range(4000)])
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(1.0, abs=4 * drawn.std() / 4000**0.5)
    assert 0.1 < drawn.std() < 0.5
    assert Jitter(kind, 0.0).draw(np.random.default_rng(0)) == 1.0
    virtual, now = clock(Network(8.0, 100.0, jitter=jitter), seed=5), 0.0
    for t in range(1, 4):
        virtual.round(t, 0.0, [Booking(), Booking("server", direction="up")])
        for place, (latency, carrying) in enumerate(((0.6, 1.0), (0.1, 4.0))):
            now += jitter.draw(numpy_generator(5, "jitter", t, place)) * latency + carrying
        assert virtual.now == pytest.approx(now, rel=1e-12)
    still = clock(Network(8.0, 100.0, jitter=Jitter(kind, 0.0)))
    still.round(1, 0.0, [Booking()])
    assert still.now == pytest.approx(1.6)


def test_every_exchange_begins_where_it_begins(trace: str) -> None:
    """Server up and down at links of its own, a broadcast, and a server that closes without worker 1."""
    links = {0: Link(bandwidth=80.0), 3: Link(up=4.0, latency=300.0)}  # worker 3's latency stays
    given = Network(8.0, 20.0, links=links, trace=trace, compute=Compute(seconds=0.3))
    virtual, now = clock(given), 0.0
    booked = [
        Booking("server", 3 * MB, direction="up"),
        Booking("server", 3 * MB, direction="down"),
        Booking("broadcast"),
    ]
    for t in range(1, 9):
        virtual.round(t, 1.0, booked)
        now += 0.3
        for latency, work in ((0.3, 2.0), (0.3, 1.0), (0.6, 2 * (4 / 3) * 2)):  # a broadcast goes at the slowest way, 4
            now = reference(now, latency, work)
        assert virtual.times.tolist() == pytest.approx([now] * 4, rel=1e-12)
    closing = clock(
        Network(8.0, 20.0, trace=trace, compute=Compute(seconds=1.0)), straggler=Fixed(workers=[1]), closing=Closing()
    )
    closing.round(1, 1.0, [Booking("server", 2 * MB, 3, direction="up")])
    assert closing.now == pytest.approx(reference(1.0, 0.1, 2.0))


@pytest.mark.parametrize("links", [None, {3: Link(bandwidth=2.0)}, {1: Link(latency=500.0)}])
def test_in_gossip_each_workers_own_moment_counts(trace: str, links: dict[int, Link] | None) -> None:
    """A line 0-1-2-3 of which worker 0 computes ten times as long; two mixings, each message 1 MB."""
    given = Network(
        8.0, 20.0, links=links, trace=trace, outage=Outage(every=5.0, lasts=0.5), compute=Compute(seconds=0.2)
    )
    virtual = clock(given, straggler=Fixed(workers=[0], slowdown=10.0), edges=LINE)
    outages = [(5.0 * k, 5.0 * k + 0.5) for k in range(1, 40)]
    rate = {n: 2.0 / 8 if links and n == 3 and links.get(3) else 1.0 for n in range(4)}
    near = {0: [1], 1: [0, 2], 2: [1, 3], 3: [2]}
    times = [0.0] * 4
    for t in range(1, 5):
        virtual.round(t, 1.0, [Booking("gossip", 12 * MB, repeats=2)])
        ready = [time + (2.0 if n == 0 else 0.2) for n, time in enumerate(times)]
        for _ in range(2):
            begun = [max(ready[m] for m in (n, *near[n])) for n in range(4)]
            ready = []
            for n in range(4):
                ends = []
                for m in near[n]:
                    own = 0.5 if links and 1 in links and 1 in (n, m) else 0.0
                    work = 2.0 if not links else max(len(near[n]) / rate[n], len(near[m]) / rate[m])
                    ends.append(reference(begun[n], max(own, ms_at(begun[n])), work, True, outages))
                ready.append(max(ends))
        times = ready
        assert virtual.times.tolist() == pytest.approx(times, rel=1e-12)


def test_buckets_and_delayed_exchanges(trace: str) -> None:
    """A gradient of 3 s is half done after 2 s, when its first half begins; the second one at 3 s or after it."""
    given = Network(8.0, 20.0, overlap=True, trace=trace, compute=Compute(seconds=3.0))
    ahead, now = clock(given, bucket_ends=(0.5, 1.0)), 0.0
    for t in range(1, 5):
        ahead.round(t, 1.0, [Booking()])
        half = reference(now + 2.0, 6 * ms_at(now + 2.0), 0.5)
        then = max(half, now + 3.0)
        now = reference(then, 6 * ms_at(then), 0.5)
        assert ahead.times.tolist() == pytest.approx([now] * 4, rel=1e-12)
    delayed = clock(Network(8.0, 20.0, trace=trace, compute=Compute(seconds=1.0)), delays=[1.0, 1.0, 0.0])
    booked = [Booking("server", 3 * MB, direction="down"), Booking("server", 3 * MB, direction="up")]
    ready, arrival = (
        2.0,
        0.0,
    )  # two gradients a round, of which the next round computes one while this one's sum travels
    arrival = reference(ready, ms_at(ready), 3.0)
    delayed.round(1, 2.0, booked[1:])
    for t in (2, 3):
        arrival = reference(arrival, ms_at(arrival), 3.0)  # what comes down first
        ready = max(ready + 1.0, arrival) + 1.0
        arrival = reference(ready, ms_at(ready), 3.0)
        delayed.round(t, 2.0, booked)
    assert delayed.now == pytest.approx(arrival, rel=1e-12)


def test_links_inside_islands_do_not_change(trace: str) -> None:
    """Two islands of two: what they add up inside takes 0.5 s at 16 Mbit/s, whatever the trace; then the leaders."""
    inside = Link(bandwidth=16.0, latency=0.0)
    given = Network(8.0, 20.0, trace=trace, inside=inside, compute=Compute(seconds=0.7))
    virtual, now = clock(given, islands=2), 0.0
    for t in range(1, 6):
        down = Booking("inside_broadcast", 2 * MB, 2)
        down.direction = "down"
        virtual.round(t, 1.0, [Booking("inside_all_reduce", 4 * MB, 2), Booking(workers=2, bytes_wire=2 * MB), down])
        now += 0.7 + 0.5
        now = reference(now, 2 * ms_at(now), 1.0) + 0.5
        assert virtual.times.tolist() == pytest.approx([now] * 4, rel=1e-12)
    alone = clock(given, islands=1)
    alone.round(1, 1.0, [Booking("inside_all_reduce", 4 * MB), Booking()])
    assert alone.now == pytest.approx(0.7 + 0.5 + 0.5)


def test_workers_that_wait_for_nobody(trace: str) -> None:
    """Worker 0 takes 4 s, the others 1 s; a message takes 0.5 s of the server's link at 8 Mbit/s, an answer 0.25 s."""
    outages = [(6.0 * k, 6.0 * k + 0.7) for k in range(1, 20)]
    jitter = Jitter("lognormal", 0.4)
    given = Network(
        8.0,
        20.0,
        trace=trace,
        outage=Outage(every=6.0, lasts=0.7),
        jitter=jitter,
        compute=Compute(seconds=1.0, slow=[4.0]),
    )
    one, other = (EventClock(given, NoStragglers(), 3, 7) for _ in range(2))

    def message(begun: float, worker: int, cycle: int, way: str) -> float:
        factor = jitter.draw(numpy_generator(7, "jitter", worker, cycle, way))
        return reference(begun, factor * ms_at(begun), 0.0, True, outages)

    coming, cycles, free, received = {}, [0] * 3, 0.0, 0.0
    served = [0, 1, 2]
    for _ in range(12):
        for n in served:
            one.serve(n, 1, 250_000, 500_000)
            cycles[n] += 1
            free = reference(max(free, received), 0.0, 0.25, True, outages)
            ready = message(free, n, cycles[n], "down") + (4.0 if n == 0 else 1.0)
            coming[n] = message(ready, n, cycles[n], "up")
        if one.cycles.sum() == 9:
            other.times = one.times.copy()
            busy = np.isfinite(one.ready)
            assert np.array_equal(other.arriving[busy], one.arriving[busy])
        served = one.arrivals()
        (n,) = served
        assert n == min(coming, key=lambda worker: (coming[worker], worker))
        received = reference(max(coming.pop(n), received), 0.0, 0.5, True, outages)
        assert one.now == pytest.approx(received, rel=1e-12)


def test_another_bandwidth_keeps_all_in_proportion(trace: str) -> None:
    slow = clock(Network(8.0, 0.0, 4.0, {1: Link(bandwidth=2.0, latency=0.0)}, trace=trace))
    fast = clock(with_bandwidth(slow.network, 80.0))
    for each, wire in ((slow, MB), (fast, 10 * MB)):
        for t in range(1, 6):
            each.round(t, 0.0, [Booking(bytes_wire=wire), Booking("server", wire, direction="down")])
    np.testing.assert_allclose(slow.times, fast.times, rtol=1e-12)
    assert slow.network.recorded is not fast.network.recorded
    device = fast.network.with_compute(Compute(seconds=1.0))
    assert device.compute.seconds == 1.0
    assert device.recorded is fast.network.recorded
    assert with_bandwidth(slow.network, 8.0) is slow.network


def test_a_steady_trace_is_a_network_that_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "steady").write_text("0 8 30\n")
    for edges in (None, LINE):
        plain, steady = (
            clock(Network(8.0, 30.0, 2.0, trace=path, compute=Compute("lognormal", 1.0)), edges=edges)
            for path in (None, str(tmp_path / "steady"))
        )
        for t in range(1, 6):
            for each in (plain, steady):
                each.round(t, 1.5, [Booking(), Booking("gossip", repeats=2), Booking("server", direction="up")])
        np.testing.assert_allclose(plain.times, steady.times, rtol=1e-12)


MISTAKES = {
    "0 8\n": "line 1: '0 8' is not three numbers of 0 or more; give seconds, Mbit/s and ms",
    "0 8 1\nsoon 8 1\n": "line 2: 'soon 8 1' is not three numbers",
    "0 8 -1\n": "line 1: '0 8 -1' is not three numbers",
    "0 inf 1\n": "line 1: '0 inf 1' is not three numbers",
    "\n# from noon on\n1 8 1\n": "line 3: '1 8 1' comes first, but says nothing of what is before; give a first",
    "0 8 1\n5 8 1\n5 9 1\n": "line 3: '5 9 1' is not later than the line before",
    "# nothing\n": "is empty; give a file with seconds, Mbit/s and ms",
    "0 0 1\n1 0 1\n": "its bandwidth is always 0; give a line with more",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_traces_bad_line_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(ValueError, match=r"^trace=") as refusal:
        Network(trace=str(tmp_path / "trace"))
    assert str(refusal.value).startswith(f"trace={tmp_path}/trace: {MISTAKES[text]}")


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: Outage("weekly"), "outage.kind=weekly: unknown; give one of periodic, exponential"),
        (lambda: Outage(every=10.0), r"outage=\{every:10.0,lasts:0.0\}: out of range; give seconds with 0 < lasts"),
        (lambda: Outage(every=1.0, lasts=1.0), "outage=.*: out of range"),
        (lambda: Jitter("normal"), "jitter.kind=normal: unknown; give one of none, uniform, lognormal, pareto"),
        (lambda: Jitter("uniform", 1.5), "jitter.spread=1.5: out of range"),
    ],
)
def test_refusals(make: Callable[[], object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        make()


def test_a_trace_counts_by_its_numbers_and_goes_with_no_regions(trace: str, tmp_path: Path) -> None:
    words = ("dataset=linreg", f"network.trace={trace}")
    made = plan(*words)
    assert len(made.resolved["network"]["digest"]) == 16
    other = tmp_path / "other.txt"
    other.write_text("0.0,8,1e2\n2,4,200\n3,0,50 # nothing\n")
    assert plan("dataset=linreg", f"network.trace={other}").name == made.name != plan("dataset=linreg").name
    with pytest.raises(UserError, match=r"^network.digest=00: the trace has changed since; leave it out"):
        plan(*words, "+network.digest='00'")
    with pytest.raises(
        UserError, match=r"^network.trace=.*: has one bandwidth for all links, and regions have many; give"
    ):
        plan(*words, "network=regions_world")


SMALL = ("dataset=linreg", "dataset.dim=20", "dataset.samples=10", "workers=4", "rounds=8", "eval_every=3")
METHODS = [
    ("compress=topk", "compress.k=3", "comm.exchange=two_phase"),
    ("algo=dpsgd", "topology=ring", "gossip.rounds=2"),
    ("algo=diloco", "algo.optimizer=sgd", "algo.lr=0.01", "algo.tau=2", "algo.delay=1"),
]


@pytest.mark.parametrize("method", METHODS, ids=" ".join)
def test_runs_are_replayed_to_the_digit(method: tuple[str, ...], trace: str, run: Callable[..., Run]) -> None:
    changing = [
        "network.bandwidth=0.01",
        f"network.trace={trace}",
        "network.outage={kind:exponential,every:1,lasts:0.3}",
    ]
    changing += ["network.jitter.kind=pareto", "network.compute.kind=lognormal", "network.compute.seconds=0.1"]
    here, there = (run(*SMALL, *method, *words) for words in (changing, ["network=mobile"]))
    for one in (here, there):
        assert Replay(one).seconds(plan(*changing).network) == list(here.metrics["sim_seconds"])
        assert Replay(one).seconds(plan("network=mobile").network) == list(there.metrics["sim_seconds"])
    os.remove(trace)
    assert Replay(here).seconds(plan("network=mobile").network) == list(there.metrics["sim_seconds"])
