"""The limits of ids and ratings, and error messages for values outside them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commexp.problems.ratings.triples import Triples

INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")
NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class RatingLimits:
    """Ids run from 1 to ``users`` and ``items``; these are infinite if the format states no limit. ``scale``: the
    lowest and the highest rating; None for any. ``stated``: the source of the limits, for error messages."""

    users: float = math.inf
    items: float = math.inf
    scale: tuple[float, float] | None = None
    stated: str = ""

    def hold(self, triples: Triples) -> bool:
        """Whether all triples are within the limits."""
        ids = ((triples.users, self.users), (triples.items, self.items))
        if len(triples) and any(each.min() < 1 or each.max() > most for each, most in ids):
            return False
        low, high = self.scale or (-math.inf, math.inf)
        ratings = triples.ratings
        return bool((np.isfinite(ratings) & (ratings >= low) & (ratings <= high)).all())

    def fault(self, row: Sequence[bytes]) -> str:
        """What is wrong with a row of user, item, rating and time; empty if nothing is."""
        user, item, rating, time = row
        fault = self.id_fault("user", user) or self.id_fault("item", item) or _no_integer("time", time)
        if fault:
            return fault
        value = float(rating) if NUMBER.fullmatch(rating.strip()) else math.nan
        if not math.isfinite(value):
            return f"the rating {shown(rating)} is no finite number; give one such as 3.5"
        if self.scale and not self.scale[0] <= value <= self.scale[1]:
            low, high = self.scale
            return f"the rating {value:g} is out of range; give one from {low:g} to {high:g}, or another dataset.scale"
        return ""

    def id_fault(self, name: str, word: bytes) -> str:
        """What is wrong with an id; empty if nothing is. ``name``: user or item."""
        most = self.users if name == "user" else self.items
        if fault := _no_integer(name, word):
            return fault
        if int(word) < 1:
            return f"the {name} {int(word)} is out of range; ids count from 1"
        return f"the {name} {int(word)} is out of range; {self.stated} from 1 to {most:.0f}" if int(word) > most else ""


def _no_integer(name: str, word: bytes) -> str:
    good = INTEGER.fullmatch(word.strip())
    return "" if good else f"the {name} {shown(word)} is no integer; give a number such as 17"


def shown(word: bytes) -> str:
    """The word as it appears in an error message of one line."""
    return ascii(word[:20].decode("latin-1"))
