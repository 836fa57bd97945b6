"""Error feedback: what was not sent is added to the next gradient."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from commexp.compressors.base import Compressor, Message
from commexp.state import under_prefix, with_prefix


class ErrorFeedback(Compressor):
    """Wraps any compressor C with a residual e [W, J], zero at first:

        a = g + e;    send C(a);    e <- a - C(a)

    so that sum(sent) + e = sum(g) at every round.
    Source: Seide et al., 1-bit SGD, Interspeech 2014; Stich et al., arXiv 1809.07599, algorithm 1.
    """

    def __init__(self, codec: Compressor) -> None:
        self.codec = codec
        self.sums = codec.sums
        self.residual: Tensor | None = None

    def encode(self, a: Tensor) -> Message:
        if self.residual is None:
            self.residual = a.clone()
        else:
            self.residual.add_(a)
        message = self.codec.encode(self.residual)
        if any(b.data_ptr() == self.residual.data_ptr() for b in message.buffers.values()):
            self.residual = self.residual.clone()  # the codec sent the vector itself: the message keeps it
        self.codec.subtract_sent(self.residual, message)
        return message

    def decode(self, message: Message) -> Tensor:
        return self.codec.decode(message)

    def payload(self, dim: int, itemsize: int) -> int:
        return self.codec.payload(dim, itemsize)

    def delta(self, dim: int) -> float | None:
        return self.codec.delta(dim)

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        self.codec.feedback(aggregate, weights)

    def state_dict(self) -> dict[str, Tensor]:
        residual = {} if self.residual is None else {"residual": self.residual}
        return {**residual, **with_prefix("codec", self.codec.state_dict())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.residual = state.get("residual")
        self.codec.load_state_dict(under_prefix("codec", state))
