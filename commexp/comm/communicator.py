"""Everything that N workers say to each other; every call counts itself in the ledger.

``Agreement``: what all processes must know of each other. ``BucketedSum``: the compressed sum of gradients, begun
before they are complete where that is possible. ``DelayedSum``: a compressed sum that travels while workers compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from commexp.comm.choice import Choice, check_exchange, choose
from commexp.comm.exchanges import (
    ALL_GATHER,
    ALL_REDUCE,
    BROADCAST,
    GOSSIP,
    INSIDE_ALL_REDUCE,
    INSIDE_BROADCAST,
    SERVER,
    Aggregation,
    Bytes,
    Exchange,
)
from commexp.comm.frames import pack_frames, unpack_frames
from commexp.comm.gossip import Neighbourhood
from commexp.comm.islands import Members
from commexp.comm.ledger import EXACT, Entry, Ledger, Stopwatch
from commexp.comm.links import Handle, Links, PendingTransfer
from commexp.comm.transport import Transport, as_bytes, split_frames
from commexp.compressors import Compressor, Message, NoCompression
from commexp.state import Stateful
from commexp.topologies.gossip import Mixer, mixed

T = TypeVar("T")

#: from who has answered, bool [N], to each worker's weight [N]; None where too few have answered for a step
Weigh = Callable[[np.ndarray], "np.ndarray | None"]


class ClosingRule(NamedTuple):
    """A round closes after the ``first`` so many answers, or after ``deadline`` seconds; None for a criterion that is
    not used. With ``grace``, those answers count, too, that come within so many seconds after the ``first``."""

    first: int | None = None
    deadline: float | None = None
    grace: float | None = None


class Answers(NamedTuple):
    """``answered``: whose message counts, bool [N]. ``weights``: [N], None where there is no sum. ``total``:
    sum_n w_n decode(message_n), [J], then zero."""

    answered: np.ndarray
    weights: np.ndarray | None
    total: Tensor


class Communicator:
    """N workers over P processes, W = N/P in each; ``worker_ids`` are those of this process. Tensors have a leading
    axis of this process's W workers.

    With one process the exchanges are sums over the worker axis; with more they go over ``links``. The ledger counts
    the same either way: the exchange of N workers with a link each.

    With ``members`` a worker of the exchange is an island of workers, and ``size`` counts islands, see Members:
    ``inside_mean`` is what the members of each island add up, and what comes of an exchange among the leaders goes to
    all members. The ledger counts both apart from the exchange. What a worker's own processes send to each other is
    not counted.

    ``exchange``: how messages are aggregated, the name of an Aggregation, or ``auto``: the one with the fewest bytes
    on the links. ``deterministic``: sums run in worker order, so that every split of the same N agrees bit for bit.
    ``ask``: what this process has to say at the end of a round, see Agreement. ``mixer``: who gossips with whom.
    Raises ValueError for an unknown exchange, or workers that cannot be spread over the processes.
    """

    def __init__(
        self,
        workers: int,
        ledger: Ledger,
        exchange: str = "auto",
        deterministic: bool = False,
        links: Links | None = None,
        ask: Callable[[], Sequence[int]] = tuple,
        mixer: Mixer | None = None,
        members: Members | None = None,
    ) -> None:
        check_exchange(exchange)
        self.links = links or Links()
        self.members = members or Members.of(self.links, workers)
        self.size, self.worker_ids = self.members.size, self.members.worker_ids
        self.ledger = ledger
        self.exchange = exchange
        self.deterministic = deterministic
        #: whether the virtual clock decides who answers in time, not the real arrivals
        self.by_clock = deterministic or (self.links.server is None and self.links.worker is None)
        self.mixer = mixer
        self.watch = Stopwatch()
        self.agreement = Agreement(self.links, ask)
        self.transport = Transport(self.members.between, deterministic)
        self._chosen: dict[int, tuple[Compressor, tuple[int, int, int], Choice]] = {}  # by the codec's id
        self._near: tuple[int, Neighbourhood] | None = None
        self._asked: np.ndarray | None = None  # who was asked to take part in this round, bool [N]; None: all

    # Rounds.

    def begin_round(self, number: int, ask: bool = True, pause: float = 0.0) -> None:
        """``ask``: what comes after this round depends on the answers. ``pause``: seconds that this process sleeps,
        as if it computed."""
        self.ledger.round = number
        self.agreement.begin_round(number, ask)
        self.watch.start()
        if pause:
            time.sleep(pause)

    def end_round(self) -> list[int] | None:
        """Closes the round in the ledger; what all processes together answered to ``ask``, None if they were not
        asked."""
        answers, ready = self.agreement.end()
        self.ledger.close_round(self.watch.stop(ready))
        return answers

    def settle(self) -> list[Entry]:
        """The entries since the last time, added up over processes, which call this together."""
        return self.ledger.settle(self.links.agree, self.links.processes)

    # Sums of messages over all workers.

    def choose(self, codec: Compressor, dim: int, itemsize: int) -> Choice:
        """The exchange for this codec's messages. It is chosen once for a run's codec, and again only where the size
        that the codec declares has changed, as in warm-up. Raises ValueError where the exchange cannot serve."""
        declared = dim, itemsize, codec.payload(dim, itemsize)
        known = self._chosen.get(id(codec))
        if known is None or known[0] is not codec or known[1] != declared:
            known = codec, declared, choose(codec, self.exchange, self.size, dim, itemsize)
            self._chosen[id(codec)] = known
        return known[2]

    def aggregate(self, message: Message, weights: Tensor) -> Tensor:
        """sum over all workers of w_n decode(message_n): [J], for this process's messages and weights [W].

        Every worker has the result afterwards.
        """
        return self._wait(self._aggregate(self.exchange_of(message), message, weights))

    def begin(self, compressor: Compressor, weights: Tensor, dim: int) -> BucketedSum:
        """The compressed sum of vectors [W, J], J = ``dim``, that are yet to come."""
        return BucketedSum(self, compressor, weights, dim)

    def begin_delayed(self, compressor: Compressor, weights: Tensor, vectors: Tensor) -> DelayedSum:
        """Begins the compressed sum of vectors [W, J], which travels until ``finish`` is called, in a later round.
        Nothing may write into the vectors before."""
        self.watch.to("encode")
        pending = DelayedSum(self, compressor, weights, vectors.shape[1])
        pending.send(compressor.encode(vectors))
        self.watch.to("compute")
        return pending

    def mean(self, x: Tensor) -> Tensor:
        """[W, ...] -> mean over all workers, [...]: a dense all-reduce."""
        message = NoCompression().encode(x.flatten(1))
        weights = x.new_full((len(x),), 1.0 / self.size)
        return self._wait(self._aggregate(ALL_REDUCE, message, weights)).view(x.shape[1:])

    def inside_mean(self, *rows: Tensor) -> list[Tensor]:
        """[W, ...] each, of the members of islands here -> the mean over each island's members, [L, ...] each: one
        dense all-reduce inside every island."""
        members, here = self.members, len(self.worker_ids)
        if members.each > 1:
            size = sum(each[0].numel() * each.element_size() for each in rows)
            load = INSIDE_ALL_REDUCE.load(size, members.each, here)
            self.ledger.count_again(INSIDE_ALL_REDUCE, "peers", members.each, self._led(load))
        return self._wait(members.mean(rows, self.deterministic), "compute")

    def exchange_of(self, message: Message) -> Aggregation:
        return self.choose(message.codec, message.dim, message.dtype.itemsize).exchange

    def _aggregate(self, exchange: Aggregation, message: Message, weights: Tensor) -> PendingTransfer[Tensor]:
        codec = message.codec
        while True:
            self.count(exchange, exchange.direction, exchange.load(message, self.worker_ids, self.size))
            if self.carried:
                total = yield from self.carry(exchange, message, weights)
            else:
                total = exchange.total(message, weights, self.deterministic)
            following = codec.next_phase(message, total)
            if following is None:
                break
            self._count_down(exchange, message, total)
            self.count_returning(nbytes(total))
            message = following
        aggregate = self.finalized(exchange, message, total)
        self._count_down(exchange, message, aggregate)
        self.count_returning(nbytes(total))
        return aggregate

    @property
    def carried(self) -> bool:
        """Whether messages go to other processes."""
        return self.links.collective and min(self.links.processes, self.size) > 1

    def carry(self, exchange: Aggregation, message: Message, weights: Tensor) -> PendingTransfer[Tensor]:
        """Begins the exchange among processes; what ``Aggregation.carry`` gives, at all of them."""
        transfer = exchange.carry(self.transport, message, weights)
        if not self.members.returning.collective:
            return transfer
        like = weights.new_empty(message.dim).to(message.dtype)
        if not (self.members.leads or exchange.finalizes(message.codec)):
            like = message.codec.total(message, weights, in_order=False)
        return self.members.everywhere(transfer, like)

    def finalized(self, exchange: Aggregation, message: Message, total: Tensor) -> Tensor:
        """The aggregate [J] from what the exchange gives."""
        final = self.carried and exchange.finalizes(message.codec)
        return total if final else message.codec.finalize(message, total)

    def count(self, exchange: Exchange, direction: str, load: Bytes, repeats: int = 1) -> None:
        """Of the workers of this process, in an exchange of all."""
        self.ledger.count(exchange, direction, self.size, self._led(load), repeats)

    def _led(self, load: Bytes) -> Bytes:
        """Counted once, where several processes share a worker."""
        return load if self.members.leads else Bytes(0.0, 0, 0)

    def count_returning(self, size: int) -> None:
        """Bytes that go from every leader to the members of its island, where there are others."""
        if self.members.each > 1:
            load = INSIDE_BROADCAST.load(size, self.members.each, len(self.worker_ids))
            self.ledger.count(INSIDE_BROADCAST, "down", self.members.each, self._led(load))

    def _count_down(self, exchange: Aggregation, message: Message, aggregate: Tensor) -> None:
        if exchange.comes_down:
            self.count_load_down(exchange, exchange.down(message, aggregate, self.size))

    def count_load_down(self, exchange: Aggregation, load: Bytes) -> None:
        """What comes down to the workers, equal at all processes; counted by the first process for all."""
        self.ledger.count(exchange, "down", self.size, Bytes(0.0, 0, 0) if self.links.rank else load)

    # Rounds that do not need every worker.

    def call(self, t: int, x: Tensor, taking: np.ndarray | None = None) -> Tensor:
        """Begins round t = 0, 1, ... with x [J] known to the server: asks all workers for their messages at x. Returns
        x, at the server and where workers were asked; elsewhere what was given.

        With ``taking``, bool [N], it asks those that take part alone, and x goes down to them as the round begins;
        without, what is known to all at its end goes down to all then."""
        self._asked = taking
        if taking is not None:
            self.count_down(SERVER, x, taking)
            if self.carried:
                return self._wait(self._down(x), agrees=False)
        return x

    def _down(self, x: Tensor) -> PendingTransfer[Tensor]:
        """x [J] of the first process goes to those of whose workers some were asked."""
        links, here = self.links, len(self.worker_ids)
        if links.rank:
            sizes = {0: len(x)} if self.asked_of(self.worker_ids) else {}
            received = yield from links.swap({}, sizes, x)
            return received.get(0, x)
        asked = {n // here for n in self.asked_of(range(self.size))}
        yield from links.swap({rank: x for rank in asked - {0}}, {}, x)
        return x

    def answers(self, message: Message, expected: np.ndarray, closing_rule: ClosingRule, weigh: Weigh) -> Answers:
        """The weighted sum of what has come when the round is closed, known to all; where only those that take part
        were asked, to the server alone, and zero elsewhere. ``message``: of the workers here that were asked;
        ``no_message`` where none was. ``expected``: bool [N], who of them answers on the virtual clock.
        ``closing_rule``: what closes the round where real processes decide instead.

        Here all processes are in step, and a late worker is late on the clock alone: its message is not counted and has
        no weight. See CallingCommunicator for processes that do not wait for each other.
        """
        exchange, here = self.exchange_of(message), self.asked_of(self.worker_ids)
        senders = [(n, size) for n, size in zip(here, message.sizes, strict=True) if expected[n]]
        bits = message.info_bits * sum(size for _, size in senders) / max(1, message.nbytes)
        self.count_answers(exchange, senders, bits, expected)
        weights = weigh(expected)
        own = np.zeros(self.size) if weights is None else weights
        if self._asked is None or not self.carried:
            total = self._sum_everywhere(message, torch.from_numpy(own[here]).to(message_like(message)))
            total = message.codec.finalize(message, total)
        else:
            total = self._wait(self._sum_at_server(message, own))
        if exchange.comes_down and self._asked is None:
            self.count_down(exchange, total)
        return Answers(expected, weights, total)

    def _sum_at_server(self, message: Message, weights: np.ndarray) -> PendingTransfer[Tensor]:
        """The messages of those that were asked go to the first process. What that has then: sum_n w_n
        decode(message_n), [J]; the others: zero. ``weights``: of all workers, [N]."""
        links, codec, like = self.links, message.codec, message_like(message)
        frames = pack_frames(message, torch.ones(message.workers)) if message.workers else []
        own = torch.cat(frames) if frames else like.new_empty(0, dtype=torch.uint8)
        lengths = torch.zeros(len(self.worker_ids), dtype=torch.int64)
        for n, frame in zip(self.asked_of(self.worker_ids), frames, strict=True):
            lengths[n - self.worker_ids[0]] = len(frame)
        everyone = links.counts(lengths)
        if links.rank:
            yield from links.swap({0: own}, {}, own)
            return like.new_zeros(message.dim)
        sizes = {rank: int(everyone[rank].sum()) for rank in range(1, links.processes)}
        others = yield from links.swap({}, sizes, own)
        blobs = [own, *(others[rank] for rank in sizes)]
        came = [frame for frame in split_frames(blobs, everyone) if len(frame)]
        messages, _ = unpack_frames(came, message)
        asked = torch.from_numpy(weights[self.asked_of(range(self.size))]).to(like)
        return codec.finalize(messages, codec.total(messages, asked, self.deterministic))

    def asked_of(self, workers: Iterable[int]) -> list[int]:
        """Those of these ``workers`` that were asked for a message in this round."""
        return [n for n in workers if self._asked is None or self._asked[n]]

    def count_answers(
        self, exchange: Aggregation, senders: Sequence[tuple[int, int]], bits: float, answered: np.ndarray
    ) -> None:
        """``senders``: worker and bytes, of those here that answer."""
        sent = sum(size for _, size in senders)
        wire = sum(exchange.wire(n, size, self.size) for n, size in senders)
        taking = 1 + int(answered[1:].sum()) if exchange.central else self.size  # worker 0 lives with the server
        self.ledger.count(exchange, exchange.direction, taking, Bytes(bits / 8, sent, wire))

    def count_down(self, exchange: Aggregation, x: Tensor, taking: np.ndarray | None = None) -> None:
        """The new x [J] goes to all workers, or to those ``taking`` part; counted by worker 0's process for all."""
        size = x.numel() * x.element_size() if self.worker_ids[0] == 0 else 0
        to, links = (self.size, self.size - 1) if taking is None else (int(taking.sum()), int(taking[1:].sum()))
        self.ledger.count(exchange, "down", 1 + links, Bytes(to * size, to * size, links * size))

    def _sum_everywhere(self, message: Message, weights: Tensor) -> Tensor:
        """sum_n w_n summands(message_n) over all workers, every message being sent to everyone; not counted."""
        if not self.links.collective:
            return message.codec.total(message, weights, self.deterministic)
        return self._wait(ALL_GATHER.carry(self.transport, message, weights))

    # One worker and a server that is no worker: a message is on one link, so as many bytes travel as are sent.

    def to_server(self, message: Message) -> Tensor:
        """The message of one worker -> what it stands for, [J], at the server."""
        self.ledger.count(SERVER, "up", 2, Bytes(message.info_bits / 8, message.nbytes, message.nbytes))
        self.watch.to("decode")
        decoded = message.codec.reduce(message, message_like(message).new_ones(1))
        self.watch.to("compute")
        return decoded

    def from_server(self, x: Tensor) -> None:
        """x [J] goes to one worker."""
        size = x.numel() * x.element_size()
        self.ledger.count(SERVER, "down", 2, Bytes(size, size, size))

    # From neighbour to neighbour.

    def count_pair(self, size: int) -> None:
        """Two workers send each other a vector of ``size`` bytes."""
        self.ledger.count(GOSSIP, "peers", 2, Bytes(2 * size, 2 * size, 2 * size))

    def gossip(self, x: Tensor) -> Tensor:
        """[W, J] -> the rows of W_t^K x, for this process's workers n: K = ``mixer.rounds`` times row n becomes
        sum_m w_nm x_m, accelerated where the mixer says so. Every worker sends its row to each of its neighbours."""
        mixer, near = self._mixer(), self._neighbourhood()
        sizes = [x[0].numel() * x.element_size() * mixer.rounds] * len(x)
        load = Bytes(sum(sizes), sum(sizes), GOSSIP.wire(near.degrees, sizes))
        self.count(GOSSIP, "peers", load, mixer.rounds)

        def step(rows: Tensor) -> Tensor:
            return self._returned(lambda: self._weighted(near, self._wait(near.gathered(rows))), rows)

        return mixed(x, step, mixer.rounds, mixer.eta)

    def gossip_messages(self, message: Message) -> Tensor:
        """Row n of the result is sum_m w_nm decode(message_m), [W, J]: every worker's message goes to each of its
        neighbours, once, and is decoded there."""
        near = self._neighbourhood()
        load = Bytes(message.info_bits / 8, message.nbytes, GOSSIP.wire(near.degrees, message.sizes))
        self.count(GOSSIP, "peers", load)

        def gathered() -> Tensor:
            messages = message
            if self.carried:
                frames = pack_frames(message, torch.ones(message.workers))
                frames = self._wait(near.gathered_bytes(frames, equal=not message.lengths))
                messages, _ = unpack_frames(frames, message)
            self.watch.to("decode")
            return self._weighted(near, message.codec.decode(messages))

        return self._returned(gathered, message_like(message).new_empty(message.workers, message.dim))

    def _returned(self, lead: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What ``lead`` gives in the first process of a worker, at all processes of it; ``like``: a tensor like it."""
        returning = self.members.returning
        result = lead() if self.members.leads else torch.empty_like(like)
        return self._wait(returning.broadcast(result, 0)) if returning.collective else result

    def _weighted(self, near: Neighbourhood, rows: Tensor) -> Tensor:
        self.watch.to("decode")
        total = near.weighted(rows, self.deterministic)
        self.watch.to("compute")
        return total

    def _mixer(self) -> Mixer:
        if self.mixer is None:
            raise RuntimeError("gossip: there is no topology")
        return self.mixer

    def _neighbourhood(self) -> Neighbourhood:
        """Of this round's matrix; made anew where it is another one."""
        mixer, number = self._mixer(), self.ledger.round
        if self._near is None or not (mixer.constant or self._near[0] == number):
            self._near = number, Neighbourhood(mixer.at(number), self.worker_ids, self.members.between)
        return self._near[1]

    # Vectors to all workers, as they are.

    def gather(self, x: Tensor) -> Tensor:
        """[W, m] -> [N, m], all workers' rows at every worker: an all-gather of a few numbers."""
        sent = nbytes(x)
        self.count(ALL_GATHER, "peers", Bytes(sent, sent, (self.size - 1) * sent))
        self.count_returning(self.size * nbytes(x[0]))

        def gathered() -> Tensor:
            pieces = self._wait(self.members.between.all_gather(as_bytes(x.contiguous())))
            return torch.cat(pieces).view(x.dtype).view(self.size, x.shape[1])

        return self._returned(gathered, x.new_empty(self.size, x.shape[1]))

    def broadcast(self, x: Tensor, owner: int) -> Tensor:
        """[W, J] -> x_n of worker n = ``owner``, [J], at every worker: down a tree."""
        here = owner in self.worker_ids
        sent = nbytes(x[0]) * here
        self.count(BROADCAST, "peers", Bytes(sent, sent, BROADCAST.wire(sent, self.size)))
        self.count_returning(nbytes(x[0]))
        row = x[owner - self.worker_ids.start] if here else torch.empty_like(x[0])
        source = owner // len(self.worker_ids)
        return self._returned(lambda: self._wait(self.members.between.broadcast(row, source)), row)

    # Diagnostics, which the ledger does not count. All processes call them together.

    def watched(self, x: Tensor) -> Tensor:
        """[W, ...] -> [N, ...] on the CPU: all workers' values."""
        rows = torch.zeros(self.size, *x.shape[1:], dtype=x.dtype)
        if self.members.leads:
            rows[list(self.worker_ids)] = x.cpu()
        return self.links.agree(rows)

    def watched_mean(self, x: Tensor) -> Tensor:
        """[W, J] -> the mean over all workers, [J]. Where any order of sums will do, no process holds more than its own
        workers' rows."""
        if self.deterministic and self.links.processes > 1:
            return self.watched(x).sum(0).div_(self.size).to(x.device)
        own = x.sum(0).cpu() if self.members.leads else torch.zeros(x.shape[1:], dtype=x.dtype)
        return self.links.agree(own).div_(self.size).to(x.device)

    # Waiting for transfers, phase by phase of the stopwatch.

    def _wait(self, transfer: PendingTransfer[T], without: str = "decode", agrees: bool = True) -> T:
        """One exchange from its beginning to its end. ``without``: the phase in which it is, where nothing travels.
        ``agrees``: whether this process has by then what it has to say at the end of the round."""
        self.watch.to("encode" if self.links.collective else without)
        try:
            handle = next(transfer)
        except StopIteration as end:
            self.watch.to("compute")
            result: T = end.value
            return result
        (result,) = self.drive((handle, transfer)) if agrees else self.end_transfers((handle, transfer))
        return result

    def drive(self, *begun: tuple[Handle, PendingTransfer[T]]) -> list[T]:
        """Waits for transfers that have been begun and gives their results. A transfer's next step is begun before the
        step after that of another one is waited for."""
        self.agreement.begin()
        return self.end_transfers(*begun)

    def end_transfers(self, *begun: tuple[Handle, PendingTransfer[T]]) -> list[T]:
        """The same, without a word on what this process has to say at the end of the round."""
        results: dict[int, T] = {}
        pending = list(enumerate(begun))
        while pending:
            following = []
            for i, (handle, transfer) in pending:
                self.watch.to("transfer")
                handle.wait()
                self.watch.to("decode")
                try:
                    following.append((i, (next(transfer), transfer)))
                except StopIteration as end:
                    results[i] = end.value
            pending = following
        self.watch.to("compute")
        return [results[i] for i in range(len(begun))]


def nbytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def no_message(codec: Compressor, x: Tensor) -> Message:
    """The messages of no worker, for vectors like x [J]: what a process says of whose workers none was asked."""
    return Message({"nothing": x.new_empty(0, 0)}, len(x), x.dtype, 0.0, codec)


def message_like(message: Message) -> Tensor:
    """An empty tensor of the type and on the device of what the message decodes to."""
    return torch.empty(0, dtype=message.dtype, device=next(iter(message.buffers.values())).device)


PAUSE = 0.25  # seconds between two agreements of quick rounds: each costs as much as a small exchange
MOST = 100  # rounds between two agreements


class Agreement:
    """Adds up every process's answers to ``ask``, beside a round's first exchange.

    It begins when a process has its message ready and is read when the round is over. An exchange completes when the
    slowest process has begun it, so the sums have arrived by then; the time of their arrival tells when the slowest
    process was ready. A round has an agreement when the caller says so, and else about four times a second. Which
    rounds those are follows from the processes' own times, which are added up with the answers and so equal for all.
    """

    def __init__(self, links: Links, ask: Callable[[], Sequence[int]]) -> None:
        self.links, self.ask = links, ask
        self._round = self._last = self._next = 0
        self._since = time.perf_counter()
        self._asked = self.needed = False
        self._sums: Tensor | None = None
        self._ready: float | None = None

    def begin_round(self, number: int, needed: bool) -> None:
        """``needed``: what comes after this round depends on the answers; equal for all processes."""
        self._round, self.needed = number, needed
        self._asked = needed or number >= self._next or self.links.processes == 1

    def begin(self) -> None:
        """Asks this process, if the round has an agreement and it has not been asked yet."""
        if not self._asked or self._sums is not None:
            return
        rounds = max(1, self._round - self._last)
        own = int(1e6 * (time.perf_counter() - self._since)) // rounds
        self._sums = torch.tensor([own, *self.ask()], dtype=torch.int64)
        self._ready = None
        self._handle: Handle = self.links.begin_agreement(self._sums, self._arrived)

    def _arrived(self) -> None:
        self._ready = time.perf_counter()

    def end(self) -> tuple[list[int] | None, float | None]:
        """The sums, or None if the round had no agreement, and the time.perf_counter() at which all processes had been
        asked."""
        if not self._asked:
            return None, None
        if self.links.processes == 1 and self._sums is None:
            return list(self.ask()), None
        self.begin()
        assert self._sums is not None
        self._handle.wait()
        (micros, *answers), self._sums = self._sums.tolist(), None
        pause = int(1e6 * PAUSE * self.links.processes / max(1, micros))
        self._last, self._next = self._round, self._round + min(MOST, max(1, pause))
        self._since = time.perf_counter()
        return answers, self._ready


Ready = Callable[[Tensor, int], None]  # with the gradient [J] and the place from which on it is final
BUCKET = 2**21  # entries that travel together; 8 MiB of fp32


def bucket_size(codec: Compressor, exchange: Aggregation, deterministic: bool) -> int | None:
    """How many entries of one worker's gradient may be summed together, ahead of the rest; None where they may not:
    they must be encoded one by one, and added in any order."""
    return BUCKET if codec.entrywise and exchange.bucketed and not deterministic else None


def bucket_ends(dim: int, bucket: int | None) -> tuple[float, ...]:
    """For each bucket of a gradient of ``dim`` entries, the share of the gradient that is final when this one goes:
    min(1, s bucket / dim), s = 1, ..., ceil(dim / bucket); 1 alone where there are no buckets."""
    return tuple(min(1.0, s * bucket / dim) for s in range(1, -(-dim // bucket) + 1)) if bucket else (1.0,)


class BucketedSum:
    """sum_n w_n C(a_n) of this process's vectors a [W, J] and every other's, in two calls:

        summed = comm.begin(compressor, weights, dim)
        _, gradient = problem.loss_and_grad(x, batch, summed.ready)
        aggregate = summed.finish(gradient)

    The backward pass may call ``ready``. Where the compressor encodes entry by entry, the process has one worker and
    the vector is longer than a bucket, buckets of the gradient are encoded and sent from the end on, as soon as they
    are final; a bucket is encoded while the one before travels. Else ``finish`` does everything.
    """

    def __init__(self, comm: Communicator, compressor: Compressor, weights: Tensor, dim: int) -> None:
        self.comm, self.compressor, self.weights = comm, compressor, weights
        #: for ``loss_and_grad``; None where nothing can go ahead
        self.ready: Ready | None = None
        if comm.carried and not comm.members.grouped and len(weights) == 1 and dim > BUCKET:
            self.exchange = comm.choose(compressor, dim, weights.element_size()).exchange
            if bucket_size(compressor, self.exchange, comm.deterministic) is not None:
                self.ready = self._send
        self._begun: list[tuple[Handle, PendingTransfer[Tensor]]] = []
        self._bits = 0.0
        self._left: int | None = None  # entries that have not been sent

    def _send(self, gradient: Tensor, start: int) -> None:
        """The entries from ``start`` on of the gradient [J] are final."""
        self._left = len(gradient) if self._left is None else self._left
        while self._left and start <= max(0, self._left - BUCKET):
            begin = max(0, self._left - BUCKET)
            bucket = gradient[None, begin : self._left]
            if not bool(bucket.sum().isfinite()):
                bucket = torch.zeros_like(bucket)  # the round will not count
            message = self.compressor.encode(bucket)
            self._bits += message.info_bits
            transfer = self.exchange.carry(self.comm.transport, message, self.weights)
            self._begun.append((next(transfer), transfer))
            self._left = begin

    def finish(self, vectors: Tensor) -> Tensor:
        """[W, J] -> the aggregate [J], known to every worker; the compressor is told, too."""
        comm, compressor = self.comm, self.compressor
        comm.watch.to("encode")
        if self._left is None:
            aggregate = comm.aggregate(compressor.encode(vectors), self.weights)
        else:
            self._send(vectors[0], 0)
            size = compressor.payload(vectors.shape[1], vectors.element_size())
            wire = self.exchange.wire(comm.worker_ids[0], size, comm.size)
            comm.count(self.exchange, self.exchange.direction, Bytes(self._bits / 8, size, wire))
            aggregate = torch.cat(comm.drive(*self._begun)[::-1])
        compressor.feedback(aggregate, self.weights)
        return aggregate


class DelayedSum(Stateful):
    """sum_n w_n C(a_n) of all workers' vectors, begun at the end of one round and read in the next one, so that it
    travels while the workers compute:

        pending = comm.begin_delayed(compressor, weights, vectors)
        ...                                                 local steps, with pending.progress() in between
        aggregate = pending.finish()

    The ledger counts the messages in the round in which they are sent, and what comes down to the workers in the round
    in which it is read. The state is the aggregate: a checkpoint waits for it, and the resumed run reads it in its
    turn. For compressors that need one exchange alone (``phases`` = 1).
    """

    state = "aggregate down_info down_sent down_wire returning"

    def __init__(self, comm: Communicator, compressor: Compressor, weights: Tensor, dim: int) -> None:
        self.comm, self.compressor, self.weights = comm, compressor, weights
        self.exchange = comm.choose(compressor, dim, weights.element_size()).exchange
        self._aggregate: Tensor | None = None
        self._message: Message | None = None
        self._transfer: tuple[Handle, PendingTransfer[Tensor]] | None = None
        self.down_info = self.down_sent = self.down_wire = 0  # information in parts of a byte, EXACT to a byte
        self.returning = 0  # bytes that a leader sends to the members of its island

    def send(self, message: Message) -> None:
        comm, exchange = self.comm, self.exchange
        comm.count(exchange, exchange.direction, exchange.load(message, comm.worker_ids, comm.size))
        self._message = message
        if comm.carried:
            self._advance(comm.carry(exchange, message, self.weights))

    def _advance(self, transfer: PendingTransfer[Tensor]) -> None:
        """Begins the transfer's next step, if there is one."""
        try:
            self._transfer = next(transfer), transfer
        except StopIteration as end:
            self._transfer = None
            self._keep(end.value)

    def progress(self) -> None:
        """Begins the next step of an exchange that has several, if the step under way is over."""
        in_step = self.exchange.sizes_travel or self.comm.members.returning.collective  # with other processes
        if self._transfer is not None and not in_step and self._transfer[0].is_completed():
            self._transfer[0].wait()
            self._advance(self._transfer[1])

    def _keep(self, total: Tensor) -> None:
        """``total``: what the exchange gives."""
        assert self._message is not None
        message, self._message = self._message, None
        self._aggregate, self.returning = self.comm.finalized(self.exchange, message, total), nbytes(total)
        if self.exchange.comes_down:
            info, self.down_sent, self.down_wire = self.exchange.down(message, self._aggregate, self.comm.size)
            self.down_info = round(info * EXACT)

    @property
    def aggregate(self) -> Tensor | None:
        """[J], equal at all processes, which call this together; waits for it. None before ``send``."""
        if self._transfer is not None:
            (total,) = self.comm.end_transfers(self._transfer)
            self._transfer = None
            self._keep(total)
        elif self._message is not None:
            self.comm.watch.to("decode")
            self._keep(self.exchange.total(self._message, self.weights, self.comm.deterministic))
            self.comm.watch.to("compute")
        return self._aggregate

    @aggregate.setter
    def aggregate(self, value: Tensor | None) -> None:
        self._aggregate = value

    def finish(self) -> Tensor:
        """The aggregate [J], known to every worker; the compressor is told, too."""
        agreement = self.comm.agreement
        if not agreement.needed:  # else at the end of the round, behind the transfer that this one begins
            agreement.begin()
        aggregate = self.aggregate
        assert aggregate is not None
        if self.exchange.comes_down:
            load = Bytes(self.down_info / EXACT, self.down_sent, self.down_wire)
            self.comm.count_load_down(self.exchange, load)
        self.comm.count_returning(self.returning)
        self.compressor.feedback(aggregate, self.weights)
        return aggregate
