"""Error feedback: what was not sent is added to the next gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from commexp.compressors.base import Compressor, Message, Wrapper


@dataclass
class Feedback:
    """How the residual is kept. ``decay``: factor of what stays behind; 1 loses nothing. ``warmup``: rounds in which
    the share sent falls from nearly 1 to k/J. ``momentum``: of each worker's own velocity, before the residual.
    ``masking``: the velocity starts anew at the entries that were sent. Raises ValueError for a value out of range."""

    decay: float = 1.0
    warmup: int = 0
    momentum: float = 0.0
    masking: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay}: out of range; give a factor in (0, 1], 1 to lose nothing")
        if self.warmup < 0:
            raise ValueError(f"warmup={self.warmup}: must not be negative; give a number of rounds")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: must lie in [0, 1); 0.9 is usual")
        if self.masking and self.momentum == 0:
            raise ValueError("masking=True: masks the velocity, and there is none; give momentum=0.9")


class ErrorFeedback(Wrapper):
    """Wraps any compressor C with a residual e [W, J], zero at first:

        a = g + e;    send C(a);    e <- beta (a - C(a))

    so that with beta = ``decay`` = 1, sum(sent) + e = sum(g) at every round.
    With ``momentum`` m > 0 (momentum correction), u <- m u + g takes the place of g; with ``masking``, u is set to
    zero at the entries sent. In the first ``warmup`` = T rounds t = 0, 1, ... the share sent is (k/J)^((t+1)/(T+1)).

    C must contract, or at least leave behind no more than it was given: of an unbiased C that does not, such as Rand-k
    times J/k or QSGD with few levels, E||a - C(a)||^2 > ||a||^2 repeats itself and e grows without bound. Codecs that
    are neither (a fixed threshold, signs of fixed size, TernGrad with clipping) leave an e of bounded size.

    Source: Seide et al., 1-bit SGD, Interspeech 2014; Stich et al., arXiv 1809.07599, algorithm 1; momentum
    correction, masking and warm-up: Lin et al., Deep Gradient Compression, arXiv 1712.01887, sections 3.1 to 3.3.
    Raises ValueError for masking or warm-up around a codec that does not pick entries, and for a C that expands.
    """

    unbiased = False  # the residual is sent as well
    omega = Compressor.omega
    entrywise = False
    stateful_per_worker = True
    state = "round=_round codec"
    worker_state = "residual velocity"
    residual: Tensor | None = None
    velocity: Tensor | None = None
    _round = 0

    def __init__(self, codec: Compressor, feedback: Feedback | None = None) -> None:
        if codec.expands:
            instead = f", or {codec.contracting}" if codec.contracting else ""
            raise ValueError(
                f"error_feedback=true: {codec.name} does not contract, so that what it leaves behind would grow "
                f"without bound; give error_feedback=false{instead}"
            )
        super().__init__(codec)
        self.how = feedback or Feedback()
        if self.how.warmup:
            codec.warm_up(1.0)  # refuses where there is no k
        if self.how.masking and not codec.sparse:
            raise ValueError(f"masking=True: {codec.name} sends every entry; give false, or choose a sparse codec")

    def _warm(self) -> None:
        if self.how.warmup and self._round <= self.how.warmup:
            self.codec.warm_up((self._round + 1) / (self.how.warmup + 1))

    def set_round(self, t: int) -> None:
        self._round = t
        self.codec.set_round(t)

    def encode(self, a: Tensor) -> Message:
        self._warm()
        self._round += 1
        if self.how.momentum:
            self.velocity = a.clone() if self.velocity is None else self.velocity.mul_(self.how.momentum).add_(a)
            a = self.velocity
        if self.residual is None:
            self.residual = a.clone()
        else:
            self.residual.add_(a)
        return self._keep(self.codec.encode(self.residual))

    def next_phase(self, message: Message, total: Tensor) -> Message | None:
        following = self.codec.next_phase(message, total)
        return None if following is None else self._keep(following)

    def _keep(self, message: Message) -> Message:
        """What this message, if it is the last, leaves behind."""
        assert self.residual is not None
        if not message.last:
            return replace(message, codec=self)
        own = self.residual.untyped_storage().data_ptr()
        if any(b.untyped_storage().data_ptr() == own for b in message.buffers.values()):
            self.residual = self.residual.clone()  # the codec sent the vector itself: the message keeps it
        self.codec.subtract_sent(self.residual, message)
        if self.how.decay != 1:
            self.residual.mul_(self.how.decay)
        if self.how.masking:
            assert self.velocity is not None
            self.codec.clear_sent(self.velocity, message)
        return replace(message, codec=self)
