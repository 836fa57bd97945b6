"""Every registered exchange: bytes and hops against formulas written down anew, and what processes really move."""

from __future__ import annotations

import math
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from network.test_rates import seconds
from registry import bare, options
from torch import Tensor

from commexp.comm import AGGREGATIONS, EXCHANGES, Communicator, Entry, Ledger, Links, check_serves, choose
from commexp.comm.exchanges import Aggregation
from commexp.comm.links import Done, PendingTransfer
from commexp.compressors import FP4, FP8, CodecContext, Compressor, KBit
from commexp.network import Network
from commexp.topologies import Gossip, Mixer, Star

N, J = 4, 6000
HEAD = 512  # bytes at most by which a frame is longer than its payload

#: bytes on all links and hops of n workers with messages of S bytes and an aggregate of A bytes
FORMULAS: dict[str, tuple[Callable[[int, int, int], int], Callable[[int], int]]] = {
    "all_reduce": (lambda n, s, a: 2 * (n - 1) * s, lambda n: 2 * (n - 1)),
    "all_gather": (lambda n, s, a: n * (n - 1) * s, lambda n: n - 1),
    "server": (lambda n, s, a: (n - 1) * (s + a), lambda n: 1),
    "two_phase": (lambda n, s, a: (n - 1) * (s + a), lambda n: n - 1),
    "quantised_all_reduce": (lambda n, s, a: (n - 1) * (s + a), lambda n: n - 1),
    "gossip": (lambda n, s, a: n * 2 * s, lambda n: 1),  # on a ring
    "broadcast": (lambda n, s, a: (n - 1) * s, lambda n: (n - 1).bit_length()),
    "inside_all_reduce": (lambda n, s, a: 2 * (n - 1) * s, lambda n: 2 * (n - 1)),
    "inside_broadcast": (lambda n, s, a: (n - 1) * s, lambda n: (n - 1).bit_length()),
}
#: which compressors; all where it is not said
SERVES: dict[str, Callable[[Compressor], bool]] = {
    "all_reduce": lambda codec: codec.sums,
    "two_phase": lambda codec: codec.splittable and not codec.sums,
    "quantised_all_reduce": lambda codec: isinstance(codec, KBit | FP8 | FP4),
}


class Wires:
    """What N processes, which are threads here, send each other: queues, and how much went through them."""

    def __init__(self) -> None:
        self.queues: dict[tuple[object, ...], SimpleQueue[Tensor]] = defaultdict(SimpleQueue)
        self.lock, self.moved, self.pieces = threading.Lock(), 0, 0

    def send(self, x: Tensor, *way: object) -> None:
        with self.lock:
            self.moved, self.pieces = self.moved + x.numel() * x.element_size(), self.pieces + 1
            self.queues[way].put(x.clone())

    def tell(self, x: Tensor, *way: object) -> None:
        """Without being counted."""
        with self.lock:
            self.queues[way].put(x.clone())

    def receive(self, *way: object) -> Tensor:
        with self.lock:
            queue = self.queues[way]
        return queue.get(timeout=30)


