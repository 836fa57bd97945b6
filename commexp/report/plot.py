"""One figure of chosen columns, for a paper: ``commexp.plot`` and ``commexp-report --x --y``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from commexp.metrics import foremost
from commexp.report.bands import BANDS, told
from commexp.report.checked import ReadRun
from commexp.report.curves import clock_label, draw_lines, dress, is_far, spans_decades, tables
from commexp.report.looks import looks
from commexp.report.naming import named
from commexp.report.reading import read_runs
from commexp.report.style import INCHES, LOOKS, StyledFigure, columns_that_fit, note, save
from commexp.run_folder import Run

LARGEST = 40.0  # inches


def plot(
    runs: Run | str | PathLike[str] | Iterable[Run | str | PathLike[str]],
    x: str = "bytes_sent",
    y: str | None = None,
    order: Sequence[str] = (),
    label: Mapping[str, str] | None = None,
    size: tuple[float, float] | None = None,
    band: str = "std",
    style: str = "paper",
    ax: Axes | None = None,
) -> Axes:
    """Draws a column of metrics.csv against another one: a line per method, the mean over its seeds with a band.

    ``runs``: runs, or folders of runs or of a sweep. ``x``, ``y``: columns of metrics.csv, also bits_up, bits_down and
    bits_both; y is the foremost metric of all runs if not given. ``order``: the methods that come first. ``label``: new
    names of methods, by name in the tables or by algorithm and codec: ``{"sgd-topk": "Top-k"}``. ``size``: width and
    height in inches, that of the style if not given. ``band``: ``std`` (standard deviation), ``se`` (standard error),
    ``range`` (least and greatest) or ``ci95`` (confidence interval of the mean). ``style``: ``paper``, ``report`` or
    ``slides``. ``ax``: draws into these axes, which have their own size, in place of a new figure of pyplot.

    Returns the axes; ``ax.figure.savefig("figure.pdf")`` embeds TrueType fonts. Raises ValueError for a column, method,
    band, style or size that does not exist, and for folders without a readable run.
    """
    settings, groups = check(band, style, size), named(readable(runs), order, label)
    y = column_up(groups, x, y)
    made: Figure | None = None
    if ax is None:
        from matplotlib import pyplot  # which looks for a screen

        with rc_context(settings):
            made = pyplot.figure(FigureClass=StyledFigure, figsize=size or INCHES[style], layout="constrained")
    return _draw(groups, x, y, band, style, ax, made)


def save_plot(
    groups: Mapping[str, Sequence[ReadRun]],
    folder: Path,
    x: str = "bytes_sent",
    y: str | None = None,
    size: tuple[float, float] | None = None,
    band: str = "std",
    style: str = "paper",
) -> list[Path]:
    """The same of methods that have their names, as ``folder``/<y>-<x>.png and .pdf. Raises ValueError."""
    y = column_up(groups, x, y)
    with rc_context(check(band, style, size)):
        made = StyledFigure(figsize=size or INCHES[style], layout="constrained")
        _draw(groups, x, y, band, style, None, made)
        return save(made, folder / f"{y}-{x}")


def readable(runs: Run | str | PathLike[str] | Iterable[Run | str | PathLike[str]]) -> list[ReadRun]:
    """Those that can be read. Raises ValueError where there are none."""
    each = [runs] if isinstance(runs, Run | str | PathLike) else [*runs]
    found, left = read_runs([one.folder if isinstance(one, Run) else Path(one) for one in each])
    sound = [run for run in found if not run.problem]
    if not sound:
        why = [f"{run.folder}: {run.problem}" for run in found] + [f"{one.folder}: {one.why}" for one in left]
        raise ValueError(f"runs={why[0] if why else '[]'}: no run with results; give folders such as outputs/runs/...")
    return sound


def check(band: str, style: str, size: tuple[float, float] | None = None) -> dict[Any, Any]:
    """The settings of the style. Raises ValueError for what does not exist."""
    if band not in BANDS:
        raise ValueError(f"band={band}: no such band; give one of {', '.join(BANDS)}")
    if style not in LOOKS:
        raise ValueError(f"style={style}: no such style; give one of {', '.join(LOOKS)}")
    if size is not None and not (len(size) == 2 and all(1 <= inches <= LARGEST for inches in size)):
        told = "x".join(f"{inches:g}" for inches in size)
        raise ValueError(f"size={told}: no size of a figure; give width and height in inches, such as 3.3x2.4")
    return LOOKS[style]


def column_up(groups: Mapping[str, Sequence[ReadRun]], x: str, y: str | None) -> str:
    """The column that is drawn: ``y``, or the foremost metric. Raises ValueError for columns that no run has."""
    frames, columns, everywhere = tables(groups)
    if not frames:
        raise ValueError("runs: nothing has been evaluated yet; give runs that have a row in metrics.csv")
    for key, name in (("x", x), ("y", y)):
        if name is not None and name not in columns:
            raise ValueError(f"{key}={name}: no column of these runs; give one of {', '.join(sorted(columns))}")
    known = [m.name for m in foremost("final")]
    found = y or next((m for pool in (everywhere, columns) for m in known if m in pool), None)
    if found is None:
        raise ValueError(f"y: these runs have no metric; give one of {', '.join(sorted(columns))}")
    if not any({x, found} <= {*frame.columns} for each in frames.values() for frame in each):
        raise ValueError(f"y={found}: no run has it together with {x}; give another x or y")
    return found


def _draw(
    groups: Mapping[str, Sequence[ReadRun]],
    x: str,
    y: str,
    band: str,
    style: str,
    ax: Axes | None,
    made: Figure | None,
) -> Axes:
    """Into ``ax``, or into new axes of ``made``."""
    settings = check(band, style)
    small = float(settings["legend.fontsize"])
    frames = {
        name: having for name, each in tables(groups)[0].items() if (having := [f for f in each if {x, y} <= {*f}])
    }
    with rc_context(settings):
        if made is not None:
            made.look = settings  # type: ignore[attr-defined]
            ax = made.subplots()
        assert ax is not None
        far, up, look = is_far(frames, x), spans_decades(frames, y), looks(groups)
        draw_lines(ax, frames, look, x, y, band, far, up)
        dress(ax, x, y, log=far, up=up)
        if x == "sim_seconds":
            ax.set_xlabel(clock_label(groups))
        several = [ax.plot([], [], label=name, **look[name].line)[0] for name in frames] if len(frames) > 1 else []
        if made is None:
            if several:
                title = told(band, map(len, frames.values())).replace(" over ", "\nover ")
                ax.legend(handles=several, title=title or None, title_fontsize=0.9 * small)
            return ax
        if several:
            fitting = columns_that_fit(frames, made.get_figwidth(), small)
            made.legend(handles=several, loc="outside upper center", ncols=fitting, **CLOSE)
        note(made, told(band, map(len, frames.values())), 0.9 * small)
    return ax


CLOSE: dict[str, Any] = {"columnspacing": 1.2, "handlelength": 1.8, "handletextpad": 0.5, "borderaxespad": 0.2}
