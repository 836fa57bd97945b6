"""bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from commexp.compressors.cast import Cast


@dataclass
class BF16(Cast):
    """bfloat16: 2 bytes a number, relative error at most 2^-9, the range of float32."""

    narrow = torch.bfloat16
