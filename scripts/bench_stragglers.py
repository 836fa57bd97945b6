"""The time that two slow workers of eight add to a round in real processes: coded methods compared with waiting.

Each method runs twice under commexp launch=torchrun with launch.inject=true, without slow workers and with workers 6
and 7 computing ten times as long; the numbers are seconds per round, and their ratio.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from commexp.report.tables import markdown
from commexp.run_folder import Run

COMMON = ["workers=8", "dataset=linreg", "dataset.dim=100", "dataset.samples=50", "eval_every=5", "rerun=true"]
COMMON += ["launch=torchrun", "launch.nproc=8", "launch.inject=true"]
SLEEPERS = ["straggler=fixed", "straggler.workers=[6,7]", "straggler.slowdown=10"]
METHODS = {
    "wait for all": ["algo=wait"],
    "ignore": ["algo=ignore"],
    "1-bit gradient coding, d = 2": ["algo=gradient_coding", "allocation=cyclic"],
    "gradient coding, first 6 answers": ["algo=gradient_coding", "allocation=cyclic", "algo.first=6"],
    "gradient coding, deadline": [
        "algo=gradient_coding",
        "allocation=cyclic",
        "algo.deadline={deadline}",
        "algo.p=0.25",
    ],
    "exact coding, d = 3": ["algo=exact_coding", "allocation=cyclic", "allocation.d=3"],
}


def a_round(words: list[str], folder: Path) -> float:
    """Seconds of a round after the first few."""
    command = [sys.executable, "-m", "commexp", *COMMON, *words, f"outputs={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (made,) = (folder / "runs").iterdir()
    metrics = Run(made).metrics
    begun, ended = metrics.iloc[1], metrics.iloc[-1]
    return float((ended["wall_seconds"] - begun["wall_seconds"]) / (ended["round"] - begun["round"]))


def main() -> None:
    parser = argparse.ArgumentParser(description="The time that slow workers add to a round in real processes.")
    parser.add_argument("--seconds", type=float, default=0.1, help="computation time of a gradient")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    length = [f"rounds={given.rounds}", f"network.compute.seconds={given.seconds}"]
    rows = []
    for name, words in METHODS.items():
        own = [word.format(deadline=3 * given.seconds) for word in words] + length
        seconds = []
        for more in ([], SLEEPERS):
            with tempfile.TemporaryDirectory() as folder:
                seconds.append(a_round(own + more, Path(folder)))
        rows.append([name, *(f"{s:.3f} s" for s in seconds), f"{seconds[1] / seconds[0]:.2f}"])
        print(f"{rows[-1]}", file=sys.stderr)
    print(markdown(["method", "a round without slow workers", "with two", "ratio"], rows))


if __name__ == "__main__":
    main()
