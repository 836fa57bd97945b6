"""Tests whether a change of the code changes results: 40 short runs over all families, compared cell by cell.

    python scripts/same.py record before          # on the old code
    python scripts/same.py record after           # on the new code
    python scripts/same.py compare before after   # exits 1 if a cell differs, except for seconds of this machine

Each command has its own folder, so a new name of a run does not count as a difference. The script uses the ``commexp``
next to it, even if another version is installed.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LENGTH = "rounds=12 eval_every=3"
LINEAR = f"dataset=linreg model=linear_regression dataset.dim=30 dataset.samples=20 batch_size=null {LENGTH}"
DIGITS = "rounds=12 eval_every=4 batch_size=4 model.width=8"
FACTORS = "dataset=ratings model=matrix_factorisation dataset.users=60 dataset.items=40 rounds=12 eval_every=4"
LATE = "straggler=bernoulli straggler.p=0.3 network.compute.seconds=0.01"
COMMANDS = (
    f"algo=sgd {DIGITS}",
    f"algo=sam {DIGITS} workers=4",
    f"algo=regtopk compress.k=0.01 {DIGITS}",
    f"algo=topk compress.k=0.1 compress.scope=layer compress.whole_below=50 {DIGITS}",
    f"compress=topk compress.feedback.warmup=6 compress.feedback.momentum=0.9 compress.feedback.masking=true {DIGITS}",
    f"compress=powersgd {DIGITS} comm.exchange=all_reduce",
    f"compress=fp16 {LINEAR} network=mobile network.compute.kind=lognormal network.compute.seconds=0.1",
    f"compress=qsgd compress.coding=elias {LINEAR}",
    f"compress=natural {LINEAR} comm.exchange=server",
    f"compress=sign compress.vote=true compress.error_feedback=false {LINEAR}",
    f"compress=randk compress.shared=false {LINEAR}",
    f"compress=threshold {LINEAR} comm.exchange=all_gather",
    f"compress=topk {LINEAR} comm.exchange=two_phase",
    f"compress=terngrad {LINEAR} algo.optimizer=adamw algo.lr=0.01",
    f"compress=int8 {LINEAR} comm.deterministic=true",
    f"algo=localsgd algo.tau=3 {DIGITS}",
    f"algo=postlocal {DIGITS}",
    f"algo=qsr {DIGITS}",
    f"algo=dppf compress=onebit {DIGITS} flatness=landscape workers=4",
    f"algo=easgd algo.push=0.1 {DIGITS}",
    f"algo=lsgd {DIGITS}",
    f"algo=mgrawa algo.push=0.1 {DIGITS}",
    f"algo=diloco algo.tau=3 {DIGITS}",
    f"algo=dpsgd topology=ring {DIGITS}",
    f"algo=choco compress.k=0.2 topology=torus {LINEAR}",
    f"algo=d2 topology=ladder {LINEAR}",
    f"algo=dsgt topology=grid topology.failure=0.2 gossip.rounds=2 {LINEAR}",
    f"algo=proxgt_sa prox=l1 prox.weight=0.001 {DIGITS.replace('model.width=8', '')} dataset=breast_cancer model=mlp",
    f"algo=proxgt_sr_o {DIGITS.replace('model.width=8', '')} dataset=breast_cancer model=logistic_regression",
    "algo=proxgt_sr_e dataset=breast_cancer model=logistic_regression topology=ladder gossip.chebyshev=true"
    " gossip.contraction=0.01 rounds=12 eval_every=4 batch_size=4",
    f"algo=deepstorm {DIGITS.replace('model.width=8', '')} dataset=breast_cancer model=logistic_regression",
    f"algo=gradient_coding compress=onebit allocation.d=3 {LATE} {LINEAR}",
    f"algo=exact_coding allocation=cyclic {LATE} {LINEAR}",
    f"algo=ignore {LATE} {LINEAR}",
    f"algo=wait {LATE} {LINEAR}",
    "+experiment=async_logistic_breast_cancer algo=async_ps algo.solver=svrg rounds=60 eval_every=20",
    "+experiment=async_logistic_breast_cancer algo=ssp compress=topk compress.k=0.2 rounds=60 eval_every=20",
    f"algo=async_sgd {FACTORS}",
    f"algo=sync_ps model.travels=all partition=blocks {FACTORS}",
    f"algo=topk compress.k=0.1 {LINEAR} comm.deterministic=true launch=torchrun launch.nproc=2",
)


def record(folder: Path) -> None:
    """Runs the commands anew, with the results below ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    code = "import sys; from commexp.cli.run import main; sys.argv[0] = 'commexp'; main()"
    for number, command in enumerate(COMMANDS):
        words = [*command.split(), f"outputs={folder / f'{number:02}'}", "launch.device=cpu", "rerun=true"]
        ended = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)
        print(f"{number:02} exit {ended.returncode}  {command}", flush=True)
        if ended.returncode:
            print(ended.stderr.strip()[-500:], flush=True)


def cells(folder: Path) -> dict[str, str]:
    """What the one run below ``folder`` has left: table, row and column of each cell; seconds of the machine aside."""
    found: dict[str, str] = {}
    for run in (folder / "runs").glob("*"):
        for name in ("metrics", "traffic"):
            with open(run / f"{name}.csv", encoding="utf-8", newline="") as file:
                for index, row in enumerate(csv.DictReader(file)):
                    found |= {f"{name} row {index} {key}": value for key, value in row.items()}
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        found |= {f"summary {key}": str(value) for key, value in summary.items()}
    return {key: value for key, value in found.items() if key.endswith("sim_seconds") or "_seconds" not in key}


def compare(before: Path, after: Path) -> int:
    """The number of commands of which a cell differs; prints the first cells of each."""
    different = 0
    for number, command in enumerate(COMMANDS):
        old, new = (cells(folder / f"{number:02}") for folder in (before, after))
        wrong = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if wrong or not old:
            different += 1
            print(f"{number:02} {len(wrong)} of {len(old)} cells  {command}")
            for key in wrong[:3]:
                print(f"     {key}: {old.get(key, 'none')} -> {new.get(key, 'none')}")
    print(f"{len(COMMANDS) - different} of {len(COMMANDS)} commands leave the same cells")
    return different


def main() -> None:
    task, *folders = sys.argv[1:] or [""]
    if task == "record" and len(folders) == 1:
        record(Path(folders[0]).resolve())
    elif task == "compare" and len(folders) == 2:
        sys.exit(bool(compare(*(Path(folder) for folder in folders))))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
