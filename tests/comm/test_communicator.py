"""Exchanges of one process against sums by hand, and the ledger against the formulas by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from registry import bare, options

from commexp.comm import AGGREGATIONS, Communicator, Ledger, check_serves, choose
from commexp.comm.exchanges.two_phase import shard_bounds
from commexp.compressors import ErrorFeedback, Message, NoCompression, PowerSGD, RandK, Sign, Threshold, TopK
from commexp.compressors.aggregate import aggregate_size
from commexp.topologies import Exponential, Gossip, Line, Mixer, OnePeer, Ring, Star, Topology

N, J = 6, 500
TOP50 = 50 * (4 + 1) + 1 + 2  # values, offsets, header, counts of two blocks of 255
EVEN = torch.full((N,), 1 / N)


def gradients(dim: int = J) -> torch.Tensor:
    return torch.randn(N, dim, generator=torch.Generator().manual_seed(0))


def aggregated(message: Message, exchange: str = "auto") -> tuple[torch.Tensor, Ledger]:
    ledger = Ledger()
    comm = Communicator(N, ledger, exchange)
    total = comm.aggregate(message, EVEN)
    comm.settle()
    return total, ledger


@pytest.mark.parametrize("name", options("compress"))
@pytest.mark.parametrize("exchange", ["auto", "all_gather", "server", "two_phase"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_aggregate_is_the_weighted_sum(name: str, exchange: str, deterministic: bool) -> None:
    codec, weights = bare(name), torch.linspace(0.1, 0.3, N)
    if exchange == "two_phase" and not AGGREGATIONS[exchange].candidate(codec):
        with pytest.raises(ValueError, match=r"exchange=two_phase: messages of .+ (sum|cannot be cut)"):
            check_serves(codec, exchange)
        return
    message = codec.encode(gradients())
    total = Communicator(N, Ledger(), exchange, deterministic).aggregate(message, weights)
    if codec.phases > 1:  # what it decodes to is known after its first exchange
        codec = bare(name)
        expected = codec.reduce(codec.encode(gradients()), weights).double()
    else:
        sent = codec.decode(message).double()
        expected = weights.double() @ sent
        if name == "sparseloco":  # divides by the weight of the workers that sent an entry
            expected = torch.where(expected == 0, 0.0, expected / (weights.double() @ (sent != 0).double()))
    narrow = [b.dtype for b in message.buffers.values() if codec.sums]  # what sums is rounded as its messages are
    coarse = max((torch.finfo(t).eps for t in narrow), default=0.0)
    torch.testing.assert_close(total.double(), expected, rtol=max(1e-5, coarse), atol=max(1e-6, coarse))


def test_both_exchanges_of_powersgd_are_booked() -> None:
    codec = PowerSGD(rank=1)
    _, ledger = aggregated(codec.encode(gradients()))
    assert [e.exchange for e in ledger.entries] == ["all_reduce", "all_reduce"]
    assert ledger.bytes_sent == N * codec.payload(J, 4) == N * (23 + 22) * 4


def test_mean_books_a_dense_all_reduce() -> None:
    ledger, x = Ledger(), gradients()
    comm = Communicator(N, ledger)
    torch.testing.assert_close(comm.mean(x), x.mean(0))
    comm.settle()
    assert ledger.totals() == {"bytes_info": N * J * 4, "bytes_sent": N * J * 4, "bytes_wire": 2 * (N - 1) * J * 4}


def test_dense_by_all_reduce() -> None:
    (entry,) = aggregated(NoCompression().encode(gradients()))[1].entries
    assert (entry.exchange, entry.direction) == ("all_reduce", "peers")
    assert (entry.bytes_sent, entry.bytes_wire) == (N * J * 4, 2 * (N - 1) * J * 4)


def test_topk_by_all_gather() -> None:
    (entry,) = aggregated(TopK(k=50).encode(gradients()), "all_gather")[1].entries
    assert (entry.exchange, entry.bytes_sent, entry.bytes_wire) == ("all_gather", N * TOP50, N * (N - 1) * TOP50)


def test_server_books_the_downlink_too() -> None:
    """The server lives with worker 0, whose message and answer do not travel."""
    total, ledger = aggregated(TopK(k=5).encode(gradients()), "server")
    up, down = ledger.entries
    top5 = 5 * (4 + 1) + 1 + 2
    assert (up.direction, up.bytes_sent, up.bytes_wire) == ("up", N * top5, (N - 1) * top5)
    union = int((total != 0).sum())
    assert 5 <= union <= 5 * N
    size = union * 5 + 3
    assert (down.direction, down.bytes_sent, down.bytes_wire) == ("down", N * size, (N - 1) * size)


def test_server_sends_dense_where_that_is_smaller() -> None:
    _, ledger = aggregated(NoCompression().encode(gradients()), "server")
    assert ledger.entries[1].bytes_sent == N * J * 4


def test_signs_in_two_phases_by_hand() -> None:
    """Shards of 88 entries, the last of 60: 11 or 8 bytes of signs, and the scale with each; dense sums back."""
    assert shard_bounds(J, N) == [0, 88, 176, 264, 352, 440, 500]
    _, ledger = aggregated(Sign().encode(gradients()), "two_phase")
    up, down = ledger.entries
    each = [11 + 4] * 5 + [8 + 4]
    assert (up.direction, up.bytes_sent, up.bytes_wire) == ("up", N * sum(each), N * sum(each) - sum(each))
    assert (down.direction, down.bytes_sent, down.bytes_wire) == ("down", J * 4, (N - 1) * J * 4)


def test_a_vote_comes_back_as_signs() -> None:
    total, ledger = aggregated(Sign(vote=True).encode(gradients()), "two_phase")
    assert total.abs().unique().numel() <= 2
    assert ledger.entries[1].bytes_sent == sum(4 + -(-m // 5) for m in [88] * 5 + [60])


@pytest.mark.parametrize("codec", [TopK(k=50), RandK(k=50, shared=False), Threshold(t=0.5)])
def test_sparse_messages_in_two_phases_by_hand(codec: TopK | RandK | Threshold) -> None:
    message = codec.encode(gradients())
    total, ledger = aggregated(message, "two_phase")
    up, down = ledger.entries
    bounds = shard_bounds(J, N)
    sent = wire = 0
    for n, (places, _) in enumerate(codec.rows(message)):
        for j, (a, b) in enumerate(pairwise(bounds)):
            k = int(((places >= a) & (places < b)).sum())
            size = 4 * k + 1 + min(k, -(-(b - a) // 8))  # offsets of a byte, or a bitmap
            sent, wire = sent + size, wire + size * (n != j)
    assert (up.bytes_sent, up.bytes_wire) == (sent, wire)
    assert down.bytes_sent == sum(aggregate_size(total[a:b])[0] for a, b in pairwise(bounds))
    assert down.bytes_wire == (N - 1) * down.bytes_sent


@pytest.mark.parametrize(
    ("codec", "workers", "chosen"),
    [
        (NoCompression(), 64, "all_reduce"),
        (TopK(k=0.01), 8, "all_gather"),
        (TopK(k=0.1), 64, "two_phase"),  # 64 messages of J/2 bytes are more than one of 4 J
        (Sign(), 8, "all_gather"),
        (Sign(), 64, "two_phase"),
        (Sign(vote=True), 8, "two_phase"),
        (Threshold(), 64, "all_gather"),  # nobody knows what it will cost
    ],
)
def test_auto_takes_the_fewest_bytes_on_the_links_and_says_so(codec: TopK, workers: int, chosen: str) -> None:
    choice = choose(codec, "auto", workers, 10_000, 4)
    assert choice.exchange.name == chosen
    if chosen != "all_gather" or not codec.variable_size:
        assert choice.costs[chosen] == min(choice.costs.values())
    assert str(choice).startswith(f"exchange={chosen}: {choice.costs[chosen]:,} bytes")


def test_two_phase_never_grows_with_the_number_of_workers() -> None:
    """Per worker it stays below its own message and one dense vector."""
    for codec in (TopK(k=0.01), Sign()):
        for workers in (8, 64, 1024):
            per_worker = choose(codec, "two_phase", workers, 10_000, 4).costs["two_phase"] / workers
            assert per_worker < codec.payload(10_000, 4) + 4 * 10_000


def on(topology: Topology, gossip: Gossip | None = None, workers: int = N, **world: bool) -> Communicator:
    mixer = Mixer(topology, gossip or Gossip(), workers, 0)
    comm = Communicator(workers, Ledger(), mixer=mixer, **world)
    comm.begin_round(1)
    return comm


def dense(topology: Topology, workers: int = N, t: int = 1) -> torch.Tensor:
    """W of round t by way of its own matrix, for a graph without failures."""
    made = topology.mixings(workers, 0)
    return torch.from_numpy(made[(t - 1) % len(made)].matrix.toarray())


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("topology", [Ring(), Line(), Star(), Exponential()])
def test_gossip_is_a_product_with_the_mixing_matrix(topology: Topology, deterministic: bool) -> None:
    comm, x = on(topology, deterministic=deterministic), gradients()
    torch.testing.assert_close(comm.gossip(x), dense(topology).float() @ x)
    comm.settle()
    (entry,) = comm.ledger.entries
    links = {Ring: 2 * N, Line: 2 * (N - 1), Star: 2 * (N - 1), Exponential: 3 * N}[type(topology)]
    assert (entry.exchange, entry.direction, entry.repeats, entry.round) == ("gossip", "peers", 1, 1)
    assert (entry.bytes_info, entry.bytes_sent, entry.bytes_wire) == (N * J * 4, N * J * 4, links * J * 4)


def test_gossip_by_hand() -> None:
    """A star of three: worker 0 has two neighbours, each link has the weight 1/3."""
    x = torch.tensor([[3.0, 0.0], [0.0, 3.0], [6.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[3.0, 1.0], [1.0, 2.0], [5.0, 0.0]], dtype=torch.float64)
    for deterministic in (False, True):
        torch.testing.assert_close(on(Star(), workers=3, deterministic=deterministic).gossip(x), expected)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_gossip_many_times_is_one_entry(rounds: int, deterministic: bool) -> None:
    x, W = gradients().double(), dense(Star())
    for chebyshev in (False, True):
        comm = on(Star(), Gossip(rounds=rounds, chebyshev=chebyshev), deterministic=deterministic)
        found = comm.gossip(x)
        if chebyshev:
            root = (1 - (1 - 1 / N) ** 2) ** 0.5
            eta = (1 - root) / (1 + root)
            before = expected = x
            for _ in range(rounds):
                before, expected = expected, (1 + eta) * W @ expected - eta * before
        else:
            expected = torch.linalg.matrix_power(W, rounds) @ x
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        comm.settle()
        (entry,) = comm.ledger.entries
        assert (entry.repeats, comm.ledger.gossip_rounds) == (rounds, rounds)
        assert (entry.bytes_sent, entry.bytes_wire) == (rounds * N * J * 8, rounds * 2 * (N - 1) * J * 8)


def test_tensors_of_any_shape_are_mixed() -> None:
    x = gradients().view(N, 5, 20, 5)
    for deterministic in (False, True):
        found = on(Line(), deterministic=deterministic).gossip(x)
        torch.testing.assert_close(found, (dense(Line()).float() @ x.flatten(1)).view(x.shape))


@pytest.mark.parametrize("deterministic", [False, True])
def test_round_t_has_the_t_th_matrix(deterministic: bool) -> None:
    comm, x = on(OnePeer(), Gossip(rounds=2), 8, deterministic=deterministic), torch.randn(8, 5).double()
    seen = []
    for t in (1, 2, 3, 4, 3, 9):
        comm.begin_round(t)
        W = dense(OnePeer(), 8, t)
        torch.testing.assert_close(comm.gossip(x), W @ W @ x)
        torch.testing.assert_close(comm.gossip(x), W @ W @ x)
        seen.append(W)
    assert torch.equal(seen[0], seen[3])
    assert torch.equal(seen[2], seen[5])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_links_that_fail_are_others_every_round_and_the_same_for_all() -> None:
    """What is sent along a lost link is not booked."""
    eye = torch.eye(N, dtype=torch.float64)
    one, other = (on(Ring(failure=0.4), deterministic=d) for d in (False, True))
    whole, found = dense(Ring()), []
    for t in range(1, 13):
        for comm in (one, other):
            comm.begin_round(t)
        W = one.gossip(eye)
        assert torch.equal(W, other.gossip(eye))
        assert torch.equal(W, W.T)
        torch.testing.assert_close(W.sum(0), torch.ones(N, dtype=torch.float64))
        off = ~torch.eye(N, dtype=torch.bool)
        assert bool(((W == 0) | (whole == W))[off].all())
        found.append(int((W[off] != 0).sum()))
    assert len(set(found)) > 2
    one.settle()
    assert [e.bytes_wire for e in one.ledger.entries] == [links * N * 8 for links in found]


@pytest.mark.parametrize("name", [name for name in options("compress") if bare(name).phases == 1])
@pytest.mark.parametrize("deterministic", [False, True])
def test_messages_are_mixed_and_booked_as_they_are(name: str, deterministic: bool) -> None:
    """Along a star: worker 0 sends its message to N - 1 others, each of them to worker 0 alone."""
    codec = bare(name)
    message = codec.encode(gradients())
    comm = on(Star(), deterministic=deterministic)
    found = comm.gossip_messages(message)
    decoded = codec.decode(message)
    torch.testing.assert_close(found, dense(Star()).to(decoded) @ decoded, rtol=1e-5, atol=1e-5)
    comm.settle()
    (entry,) = comm.ledger.entries
    first, *others = message.sizes
    assert (entry.exchange, entry.repeats) == ("gossip", 1)
    assert entry.bytes_sent == first + sum(others) == message.nbytes
    assert entry.bytes_wire == (N - 1) * first + sum(others)
    assert entry.bytes_info == pytest.approx(message.info_bits / 8, abs=1e-5)


def test_a_large_ring_is_never_made_dense() -> None:
    workers, dim = 3000, 3
    x = torch.randn(workers, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = Ring().mixings(workers, 0)[0].matrix
    comm = on(Ring(), Gossip(rounds=3), workers)
    found = comm.gossip(x)
    assert comm._near is not None
    assert comm._near[1]._dense is None
    np.testing.assert_allclose(found.numpy(), W @ (W @ (W @ x.numpy())), rtol=0, atol=1e-13)
    comm.settle()
    assert comm.ledger.bytes_sent == 3 * workers * dim * 8
    assert comm.ledger.bytes_wire == 3 * 2 * workers * dim * 8
    codec = NoCompression()
    np.testing.assert_allclose(comm.gossip_messages(codec.encode(x)).numpy(), W @ x.numpy(), rtol=0, atol=1e-13)
    assert comm._near[1]._dense is None


def test_without_a_topology_there_is_no_gossip() -> None:
    with pytest.raises(RuntimeError, match="gossip: there is no topology"):
        Communicator(N, Ledger()).gossip(gradients())


def test_messages_that_do_not_sum_are_not_all_reduced() -> None:
    with pytest.raises(ValueError, match="TopK cannot be added on the way"):
        check_serves(ErrorFeedback(TopK()), "all_reduce")


def test_unknown_exchange() -> None:
    with pytest.raises(ValueError, match="exchange=pigeon"):
        Communicator(N, Ledger(), "pigeon")
    with pytest.raises(ValueError, match="exchange=pigeon"):
        choose(TopK(), "pigeon", 2, 8, 4)


def test_totals_survive_a_round_trip_through_rows() -> None:
    ledger = Ledger()
    for t in range(4):
        ledger.round = t
        comm = Communicator(N, ledger)
        comm.aggregate(TopK(k=5).encode(gradients()), EVEN)
        comm.settle()
    again = Ledger()
    again.restore([e._asdict() for e in ledger.entries])
    assert again.totals() == ledger.totals()
    assert again.entries == ledger.entries
