"""Gossip with neighbours, of whole vectors or of compressed differences."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from commexp.comm import Communicator
from commexp.compressors import Compressor
from commexp.state import Stateful


class NeighbourExchange(Stateful, ABC):
    """Mixes one vector per worker with its neighbours, once per round. It preserves the mean over all workers."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """[W, J] -> [W, J]."""


class PlainGossip(NeighbourExchange):
    """x_n <- sum_m w_nm x_m, repeated K times."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm

    def __call__(self, x: Tensor) -> Tensor:
        return self.comm.gossip(x)


class CompressedGossip(NeighbourExchange):
    """Every worker n keeps xhat_n, its neighbours' estimate of x_n, and the weighted sum s_n = sum_m w_nm xhat_m:

        q_n = C(x_n - xhat_n)                     one message to each neighbour
        xhat_n <- xhat_n + q_n;   s_n <- s_n + sum_m w_nm q_m
        x_n <- x_n + gamma (s_n - xhat_n)

    C: ``codec``, a contractive compressor. What C leaves out remains in x_n - xhat_n, so no error feedback is needed.
    ``start`` [W, J]: the initial xhat_n, equal for all workers. A worker keeps two vectors, however many neighbours it
    has. Source: Koloskova, Stich and Jaggi, arXiv 1902.00340, algorithms 2 and 6.
    """

    state = "known around"

    def __init__(self, comm: Communicator, codec: Compressor, gamma: float, start: Tensor) -> None:
        self.comm, self.codec, self.gamma = comm, codec, gamma
        self.known, self.around = start.clone(), start.clone()

    def __call__(self, x: Tensor) -> Tensor:
        self.comm.watch.to("encode")
        message = self.codec.encode(x - self.known)
        self.known = self.known + self.codec.decode(message)
        self.around = self.around + self.comm.gossip_messages(message)
        return x + self.gamma * (self.around - self.known)
