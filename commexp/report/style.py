"""How our figures look: sizes for a paper's column, colours that colour-blind readers tell apart."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from commexp.metrics import human_bits, human_bytes
from commexp.report.palette import with_palette
from commexp.run_folder import FORMATS, write_atomic

# Okabe and Ito, Color Universal Design, 2008; without its yellow, which is too pale for thin lines
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
STYLES = len(COLOURS) * len(DASHES)  # lines that can be told apart
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

REPORT: dict[Any, Any] = {
    "font.size": 9,
    "text.parse_math": False,  # a dollar in a run's name is a dollar
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
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,  # TrueType, which publishers ask for; only the glyphs that are used
}


def _sizes(text: float, small: float, line: float, marker: float) -> dict[str, float]:
    large, little = ("font.size", "axes.titlesize", "axes.labelsize"), ("legend.fontsize", "xtick.labelsize")
    sizes = {**dict.fromkeys(large, text), **dict.fromkeys((*little, "ytick.labelsize"), small)}
    return sizes | {"lines.linewidth": line, "lines.markersize": marker}


#: by the word of --style
LOOKS: dict[str, dict[Any, Any]] = {
    "paper": {**REPORT, **_sizes(8, 7, 1.2, 3.5), "axes.linewidth": 0.6, "savefig.dpi": 300},
    "report": REPORT,
    "slides": {**REPORT, **_sizes(16, 14, 2.6, 8), "axes.linewidth": 1.2, "savefig.dpi": 200},
}
#: inches of a figure with one pair of axes
INCHES = {"paper": (3.3, 2.4), "report": (4.6, 3.2), "slides": (9.0, 5.5)}


class StyledFigure(Figure):
    """Its files have the fonts and the resolution of the style, whoever saves it and when."""

    look: dict[Any, Any] = REPORT

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        with rc_context({key: self.look[key] for key in ("pdf.fonttype", "savefig.dpi")}):
            super().savefig(*args, **kwargs)


@contextmanager
def figure(
    rows: int, columns: int, width: float, height: float, share_rows: bool = False, share_columns: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of rows x columns axes, each ``width`` x ``height`` inches. ``share_rows``, ``share_columns``: the axes
    of a row have one vertical axis, and those of a column one horizontal axis."""
    with rc_context(REPORT):
        made = StyledFigure(figsize=(width * columns, height * rows), layout="constrained")
        shared: dict[str, Any] = {
            "sharey": "row" if share_rows else False,
            "sharex": "col" if share_columns else False,
        }
        yield made, list(made.subplots(rows, columns, squeeze=False, **shared).flat)


def note(made: Figure, text: str, size: float = 7.2) -> None:
    """Below the axes in small letters: what a band means and the like."""
    if text:
        wide = int(made.get_figwidth() * 72 / (0.52 * size))
        made.supxlabel(textwrap.fill(text, wide), fontsize=size, color="0.35")


def columns_that_fit(names: Iterable[str], inches: float, size: float = 8, most: int = 4) -> int:
    """Of a legend as wide as ``inches``, with lines before the names, in letters of ``size``."""
    names = [*names]
    letters = inches * 72 / (0.56 * size)
    return max(1, min(most, len(names), int(letters / (7 + max(map(len, names), default=0)))))


def save(made: Figure, path: Path) -> list[Path]:
    """Writes ``path``.png and .pdf, each in one step."""
    layout = made.get_layout_engine()
    if layout is not None:
        layout.execute(made)
    made.set_layout_engine(None)  # the layout is settled; any engine, even "none", has each format drawn twice
    written = []
    for kind in FORMATS:
        drawn = io.BytesIO()
        made.savefig(drawn, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
        target = path.with_suffix(f".{kind}")
        write_atomic(target, with_palette(drawn.getvalue()) if kind == "png" else drawn.getvalue())
        written.append(target)
    return written


def compact(value: float) -> str:
    """0.001 -> '0.001', 1e-10 -> '1e-10'."""
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def log_scale(axis: Axis, show: Callable[[float], str] = compact, least: float = 5) -> None:
    """A log scale with plain labels where the data span a factor of ``least``, else a linear one; labels between powers
    of ten where fewer than two of these are in sight. ``least=0``: a log scale of the positive data in any case."""
    formatter = FuncFormatter(lambda value, _: show(value))
    low, high = axis.get_data_interval()
    if not least:
        low, least = float(axis.get_minpos()), 1e-9
    axis.set_major_formatter(formatter)
    if not 0 < low * least < high < math.inf:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    powers = math.floor(math.log10(high)) - math.ceil(math.log10(low)) + 1
    axis.set_major_locator(LogLocator(numticks=6))
    between = (2, 5) if high < 20 * low else (3,)
    axis.set_minor_locator(LogLocator(subs=between) if powers < 2 else NullLocator())
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(formatter)


def count_axis(axis: Axis, log: bool = False) -> None:
    """A scale of counts: 500 k, 1.5 M."""
    formatter = EngFormatter(sep="\N{THIN SPACE}")
    if log:
        log_scale(axis, formatter)
        return
    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(formatter)


def bytes_axis(axis: Axis) -> None:
    log_scale(axis, human_bytes)


def bits_axis(axis: Axis, log: bool) -> None:
    """Logarithmic only if ``log``: bits per worker are mostly read on a linear scale."""
    if log:
        log_scale(axis, human_bits)
        return
    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: human_bits(value)))


def percent_axis(axis: Axes, label: str) -> None:
    axis.set_ylabel(label)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def line_style(number: int) -> dict[str, str]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}
