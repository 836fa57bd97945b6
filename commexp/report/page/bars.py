"""Where the time of a round goes: a bar of the page for each method."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from commexp.report.tables import PHASES


def phase_bars(phases: Mapping[str, Mapping[str, float]]) -> str:
    """``phases``: milliseconds by method and phase."""
    longest = max(sum(ms.values()) for ms in phases.values()) or 1.0
    keys = "".join(f'<li><i class="phase {phase}"></i>{text}</li>' for phase, text in PHASES.items())
    rows = "\n".join(_bar(name, ms) for name, ms in phases.items())
    return f'<ul class="keys">{keys}</ul>\n<div class="bars" style="--longest:{longest:.6g}">\n{rows}\n</div>'


def _bar(name: str, ms: Mapping[str, float]) -> str:
    told = {phase: f"{PHASES[phase]}: {value:.3g} ms" for phase, value in ms.items() if value > 0}
    parts = "".join(
        f'<i class="phase {phase}" style="--ms:{ms[phase]:.6g}" title="{text}"></i>' for phase, text in told.items()
    )
    name, total = escape(name), sum(ms.values())
    return (
        f'<div class="bar" data-method="{name}" data-ms="{total:.6g}"><span class="name">{name}</span>'
        f'<span class="track" role="img" aria-label="{"; ".join(told.values())}">{parts}</span>'
        f'<span class="total">{total:.3g} ms</span></div>'
    )
