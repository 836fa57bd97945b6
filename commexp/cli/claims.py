"""``commexp-check claims [NAME ...]``: what the papers say, run and judged."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from commexp.check.claim import CLAIMS, Claim, load, picked
from commexp.check.judge import FAILED, NOT_MET, judge
from commexp.check.show import table, write
from commexp.config.messages import UserError
from commexp.report.terminal import in_terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="which claims; all if none is given")
    parser.add_argument("--list", action="store_true", help="show what is claimed, run nothing")
    parser.add_argument("--file", type=Path, default=CLAIMS, help="claims of your own, in the form of claims.yaml")
    parser.add_argument("--outputs", default="outputs", help="where runs lie, and report/claims.md")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument(
        "--root", action="append", default=[], metavar="DATA=FOLDER", help="where data lie, such as a9a=/data/libsvm"
    )


def check_claims(given: argparse.Namespace) -> int:
    """Shows the table; the number of claims that are not met or have failed. Raises UserError."""
    claims = picked(load(given.file)[1], given.names)
    if given.list:
        print(in_terminal(["\n".join(f"* {claim.id}: {claim.says}" for claim in claims)], given.file))
        return 0
    if given.jobs < 1:
        raise UserError(f"--jobs={given.jobs}: runs none; give 1 or more")
    verdicts = judge(claims, bool(given.names), given.outputs, folders(given.root, claims), given.jobs)
    report = Path(given.outputs) / "report"
    write(verdicts, report)
    print(in_terminal(table(verdicts), report / "claims.md"), end="\n\n")
    print(f"{report / 'claims.md'}\n{report / 'claims.json'}")
    return sum(v.verdict in (NOT_MET, FAILED) for v in verdicts)


def folders(roots: Sequence[str], claims: Sequence[Claim]) -> dict[str, str]:
    """DATA=FOLDER by DATA. Raises UserError."""
    known = sorted({claim.data for claim in claims} - {""})
    folder_of = {}
    for word in roots:
        name, _, folder = word.partition("=")
        if name not in known or not folder:
            right = f"DATA one of {', '.join(known)}" if known else "it where a claim asks for data"
            raise UserError(f"--root {word}: not DATA=FOLDER; give {right}")
        folder_of[name] = folder
    return folder_of
