"""The overhead of commexp: launch=torchrun launch.nproc=2 on digits, compared with plain torch DDP on the same work.

    python scripts/bench_launch.py

Both train the same network on the same number of samples with two processes on this machine, dense gradients, one
thread each; times exclude start-up and evaluation. The two alternate; the numbers are medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import commexp
from commexp.problems.datasets import Digits
from commexp.problems.models import ResNetSmall

ROUNDS, BATCH, REPEATS = 300, 16, 5


def bare() -> None:
    """A user's own script, as short as it gets."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = Digits().load(2, 0, torch.float32)
    mine = torch.arange(dist.get_rank(), len(data.train_x), 2)
    model = DistributedDataParallel(ResNetSmall().module((1, 8, 8), 10))
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    begin = 0.0
    for t in range(ROUNDS):
        if t == 10:  # what both do once
            begin = time.perf_counter()
        if t * BATCH % len(mine) < BATCH:
            order = mine[torch.randperm(len(mine))]
        rows = order[torch.arange(t * BATCH, (t + 1) * BATCH) % len(order)]
        optimiser.zero_grad()
        F.cross_entropy(model(data.train_x[rows]), data.train_y[rows]).backward()
        optimiser.step()
    if dist.get_rank() == 0:
        print((time.perf_counter() - begin) / (ROUNDS - 10))
    dist.destroy_process_group()


def seconds_of_bare() -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, "bare"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return float(done.stdout.split()[-1])


def seconds_of_ours() -> float:
    with tempfile.TemporaryDirectory() as folder:
        words = ["workers=2", f"batch_size={BATCH}", f"rounds={ROUNDS}", "eval_every=10", "algo.momentum=0.9"]
        run = commexp.run(*words, "launch=torchrun", "launch.nproc=2", "launch.threads=1", f"outputs={folder}")
        at = run.metrics.set_index("round")["wall_seconds"]
        return float(at[ROUNDS] - at[10]) / (ROUNDS - 10)


def main() -> int:
    if sys.argv[1:] == ["bare"]:
        bare()
        return 0
    pairs = [(seconds_of_bare(), seconds_of_ours()) for _ in range(REPEATS)]
    theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = ", ".join(f"{b / a:.2f}" for a, b in pairs)
    print(
        f"a step on digits, 2 processes: bare DDP {1e3 * theirs:.2f} ms, commexp {1e3 * ours:.2f} ms; ratios {ratios}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
