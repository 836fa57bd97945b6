"""Exchanges that travel while workers compute: the wall clock beside the virtual clock, on hosts with slow links.

    python scripts/bench_overlap.py        # as root; needs ip and tc

Four namespaces joined by links of 100 Mbit/s (netlab.py), one worker in each. A local method runs as in the runner, but
its gradient takes a fixed time in which the process sleeps, so that four workers do not compete for the cores of this
machine. The table's seconds are those of whole runs, and what a delay saves of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from gradients_alone import GradientsAlone
from netlab import NetLab, first_says
from torch import Tensor

from commexp.algorithms import AlgorithmContext, DiLoCo
from commexp.algorithms.gradient.base import Schedule
from commexp.comm import Communicator, Ledger, Processes
from commexp.compressors import FP4, CodecContext, Compressor, NoCompression
from commexp.network import Compute, Network, NoStragglers, VirtualClock
from commexp.problems import NonFiniteGuard
from commexp.problems.base import Ready

HOSTS, BANDWIDTH, DIM = 4, 100.0, 1_200_000
GRADIENT, STEPS, TAU = 0.05, 96, 16  # seconds of a gradient, local steps in all and between exchanges of a fragment
HEADERS = 66 / 1448  # what TCP over Ethernet adds, which the links of netlab carry as well
CODECS: dict[str, tuple[Compressor, str]] = {
    "fp32": (NoCompression(), "auto"),
    "fp4": (FP4(format="e3m0"), "quantised_all_reduce"),
}
CASES: list[tuple[str, int, int]] = [  # codec, fragments, delay
    ("fp32", 1, 0),
    ("fp32", 1, 8),
    ("fp32", 4, 0),
    ("fp32", 4, 1),
    ("fp32", 4, 3),
    ("fp4", 4, 0),
    ("fp4", 4, 1),
]


class Sleeping(GradientsAlone):
    """A gradient of ``DIM`` numbers that takes a fixed time and no processor."""

    def __init__(self) -> None:
        self.dim, self.shapes = DIM, {f"blocks.{b}.weight": [DIM // 4] for b in range(4)}
        self.samples = self.samples_per_step = 1

    def init(self, generator: torch.Generator) -> Tensor:
        return torch.ones(DIM)

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        begin = time.perf_counter()
        gradient = x * 0.01
        time.sleep(max(0.0, GRADIENT - (time.perf_counter() - begin)))
        return x.new_zeros(len(x)), gradient


def run(
    comm: Communicator, codec: Compressor, fragments: int = 1, delay: int = 0, tau: int = TAU, steps: int = STEPS
) -> tuple[DiLoCo, float]:
    """A whole run and its seconds on the wall."""
    problem = Sleeping()
    codec.setup(CodecContext(0, comm.worker_ids, problem.shapes))
    method = DiLoCo(lr=0.01, optimizer="sgd", schedule=Schedule(), tau=tau, fragments=fragments, delay=delay, mix=0.5)
    guard = NonFiniteGuard(problem, comm.worker_ids, "stop")
    method.setup(AlgorithmContext(guard, comm, codec, steps, problem.init(torch.Generator())))
    begin = time.perf_counter()
    for t in range(len(method.ends) - 1):
        comm.begin_round(t + 1, ask=False)
        method.round(t)
        comm.end_round()
    return method, time.perf_counter() - begin


def timed(links: Processes, name: str, fragments: int, delay: int) -> tuple[float, float]:
    """Seconds of a run on the virtual clock and on the wall. What a step takes on the clock is measured: of the same
    run, in the same processes at the same time, without an exchange."""
    codec, exchange = CODECS[name]
    links.tell("")
    alone = run(Communicator(1, Ledger(), exchange), codec, fragments, delay)[1] / STEPS
    compute = float(links.agree(torch.tensor([alone]))[0]) / HOSTS
    comm = Communicator(HOSTS, Ledger(), exchange, links=links)
    links.tell("")
    method, wall = run(comm, codec, fragments, delay)
    comm.settle()
    lengths = method.lengths(STEPS)
    network = Network(BANDWIDTH, 0.2, headers=HEADERS, compute=Compute(seconds=compute))
    clock = VirtualClock(network, NoStragglers(), HOSTS, 0, delays=method.delays_of(lengths))
    for t, steps in enumerate(lengths, 1):
        clock.round(t, float(steps), [entry for entry in comm.ledger.entries if entry.round == t])
    return clock.now, wall


def rank() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    links = Processes(timedelta(seconds=120))
    run(Communicator(HOSTS, Ledger(), links=links), NoCompression(), 4, 3)  # opens the connections
    found = [timed(links, *case) for case in CASES]
    if links.rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def table(found: Sequence[Sequence[float]]) -> str:
    heads = [
        f"{HOSTS} hosts, {BANDWIDTH:g} Mbit/s",
        "clock",
        "wall",
        "wall / clock",
        "saved: clock",
        "wall",
    ]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for (codec, fragments, delay), (clock, wall) in zip(CASES, found, strict=True):
        without = found[CASES.index((codec, fragments, 0))]
        saved = [f"{before - now:.2f} s" if delay else "" for before, now in zip(without, (clock, wall), strict=True)]
        name = f"{codec}, {fragments} fragment{'s' * (fragments > 1)}, delay {delay}"
        lines.append(f"| {' | '.join([name, f'{clock:.2f} s', f'{wall:.2f} s', f'{wall / clock:.3f}', *saved])} |")
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:] == ["rank"]:
        rank()
        return 0
    found = first_says(NetLab(HOSTS, BANDWIDTH), [sys.executable, __file__, "rank"], 400)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
