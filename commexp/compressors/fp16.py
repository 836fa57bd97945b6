"""Half precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from commexp.compressors.cast import Cast


@dataclass
class FP16(Cast):
    """IEEE half precision: 2 bytes a number, relative error at most 2^-11 between 6.1e-5 and 65504; smaller numbers
    lose digits and vanish below 3e-8. The baseline that every compressor must beat."""

    narrow = torch.float16
