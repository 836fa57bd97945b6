"""Step time on slow links: ours and torch's DistributedDataParallel, on four hosts, for a model of 11 M parameters.

    python scripts/bench_net.py [Mbit/s ...]     # as root; needs ip and tc; 1000, 100 and 10 take about five minutes

Four namespaces with shaped links (netlab.py). The methods alternate step by step, so that all run under the same load;
the time of a step is that of the slowest worker. The model is a perceptron of wide layers on batches of four, whose
step consists almost entirely of the exchange. The table's numbers are medians of seconds and ratios to plain DDP at the
same rate.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from gradients_alone import GradientsAlone
from netlab import NetLab, NetLabError
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as powersgd
from torch.nn.parallel import DistributedDataParallel

from commexp.algorithms import SGD, AlgorithmContext
from commexp.comm import Communicator, Ledger, Processes
from commexp.compressors import FP16, CodecContext, Compressor, ErrorFeedback, NoCompression, PowerSGD, Sign, TopK
from commexp.launch.single import keep_memory
from commexp.problems import NonFiniteGuard
from commexp.problems.base import Ready
from commexp.problems.gradients import Batch, ModuleGradients
from commexp.problems.tasks import Classification

HOSTS, WIDTH, BATCH, LR = 4, 1900, 4, 1e-3
STEPS = {1000: 9, 100: 5, 10: 1}  # by rate; a dense step at 10 Mbit/s takes a minute
PLAIN = "DDP"
ONE = 100.0  # MB: one bucket. With several, torch's PowerSGD hook begins collectives in another order at each rank
Step = Callable[[], object]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(3)]
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.ReLU())), nn.Linear(WIDTH, 100))


class Perceptron(GradientsAlone):
    """The network on one batch."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.module = network()
        self.start = torch.cat([p.detach().flatten() for p in self.module.parameters()])
        self.gradients = ModuleGradients(self.module, Classification())
        self.dim, self.shapes = self.gradients.layout.dim, self.gradients.layout.shapes
        self.samples, self.samples_per_step, self.data = len(x), len(x), Batch((x[None], y[None]))

    def init(self, generator: torch.Generator) -> Tensor:
        return self.start

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        return self.gradients(x, self.data, ready)


def ours(codec: Compressor, x: Tensor, y: Tensor, links: Processes) -> Step:
    """What the runner does in a round, evaluations and tables left out."""
    problem = Perceptron(x, y)
    comm = Communicator(HOSTS, Ledger(), links=links, ask=lambda: (0, 0, 0))
    codec.setup(CodecContext(0, comm.worker_ids, problem.shapes))
    algorithm = SGD(lr=LR)
    algorithm.setup(
        AlgorithmContext(NonFiniteGuard(problem, comm.worker_ids, "stop"), comm, codec, 10**6, problem.start)
    )

    def step() -> None:
        comm.begin_round(comm.ledger.round + 1)
        algorithm.round(comm.ledger.round)
        comm.end_round()

    return step


def theirs(hook: tuple[object, Callable[..., object]] | None, x: Tensor, y: Tensor, bucket: float = 25) -> Step:
    model = DistributedDataParallel(network(), bucket_cap_mb=bucket)
    optimiser = torch.optim.SGD(model.parameters(), LR)
    if hook is not None:
        model.register_comm_hook(*hook)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()

    return step


def rank(scratch: Path, rates: list[float]) -> None:
    keep_memory()  # as our runs do; torch's methods have the benefit, too
    dist.init_process_group("gloo", timeout=timedelta(seconds=600))
    links = Processes(timedelta(seconds=600))
    generator = torch.Generator().manual_seed(links.rank)
    x, y = torch.randn(BATCH, WIDTH, generator=generator), torch.randint(100, (BATCH,), generator=generator)
    low_rank = powersgd.PowerSGDState(None, matrix_approximation_rank=4, start_powerSGD_iter=2)
    steps = {
        PLAIN: theirs(None, x, y),
        "ours, dense": ours(NoCompression(), x, y, links),
        "DDP, fp16 hook": theirs((None, default_hooks.fp16_compress_hook), x, y),
        "ours, fp16": ours(FP16(), x, y, links),
        "DDP, PowerSGD hook, rank 4": theirs((low_rank, powersgd.powerSGD_hook), x, y, ONE),
        "ours, PowerSGD rank 4": ours(ErrorFeedback(PowerSGD(rank=4)), x, y, links),
        "ours, Top-k 1 %": ours(ErrorFeedback(TopK(k=0.01)), x, y, links),
        "ours, Top-k 0.1 %": ours(ErrorFeedback(TopK(k=0.001)), x, y, links),
        "ours, sign": ours(ErrorFeedback(Sign()), x, y, links),
    }
    for step in [s for s in steps.values() for _ in range(3)]:  # DDP groups its buckets anew, PowerSGD begins
        step()
    for rate in rates:
        ask(links, scratch, rate)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for name in list(steps) * STEPS.get(int(rate), 3):
            links.tell("")
            begin = time.perf_counter()
            steps[name]()
            own = int(1e6 * (time.perf_counter() - begin))
            seconds[name].append(int(links.counts(torch.tensor([own])).max()) / 1e6)
        if links.rank == 0:
            (scratch / f"done-{rate}").write_text(json.dumps({n: statistics.median(s) for n, s in seconds.items()}))
    dist.destroy_process_group()


def ask(links: Processes, scratch: Path, rate: float) -> None:
    """Waits until the links have this rate."""
    links.tell("")
    if links.rank == 0:
        (scratch / f"ask-{rate}").touch()
        while not (scratch / f"shaped-{rate}").exists():
            time.sleep(0.05)
    links.tell("")


def measure(rates: list[float]) -> dict[float, dict[str, float]]:
    with NetLab(HOSTS, None) as lab, tempfile.TemporaryDirectory() as folder:
        scratch, command = Path(folder), [sys.executable, __file__, "rank", folder, *map(str, rates)]
        with open(scratch / "told", "wb") as told:
            ranks = [lab.start(h, command, lab.rank_env(h), stderr=told) for h in range(HOSTS)]
        for rate in rates:
            for event in ("ask", "done"):
                while not (scratch / f"{event}-{rate}").exists():
                    if any(r.poll() for r in ranks):
                        raise NetLabError((scratch / "told").read_text()[-2000:])
                    time.sleep(0.05)
                if event == "ask":
                    lab.shape(rate)
                    (scratch / f"shaped-{rate}").touch()
        return {rate: json.loads((scratch / f"done-{rate}").read_text()) for rate in rates}


def main() -> int:
    if sys.argv[1:2] == ["rank"]:
        rank(Path(sys.argv[2]), [float(r) for r in sys.argv[3:]])
        return 0
    rates = [float(r) for r in sys.argv[1:]] or [1000.0, 100.0, 10.0]
    try:
        found = measure(rates)
    except NetLabError as error:
        print(f"bench_net: {error}", file=sys.stderr)
        return 2
    print("| step time | " + " | ".join(f"{rate:g} Mbit/s | / DDP" for rate in rates) + " |")
    print("| --- |" + " --- | --- |" * len(rates))
    for name in found[rates[0]]:
        cells = [f"{found[r][name]:.3g} s | {found[r][name] / found[r][PLAIN]:.3g}" for r in rates]
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
