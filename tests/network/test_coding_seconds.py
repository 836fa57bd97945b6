"""Encoding and decoding on the clocks, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from network.test_events import Compute, EventClock, Network, NoStragglers
from registry import compressor, options, plan

from commexp.comm import Entry
from commexp.config.messages import UserError
from commexp.experiment.coding import measured_coding
from commexp.experiment.replay import Replay
from commexp.network import Coding, VirtualClock
from commexp.run_folder import Run

CODED = {  # messages that a worker encodes, and that are decoded, one after the other, among 4
    ("all_reduce", "peers"): (1, 1),
    ("all_gather", "peers"): (1, 4),
    ("two_phase", "up"): (1, 1),
    ("two_phase", "down"): (0, 0),
    ("quantised_all_reduce", "up"): (1, 1),
    ("quantised_all_reduce", "down"): (1 / 4, 1),
    ("server", "up"): (1, 4),
    ("server", "down"): (0, 0),
    ("broadcast", "peers"): (0, 0),
    ("gossip", "peers"): (3, 6),  # three mixings with two neighbours each
}


@pytest.mark.parametrize(("kind", "counts"), CODED.items())
def test_messages_of_each_exchange(kind: tuple[str, str], counts: tuple[float, float]) -> None:
    entry = Entry(1, *kind, 4, 3 if kind[0] == "gossip" else 1, 0.0, 1000, 2000)
    assert Coding(0.5, 0.0).seconds([entry, entry]) == 2 * 0.5 * counts[0]
    assert Coding(0.0, 0.25).seconds([entry]) == 0.25 * counts[1]
    for words in ({}, {"slow": [3.0]}):
        network = Network(compute=Compute(seconds=1.0, **words))
        plain, coded = (VirtualClock(network, NoStragglers(), 4, 0, coding=c) for c in (Coding(), Coding(0.5, 0.25)))
        for clock in (plain, coded):
            clock.round(1, 1.0, [entry])
        slowest = max(network.compute.factors(4))
        assert coded.now - plain.now == pytest.approx(slowest * (0.5 * counts[0] + 0.25 * counts[1]))


def test_what_is_delayed_is_coded_before_it_travels() -> None:
    entry = Entry(1, "all_gather", "peers", 4, 1, 0.0, 1000, 12000)
    network = Network(compute=Compute(seconds=1.0))
    plain, coded = (VirtualClock(network, NoStragglers(), 4, 0, delays=[1, 0], coding=c) for c in (Coding(), Coding(2)))
    for clock in (plain, coded):
        clock.round(1, 4.0, [entry])
        clock.round(2, 4.0, [entry])
    assert coded.now - plain.now == pytest.approx(4.0), "once in each round"


def test_the_server_of_workers_that_do_not_wait_decodes_one_after_the_other() -> None:
    network = Network(bandwidth=8.0, latency=0.0, compute=Compute(seconds=1.0, slow=[2.0]))
    events = EventClock(network, NoStragglers(), 3, 0, Coding(0.125, 0.5))
    for n in range(3):
        events.serve(n, 1, 0, 0)
    assert (events.arrivals(), events.now) == ([1, 2], 1.125 + 2 * 0.5)
    assert (events.arrivals(), events.now) == ([0], 2.25 + 0.5)
    assert np.allclose(events.busy, [2.25, 1.125, 1.125])


SMALL = ["dataset=linreg", "dataset.dim=20", "dataset.samples=10", "workers=3", "rounds=4", "eval_every=1"]


def test_a_rate_by_hand(run: Callable[..., Run]) -> None:
    """160 bytes, 1e-6 GB/s: 0.16 s a message, of which a worker encodes one and decodes three."""
    words = (*SMALL, "compress=topk", "compress.k=2", "comm.exchange=all_gather")
    plain, coded = run(*words), run(*words, "network.compute.coding=1e-6")
    assert list(coded.metrics["sim_seconds"] - plain.metrics["sim_seconds"]) == pytest.approx(0.64 * np.arange(5))
    assert Replay(plain).seconds(plan("network.compute.coding=1e-6").network) == list(coded.metrics["sim_seconds"])
    assert coded.on_clock == "communication and coding only"
    with pytest.raises(UserError, match="does not say what encoding takes; run it again, with rerun=true and network"):
        Replay(plain).seconds(plan("network.compute.coding=measured").network)


def test_what_was_measured_comes_back(run: Callable[..., Run]) -> None:
    words = ["network.compute.coding=measured", "network.compute=a100"]
    done = run(*SMALL, *words, "compress=topk", "comm.exchange=all_gather")
    encode, decode = (done.meta["coding"][name] for name in ("encode", "decode"))
    assert min(encode, decode) > 0
    assert Replay(done).seconds(plan(*words).network) == list(done.metrics["sim_seconds"])
    without = Replay(done).seconds(plan("network.compute=a100").network)
    assert list(done.metrics["sim_seconds"] - without) == pytest.approx((encode + 3 * decode) * np.arange(5))


@pytest.mark.parametrize("name", options("compress"))
def test_every_codec_can_be_measured_and_is_left_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that ticks once a look: of a codec with p phases p encodings, and p decodings."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("commexp.experiment.coding.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr("commexp.experiment.coding.ENOUGH", 1e9)
    codec = compressor(name)
    before = {key: value.clone() for key, value in codec.state_dict().items()}

    class Weights:
        dim, shapes = 4096, {"a": (48, 64), "b": (1024,)}

    found = measured_coding(codec, Weights(), torch.float32, torch.device("cpu"), 0)  # type: ignore[arg-type]
    assert found.encode == pytest.approx((1 + codec.phases) / codec.phases)
    assert found.decode == pytest.approx((codec.phases + 1) / codec.phases)
    after = codec.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"coding": "fast"}, "compute.coding=fast: unknown; give measured, GB/s such as 2.0, or null"),
        ({"coding": 0}, "compute.coding=0: unknown"),
        ({"coding": True}, "compute.coding=True: unknown"),
        ({"coding": 1.0, "kind": "measured"}, "compute.coding=1.0: compute.kind=measured includes it"),
        ({"flops": 1.0}, "compute.flops=1.0: a training step reaches a share of it; give network.compute.utilisation"),
        ({"flops": 0.0, "utilisation": 0.5}, "compute.flops=0.0: must be positive"),
        ({"flops": 1.0, "utilisation": 1.5}, r"compute.utilisation=1.5: out of range; give a share in \(0, 1\]"),
        ({"utilisation": 0.5}, "compute.utilisation=0.5: a share of what no device can do; give network.compute=h100"),
        ({"flops": 1.0, "utilisation": 0.5, "seconds": 1.0}, "compute.seconds=1.0 network.compute.flops=1.0: both say"),
        (
            {"flops": 1.0, "utilisation": 0.5, "kind": "measured"},
            "compute.kind=measured network.compute.flops=1.0: both",
        ),
    ],
)
def test_refusals(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Compute(**fields)  # type: ignore[arg-type]
