"""Seconds by hand."""

from __future__ import annotations

import pytest
from network.test_rates import seconds

from commexp.comm import exchange_named
from commexp.network import Network


def test_seconds_of_each_exchange_by_hand() -> None:
    link = Network(bandwidth=8.0, latency=100.0)  # 1 MB/s, 0.1 s
    assert seconds(link, "all_reduce", 4, 4_000_000) == pytest.approx(6 * 0.1 + 1.0)
    assert seconds(link, "all_gather", 4, 4_000_000) == pytest.approx(3 * 0.1 + 1.0)
    assert seconds(link, "two_phase", 4, 4_000_000) == pytest.approx(3 * 0.1 + 1.0)
    assert seconds(link, "gossip", 4, 4_000_000) == pytest.approx(0.1 + 1.0)
    assert seconds(link, "server", 4, 4_000_000) == pytest.approx(0.1 + 4.0)


def test_one_after_the_other_each_has_its_latency() -> None:
    """The bytes are those of all of them."""
    link = Network(bandwidth=8.0, latency=100.0)
    assert seconds(link, "gossip", 4, 12_000_000, repeats=3) == pytest.approx(3 * 0.1 + 3.0)
    assert seconds(link, "gossip", 4, 12_000_000, 3) == pytest.approx(3 * seconds(link, "gossip", 4, 4_000_000))
    for exchange in ("all_reduce", "all_gather", "two_phase", "gossip", "server", "broadcast"):
        once, thrice = seconds(link, exchange, 4, 4_000_000, 1), seconds(link, exchange, 4, 12_000_000, 3)
        assert seconds(link, exchange, 4, 4_000_000) == once
        assert thrice == pytest.approx(3 * once), exchange


def test_unknown_exchange() -> None:
    with pytest.raises(ValueError, match="exchange=pigeon: unknown; give one of all_reduce"):
        seconds(Network(), "pigeon", 2, 1)


@pytest.mark.parametrize("field", ["latency", "bandwidth", "up"])
def test_negative_values_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}=-1"):
        Network(**{field: -1.0})


def test_a_slow_way_up_by_hand() -> None:
    """1 MB/s down, 0.25 MB/s up: rings and gossip go at the slower; a server takes in at its own way down what four
    workers send up, and hands out at its own way up."""
    link = Network(bandwidth=8.0, up=2.0, latency=0.0)
    assert seconds(link, "all_reduce", 4, 4_000_000) == pytest.approx(4.0)
    assert seconds(link, "gossip", 4, 4_000_000) == pytest.approx(4.0)
    assert seconds(link, "broadcast", 4, 3_000_000) == pytest.approx(2 * 4.0)
    assert seconds(link, "server", 5, 4_000_000, direction="up") == pytest.approx(4.0)
    assert seconds(link, "server", 3, 4_000_000, direction="up") == pytest.approx(8.0)
    assert seconds(link, "server", 5, 4_000_000, direction="down") == pytest.approx(16.0)


def test_the_hub_of_a_star_is_what_everybody_waits_for() -> None:
    link = Network(bandwidth=8.0, latency=0.0)
    assert seconds(link, "gossip", 5, 8_000_000, share=0.5) == pytest.approx(4.0)


def test_headers_travel_with_every_byte() -> None:
    bare, whole = Network(bandwidth=8.0, latency=0.0), Network(bandwidth=8.0, latency=0.0, headers=0.25)
    for exchange in ("all_reduce", "server", "gossip", "broadcast"):
        assert seconds(whole, exchange, 4, 4_000_000) == pytest.approx(1.25 * seconds(bare, exchange, 4, 4_000_000))
    with pytest.raises(ValueError, match=r"^headers=-0.1: must not be negative"):
        Network(headers=-0.1)


@pytest.mark.parametrize(
    ("rate", "formula", "measured"), [(49.6, 30.07, 36.96), (198.5, 7.52, 8.24), (992.6, 1.503, 1.616)]
)
def test_measurements_that_others_made(rate: float, formula: float, measured: float) -> None:
    """Four hosts, 31.08 M parameters in fp32 (docs/time.md): no measured exchange is shorter than ours, and the longest
    one takes 23 % more, which TCP's congestion control can make of a slow ring."""
    wire = exchange_named("all_reduce").wire(0, 31_080_000 * 4, 4) * 4
    ours = seconds(Network(rate, 0.0), "all_reduce", 4, wire)
    assert ours == pytest.approx(31.08e6 * 4 * 8 * 1.5 / (rate * 1e6), rel=1e-9)
    assert ours == pytest.approx(formula, abs=0.01)
    assert 1.0 < measured / ours < 1.23
    headers = seconds(Network(rate, 0.0, headers=66 / 1448), "all_reduce", 4, wire)
    assert 1.02 < measured / headers < 1.18
