"""A few of the random configs that scripts/random_configs.py tries by the hundred."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from scripts.random_configs import config, outcome


@pytest.mark.parametrize("number", range(12))
def test_it_ends_in_one_line(number: int, tmp_path: Path) -> None:
    words = ["speed.workers=loop", *config(random.Random(f"few.{number}"))]  # the others take seconds to begin
    kind, text = outcome(words, tmp_path)
    assert kind in ("completed", "diverged", "refused"), f"{' '.join(words)}\n{text}"
