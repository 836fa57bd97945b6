"""Seconds by hand."""

from __future__ import annotations

import pytest
from network.test_rates import seconds

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
