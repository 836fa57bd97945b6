"""One, two, four or eight bits an entry, a scale for each block."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from commexp.compressors.base import Message
from commexp.compressors.blockwise import LARGEST, SMALLEST, STRETCH, Blockwise, rounded_up
from commexp.compressors.stochastic import Stochastic
from commexp.seeding import derive

BITS = (1, 2, 4, 8)
LEVELS = ("uniform", "statistical")
ROUNDINGS = ("nearest", "stochastic")
BELOW_TOP = 1 - 2**-21  # keeps the largest entry below the upper end of the last cell
UNIT = 2.0**-16  # of the random draws, each of which stands for the middle of its interval


@dataclass
class KBit(Blockwise, Stochastic):
    """L = 2^bits levels in the range c - r to c + r of a block of ``block`` entries, for code i = 0, ..., L - 1

        c + r (2 i + 1 - L) / L             rounding=nearest: the middles of L equal cells
        c + r (2 i + 1 - L) / (L - 1)       rounding=stochastic: L equally spaced levels from end to end

    ``levels``: uniform (c = 0, r the block's largest magnitude: 2 bytes a block beside the codes) or statistical (c the
    block's mean, r = ``sigmas`` standard deviations: 4 bytes; entries beyond the range are brought back to its end).
    ``rounding``: nearest; or stochastic, up with the probability that makes the mean right, from 16 random bits: with
    uniform levels unbiased, to 2^-17 of the distance of two levels.

    With h = 1/L or 1/(L - 1) an entry within the range is off by at most h r, in the mean square if rounding is
    stochastic, so that E||C(a) - a||^2 is at most

        uniform         block h^2 ||a||^2
        statistical     (sigmas^2 h^2 + max(0, sqrt(block) - sigmas (1 - h))^2 / block) ||a||^2

    and C contracts where that is less than ||a||^2. (r, rounded up to bfloat16, is up to 1 + 2^-7 times larger.) In the
    largest magnitude, uniform levels with nearest rounding always contract: max |a - C(a)| <= max |a| / L. So the
    residual of error feedback stays within max |g| / (L - 1).
    Sources: Dettmers, arXiv 1511.04561 (blockwise scales); statistical levels: Sarfi et al., SparseLoCo,
    arXiv 2508.15706, whose levels are the means of what falls into each cell; the cells' middles are our choice.
    Raises ValueError for bits other than 1, 2, 4 and 8, unknown levels or rounding, and sigmas that are not positive.
    """

    bits: int = 2
    block: int = 256
    levels: str = "uniform"
    sigmas: float = 6.0
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in BITS:
            raise ValueError(f"bits={self.bits}: cannot be packed evenly; give 1, 2, 4 or 8")
        if self.levels not in LEVELS:
            raise ValueError(f"levels={self.levels}: unknown; give {' or '.join(LEVELS)}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding={self.rounding}: unknown; give {' or '.join(ROUNDINGS)}")
        if not self.sigmas > 0:
            raise ValueError(f"sigmas={self.sigmas}: must be positive; 6 is usual")
        self.centred = self.levels == "statistical"
        self.stochastic = self.rounding == "stochastic"
        self.unbiased = self.stochastic and not self.centred
        self._count = 1 << self.bits
        self._steps = self._count - int(self.stochastic)  # from the lower to the upper end of the range
        self.contracting = self._contracting() if self.expands else ""

    def encode(self, a: Tensor) -> Message:
        if not self.stochastic:
            return self.encode_stretch(a)
        header = {"draw": self._encoded}
        return replace(self.encode_stretch(a, seeds=self.seeds(len(a))), header=header)

    def requantise(self, total: Tensor, messages: Message, start: int) -> Message:
        if not self.stochastic:
            return self.encode_stretch(total[None], start)
        number, setup = messages.header.get("draw", 0), self._setup
        seed = derive(setup.seed, setup.purpose, "aggregate", number)
        return replace(self.encode_stretch(total[None], start, [seed]), header=messages.header)

    def spread(self, x: Tensor, largest: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.centred:
            return rounded_up(largest), None
        centre = x.mean(-1, dtype=torch.float64).to(torch.bfloat16)
        away = (x - centre.float()[..., None]).square_().mean(-1, dtype=torch.float64).sqrt_()
        return rounded_up((self.sigmas * away).clamp_(max=LARGEST).float()), centre

    def codes(self, x: Tensor, scale: Tensor, noise: Tensor | None) -> Tensor:
        steps = self._steps / 2
        factor = steps * (1.0 if self.stochastic else BELOW_TOP) / scale.clamp_min(SMALLEST)  # zero or more than that
        cells = x * factor
        if noise is None:
            cells.add_(steps)
        else:
            cells.add_(noise.float(), alpha=UNIT).add_(steps + 0.5 + UNIT / 2)
        if self.centred or self.stochastic:
            cells.clamp_(0, self._count - UNIT)
        return cells.to(torch.int32)

    def values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        return codes.to(dtype).mul_(2 / self._steps).add_((1 - self._count) / self._steps)

    def delta(self, dim: int) -> float | None:
        lost = self._lost(self.block)
        return 1 - lost if lost < 1 else None

    def omega(self, dim: int) -> float | None:
        return self._lost(min(dim, self.block)) if self.unbiased else None

    def _lost(self, block: int) -> float:
        off = STRETCH / self._steps
        if not self.centred:
            return block * off**2
        beyond = max(0.0, math.sqrt(block) - self.sigmas * (1 - 1 / self._steps))
        return (self.sigmas * off) ** 2 + beyond**2 / block

    @property
    def expands(self) -> bool:
        """Also where statistical levels are so far apart that normally distributed entries would be off by more than
        their own size: in units of the standard deviation the innermost levels lie at t = sigmas h, and with nearest
        rounding E(|z| - t)^2 > 1 where t > 2 sqrt(2/pi), with stochastic E(t^2 - z^2) > 1 where t > sqrt(2)."""
        if self.delta(self.block) is not None:
            return False
        most = math.sqrt(2) if self.stochastic else 2 * math.sqrt(2 / math.pi)
        return self.sigmas / self._steps > most if self.centred else self.unbiased

    def _contracting(self) -> str:
        if self.centred:
            return f"sigmas={self._steps}"
        block = int(0.5 * (self._steps / STRETCH) ** 2) // 8 * 8
        return f"block={block}" if block else ""
