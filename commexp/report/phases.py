"""Where the time of a round goes: a stacked bar for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from commexp.report.looks import looks
from commexp.report.style import figure, note, save
from commexp.report.tables import PHASES, phase_seconds
from commexp.run_folder import Run

#: greys and earths, none of which is the colour of a method; the page has the same
COLOURS = {"compute": "#4e5a68", "encode": "#c9a35c", "wait": "#d3d7dd", "transfer": "#8b6bb1", "decode": "#8fb8b0"}


def draw_phases(groups: Mapping[str, Sequence[Run]], path: Path) -> list[Path]:
    """One bar per entry of ``groups``, of the medians over rounds the mean over its runs; nothing is drawn where
    nothing was measured. A name has the mark of its method."""
    measured = {name: [s for r in runs if (s := phase_seconds(r))] for name, runs in groups.items()}
    measured = {name: each for name, each in measured.items() if each}
    if not measured:
        return []
    with figure(1, 1, 6.2, 1.1 + 0.28 * len(measured)) as (made, (axis,)):
        names, left = list(measured), [0.0] * len(measured)
        for phase, colour in COLOURS.items():
            widths = [1e3 * sum(s[phase] for s in each) / len(each) for each in measured.values()]
            axis.barh(names, widths, left=left, height=0.6, color=colour, label=PHASES[phase])
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for name, look in looks({name: groups[name] for name in names}).items():
            axis.plot([-0.014], [name], clip_on=False, transform=axis.get_yaxis_transform(), **look.point)
        axis.tick_params(axis="y", length=0, pad=12)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set_xlabel("milliseconds of a round")
        several = any(len(each) > 1 for each in measured.values())
        note(made, "medians over rounds" + (", means over runs" if several else ""))
        made.legend(loc="outside upper center", ncols=len(PHASES))
        return save(made, path)
