"""Which worker holds how many samples of which class, or source, from partition.csv."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_hex
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from commexp.report.style import figure, save
from commexp.run_folder import Run

# Petroff, arXiv 2107.02270: ten colours that stay apart for colour-blind readers
CLASS_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
WORKERS = 64
MOST = 3 * 10**7


def draw_partition(run: Run, path: Path) -> list[Path]:
    """partition.csv, columns ``worker``, ``class`` or ``source``, ``samples``: a bar per worker, at most the first 64,
    the classes side by side; more than ten of them in a sequence of colours."""
    table = run.table("partition")
    kind = "source" if "source" in table else "class"
    if table["worker"].nunique() * table[kind].nunique() > MOST:
        raise ValueError(f"more than {MOST} pairs of a worker and a {kind}")
    counts = table.pivot_table(index="worker", columns=kind, values="samples", aggfunc="sum", fill_value=0)
    shown = counts.iloc[:WORKERS]
    names = [str(name) for name in counts.columns]
    few = len(names) <= len(CLASS_COLOURS)
    sequence = matplotlib.colormaps["viridis"]
    colours = [*CLASS_COLOURS] if few else [to_hex(c) for c in sequence(np.linspace(0, 1, len(names)))]
    columns = min(len(names), max(1, 90 // (7 + max(map(len, names), default=0))))
    above = 0.35 + 0.18 * -(-len(names) // columns) if few else 0.0
    pitch = 0.26 if len(shown) <= 16 else 0.13
    with figure(1, 1, 6.2, (0.6 if few else 1.0) + above + pitch * max(2, len(shown))) as (made, (axis,)):
        ends = shown.to_numpy(float).cumsum(axis=1)
        starts = np.hstack([np.zeros((len(shown), 1)), ends[:, :-1]])
        at = [(i, j) for i, j in np.ndindex(*ends.shape) if ends[i, j] > starts[i, j]]
        boxes = [
            [(starts[i, j], i - 0.4), (ends[i, j], i - 0.4), (ends[i, j], i + 0.4), (starts[i, j], i + 0.4)]
            for i, j in at
        ]
        axis.add_collection(
            PolyCollection(
                boxes,
                facecolors=[colours[j] for _, j in at],
                edgecolors="white",
                linewidths=0.4 if few else 0,
                rasterized=len(at) > 5000,  # a PDF of that many shapes is slow to open
            )
        )
        axis.set(xlim=(0, max(1.0, float(ends.max(initial=0))) * 1.01), ylim=(len(shown) - 0.4, -0.6))
        axis.set(xlabel="training samples", ylabel="worker")
        step = 1 if len(shown) <= 32 else 2
        axis.set_yticks(range(0, len(shown), step), [str(w) for w in shown.index[::step]])
        axis.tick_params(axis="y", length=0, labelsize=8 if step == 1 and pitch > 0.2 else 7)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.grid(False, axis="y")
        axis.set_axisbelow(True)
        if few:
            handles = [Patch(color=c, label=n) for c, n in zip(colours, names, strict=False)]
            square = {"handlelength": 1.0, "handleheight": 1.0, "handletextpad": 0.4, "columnspacing": 1.2}
            made.legend(
                handles=handles, title=kind, title_fontsize=8, loc="outside upper center", ncols=columns, **square
            )
        else:
            scale = ScalarMappable(Normalize(0, len(names) - 1), sequence)
            bar = made.colorbar(scale, ax=axis, label=kind, pad=0.02)
            bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
            inside = range(len(names))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: names[round(v)] if round(v) in inside else ""))
        if len(counts) > len(shown):
            axis.set_title(f"the first {len(shown)} of {len(counts):,} workers")
        return save(made, path)
