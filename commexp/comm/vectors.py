"""Whole vectors between workers, uncompressed: mean, gossip, gather, broadcast; and a look that is not booked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor

from commexp.comm.frames import pack_frames, unpack_frames
from commexp.comm.gossip import Neighbourhood
from commexp.comm.ledger import Ledger
from commexp.comm.links import Links, Steps
from commexp.comm.stopwatch import Stopwatch
from commexp.compressors import Message, NoCompression
from commexp.topologies.gossip import Mixer, mixed

T = TypeVar("T")


class Vectors(ABC):
    """The part of a Communicator that moves vectors as they are. Tensors have a leading axis of this process's W
    workers."""

    size: int
    worker_ids: range
    ledger: Ledger
    links: Links
    deterministic: bool
    mixer: Mixer | None
    watch: Stopwatch
    _near: tuple[int, Neighbourhood] | None = None

    def mean(self, x: Tensor) -> Tensor:
        """[W, ...] -> mean over all workers, [...]: a dense all-reduce."""
        message = NoCompression().encode(x.flatten(1))
        weights = x.new_full((len(x),), 1.0 / self.size)
        return self._wait(self._aggregate("all_reduce", message, weights)).view(x.shape[1:])

    def gossip(self, x: Tensor) -> Tensor:
        """[W, J] -> the rows of W_t^K x, for this process's workers n: K = ``mixer.rounds`` times row n becomes
        sum_m w_nm x_m, accelerated where the mixer says so. Every worker sends its row to each of its neighbours."""
        mixer, near = self._mixer(), self._neighbourhood()
        sent = x.numel() * x.element_size() * mixer.rounds
        wire = sum(near.degrees) * x[0].numel() * x.element_size() * mixer.rounds
        self.ledger.book("gossip", "peers", self.size, sent, sent, wire, mixer.rounds)

        def step(rows: Tensor) -> Tensor:
            return self._weighted(near, self._wait(near.gathered(rows)))

        return mixed(x, step, mixer.rounds, mixer.eta)

    def gossip_messages(self, message: Message) -> Tensor:
        """Row n of the result is sum_m w_nm decode(message_m), [W, J]: every worker's message goes to each of its
        neighbours, once, and is decoded there."""
        near = self._neighbourhood()
        wire = sum(degree * size for degree, size in zip(near.degrees, message.sizes, strict=True))
        self.ledger.book("gossip", "peers", self.size, message.info_bits / 8, message.nbytes, wire)
        everyone = message
        if self.links.processes > 1:
            frames = pack_frames(message, torch.ones(message.workers))
            frames = self._wait(near.gathered_bytes(frames, equal=not message.lengths))
            everyone, _ = unpack_frames(frames, message)
        self.watch.to("decode")
        return self._weighted(near, message.codec.decode(everyone))

    def _weighted(self, near: Neighbourhood, everyone: Tensor) -> Tensor:
        self.watch.to("decode")
        total = near.weighted(everyone, self.deterministic)
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
            self._near = number, Neighbourhood(mixer.at(number), self.worker_ids, self.links)
        return self._near[1]

    def gather(self, x: Tensor) -> Tensor:
        """[W, m] -> [N, m], all workers' rows at every worker: an all-gather of a few numbers."""
        sent = x.numel() * x.element_size()
        self.ledger.book("all_gather", "peers", self.size, sent, sent, (self.size - 1) * sent)
        return self._wait(self._gathered(x))

    def broadcast(self, x: Tensor, owner: int) -> Tensor:
        """[W, J] -> x_n of worker n = ``owner``, [J], at every worker: down a tree."""
        here = owner in self.worker_ids
        sent = x[0].numel() * x.element_size() * here
        self.ledger.book("broadcast", "peers", self.size, sent, sent, (self.size - 1) * sent)
        row = x[owner - self.worker_ids.start] if here else torch.empty_like(x[0])
        return self._wait(self.links.broadcast(row, owner // len(self.worker_ids)))

    def watched(self, x: Tensor) -> Tensor:
        """[W, ...] -> [N, ...] on the CPU: all workers' values, for diagnostics; not booked. All processes call it
        together."""
        everyone = torch.zeros(self.size, *x.shape[1:], dtype=x.dtype)
        everyone[list(self.worker_ids)] = x.cpu()
        return self.links.agree(everyone)

    def watched_mean(self, x: Tensor) -> Tensor:
        """[W, J] -> the mean over all workers, [J]; not booked, as ``watched``. Where any order of sums will do, no
        process holds more than its own workers' rows."""
        if self.deterministic and self.links.processes > 1:
            return self.watched(x).sum(0).div_(self.size).to(x.device)
        return self.links.agree(x.sum(0).cpu()).div_(self.size).to(x.device)

    def _gathered(self, x: Tensor) -> Steps[Tensor]:
        packed = yield from self.links.all_gather(x.contiguous().view(torch.uint8).flatten())
        return torch.cat(packed).view(x.dtype).view(self.size, x.shape[1])

    @abstractmethod
    def _aggregate(self, kind: str, message: Message, weights: Tensor) -> Steps[Tensor]: ...

    @abstractmethod
    def _wait(self, steps: Steps[T]) -> T: ...