class Threads(Links):
    """Process ``rank`` of N: what torch.distributed does, as few bytes as possible."""

    collective = True

    def __init__(self, wires: Wires, rank: int) -> None:
        self.wires, self.rank, self.processes = wires, rank, N
        self.others = [p for p in range(N) if p != rank]

    def _all(self, x: Tensor) -> list[Tensor]:
        for p in self.others:
            self.wires.tell(x, "small", self.rank, p)
        return [x if p == self.rank else self.wires.receive("small", p, self.rank) for p in range(N)]

    def agree(self, x: Tensor) -> Tensor:
        return torch.stack(self._all(x)).sum(0)

    def counts(self, mine: Tensor) -> Tensor:
        return torch.stack(self._all(mine.long()))

    def all_to_all(self, pieces: Sequence[Tensor], sizes: Sequence[int]) -> PendingTransfer[list[Tensor]]:
        for p in self.others:
            self.wires.send(pieces[p], self.rank, p)
        yield Done()
        received = [pieces[p] if p == self.rank else self.wires.receive(p, self.rank) for p in range(N)]
        assert [len(r) for r in received] == list(sizes)
        return received

    def all_reduce(self, x: Tensor) -> PendingTransfer[Tensor]:
        """Every process adds up a slice."""
        slices = list(torch.tensor_split(x, N))
        received = yield from self.all_to_all(slices, [len(slices[self.rank])] * N)
        total = torch.stack(received).sum(0)
        return torch.cat((yield from self.all_gather(total, [len(s) for s in slices])))

    def all_gather(self, x: Tensor, sizes: Sequence[int] | None = None) -> PendingTransfer[list[Tensor]]:
        return (yield from self.all_to_all([x] * N, sizes or [len(x)] * N))

    def broadcast(self, x: Tensor, source: int) -> PendingTransfer[Tensor]:
        for p in self.others if self.rank == source else ():
            self.wires.send(x, source, p)
        yield Done()
        return x if self.rank == source else self.wires.receive(source, self.rank)

    def swap(
        self, out: Mapping[int, Tensor], sizes: Mapping[int, int], like: Tensor
    ) -> PendingTransfer[dict[int, Tensor]]:
        for p, x in out.items():
            self.wires.send(x, self.rank, p)
        yield Done()
        received = {p: self.wires.receive(p, self.rank) for p in sizes}
        assert {p: x.numel() for p, x in received.items()} == dict(sizes)
        return received


def vectors() -> Tensor:
    return torch.randn(N, J, generator=torch.Generator().manual_seed(0))


def among_processes(call: Callable[[Communicator], Tensor], **given: Any) -> tuple[list[Tensor], list[Entry], Wires]:
    """What each of N processes gets from ``call``, the ledger's entries, and what moved."""
    wires, results, faults = Wires(), {}, []
    comms = [Communicator(N, Ledger(), links=Threads(wires, rank), **given) for rank in range(N)]

    def process(rank: int) -> None:
        try:
            comms[rank].begin_round(1, ask=False)
            results[rank] = call(comms[rank])
            comms[rank].settle()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=process, args=(rank,), daemon=True) for rank in range(N)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults, faults
    assert all(comm.ledger.entries == comms[0].ledger.entries for comm in comms)
    return [results[rank] for rank in range(N)], comms[0].ledger.entries, wires


@cache
def pristine(name: str) -> Compressor:
    """Composed once; whoever encodes takes a copy. ``name``: of the codec, and overrides."""
    return bare(*name.split())


