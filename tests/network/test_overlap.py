"""Exchanges that begin in the backward pass, by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from network.test_rates import MB, Booking
from registry import options, plan

from commexp.comm import ALL_REDUCE, SERVER, bucket_ends, bucket_size, choose
from commexp.compressors import NoCompression, TopK
from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.network import Compute, Fixed, Network, NoStragglers, Straggler, VirtualClock
from commexp.run_folder import Run

HALVES = (0.5, 1.0)


def clock(
    seconds: float, buckets: tuple[float, ...] = HALVES, straggler: Straggler | None = None, **more: Any
) -> VirtualClock:
    """1 MB/s: an all-reduce of 4 MB among four takes 1 s."""
    given = Network(bandwidth=8.0, overlap=True, compute=Compute(seconds=seconds), **{"latency": 0.0, **more})
    return VirtualClock(given, straggler or NoStragglers(), 4, 0, bucket_ends=buckets)


def test_the_first_half_travels_while_the_second_is_computed() -> None:
    """A gradient of 3 s is half done after 2 s. Its halves take 0.5 s each."""
    long = clock(3.0)
    long.round(1, 1.0, [Booking()])
    assert long.times.tolist() == [3.5] * 4
    long.round(2, 1.0, [Booking()])
    assert long.times.tolist() == [7.0] * 4
    short = clock(0.3)  # half done after 0.2 s; then the link is busy to the end
    short.round(1, 1.0, [Booking()])
    assert short.now == pytest.approx(0.2 + 1.0)


def test_each_bucket_has_its_latencies_and_its_share_of_the_bytes() -> None:
    late = clock(3.0, latency=100.0)
    late.round(1, 1.0, [Booking()])
    assert late.now == pytest.approx(2.0 + 2 * (6 * 0.1 + 0.5))
    uneven = clock(3.0, (0.8, 1.0))  # 0.8 after 1 + 1.6 s, through after 3.4 s; then the rest
    uneven.round(1, 1.0, [Booking()])
    assert uneven.now == pytest.approx(2.6 + 0.8 + 0.2)


def test_of_several_gradients_the_last_one_overlaps() -> None:
    twice = clock(1.5)  # sharpness-aware: the second gradient is half done after 1.5 + 1 s
    twice.round(1, 2.0, [Booking()])
    assert twice.now == pytest.approx(3.0 + 0.5)
    twice.network.compute.seconds = 0.0
    twice.round(2, 2.0, [Booking()])
    assert twice.now == pytest.approx(3.5 + 1.0)


def test_a_bucket_waits_for_the_last_worker() -> None:
    late = clock(0.3, straggler=Fixed(workers=[2], slowdown=10.0))
    late.round(1, 1.0, [Booking()])
    assert late.times.tolist() == [3.5] * 4


@pytest.mark.parametrize("booking", [Booking("all_gather"), Booking("server", direction="up"), Booking("gossip")])
def test_nothing_else_overlaps(booking: Booking) -> None:
    apart = VirtualClock(Network(8.0, compute=Compute(seconds=3.0)), NoStragglers(), 4, 0)
    for each in (ahead := clock(3.0, latency=0.1), apart):
        each.round(1, 1.0, [booking])
    np.testing.assert_allclose(ahead.times, apart.times, rtol=1e-12)


def test_one_bucket_changes_no_bit() -> None:
    for straggler in (NoStragglers(), Fixed(workers=[1], slowdown=3.0)):
        apart = VirtualClock(Network(7.3, 0.7, compute=Compute(seconds=0.3)), straggler, 4, 0, bucket_ends=HALVES)
        whole = Network(7.3, 0.7, overlap=True, compute=Compute(seconds=0.3))
        ahead = VirtualClock(whole, straggler, 4, 0, bucket_ends=(1.0,))
        for t in range(1, 9):
            for each in (apart, ahead):
                each.round(t, 1.7, [Booking(), Booking(bytes_wire=3 * MB)])
        assert ahead.times.tolist() == apart.times.tolist()


def test_buckets() -> None:
    assert bucket_ends(5, 2) == (0.4, 0.8, 1.0)
    assert bucket_ends(4, 2) == HALVES
    assert bucket_ends(5, 5) == bucket_ends(5, 9) == bucket_ends(5, None) == (1.0,)
    auto = [choose(codec, "auto", 4, 10, 4).exchange for codec in (NoCompression(), TopK(k=0.1))]
    assert bucket_size(NoCompression(), auto[0], False) == 2**21
    assert bucket_size(NoCompression(), SERVER, False) is None
    assert bucket_size(NoCompression(), ALL_REDUCE, True) is None
    assert bucket_size(TopK(k=0.1), auto[1], False) is None


@pytest.mark.parametrize("algo", options("algo"))
def test_those_methods_overlap_that_hand_on_what_is_ready(algo: str) -> None:
    algorithm = plan(f"algo={algo}").algorithm
    assert algorithm.overlaps_gradient == (".ready" in inspect.getsource(type(algorithm).round))


SMALL = ["rounds=4", "eval_every=2", "workers=4", "model.width=8", "network.overlap=true"]
LATE = ["straggler=bernoulli", "network.compute.seconds=0.01"]


def test_a_run_overlaps_and_is_replayed(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commexp.comm.bucketed.BUCKET", 500)
    networks = [["network=mobile", *LATE], ["network=mobile", *LATE, "network.overlap=false"]]
    made = [run(*SMALL, *words) for words in networks]
    own = [list(one.metrics["sim_seconds"]) for one in made]
    for one in made:
        for words, seconds in zip(networks, own, strict=True):
            assert Replay(one).seconds(plan(*SMALL, *words).network) == seconds
    assert made[0].meta["stretch"] == 500
    assert own[0][-1] != own[1][-1]


@pytest.mark.parametrize("words", ["comm.deterministic=true", "compress=topk", "on_nonfinite=skip", "algo=localsgd"])
def test_where_nothing_goes_ahead_it_is_the_same(
    words: str, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commexp.comm.bucketed.BUCKET", 500)
    done = run(*SMALL, words, *LATE)
    assert done.meta["stretch"] is None
    assert Replay(done).seconds(plan(*LATE).network) == list(done.metrics["sim_seconds"])


def test_a_run_that_does_not_say_what_may_overlap(run: Callable[..., Run]) -> None:
    done = run("rounds=1", "model.width=8")
    kept = {key: value for key, value in done.meta.items() if key != "stretch"}
    (done.folder / "meta.json").unlink()
    done.set_meta(**kept)
    assert Replay(done).seconds(plan().network) == list(done.metrics["sim_seconds"])
    with pytest.raises(UserError, match=r"RUN=.*: does not say what may overlap; run it again"):
        Replay(done).seconds(plan("network.overlap=true").network)
