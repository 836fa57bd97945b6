"""What came of claims: a table, files, and sections of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commexp.check.claim import System
from commexp.check.judge import ELSEWHERE, FAILED, MET, NOT_MET, Verdict
from commexp.report.findings import Finding, Section
from commexp.report.tables import as_text, markdown
from commexp.run_folder import write_atomic, write_json


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """A row per claim, then why some have no number, and a count of the verdicts."""
    rows = [[v.claim.id, v.ours, v.range, str(v.claim.bound), v.claim.published, v.verdict] for v in verdicts]
    shown = markdown(["claim", "here", "seeds", "must be", "published", ""], rows, ["seeds", "published"])
    reasons = dict.fromkeys(v.reason for v in verdicts if v.reason)
    notes = [f"- {', '.join(v.claim.id for v in verdicts if v.reason == reason)}: {reason}" for reason in reasons]
    counts = [f"{sum(v.verdict == kind for v in verdicts)} {kind}" for kind in (MET, NOT_MET, FAILED, ELSEWHERE)]
    return [shown, *(["\n".join(notes)] if notes else []), ", ".join(c for c in counts if c[0] != "0")]


def write(verdicts: Sequence[Verdict], folder: Path) -> None:
    """claims.md, with what each claim says, and claims.json."""
    said = [
        f"**{v.claim.id}** ({v.verdict}): {v.claim.says} {v.claim.source}. Here: {v.claim.scale}.\n\n"
        + "\n".join(f"    commexp {words}" for words in v.claim.runs.values())
        for v in verdicts
    ]
    write_atomic(folder / "claims.md", as_text([*table(verdicts), *said]))
    write_json(folder / "claims.json", {"claims": [_plain(v) for v in verdicts]})


def sections(systems: Mapping[str, System], verdicts: Sequence[Verdict], figures: Path) -> list[Section]:
    """What the page shows of each system. ``figures``: the folder of the pictures."""
    return [
        Section(
            system.id,
            system.title,
            system.paper,
            [_finding(v) for v in verdicts if v.claim.system == system.id],
            [(figures / f"{name}.png", text) for name, text in system.figures.items()],
        )
        for system in systems.values()
    ]


def _finding(v: Verdict) -> Finding:
    c = v.claim
    seeds = f" seed={','.join(map(str, range(c.seeds)))}"
    commands = [f"commexp {'-m ' if c.seeds > 1 else ''}{words}{seeds}" for words in c.runs.values()]
    origin = f"{c.source}. Here: {c.scale}."
    return Finding(
        c.id, c.says, v.verdict, v.ours, v.range, str(c.bound), c.published, origin, v.reason,
        [*commands, f"commexp-check claims {c.id}"],
    )  # fmt: skip


def _plain(v: Verdict) -> dict[str, Any]:
    kept = ("id", "system", "says", "source", "scale", "runs", "measure", "seeds", "mean", "published")
    described = {key: getattr(v.claim, key) for key in kept}
    bounds = {k: b for k in ("at_most", "at_least") if math.isfinite(b := getattr(v.claim.bound, k))}
    number = v.number if v.numbers else None
    return {
        **described, "bound": bounds, "verdict": v.verdict, "number": number, "numbers": list(v.numbers),
        "reason": v.reason,
    }  # fmt: skip
