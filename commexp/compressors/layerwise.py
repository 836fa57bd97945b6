"""A compressor for each tensor of the model, and small tensors whole."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

from commexp.compressors.base import CodecContext, Compressor
from commexp.compressors.grouped import Group, Grouped
from commexp.compressors.none import NoCompression

SCOPES = ("model", "layer")


class Layerwise(Grouped):
    """Grouped over the tensors of the model, each with its own copy of ``codec``.

    ``scope``: layer, or model (one codec for all that is not sent whole). ``whole_below``: tensors of fewer entries,
    such as biases and norms, travel uncompressed.
    Raises ValueError for another scope, a negative whole_below, or a codec that needs more than one exchange.
    """

    def __init__(self, codec: Compressor, scope: str = "layer", whole_below: int = 0) -> None:
        if scope not in SCOPES:
            raise ValueError(f"scope={scope}: unknown; give {' or '.join(SCOPES)}")
        if whole_below < 0:
            raise ValueError(f"whole_below={whole_below}: must not be negative; give a number of entries")
        if codec.phases > 1:
            raise ValueError(f"scope={scope}: {codec.name} goes by matrices itself; give model, and whole_below=0")
        super().__init__(codec)
        self.scope, self.whole_below = scope, whole_below

    def setup(self, setup: CodecContext) -> None:
        self._groups, whole, rest, start = [], [], [], 0
        for name, shape in setup.shapes.items():
            columns = slice(start, start + math.prod(shape))
            start = columns.stop
            if columns.stop - columns.start < self.whole_below:
                whole.append(columns)
            elif self.scope == "model":
                rest.append(columns)
            else:
                codec = copy.deepcopy(self.codec)
                codec.setup(replace(setup, shapes={name: shape}, purpose=f"{setup.purpose}.{name}"))
                self._groups.append(Group([columns], codec))
        if rest:
            kept = {n: s for n, s in setup.shapes.items() if math.prod(s) >= self.whole_below}
            self.codec.setup(replace(setup, shapes=kept))
            self._groups.append(Group(rest, self.codec))
        if whole:
            self._groups.append(Group(whole, NoCompression()))
