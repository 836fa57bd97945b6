"""make bench: the core's speed and memory, every ratio measured side by side in this run (medians)."""

from __future__ import annotations

import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from commexp.algorithms import Algorithm
from commexp.api import compose_config
from commexp.comm import Communicator
from commexp.config.plan import prepare
from commexp.experiment.execute import folder_of
from commexp.experiment.setup import ExperimentSetup
from commexp.problems import Problem
from commexp.problems.logistic import Logistic
from commexp.problems.module_problem import ModuleProblem
from commexp.report.tables import markdown
from commexp.seeding import generator

REPEATED = 10  # rounds of a timing
PROGRAM = [sys.executable, "-m", "commexp"]


def alternately(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each call; the calls take turns, so that a slow moment hits all of them."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for mine, call in zip(times, calls, strict=True):
            begin = time.perf_counter()
            call()
            mine.append(time.perf_counter() - begin)
    return [statistics.median(t) for t in times]


def make(*overrides: str) -> ExperimentSetup:
    """A run that is ready for its first round."""
    plan = prepare(compose_config(overrides))
    return ExperimentSetup(plan, torch.device("cpu"), folder_of(plan))


def gradients(total: int) -> None:
    """One gradient of every worker at the same total batch."""
    workers = (1, 8, 32)
    calls: list[Callable[[], object]] = []
    for w in workers:
        problem = make(f"workers={w}", f"batch_size={total // w}").problem
        assert isinstance(problem, ModuleProblem)
        x = problem.init(generator(0)).expand(w, -1)
        batch, ways = problem.batch(0), problem.gradients
        calls.append(lambda p=problem, x=x, b=batch: p.loss_and_grad(x, b))  # type: ignore[misc]
        calls.append(lambda f=ways, x=x, b=batch: f.by("vmap", x, b))  # type: ignore[misc]
        calls.append(lambda f=ways, x=x, b=batch: f.by("loop", x, b))  # type: ignore[misc]
    times = alternately(calls, 60)
    rows = [[str(w), *(f"{t / times[0]:.2f}" for t in times[3 * i : 3 * i + 3])] for i, w in enumerate(workers)]
    print(f"Gradients of W workers, {total} samples in all, over W = 1 (plain autograd); aim: W = 32 at most 1.5\n")
    print(markdown(["W", "ours", "torch.func.vmap", "loop over workers"], rows), "\n")


def linreg_rounds() -> None:
    """Rounds per second of the linear regression, N = 20, J = 100."""
    rates = []
    for codec in ("none", "topk", "regtopk"):
        algorithm = make("+experiment=regtopk_linreg", f"compress={codec}").algorithm
        begin = time.perf_counter()
        for t in range(2500):
            algorithm.round(t)
        rates.append(2500 / (time.perf_counter() - begin))
    rows = [[c, f"{r:,.0f}", f"{r / rates[0]:.2f}"] for c, r in zip(("none", "topk", "regtopk"), rates, strict=True)]
    print("Linear regression, 20 workers, 100 parameters: rounds per second\n")
    print(markdown(["compressor", "rounds/s", "over dense"], rows), "\n")


def difference_rounds() -> None:
    """Rounds per second of EF21 with Top-k on logistic regression, J = 300, and of a loop over workers in NumPy."""
    rows = []
    for workers in (10, 100, 1000):
        setup = make("dataset=logreg", f"workers={workers}", "algo=ef21", "algo.lr=0.1", "compress.k=0.01")
        algorithm, comm, number = setup.algorithm, setup.comm, itertools.count()

        def ours(algorithm: Algorithm = algorithm, comm: Communicator = comm, number: Iterator[int] = number) -> None:
            for t in itertools.islice(number, REPEATED):
                comm.begin_round(t + 1)
                algorithm.round(t)
                comm.end_round()

        mine, bare = alternately([ours, bare_ef21(setup.problem, workers)], max(5, 2000 // workers))
        rows.append([str(workers), *(f"{REPEATED / seconds:,.0f}" for seconds in (mine, bare)), f"{bare / mine:.1f}"])
    print("EF21 with Top-k (1 %), logistic regression, 300 parameters, 50 samples a worker; aim: 5 at 100 workers\n")
    print(markdown(["workers", "rounds/s", "rounds/s, a loop in NumPy", "ratio"], rows), "\n")


def bare_ef21(problem: Problem, workers: int) -> Callable[[], None]:
    """``REPEATED`` rounds of the same, worker by worker."""
    assert isinstance(problem, Logistic)
    signed = problem.margins.rows()
    data = [np.ascontiguousarray(signed[rows.numpy()]) for rows in problem.own]
    x, g, g_n, k = np.zeros(problem.dim), np.zeros(problem.dim), np.zeros((workers, problem.dim)), problem.dim // 100

    def rounds() -> None:
        nonlocal x
        for _ in range(REPEATED):
            for a, mine in zip(data, g_n, strict=True):
                difference = a.T @ (-1 / (1 + np.exp(a @ x)) / len(a)) - mine
                largest = np.argpartition(np.abs(difference), -k)[-k:]
                mine[largest] += difference[largest]
                g[largest] += difference[largest] / workers
            x = x - 0.1 * g

    return rounds


def wall(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def commands() -> None:
    """Whole commands, start-up included, each beside an interpreter that only imports torch."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"outputs={folder}"

        def fresh(*words: str) -> float:
            return wall(*PROGRAM, *words, out, "rerun=true")

        torch_alone = statistics.median(wall(sys.executable, "-c", "import torch") for _ in range(3))
        experiment = ("-m", "+experiment=regtopk_linreg", "compress=none,topk,regtopk")
        measured = {
            "commexp --help (aim: 1.5 s)": statistics.median(wall(*PROGRAM, "--help") for _ in range(5)),
            "linreg: dense, Top-k, RegTop-k, 2,500 rounds each (aim: 8 s)": statistics.median(
                fresh(*experiment) for _ in range(3)
            ),
            "default run (aim: 60 s)": fresh("algo=regtopk"),
        }
    rows = [[name, f"{s:.1f}", f"{s / torch_alone:.1f}"] for name, s in measured.items()]
    print(markdown(["whole command", "seconds", "over import torch"], rows), "\n")


def memory() -> None:
    """Peak memory of a round over what the stacked state (gradients and residuals, [W, J] each) needs."""
    setup = make("algo=regtopk", "model.width=128", "model.stages=3", "batch_size=2", "workers=32")
    before = _resident()
    for t in range(3):
        setup.algorithm.round(t)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    stacked = 2 * 32 * setup.problem.dim * 4
    print(
        f"Memory, W = 32, J = {setup.problem.dim:,}: peak of a round over the stacked state of {stacked / 1e6:.0f} MB: "
    )
    print(f"{peak / stacked:.2f} (aim: at most 2)\n")


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    memory()  # first: the peak is the process's
    for total in (128, 256):
        gradients(total)
    linreg_rounds()
    difference_rounds()
    commands()


if __name__ == "__main__":
    main()
