"""How our figures look: sizes for a paper's column, colours that colour-blind readers tell apart."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from commexp.units import human_bytes

# Okabe and Ito, Color Universal Design, 2008; without its yellow, which is too pale for thin lines
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,
}


@contextmanager
def figure(rows: int, columns: int, width: float, height: float) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of rows x columns axes, each ``width`` x ``height`` inches; closed afterwards."""
    with plt.rc_context(STYLE):
        made, axes = plt.subplots(
            rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
        )
        try:
            yield made, list(axes.flat)
        finally:
            plt.close(made)


def save(made: Figure, path: Path) -> list[Path]:
    """Writes ``path``.png and .pdf, each in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("png", "pdf"):
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=f".{kind}")
        os.close(handle)
        made.savefig(temporary, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
        os.chmod(temporary, 0o644)
        target = path.with_suffix(f".{kind}")
        os.replace(temporary, target)
        written.append(target)
    return written


def bytes_axis(axis: Axes, label: str) -> None:
    axis.set_xscale("log")
    axis.set_xlabel(label)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human_bytes(value)))


def percent_axis(axis: Axes, label: str) -> None:
    axis.set_ylabel(label)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def line_style(number: int) -> dict[str, str]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}
