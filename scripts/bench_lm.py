"""Steps of language models and small networks, and their memory, as ratios to plain torch loops in this run.

    python scripts/bench_lm.py           # one thread

Every time is the least of many repetitions in which all candidates take turns, so that other work on the machine, which
only adds time, does not decide. Memory is the largest resident set of a child process, less what it had before the run.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from bench_core import make
from torch import Tensor, nn

from commexp.experiment.setup import ExperimentSetup
from commexp.problems.models import MLP
from commexp.problems.models.gpt import GPT, Decoder
from commexp.report.tables import markdown

BLOCK, WINDOWS, VOCABULARY = 64, 32, 256  # tokens of a window; windows of all workers in a step
ADAMW = ("algo.optimizer=adamw", "algo.lr=0.003", "algo.betas=[0.9,0.95]", "algo.weight_decay=0.1")
PLAIN = ("algo.weight_decay_on=all", "algo.schedule.kind=constant", "algo.schedule.warmup=0", "clip=null")
Step = Callable[[], object]


def least(calls: Sequence[Step], turns: int) -> list[float]:
    """The least seconds of each call; the calls take turns."""
    times = [float("inf")] * len(calls)
    for turn in range(turns + 2):
        for i, call in enumerate(calls):
            begin = time.process_time()
            call()
            if turn >= 2:
                times[i] = min(times[i], time.process_time() - begin)
    return times


def rounds(setup: ExperimentSetup) -> Iterator[None]:
    """The rounds of a run, as the loop of commexp takes them, without evaluations."""
    t = 0
    while True:
        setup.comm.begin_round(t + 1, False)
        setup.guard.round = t + 1
        setup.algorithm.round(t)
        setup.comm.end_round()
        t += 1
        yield


def ours(*overrides: str) -> Step:
    """One round."""
    endless = rounds(make(*overrides, "rounds=100000"))
    return lambda: next(endless)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.003, betas=(0.9, 0.95), weight_decay=0.1)


def bare(models: Sequence[nn.Module], draw: Callable[[], tuple[Tensor, Tensor]], optimizer: Any) -> Step:
    """A step of each model, with a batch and an optimiser of its own: what one writes without commexp."""
    optimizers = [optimizer(model) for model in models]

    def step() -> None:
        for model, update in zip(models, optimizers, strict=True):
            x, y = draw()
            update.zero_grad()
            logits = model(x)
            F.cross_entropy(logits.flatten(0, -2), y.flatten()).backward()  # type: ignore[no-untyped-call]
            update.step()

    return step


def windows(count: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Draws random windows of a random text."""
    stream = torch.randint(VOCABULARY, (1_000_000,))
    places = torch.arange(BLOCK + 1)

    def draw() -> tuple[Tensor, Tensor]:
        tokens = stream[torch.randint(len(stream) - BLOCK, (count, 1)) + places]
        return tokens[:, :-1], tokens[:, 1:]

    return draw


def decoder(options: GPT) -> nn.Module:
    return Decoder(options, VOCABULARY, BLOCK)


