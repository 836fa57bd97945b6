"""Islands of workers: the wall clock beside the virtual clock, on hosts with fast links inside and slow ones between.

    python scripts/bench_islands.py        # as root; needs ip and tc

Four namespaces (netlab.py) as two islands, one worker in each: links of 400 Mbit/s inside an island and of 50 Mbit/s
between the two. A method runs as in the runner, but its gradient takes a fixed time in which the process sleeps, so
that four workers do not compete for the cores of this machine. What a step takes on the clock is measured in the same
processes without an exchange. The table's seconds are those of whole runs; below each method stands the same without
islands, over the slow links alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from bench_overlap import DIM, HEADERS, Sleeping
from netlab import NetLab, first_says

from commexp.algorithms import SGD, Algorithm, AlgorithmContext, DiLoCo, LocalSGD
from commexp.algorithms.gradient.base import Schedule
from commexp.comm import Communicator, Ledger, Members, Processes
from commexp.compressors import CodecContext, Compressor, NoCompression, TopK
from commexp.network import Compute, Link, Network, NoStragglers, VirtualClock
from commexp.problems import NonFiniteGuard, SharedGradients

HOSTS, ISLANDS, SLOW, FAST = 4, 2, 50.0, 400.0
LOCAL = {"lr": 0.01, "schedule": Schedule(), "optimizer": "sgd", "momentum": 0.0}
#: what it is called, local steps, the method and the compressor
CASES: list[tuple[str, int, Algorithm, Compressor]] = [
    ("SGD, dense", 10, SGD(**LOCAL), NoCompression()),
    ("SGD, Top-k 1 %", 10, SGD(**LOCAL), TopK(k=0.01)),
    ("DiLoCo, H = 16, gradients shared inside", 48, DiLoCo(**LOCAL, tau=16), NoCompression()),
    ("LocalSGD, H = 16, models averaged inside every 4", 48, LocalSGD(**LOCAL, tau=16, inside=4), NoCompression()),
]


def run(comm: Communicator, method: Algorithm, codec: Compressor, steps: int) -> float:
    """Seconds of a whole run on the wall."""
    problem = Sleeping()
    codec.setup(CodecContext(0, comm.worker_ids, problem.shapes))
    guard = NonFiniteGuard(problem, comm.members.member_ids, "stop")
    context = AlgorithmContext(guard, comm, codec, steps, problem.init(torch.Generator()))
    if comm.members.each > 1:
        context.problem = SharedGradients(guard, comm.inside_mean, comm.members.expanded)
        context.members_problem = guard
    method.setup(context)
    begin = time.perf_counter()
    for t in range(len(method.lengths(steps))):
        comm.begin_round(t + 1, ask=False)
        method.round(t)
        comm.end_round()
    return time.perf_counter() - begin


def timed(links: Processes, case: int, islands: int | None) -> tuple[float, float, int]:
    """Seconds of a run on the virtual clock and on the wall; bytes between the islands, or between all hosts."""
    _, steps, method, codec = CASES[case]
    links.tell("")
    alone = run(Communicator(1, Ledger()), method, codec, steps) / steps
    compute = float(links.agree(torch.tensor([alone]))[0]) / HOSTS
    ledger = Ledger(islands)
    comm = Communicator(HOSTS, ledger, links=links, members=Members.of(links, HOSTS, islands))
    links.tell("")
    wall = run(comm, method, codec, steps)
    comm.settle()
    network = Network(SLOW, 0.2, headers=HEADERS, compute=Compute(seconds=compute), inside=Link(FAST))
    clock = VirtualClock(network, NoStragglers(), HOSTS, 0, islands=islands)
    for t, length in enumerate(method.lengths(steps), 1):
        clock.round(t, float(length), [entry for entry in ledger.entries if entry.round == t])
    return clock.now, wall, int(ledger.bytes_wire - ledger.bytes_inside)


def rank() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    links = Processes(timedelta(seconds=120))
    found = [timed(links, case, islands) for case in range(len(CASES)) for islands in (ISLANDS, None)]
    if links.rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def table(found: Sequence[Sequence[float]]) -> str:
    heads = [f"{ISLANDS} islands of {HOSTS // ISLANDS} hosts, {DIM / 1e6:g} M entries", "clock", "wall", "wall / clock"]
    lines = [f"| {' | '.join([*heads, 'MB on slow links'])} |", f"|{' --- |' * (len(heads) + 1)}"]
    for i, (clock, wall, moved) in enumerate(found):
        name = CASES[i // 2][0] if i % 2 == 0 else "the same without islands"
        lines.append(f"| {name} | {clock:.2f} s | {wall:.2f} s | {wall / clock:.3f} | {moved / 1e6:.1f} |")
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:] == ["rank"]:
        rank()
        return 0
    found = first_says(NetLab(HOSTS, SLOW, ISLANDS, FAST), [sys.executable, __file__, "rank"], 400)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
