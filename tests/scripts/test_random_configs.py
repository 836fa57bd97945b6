"""A few of the random configs that scripts/random_configs.py tries by the hundred."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from scripts.random_configs import config, outcome


@pytest.mark.parametrize("number", range(20))
def test_it_ends_in_one_line(number: int, tmp_path: Path) -> None:
    words = config(random.Random(f"few.{number}"))
    kind, text = outcome(words, tmp_path)
    assert kind in ("completed", "diverged", "refused"), f"{' '.join(words)}\n{text}"
