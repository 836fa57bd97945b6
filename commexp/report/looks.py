"""One look per method, the same in all figures and on the page: the hue says which method it is, lightness and dash
which of its settings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from matplotlib.colors import to_hex, to_rgb

from commexp.report.style import COLOURS, DASHES, MARKERS
from commexp.report.tables import NOT_IN_LABELS, flatten, words_of
from commexp.run_folder import Run

ON_DARK = ("#4ba6e0", "#f28b4b", "#33c197", "#e39cc6", "#9bd6f7", "#f0b740", "#e4e7eb")  # the same hues on a dark page
APART = 4  # the first hues, which are the furthest apart
BASELINE = ("sgd", "none")
BLACK = len(COLOURS) - 1
RANGES = (36.0, 68.0), (54.0, 88.0)  # lightness L* of a method's settings, on white and on a dark page


@dataclass(frozen=True)
class Look:
    """``colour``: on white. ``dark``: on a dark page. ``dash``: a line style of matplotlib."""

    colour: str
    dark: str
    dash: str
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": self.dash}

    @property
    def point(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker}


def looks(methods: Mapping[str, Sequence[Run]]) -> dict[str, Look]:
    """The look of each method, by its runs. Methods with the same algorithm and codec share a hue; where all have the
    same, those share one that differ in nothing but k. The order of ``methods`` has no influence."""
    families: dict[str, Hashable] = {name: _words(runs[0]) for name, runs in methods.items()}
    settings = {name: _settings(runs[0]) for name, runs in methods.items()}
    if len({*families.values()}) == 1:
        words = next(iter(families.values()))
        families = {name: (words, settings[name][1]) for name in methods}
        if len({*families.values()}) == 1:
            families = dict.fromkeys(methods, words)
    return chosen(families, settings)


def look_of(run: Run) -> Look:
    """That of a run alone."""
    return looks({"": [run]})[""]


def _words(run: Run) -> tuple[str, str]:
    """The same of all whose config cannot be read."""
    try:
        return words_of(run)
    except (OSError, ValueError, LookupError, TypeError):
        return "", ""


def _settings(run: Run) -> tuple[float, str]:
    """What variants of a method are sorted by: the greatest k first, then the rest of the config."""
    try:
        config = run.config
    except (OSError, ValueError):
        return 0.0, ""
    flat = flatten({key: value for key, value in config.items() if key not in NOT_IN_LABELS})
    k = flat.pop("compress.k", None)
    return -float(k or 0), str(sorted((key, str(value)) for key, value in flat.items()))


def chosen(families: Mapping[str, Hashable], settings: Mapping[str, Any]) -> dict[str, Look]:
    """By name. ``families``: what has a hue of its own; beyond as many as there are hues, several share one.
    ``settings``: by what those of one hue are sorted."""
    hues = _hues(sorted({*families.values()}, key=str))
    found = {}
    for hue in {hue for hue, _ in hues.values()}:
        mine = [name for name, family in families.items() if hues[family][0] == hue]
        mine.sort(key=lambda name: (hues[families[name]][1], settings[name]))
        for i, name in enumerate(mine):
            colour, dark = (
                base[hue] if len(mine) == 1 else shade(base[hue], low + (high - low) * i / (len(mine) - 1))
                for base, (low, high) in zip((COLOURS, ON_DARK), RANGES, strict=True)
            )
            found[name] = Look(colour, dark, DASHES[i % len(DASHES)], MARKERS[(hue + i) % len(MARKERS)])
    return {name: found[name] for name in families}


def _hues(families: Sequence[Hashable]) -> dict[Hashable, tuple[int, int]]:
    """The number of each family's hue, and how many had it before. Dense training is black; the name of any other
    method prefers one of the first hues, and gets the next free one where that is taken."""
    found: dict[Hashable, tuple[int, int]] = {}
    taken = [0] * len(COLOURS)
    for family in sorted(families, key=lambda one: one != BASELINE):
        first = BLACK if family == BASELINE else crc32(str(family).encode()) % APART
        order = [first, *((first + step) % APART for step in range(APART)), *range(APART, len(COLOURS))]
        hue = min(order, key=lambda one: (taken[one], order.index(one)))
        found[family] = hue, taken[hue]
        taken[hue] += 1
    return found


def shade(colour: str, lightness: float) -> str:
    """The colour of the same hue with the CIE lightness L*: mixed with black or with white, in linear light."""
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    wanted = ((lightness + 16) / 116) ** 3
    if wanted < luminance:
        linear = linear * wanted / luminance
    else:
        linear = linear + (wanted - luminance) / (1 - luminance) * (1 - linear)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).clip(0, 1)
    return to_hex((float(encoded[0]), float(encoded[1]), float(encoded[2])))