def language_models(turns: int) -> None:
    """W workers' local steps with AdamW, all with the same number of tokens together."""
    print(
        f"Local SGD with AdamW, a step of {WINDOWS * BLOCK} tokens of all workers together, over a bare torch loop of"
    )
    print("one model on all of them; aims: 1.3 at W = 4, 1.5 at W = 8\n")
    rows = []
    for name, options in (("gpt", GPT()), ("gpt_800k", GPT(layers=4, width=128))):
        one, data = decoder(options), ("dataset=text", f"model={name}", *ADAMW, *PLAIN)
        calls = [bare([one], windows(WINDOWS), adamw)]
        for w in (1, 4, 8):
            size = f"batch_size={WINDOWS // w}"
            calls.append(ours(*data, "algo=localsgd", "algo.tau=1", f"workers={w}", size))
        calls.append(bare([decoder(options) for _ in range(8)], windows(WINDOWS // 8), adamw))
        base, *times = least(calls, turns)
        size = f"{sum(p.numel() for p in one.parameters()) / 1e6:.2f} M"
        rows.append([f"{name}, {size}", *(f"{t / base:.2f}" for t in times), f"{1e3 * base:.1f}"])
    print(markdown(["model", "W = 1", "W = 4", "W = 8", "bare, 8 models", "bare, ms"], rows), "\n")


def generic_module(turns: int) -> None:
    """A module that is known to nobody, worker by worker."""
    data = ("dataset=text", "model=gpt", *ADAMW, *PLAIN, "speed.workers=loop", "algo=localsgd", "algo.tau=1")
    calls = [bare([decoder(GPT()) for _ in range(4)], windows(8), adamw), ours(*data, "workers=4", "batch_size=8")]
    base, time_ = least(calls, turns)
    print("Any module, worker by worker (speed.workers=loop), four GPTs of 0.1 M parameters with AdamW, over a bare")
    print(f"loop over four models: {time_ / base:.2f} (aim: 1.15)\n")


def overhead(turns: int) -> None:
    """A step that is almost nothing but calls: a small network on small batches."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels)
    make_mlp = lambda: MLP(hidden=[128, 128]).module((64,), 10)  # noqa: E731

    def draw(count: int) -> Callable[[], tuple[Tensor, Tensor]]:
        def some() -> tuple[Tensor, Tensor]:
            rows = torch.randint(len(x), (count,))
            return x[rows], y[rows]

        return some

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.001)

    data = ("dataset=digits", "model=mlp", "model.hidden=[128,128]", "algo.lr=0.1")
    local = ("algo=localsgd", "algo.tau=1")
    names = ["bare torch, one model, 128 samples", "bare torch, 8 models, 16 samples each", "sgd, W = 1, 128 samples"]
    names += ["sgd, W = 8", "localsgd, W = 8"]
    calls = [
        bare([make_mlp()], draw(128), sgd),
        bare([make_mlp() for _ in range(8)], draw(16), sgd),
        ours(*data, "workers=1", "batch_size=128"),
        ours(*data, "workers=8"),
        ours(*data, *local, "workers=8"),
    ]
    base, *_ = times = least(calls, turns)
    aims = ["", "", "1.2", "1.6", "1.9"]
    rows = [[n, f"{t / base:.2f}", aim, f"{1e3 * t:.2f}"] for n, t, aim in zip(names, times, aims, strict=True)]
    print("A step of a 64-128-128-10 perceptron, 16 samples of each of 8 workers\n")
    print(markdown(["step", "over bare torch", "aim", "ms"], rows), "\n")


MEMORY = {
    "localsgd, AdamW, W = 8": ("algo=localsgd", "algo.tau=2", *ADAMW, "workers=8"),
    "localsgd, SGD with momentum, W = 8": ("algo=localsgd", "algo.tau=2", "algo.momentum=0.9", "workers=8"),
    "diloco, AdamW, W = 8": ("algo=diloco", "algo.tau=2", "algo.lr=0.003", "workers=8"),
    "sgd, AdamW, W = 8": ("algo=sgd", *ADAMW, "workers=8"),
    "sgd, AdamW, W = 1": ("algo=sgd", *ADAMW, "workers=1"),
}
BIG = ("dataset=digits", "model=mlp", "batch_size=4")
LARGE = "model.hidden=[1024,1024,1024,1024,1024,1024,1024]"


def memory() -> None:
    """Peak memory of rounds over the sum of parameters, gradients and states of optimisers of all workers."""
    rows = []
    for name in MEMORY:
        found = subprocess.run([sys.executable, __file__, "memory", name], check=True, capture_output=True, text=True)
        dim, needed, peak = json.loads(found.stdout)
        rows.append([name, f"{dim / 1e6:.1f} M", f"{needed / 1e6:.0f}", f"{peak / needed:.2f}"])
    print("Peak memory of all workers together over parameters, gradients and states of optimisers (aim: 1.3)\n")
    print(markdown(["method", "J", "these, MB", "peak over these"], rows), "\n")


def peak_of(name: str) -> None:
    """In a process of its own: prints J, the bytes of parameters, gradients and states, and the peak after start-up."""
    small = make(*BIG, *MEMORY[name], "model.hidden=[8]", "rounds=3")
    endless = rounds(small)
    for _ in range(2):
        next(endless)  # what is loaded at first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    setup = make(*BIG, *MEMORY[name], LARGE, "rounds=3")
    endless = rounds(setup)
    for _ in range(3):
        next(endless)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    algorithm: Any = setup.algorithm
    dim, gradients = setup.problem.dim, len(setup.comm.worker_ids) * setup.problem.dim
    optimizers = [algorithm.update, *([algorithm.outer] if hasattr(algorithm, "outer") else [])]
    states = sum(buffer.numel() for optimizer in optimizers for buffer in optimizer.buffers.values())
    print(json.dumps([dim, 4 * (algorithm.x.numel() + gradients + states), peak]))


def commands(turns: int) -> None:
    """Whole commands, beside an interpreter that only imports torch; seconds of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "commexp", "rounds=2", f"outputs={folder}", "rerun=true"]
        words = {
            "import torch": [sys.executable, "-c", "import torch"],
            "commexp dataset=toy rounds=2 (aim: 1.4)": [*run, "dataset=toy"],
            "commexp dataset=digits model=mlp rounds=2 (aim: 2.0)": [*run, "dataset=digits", "model=mlp"],
        }
        times = dict.fromkeys(words, float("inf"))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(turns + 1):  # in the first one Python compiles
            for name, command in words.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(command, check=True, capture_output=True, env=environment)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                times[name] = min(times[name], spent) if turn else times[name]
    base = times["import torch"]
    rows = [[name, f"{seconds / base:.2f}", f"{seconds:.2f}"] for name, seconds in times.items()]
    print(markdown(["whole command", "over import torch", "seconds"], rows), "\n")


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["memory"]:
        peak_of(sys.argv[2])
        return
    print(f"torch {torch.__version__}, one thread\n")
    commands(5)
    memory()
    overhead(300)
    generic_module(40)
    language_models(25)


if __name__ == "__main__":
    main()
