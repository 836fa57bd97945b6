"""The tables that come with scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np


def read_table(name: str, header: int = 0) -> np.ndarray:
    """The numbers of a file in scikit-learn's datasets/data, [lines, columns], below so many lines of ``header``. It is
    read without importing scikit-learn, which takes a second. Raises FileNotFoundError where it has no such file."""
    spec = find_spec("sklearn")
    folder = Path(((spec and spec.submodule_search_locations) or [""])[0]) / "datasets" / "data"
    return np.loadtxt(folder / name, delimiter=",", skiprows=header)
