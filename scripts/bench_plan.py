"""Plans against the truth: seconds of a round as commexp-plan has them, and of runs on hosts with slow links.

    python scripts/bench_plan.py        # as root; needs ip and tc; two minutes

Four namespaces joined by links of 200 Mbit/s (netlab.py), one worker in each. A method runs as in the runner, but its
gradient takes a fixed time in which the process sleeps, so that four workers do not compete for the cores of this
machine. What a local step takes without exchange and compressor is measured in the same processes, and so is, of the
compressor, what encoding and decoding take (network.compute.coding=measured), in all of them at the same time. A plan
is made before its run, by Forecast, from overrides as a user types them.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from gradients_alone import GradientsAlone
from netlab import NetLab, first_says
from torch import Tensor

from commexp.algorithms import AlgorithmContext
from commexp.api import compose_config
from commexp.comm import Communicator, Ledger, Processes
from commexp.compressors import CodecContext
from commexp.config.plan import Plan, prepare
from commexp.experiment.forecast import Forecast, Workload
from commexp.problems import NonFiniteGuard
from commexp.problems.base import Ready

HOSTS, BANDWIDTH, DIM, GRADIENT = 4, 200.0, 4_000_000, 0.25  # Mbit/s, parameters, seconds
HEADERS = 66 / 1448  # what TCP over Ethernet adds, which the links of netlab carry as well
BLOCKS = 16
SHAPES = {f"blocks.{b}.weight": (1000, DIM // BLOCKS // 1000) for b in range(BLOCKS)}
LINKS = ["network=ethernet_100m", f"network.bandwidth={BANDWIDTH}", f"network.headers={HEADERS:.4f}"]
LOCAL = ["algo.optimizer=sgd", "algo.lr=1e-3"]  # AdamW's step takes a processor that four hosts would share
CASES: dict[str, tuple[list[str], int]] = {  # overrides, local steps of the run
    "dense": (["network.overlap=true"], 5),
    "fp16": (["compress=fp16", "network.overlap=true"], 8),
    "topk k=0.01": (["compress=topk", "compress.k=0.01"], 12),
    "diloco tau=8": ([*LOCAL, "algo=diloco", "algo.tau=8"], 24),
    "streaming_diloco tau=16 fragments=4 delay=2": (
        [*LOCAL, "algo=streaming_diloco", "algo.tau=16", "algo.fragments=4", "algo.delay=2"],
        32,
    ),
}


class Sleeping(GradientsAlone):
    """A gradient of ``DIM`` numbers that takes a fixed time and no processor; its blocks become final one after the
    other in the last two thirds, from the end on."""

    def __init__(self) -> None:
        self.dim, self.shapes, self.samples, self.samples_per_step = DIM, SHAPES, 1, 1
        self.gradient = torch.randn(1, DIM, generator=torch.Generator().manual_seed(0))

    def init(self, generator: torch.Generator) -> Tensor:
        return torch.ones(DIM)

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        begin = time.perf_counter()
        gradient = self.gradient.clone()
        for left in reversed(range(BLOCKS)):
            time.sleep(max(0.0, begin + GRADIENT * (1 - 2 / 3 * left / BLOCKS) - time.perf_counter()))
            if ready is not None:
                ready(gradient[0], DIM * left // BLOCKS)
        return x.new_zeros(len(x)), gradient


def ran(plan: Plan, comm: Communicator, steps: int) -> tuple[int, float]:
    """The rounds of a run, and their seconds."""
    problem, method, codec = Sleeping(), plan.algorithm, plan.compressor
    codec.setup(CodecContext(0, comm.worker_ids, problem.shapes))
    guard = NonFiniteGuard(problem, comm.worker_ids, "stop")
    method.setup(AlgorithmContext(guard, comm, codec, steps, problem.init(torch.Generator())))
    rounds = len(method.lengths(steps))
    comm.links.tell("")
    begin = time.perf_counter()
    for t in range(rounds):
        comm.begin_round(t + 1, ask=False)
        method.round(t)
        comm.end_round()
    comm.links.tell("")
    return rounds, time.perf_counter() - begin


def rank() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    links, found = Processes(timedelta(seconds=120)), {}
    for name, (words, steps) in CASES.items():
        words = [f"workers={HOSTS}", *LINKS, *words]
        plain = prepare(compose_config([word for word in words if not word.startswith("compress")]))
        alone = ran(plain, Communicator(1, Ledger()), steps)[1] / steps
        compute = float(links.agree(torch.tensor([alone], dtype=torch.float64))[0]) / HOSTS
        words += [f"network.compute.seconds={compute:.5f}", "network.compute.coding=measured"]
        links.tell("")
        forecast = Forecast(prepare(compose_config(words)), Workload.of(Sleeping(), None), steps)
        planned = forecast.seconds(forecast.network)
        plan = prepare(compose_config(words))
        ran(plan, Communicator(HOSTS, Ledger(), links=links), min(steps, 2))  # opens the connections
        rounds, seconds = ran(prepare(compose_config(words)), Communicator(HOSTS, Ledger(), links=links), steps)
        coding = forecast.coding.encode + forecast.coding.decode
        found[name] = (compute, coding, planned / rounds, seconds / rounds, forecast.computing() / planned)
    if links.rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def main() -> int:
    if sys.argv[1:] == ["rank"]:
        rank()
        return 0
    found = first_says(NetLab(HOSTS, BANDWIDTH), [sys.executable, __file__, "rank"], 540)
    heads = [
        f"{HOSTS} hosts, {BANDWIDTH:g} Mbit/s",
        "a step alone",
        "encoding and decoding",
        "planned round",
        "its seconds",
        "run / plan",
        "busy",
    ]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, (alone, coding, planned, seconds, busy) in found.items():
        cells = [
            name,
            f"{1e3 * alone:.1f} ms",
            f"{1e3 * coding:.1f} ms",
            f"{planned:.3f} s",
            f"{seconds:.3f} s",
            f"{seconds / planned:.3f}",
        ]
        print(f"| {' | '.join(cells)} | {100 * busy:.1f} % |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
