"""Where the time of a round goes: a stacked bar for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from commexp.report.style import COLOURS, figure, save
from commexp.report.tables import PHASES, phase_seconds
from commexp.run_folder import Run


def draw_phases(groups: Mapping[str, Sequence[Run]], path: Path) -> list[Path]:
    """One bar per entry of ``groups``, of the medians over rounds the mean over its runs; nothing is drawn where
    nothing was measured."""
    measured = {name: [s for r in runs if (s := phase_seconds(r))] for name, runs in groups.items()}
    measured = {name: each for name, each in measured.items() if each}
    if not measured:
        return []
    with figure(1, 1, 6.2, 1.1 + 0.28 * len(measured)) as (made, (axis,)):
        names, left = list(measured), [0.0] * len(measured)
        for phase, colour in zip(PHASES, COLOURS, strict=False):
            widths = [1e3 * sum(s[phase] for s in each) / len(each) for each in measured.values()]
            axis.barh(names, widths, left=left, height=0.6, color=colour, label=PHASES[phase])
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set_xlabel("milliseconds of a round (medians over rounds)")
        made.legend(loc="outside upper center", ncols=len(PHASES))
        return save(made, path)