def check_carried(exchange: Aggregation, name: str, deterministic: bool = False) -> None:
    """Processes get what one process gets, the ledger counts the same, and that is what moves between them."""
    x, weights = vectors(), torch.linspace(0.1, 0.3, N)
    one = Communicator(N, Ledger(), exchange.name, deterministic)
    codec = deepcopy(pristine(name))
    codec.setup(CodecContext(worker_ids=range(N)))
    message = codec.encode(x)
    expected = one.aggregate(message, weights)
    one.settle()
    assert {e.exchange for e in one.ledger.entries} == {exchange.name}

    def aggregate(comm: Communicator) -> Tensor:
        own, (rank,) = deepcopy(pristine(name)), comm.worker_ids
        own.setup(CodecContext(worker_ids=[rank]))
        return comm.aggregate(own.encode(x[rank : rank + 1]), weights[rank : rank + 1])

    results, entries, wires = among_processes(aggregate, exchange=exchange.name, deterministic=deterministic)
    narrow = [b.dtype for b in message.buffers.values() if codec.sums]
    coarse = max((torch.finfo(t).eps for t in narrow), default=0.0)
    for result in results:
        assert torch.equal(result, results[0])
        if deterministic:
            assert torch.equal(result, expected)
        torch.testing.assert_close(result, expected, rtol=max(1e-5, 2 * coarse), atol=max(1e-6, 2 * coarse))
    for entry, own in zip(entries, one.ledger.entries, strict=True):
        assert entry[:5] == (1, *own[1:5])
        assert entry.bytes_info == pytest.approx(own.bytes_info, rel=1e-6)
        assert (entry.bytes_sent, entry.bytes_wire) == (own.bytes_sent, own.bytes_wire)
    wire = sum(e.bytes_wire for e in entries)
    assert wire <= wires.moved <= wire + HEAD * wires.pieces
    if not codec.variable_size and codec.phases == 1:
        at_most = choose(codec, exchange.name, N, J, 4).cost
        assert wire <= at_most + 8 * N * N * len(entries), "shards of a byte more"


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", [*options("compress"), "chunked compress.combine=senders"])
@pytest.mark.parametrize("exchange", AGGREGATIONS.values(), ids=lambda e: e.name)
def test_processes_move_what_the_ledger_counts(exchange: Aggregation, name: str, deterministic: bool) -> None:
    codec = pristine(name)
    if not SERVES.get(exchange.name, lambda codec: True)(codec):
        with pytest.raises(ValueError, match=rf"^exchange={exchange.name}: messages of {codec.name} .+; give "):
            check_serves(codec, exchange.name)
        assert not exchange.candidate(codec)
        return
    check_serves(codec, exchange.name)
    check_carried(exchange, name, deterministic)


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=lambda e: e.name)
def test_hops_are_the_latencies(exchange: Any) -> None:
    network = Network(bandwidth=8.0, latency=100.0)
    for n in (2, 4, 7):
        hops = FORMULAS[exchange.name][1](n)
        assert exchange.hops(n) == hops
        assert seconds(network, exchange.name, n, 0) == pytest.approx(0.1 * hops)
        assert seconds(network, exchange.name, n, 0, repeats=3) == pytest.approx(0.3 * hops)


@pytest.mark.parametrize("exchange", AGGREGATIONS.values(), ids=lambda e: e.name)
def test_messages_of_one_size_cost_what_the_formula_says(exchange: Aggregation) -> None:
    for n in (1, 2, 5, 8):
        for up, down in ((40, 40), (1000, 80), (8 * n, 8 * n)):
            assert exchange.cost(n, up, down) == FORMULAS[exchange.name][0](n, up, down)
        up = 8 * n
        alone = exchange.cost(n, up, 0) if exchange.comes_down else exchange.cost(n, up, up)
        assert sum(exchange.wire(worker, up, n) for worker in range(n)) == alone


