"""The README's first table and figure, from 21 runs on digits; finished runs are reused.

Prints the table as Markdown; --write puts it into README.md and the figure into docs/.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from figures import KEPT, OUT, digits, runs

from commexp.check.batch import run_all
from commexp.metrics import human_bytes
from commexp.report.tables import markdown
from commexp.report.target import Target
from commexp.run_folder import Run, write_atomic

SEEDS, TARGET = 3, Target(0.95)
README = Path(__file__).parent.parent / "README.md"
HEADS = ["method", "k/J", "test accuracy", "information", "sent", "on the wire", "sent to reach 95 %"]
Words = tuple[str, ...]


def methods() -> list[tuple[str, str, Words]]:
    """Name, share and overrides of each."""
    sparse = [(name, k, algo) for k in KEPT for name, algo in (("Top-k", "topk"), ("RegTop-k", "regtopk"))]
    return [
        ("dense", "1", ("algo=sgd",)),
        *((name, f"{k:g}", (f"algo={algo}", f"compress.k={k}")) for name, k, algo in sparse),
    ]


def table() -> str:
    """Mean and standard deviation (n - 1) over the seeds; costs without one are the same for every seed."""
    rows = []
    for name, k, words in methods():
        found = runs(*words, seeds=SEEDS)
        accuracy = pd.Series([run.metrics["test_accuracy"].iloc[-1] for run in found])
        costs = [spread(found, lambda r, c=c: float(r.summary[c])) for c in ("bytes_info", "bytes_sent", "bytes_wire")]
        rows.append([name, k, f"{accuracy.mean():.2%} ± {100 * accuracy.std():.2f}", *costs, spread(found, reached)])
    return markdown(HEADS, rows)


def spread(found: list[Run], cost: Callable[[Run], float]) -> str:
    values = pd.Series([cost(run) for run in found])
    return human_bytes(float(values.mean()), float(values.std())) if values.notna().all() else "not reached"


def reached(run: Run) -> float:
    row = TARGET.first(run.metrics)
    return float("nan") if row is None else float(row["bytes_sent"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="update README.md and docs/digits_bytes.png")
    parser.add_argument("--jobs", type=int, default=2, help="the number of runs at a time, on one core each")
    given = parser.parse_args()
    run_all([(*words, f"seed={seed}") for _, _, words in methods() for seed in range(SEEDS)], given.jobs)
    made = table()
    print(made)
    if given.write:
        text, count = re.subn(
            r"^\| method   \| k/J .*?(?=\n\n)",
            lambda _: made.rstrip(),
            README.read_text(encoding="utf-8"),
            flags=re.S | re.M,
        )
        assert count == 1, "README.md has no such table"
        write_atomic(README, text)
        digits()
        shutil.copyfile(OUT / "digits_bytes.png", README.parent / "docs" / "digits_bytes.png")


if __name__ == "__main__":
    main()
