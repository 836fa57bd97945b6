"""Exchanges against sums by hand, and the ledger against the formulas by hand."""

from __future__ import annotations

import pytest
import torch
from registry import bare, options

from commexp.comm import Communicator, Ledger, carrier, peer_wire_bytes
from commexp.compressors import ErrorFeedback, NoCompression, PowerSGD, TopK

N, J = 6, 500
TOP50 = 50 * (4 + 1) + 1 + 2  # values, offsets, header, counts of two blocks of 255


def gradients() -> torch.Tensor:
    return torch.randn(N, J, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", options("compress"))
@pytest.mark.parametrize("exchange", ["auto", "all_gather", "server"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_aggregate_is_the_weighted_sum(name: str, exchange: str, deterministic: bool) -> None:
    codec, weights = bare(name), torch.linspace(0.1, 0.3, N)
    message = codec.encode(gradients())
    total = Communicator(N, Ledger(), exchange, deterministic).aggregate(message, weights)
    if codec.phases > 1:  # what it decodes to is known after its first exchange
        codec = bare(name)
        expected = codec.reduce(codec.encode(gradients()), weights).double()
    else:
        expected = (weights[:, None].double() * codec.decode(message).double()).sum(0)
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)


def test_both_exchanges_of_powersgd_are_booked() -> None:
    ledger, codec = Ledger(), PowerSGD(rank=1)
    Communicator(N, ledger).aggregate(codec.encode(gradients()), torch.full((N,), 1 / N))
    assert [e.exchange for e in ledger.entries] == ["all_reduce", "all_reduce"]
    assert ledger.bytes_sent == N * codec.payload(J, 4) == N * (23 + 22) * 4


def test_mean_books_a_dense_all_reduce() -> None:
    ledger = Ledger()
    x = gradients()
    torch.testing.assert_close(Communicator(N, ledger).mean(x), x.mean(0))
    assert ledger.totals() == {"bytes_info": N * J * 4, "bytes_sent": N * J * 4, "bytes_wire": 2 * (N - 1) * J * 4}


def test_dense_by_all_reduce() -> None:
    ledger = Ledger()
    Communicator(N, ledger).aggregate(NoCompression().encode(gradients()), torch.full((N,), 1 / N))
    (entry,) = ledger.entries
    assert (entry.exchange, entry.direction) == ("all_reduce", "peers")
    assert (entry.bytes_sent, entry.bytes_wire) == (N * J * 4, 2 * (N - 1) * J * 4)


def test_topk_by_all_gather() -> None:
    ledger = Ledger()
    Communicator(N, ledger).aggregate(TopK(k=50).encode(gradients()), torch.full((N,), 1 / N))
    (entry,) = ledger.entries
    assert (entry.exchange, entry.bytes_sent, entry.bytes_wire) == ("all_gather", N * TOP50, N * (N - 1) * TOP50)


def test_server_books_the_downlink_too() -> None:
    ledger = Ledger()
    total = Communicator(N, ledger, "server").aggregate(TopK(k=5).encode(gradients()), torch.full((N,), 1 / N))
    up, down = ledger.entries
    top5 = 5 * (4 + 1) + 1 + 2
    assert (up.direction, up.bytes_sent, up.bytes_wire) == ("up", N * top5, N * top5)
    union = int((total != 0).sum())
    assert 5 <= union <= 5 * N
    assert (down.direction, down.bytes_sent, down.bytes_wire) == ("down", N * (union * 5 + 3), N * (union * 5 + 3))


def test_server_sends_dense_where_that_is_smaller() -> None:
    ledger = Ledger()
    Communicator(N, ledger, "server").aggregate(NoCompression().encode(gradients()), torch.full((N,), 1 / N))
    assert ledger.entries[1].bytes_sent == N * J * 4


def test_messages_that_do_not_sum_are_not_all_reduced() -> None:
    with pytest.raises(ValueError, match="TopK cannot be added on the way"):
        carrier(ErrorFeedback(TopK()), "all_reduce")


def test_unknown_exchange() -> None:
    with pytest.raises(ValueError, match="exchange=pigeon"):
        Communicator(N, Ledger(), "pigeon")
    with pytest.raises(ValueError, match="exchange=pigeon"):
        peer_wire_bytes("pigeon", 2, 8)


def test_totals_survive_a_round_trip_through_rows() -> None:
    ledger = Ledger()
    for t in range(4):
        ledger.round = t
        Communicator(N, ledger).aggregate(TopK(k=5).encode(gradients()), torch.full((N,), 1 / N))
    again = Ledger()
    again.restore([e._asdict() for e in ledger.entries])
    assert again.totals() == ledger.totals()
    assert again.entries == ledger.entries
