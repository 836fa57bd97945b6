"""Mixing with neighbours, of whole vectors or of compressed messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from commexp.comm import Communicator
from commexp.compressors import Compressor


class NeighbourExchange(Protocol):
    """One vector of each worker, mixed once a round. The mean over all workers stays as it is."""

    def __call__(self, x: Tensor) -> Tensor:
        """[W, J] -> [W, J]."""

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors [W, J]."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class PlainGossip:
    """x_n <- sum_m w_nm x_m, K times."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm

    def __call__(self, x: Tensor) -> Tensor:
        return self.comm.gossip(x)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


class CompressedGossip:
    """Every worker n keeps xhat_n, what its neighbours know of x_n, and their weighted sum s_n = sum_m w_nm xhat_m:

        q_n = C(x_n - xhat_n)                     one message to each neighbour
        xhat_n <- xhat_n + q_n;   s_n <- s_n + sum_m w_nm q_m
        x_n <- x_n + gamma (s_n - xhat_n)

    C: ``codec``, any that contracts; what it leaves out stays in x_n - xhat_n, so it takes no error feedback.
    ``start`` [W, J]: xhat_n at first, known to all and equal everywhere. Two vectors a worker are kept, however many
    neighbours it has. Source: Koloskova, Stich and Jaggi, arXiv 1902.00340, algorithms 2 and 6.
    """

    def __init__(self, comm: Communicator, codec: Compressor, gamma: float, start: Tensor) -> None:
        self.comm, self.codec, self.gamma = comm, codec, gamma
        self.known, self.around = start.clone(), start.clone()

    def __call__(self, x: Tensor) -> Tensor:
        self.comm.watch.to("encode")
        message = self.codec.encode(x - self.known)
        self.known = self.known + self.codec.decode(message)
        self.around = self.around + self.comm.gossip_messages(message)
        return x + self.gamma * (self.around - self.known)

    def state_dict(self) -> dict[str, Tensor]:
        return {"known": self.known, "around": self.around}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.known, self.around = state["known"], state["around"]
