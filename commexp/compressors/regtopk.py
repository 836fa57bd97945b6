"""RegTop-k: Top-k with a prior learnt from the last aggregate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.compressors.base import Message
from commexp.compressors.sparse import Sparse


@dataclass
class RegTopK(Sparse):
    """Keeps the k entries of largest score, the score being |a| damped where the other workers cancelled this one:

        score[j]  = |a[j]| tanh(|1 + Delta[j]| / mu)
        Delta[j]  = (g_prev[j] - w s_prev[j]) / (w s_prev[j])   if this worker sent entry j last round
                  = Q                                           otherwise, and in the first round

    a: accumulated gradient; s_prev: the value sent last round; g_prev: last round's aggregate; w: this worker's
    weight in it; mu: ``mu``, the temperature (about N tells workers that agree from workers that cancel; large mu
    ranks all entries sent last round down); Q: ``prior``, so large that the factor is 1.
    1 + Delta = g_prev/(w s_prev) is the whole aggregate over this worker's own contribution.

    Its state is the k entries sent last round: indices, values and the aggregate there, [W, k] each.
    ``denominator='current'`` divides by w a[j] instead, the form of a published notebook: it does not converge on the
    paper's own linear regression and is kept for comparison.

    Source: Bereyhi, Liang, Boudreau and Afana, Regularized Top-k, arXiv 2501.05633, algorithm 1.
    Raises ValueError if mu or prior is not positive, or denominator is neither 'previous' nor 'current'.
    """

    worker_state = "**_memory"
    mu: float = 4.0
    prior: float = 1e8
    denominator: str = "previous"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mu", "prior"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive; give mu about 2 to 8, prior 1e8")
        if self.denominator not in ("previous", "current"):
            raise ValueError(f"denominator={self.denominator}: unknown; give previous (the paper's) or current")
        self._memory: dict[str, Tensor] = {}

    def encode(self, a: Tensor) -> Message:
        k = self.entries(a.shape[1])
        if "aggregate" not in self._memory:
            return self._keep(self.pack(a, self.selector.largest(a, k)))
        if 0 in a.stride():
            a = a.contiguous()  # rows that share memory cannot hold different scores
        sent = self._memory["indices"]
        accumulated = a.gather(1, sent)
        factor = self._ratio(accumulated).div_(self.mu).tanh_()
        try:  # the score differs from |a| at k places only: it stands there while the choice is made
            a.scatter_(1, sent, accumulated * factor)
            chosen = self.selector.largest(a, k)
        finally:
            a.scatter_(1, sent, accumulated)
        return self._keep(self.pack(a, chosen))

    def _keep(self, message: Message) -> Message:
        assert self._sent is not None
        self._memory = {"indices": self._sent[1], "values": message.buffers["values"]}
        return message

    def were_sent(self, values: Tensor) -> None:
        self._memory["values"] = values

    def _ratio(self, current: Tensor) -> Tensor:
        """|1 + Delta| at the entries sent last round, [W, k]; an entry sent as zero tells nothing and counts as Q."""
        mine = self._memory["weights"][:, None] * self._memory["values"]
        below = mine if self.denominator == "previous" else self._memory["weights"][:, None] * current
        ratio = (self._memory["aggregate"] - mine).div_(below).add_(1.0).abs_()
        return ratio.masked_fill_(below == 0, self.prior)

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        if not self._memory:
            raise RuntimeError("RegTopK.feedback: nothing has been encoded yet")
        indices = self._memory["indices"]
        if weights is None:
            weights = aggregate.new_full((indices.shape[0],), 1.0 / indices.shape[0])
        self._memory["weights"] = weights
        self._memory["aggregate"] = aggregate[indices]