@pytest.mark.parametrize("exchange", AGGREGATIONS.values(), ids=lambda e: e.name)
def test_parts_of_the_workers_add_up(exchange: Aggregation) -> None:
    """A ledger counts the workers of its process; all processes together count all."""
    served = SERVES.get(exchange.name, exchange.candidate)
    name = next((n for n in ("topk", "kbit") if served(pristine(n))), "none")
    codec, x = pristine(name), vectors()
    whole = exchange.load(codec.encode(x), range(N), N)
    halves = [exchange.load(codec.encode(x[ids]), ids, N) for ids in ([0, 1], [2, 3])]
    assert whole == pytest.approx([sum(column) for column in zip(*halves, strict=True)])


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("codec", "levels", "size"),  # levels in units of the block's largest magnitude
    [
        (KBit(), [i / 4 for i in (-3, -1, 1, 3)], J // 4 + 2 * 24),
        (KBit(bits=4, rounding="stochastic"), [i / 15 for i in range(-15, 16, 2)], J // 2 + 2 * 24),
        (FP4(), [i / 6 for i in (-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6)], J // 2 + 2 * 24),
    ],
    ids=["kbit", "stochastic", "fp4"],
)
def test_a_quantised_sum_is_quantised_again(
    codec: Compressor, levels: list[float], size: int, deterministic: bool
) -> None:
    """C(sum_n w_n C(x_n)), with random draws of its own, and the same bits over four processes as over one."""
    x, weights, name = vectors(), torch.linspace(0.1, 0.3, N), "quantised_all_reduce"
    codec.setup(CodecContext(seed=4, worker_ids=range(N)))
    codec.set_round(5)
    one, message = Communicator(N, Ledger(), name, deterministic), codec.encode(x)
    aggregate = one.aggregate(message, weights)
    one.settle()
    up, down = one.ledger.entries
    assert (up.direction, *up[5:8]) == ("up", N * size, N * size, (N - 1) * size)
    assert (down.direction, *down[5:8]) == ("down", size, size, (N - 1) * size)

    decoded = codec.decode(message)
    total = sum((w * row for w, row in zip(weights, decoded, strict=True)), torch.zeros(J))
    scale = torch.nn.functional.pad(total, (0, 24 * 256 - J)).view(24, 256).abs().amax(1).repeat_interleave(256)[:J]
    grid, at, exact = torch.tensor(levels), aggregate / scale, total / scale
    near, nearest = ((y[:, None] - grid).abs().amin(1) for y in (at, exact))
    assert float(near.max()) < 2**-7, "scales are rounded up to eight bits"
    if codec.stochastic:
        off = at - exact
        assert float(off.abs().max()) < 2 / 15 + 2**-7
        assert abs(float(off.mean())) < 5 / 15 / math.sqrt(J)
        assert abs(float(torch.corrcoef(torch.stack([off, decoded[0] - x[0]]))[0, 1])) < 5 / math.sqrt(J)
        codec.set_round(6)
        assert not torch.equal(one.aggregate(message, weights), one.aggregate(codec.encode(x), weights))
    else:
        assert bool(((at - exact).abs() < nearest + 2**-7).all())

    def of_process(comm: Communicator) -> Tensor:
        own, (rank,) = deepcopy(codec), comm.worker_ids
        own.setup(CodecContext(seed=4, worker_ids=[rank]))
        own.set_round(5)
        return comm.aggregate(own.encode(x[rank : rank + 1]), weights[rank : rank + 1])

    results, entries, _ = among_processes(of_process, exchange=name, deterministic=deterministic)
    assert all(torch.equal(result, aggregate) for result in results)
    assert [e[1:8] for e in entries] == [e[1:8] for e in (up, down)]


def test_vectors_go_as_they_are() -> None:
    """A broadcast, and gossip on a star, among processes: as many bytes as are counted, to the byte."""
    x = vectors()
    results, (entry,), wires = among_processes(lambda comm: comm.broadcast(x[list(comm.worker_ids)], 2))
    assert all(torch.equal(result, x[2]) for result in results)
    assert (entry.bytes_sent, entry.bytes_wire) == (J * 4, FORMULAS["broadcast"][0](N, J * 4, 0))
    assert wires.moved == entry.bytes_wire
    mixer = Mixer(Star(), Gossip(), N, 0)
    results, (entry,), wires = among_processes(lambda comm: comm.gossip(x[list(comm.worker_ids)]), mixer=mixer)
    matrix = torch.from_numpy(Star().mixings(N, 0)[0].matrix.toarray()).float()
    torch.testing.assert_close(torch.cat(results), matrix @ x)
    assert (entry.bytes_sent, entry.bytes_wire) == (N * J * 4, 2 * (N - 1) * J * 4)
    assert wires.moved == entry.bytes_wire


def test_every_exchange_has_a_formula_here() -> None:
    assert FORMULAS.keys() == EXCHANGES.keys()


def test_the_exchange_of_the_documentation_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(# tree\.py\n.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    defined: dict[str, Any] = {}
    exec(block, defined)
    tree = defined["Tree"]()
    monkeypatch.setitem(EXCHANGES, tree.name, tree)
    monkeypatch.setitem(AGGREGATIONS, tree.name, tree)
    for deterministic in (False, True):
        for name in ("none", "fp16", "powersgd"):
            check_carried(tree, name, deterministic)
    assert seconds(Network(bandwidth=8.0, latency=100.0), "tree", 8, 0) == pytest.approx(0.1 * 2 * math.log2(8))
    with pytest.raises(ValueError, match="exchange=tree: messages of TopK cannot be added on the way"):
        check_serves(pristine("topk"), "tree")
