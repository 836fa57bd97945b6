"""Checks commexp on a GPU: python scripts/gpu_check.py, in under 8 minutes; see docs/gpu.md.

Prints a line for each check and writes outputs/gpu_check.json; exit status 1 if any check failed. It downloads nothing,
and commexp need not be installed. ``--device cpu --tiny`` runs the same checks on small inputs, without a GPU.
``--only codecs,speed`` runs these parts alone and keeps what the file holds of the others.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # of processes

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

#: the parts, and after how many seconds of its own no check of a part begins
PARTS = {"codecs": 60.0, "algorithms": 110.0, "processes": 60.0, "speed": 60.0, "steps": 70.0, "science": 70.0}
BANDWIDTH = 3e12  # bytes per second of an H100's memory, of which what a codec does is told in multiples
FUZZ = 300  # mutated messages per codec: what a GPU adds to them is little
TOLERANCE = 1e-6  # of the GPU's numbers, relative to the CPU's, in float64
NETWORK_TOLERANCE = 0.02  # of a convolutional network's in float32, which cuDNN multiplies in TF32
SHORT = ("odd inputs", "reduce", "resume")
LINREG = ("dataset=linreg", "model=linear_regression", "dataset.samples=20", "dataset.dim=40", "workers=4")
RATINGS = ("dataset=ratings", "workers=4", "dataset.users=40", "dataset.items=30")
DIGITS = ("model.width=8", "batch_size=8", "workers=4")
#: of methods that do not minimise what linear regression is, and of one that needs matrices
PROBLEM = {"ssp": RATINGS, "sync_ps": RATINGS, "muloco": ("batch_size=8", "workers=4", "model=mlp", "model.hidden=[8]")}
FEW, TIMES = 5, 15  # timings of what is tiny, and of what is not
ENOUGH = 4.0  # seconds, after which three timings are enough

SHARES = (0.001, 0.01, 0.1)  # of the entries that are selected
TEXT = ("dataset=text", "dataset.level=byte", "workers=4", "speed.amp=true", "flatness=none")
LANGUAGE = {  # by what they are called: an exchange after 30 local steps, but for the first
    "dense": ("algo=sgd", "algo.optimizer=adamw", "algo.lr=0.001"),
    "DiLoCo": ("algo=diloco", "algo.tau=30"),
    "MuLoCo": ("algo=muloco", "algo.tau=30"),
    "SparseLoCo": ("algo=sparseloco", "algo.tau=30"),
    "DPPF": ("algo=dppf", "algo.tau=30", "algo.optimizer=adamw", "algo.lr=0.001"),
}
RECIPE = ("algo.lr=0.1", "algo.momentum=0.9", "algo.weight_decay=0.0005", "algo.schedule.kind=cosine")
FASHION = (
    "dataset=fashion_mnist",
    "dataset.augment.crop=2",
    "dataset.augment.flip=true",
    "speed.amp=true",
)
IMAGES = {"dense": ("algo=sgd",), "LocalSGD": ("algo=localsgd", "algo.tau=8"), "DPPF": ("algo=dppf", "algo.tau=8")}

Outcome = dict[str, Any]
Check = tuple[str, str, Callable[[], Outcome]]  # its part, its name, what it does


class SkipError(Exception):
    """Why a check cannot be made here."""


class Checks:
    """All checks, on one device. ``fashion``: the folder of Fashion-MNIST's files. ``epochs``: of the study on it."""

    def __init__(self, device: torch.device, tiny: bool, scratch: Path, fashion: Path, epochs: int = 6) -> None:
        self.device, self.tiny, self.scratch, self.fashion, self.epochs = device, tiny, scratch, fashion, epochs
        self.cuda = device.type == "cuda"

    def __iter__(self) -> Iterator[Check]:
        from commexp.config.schema import CONF

        names = {group: sorted(p.stem for p in (CONF / group).glob("*.yaml")) for group in ("compress", "algo")}
        for codec in names["compress"]:
            yield "codecs", f"codec {codec}", partial(self.codec, codec)
        for algo in names["algo"]:
            yield "algorithms", f"algorithm {algo}", partial(self.algorithm, algo)
        yield "algorithms", "a convolutional network, float32", self.network
        yield "processes", "the DDP hook", self.ddp_hook
        if not self.tiny:
            yield "processes", f"one process by torchrun, {'NCCL' if self.cuda else 'Gloo'}", partial(self.processes, 1)
        yield "processes", "two processes by torchrun, Gloo", partial(self.processes, 2)
        yield "processes", "resumed after kill -9 of a rank", self.killed
        for count in (10**5,) if self.tiny else (10**7, 10**8, 10**9):
            for share in SHARES[:1] if self.tiny else SHARES:
                yield "speed", f"top {share:g} of {count:.0e} entries", partial(self.top_k, count, share)
        for codec in ("sign", "kbit", "qsgd", "int8", "fp8"):
            yield "speed", f"packing of {codec}", partial(self.packing, codec, 10**4 if self.tiny else 10**8)
        for model in ("mlp",) if self.tiny else ("resnet18", "gpt_10m", "gpt_124m"):
            for workers in (1, 2) if self.tiny else (1, 8, 32):
                if (model, workers) != ("gpt_124m", 32):  # parameters and gradients alone would take 32 GB
                    yield "steps", f"a step of {model}, W = {workers}", partial(self.step, model, workers)
        for name in LANGUAGE:
            yield "science", f"text, {name}", partial(self.text, name)
        for name in IMAGES:
            yield "science", f"Fashion-MNIST, {name}", partial(self.images, name)

    def codec(self, name: str) -> Outcome:
        """The conformance checks of commexp-check, on tensors there."""
        from omegaconf import OmegaConf

        from commexp.check.compressor import CHECKS
        from commexp.check.drive import on
        from commexp.check.fuzz import corrupt_messages
        from commexp.compressors import Compressor
        from commexp.config.components import around_codec, build
        from commexp.config.schema import CONF, node_of

        given = {"preset": {}, "compress": node_of(CONF / "compress" / f"{name}.yaml", "compress")}
        node: Any = OmegaConf.to_container(OmegaConf.create(given), resolve=True)["compress"]  # type: ignore[index,call-overload]
        around_codec(node)
        failed = []
        for label, check in CHECKS.items():
            if self.tiny and label not in SHORT:
                continue
            check = partial(corrupt_messages, messages=FUZZ) if label == "corrupt messages" else check
            try:
                with torch.no_grad(), on(self.device):
                    check(partial(build, node, "compress", Compressor))  # type: ignore[type-abstract]
            except Exception as error:
                failed.append(f"{label}: {one_line(error)}")
        assert not failed, "; ".join(failed)
        return {}

    def last_rows(self, overrides: Sequence[str], **launches: tuple[str, int]) -> list[dict[str, Any]]:
        """Of metrics.csv, of the same run for each device and number of processes, 0 for one without torchrun. Raises
        what a run ended with."""
        from commexp.api import compose_config
        from commexp.config.plan import prepare
        from commexp.launch.launch import launch

        config, rows = compose_config(overrides), []
        for name, (device, processes) in launches.items():
            config.outputs, config.launch.device = str(self.scratch / name), device
            config.launch.kind, config.launch.nproc = ("torchrun", processes) if processes else ("single", 1)
            with redirect_stderr(io.StringIO()):
                run = launch(prepare(config))
            assert run.status == "completed", f"ended as {run.status}: {run.meta.get('error')}"
            rows.append(run.rows("metrics")[-1])
        return rows

    def beside(self, tolerance: float, *overrides: str) -> Outcome:
        """The run on the device and on the CPU: the last row of each must agree. On the device it is the same twice."""
        places = {"here": (str(self.device), 0), "again": (str(self.device), 0), "cpu": ("cpu", 0)}
        here, again, there = self.last_rows(overrides, **places)
        compared = {k: (here[k], there[k]) for k in there if not k.endswith("wall_seconds")}
        moved = [k for k in compared if distance(here[k], again[k])]
        assert not moved, f"{moved[0]} is {here[moved[0]]} once and {again[moved[0]]} the second time"
        off = {k: distance(*pair) for k, pair in compared.items()}
        worst = max(off, key=lambda k: off[k])
        text = f"{worst} is {compared[worst][0]} here, {compared[worst][1]} on the CPU"
        assert off[worst] <= tolerance, f"{text}: {off[worst]:.2g} off, {tolerance:g} is allowed"
        return {"worst": worst, "off": off[worst]}

    def algorithm(self, name: str) -> Outcome:
        rounds = 2 if self.tiny else 5
        words = (f"algo={name}", *PROBLEM.get(name, LINREG), f"rounds={rounds}", f"eval_every={rounds}")
        return self.beside(TOLERANCE, *words, "dtype=float64")

    def network(self) -> Outcome:
        rounds = 1 if self.tiny else 5
        return self.beside(NETWORK_TOLERANCE, *DIGITS, "compress=topk", f"rounds={rounds}", f"eval_every={rounds}")

    def processes(self, count: int) -> Outcome:
        """What they find, beside one process without torchrun, on the same device."""
        words = (*LINREG, "rounds=3", "eval_every=3", "dtype=float64", "compress=topk", "compress.k=0.2")
        device = "cuda" if self.cuda else "cpu"
        words = (*words, "launch=torchrun", "launch.timeout=60")
        alone, found = self.last_rows(words, alone=(device, 0), processes=(device, count))
        off = distance(found["train_loss"], alone["train_loss"])
        assert off <= TOLERANCE, f"train_loss is {found['train_loss']}, of one process {alone['train_loss']}"
        return {"off": off}

    def ddp_hook(self) -> Outcome:
        """A process group of this process alone: the gradient is what the codec keeps of it."""
        from commexp.compressors import FP16, PowerSGD, TopK
        from commexp.integrations.ddp import hook

        if self.cuda:
            torch.cuda.set_device(self.device)
        backend = "nccl" if self.cuda else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=60))
        try:
            for codec in (TopK(k=0.1), FP16(), PowerSGD()):
                torch.manual_seed(0)
                model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 10)).to(self.device)
                compress = hook(codec, timeout=timedelta(seconds=60))
                ddp = DistributedDataParallel(model, device_ids=[self.device] if self.cuda else None)
                ddp.register_comm_hook(model, compress)
                sent = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
                given = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
                for step in range(4):
                    x = torch.randn(8, 30, generator=torch.Generator().manual_seed(step)).to(self.device)
                    own = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
                    ddp.zero_grad()
                    value = ddp(x).square().sum()
                    (value * math.inf if step == 2 else value).backward()
                    for (name, p), g in zip(model.named_parameters(), own, strict=True):
                        assert p.grad is not None
                        if step == 2:
                            assert bool(p.grad.isnan().all()), f"{codec.name}: {name} is not NaN after an infinite loss"
                        else:
                            sent[name] += p.grad
                            given[name] += g
                state = compress.state_dict()
                for name in sent:
                    whole = sent[name] + state[f"{name}..workers.residual"].view_as(sent[name])
                    off = float((whole - given[name]).abs().max() / given[name].abs().max())
                    assert off < 1e-3, f"{codec.name}: sent + residual of {name} is {off:.2g} off the gradients"
        finally:
            dist.destroy_process_group()
        return {"backend": backend}

    def killed(self) -> Outcome:
        """Two processes of which one is killed while they run; the launcher starts them anew, and the end is that of a
        run left in peace."""
        rounds = 60 if self.tiny else 400
        device = "cuda" if self.cuda else "cpu"
        words = [*LINREG, f"rounds={rounds}", f"eval_every={rounds}", "save_every=10", "dtype=float64"]
        words += ["compress=topk", "compress.k=0.2", "algo.momentum=0.5", f"launch.device={device}"]
        (alone,) = self.last_rows(words, alone=(device, 0))
        out = self.scratch / "killed"
        more = ["launch=torchrun", "launch.nproc=2", "launch.max_restarts=2", "launch.timeout=60", f"outputs={out}"]
        command = [sys.executable, "-m", "commexp", *words, *more]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as launcher:
            ends = time.monotonic() + 60
            while not list(out.glob("runs/*/checkpoints/*.safetensors")) and launcher.poll() is None:
                assert time.monotonic() < ends, "no checkpoint within 60 s"
                time.sleep(0.005)
            ranks = children(launcher.pid)
            assert ranks, "it has ended before a rank could be killed"
            os.kill(ranks[-1], signal.SIGKILL)
            _, told = launcher.communicate(timeout=120)
        assert launcher.returncode == 0, one_line(RuntimeError(told[-300:]))
        (folder,) = (out / "runs").iterdir()
        assert "resumed after round" in (folder / "run.log").read_text(encoding="utf-8"), "it was not resumed"
        from commexp.run_folder import Run

        off = distance(Run(folder).rows("metrics")[-1]["train_loss"], alone["train_loss"])
        assert off <= TOLERANCE, f"train_loss is {off:.2g} off that of a run left in peace"
        return {"off": off}

    def top_k(self, count: int, share: float) -> Outcome:
        """Ours, torch.topk of the magnitudes and a copy on the device, taking turns; medians. ``limit``: what reading
        the entries and writing values and indices takes at 3 TB/s."""
        from commexp.compressors import TopK

        a = torch.empty(1, count, device=self.device)
        a.normal_(generator=torch.Generator(self.device).manual_seed(0))
        k, other, codec = round(count * share), torch.empty_like(a), TopK(k=share)
        ways: dict[str, Callable[[], object]] = {
            "select": lambda: codec.selector.largest(a, k),
            "encode": lambda: codec.encode(a),
            "torch": lambda: a.abs().topk(k, dim=1, sorted=False),
            "copy": lambda: other.copy_(a),
        }
        chosen = a.gather(1, codec.selector.largest(a, k)).abs()
        expected = a.abs().topk(k, dim=1, sorted=False).values
        same = chosen.min() == expected.min() and torch.equal(chosen.double().sum(), expected.double().sum())
        assert same or torch.equal(chosen.sort().values, expected.sort().values), "not the k largest"
        return self.compared(ways, 4 * count + 8 * k, ("select", "encode"), ("torch", "copy"))

    def packing(self, name: str, count: int) -> Outcome:
        """Encoding and decoding of so many entries: over the time in which what must be read and written passes at
        3 TB/s, and over a copy on the device."""
        from commexp.api import compose_config
        from commexp.compressors import CodecContext
        from commexp.config.plan import prepare

        codec = prepare(compose_config([f"compress={name}", "compress.error_feedback=false"])).compressor
        codec.setup(CodecContext(0, range(1)))
        a = torch.empty(1, count, device=self.device)
        a.normal_(generator=torch.Generator(self.device).manual_seed(0))
        other, message = torch.empty_like(a), codec.encode(a)
        ways: dict[str, Callable[[], object]] = {
            "encode": lambda: codec.encode(a),
            "decode": lambda: codec.decode(message),
            "copy": lambda: other.copy_(a),
        }
        return self.compared(ways, 4 * count + message.nbytes, ("encode", "decode"), ("copy",))

    def compared(
        self, ways: dict[str, Callable[[], object]], size: int, ours: Sequence[str], bases: Sequence[str]
    ) -> Outcome:
        """Medians of each way, the ways taking turns; ``size``: bytes that must pass."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            self.took(way)  # warm
        begin = time.monotonic()
        for turn in range(FEW if self.tiny else TIMES):
            if turn > 2 and time.monotonic() - begin > ENOUGH:
                break
            for name, way in ways.items():
                seconds[name].append(self.took(way))
        medians = {name: statistics.median(s) for name, s in seconds.items()}
        outcome: Outcome = {"milliseconds": {n: s * 1e3 for n, s in medians.items()}}
        for name in ours:
            outcome |= {f"{name} / {base}": medians[name] / medians[base] for base in bases}
            if self.cuda and size:
                outcome[f"{name} / limit"] = medians[name] / (size / BANDWIDTH)
        return outcome

    def step(self, model: str, workers: int) -> Outcome:
        """A gradient of W workers of 32 samples in all (texts of 256 tokens), by every way that the model allows, over
        that of one worker with all of them: plain autograd on one large batch."""
        from commexp.problems.gradients import CannotFoldError
        from commexp.problems.module_problem import ModuleProblem

        total = 4 if self.tiny else 32
        big, given = self.problem(model, 1, total), self.problem(model, workers, total // workers)
        assert isinstance(big, ModuleProblem)
        assert isinstance(given, ModuleProblem)
        ways: dict[str, Callable[[], object]] = {}

        def of(problem: ModuleProblem, way: str, count: int = workers) -> Callable[[], object]:
            x = problem.init(torch.Generator().manual_seed(0)).to(self.device).repeat(count, 1)
            batch = problem.batch(0)
            return lambda: problem.gradients.by(way, x, batch)

        ways["one batch"] = of(big, "loop", 1)
        for way in ("fold", "vmap", "loop"):
            call = of(given, way)
            try:
                call()
            except (CannotFoldError, RuntimeError, NotImplementedError) as error:
                if "out of memory" in str(error):
                    torch.cuda.empty_cache()
                continue
            ways[way] = call
            if self.cuda and (graph := captured(call)) is not None:
                ways[f"{way}, CUDA graph"] = graph
        if self.cuda:
            call = of(self.problem(model, workers, total // workers, "speed.compile=true"), "loop")  # type: ignore[arg-type]
            call()
            ways["loop, compiled"] = call
        return self.compared(ways, 0, [name for name in ways if name != "one batch"], ("one batch",))

    def problem(self, model: str, workers: int, batch: int, *more: str) -> Any:
        """Of random images, or of a random text, in float32."""
        from commexp.api import plan_of
        from commexp.experiment.execute import folder_of
        from commexp.experiment.setup import ExperimentSetup

        words = [f"model={model}", f"workers={workers}", f"batch_size={batch}", *more]
        handed: dict[str, Any] = {}
        if model.startswith("gpt"):
            path = self.scratch / "text.txt"
            path.write_bytes(bytes(torch.randint(32, 127, (200_000,)).tolist()))
            words += ["dataset=text", f"dataset.path={path}", "dataset.block=256"]
        else:
            images = torch.randn(256, 3, 32, 32), torch.arange(256) % 10
            handed = {"train": images, "test": images}
        plan = plan_of(words, handed)
        return ExperimentSetup(plan, self.device, folder_of(plan)).problem

    def text(self, name: str) -> Outcome:
        """A byte-level GPT on the text of Python's library, four workers: the loss and what it cost to get there."""
        steps, model = (4, ("model=gpt", "dataset.tokens=3000", "dataset.block=16", "batch_size=2"))
        if not self.tiny:
            steps, model = 180, ("model=gpt_10m", "dataset.block=256", "batch_size=16")
        words = (*TEXT, *LANGUAGE[name], *model, f"steps={steps}", f"eval_every={steps}", "dataset.test_tokens=20_000")
        (row,) = self.last_rows(words, study=(str(self.device), 0))
        return {"test loss": row["test_loss"], "MB sent": row["bytes_sent"] / 1e6}

    def images(self, name: str) -> Outcome:
        """Whole Fashion-MNIST with ResNet-18 and one recipe for all methods: the test error."""
        steps = 8 if self.tiny else self.epochs * 60_000 // (4 * 32)
        words = [*IMAGES[name], *RECIPE, "workers=4", f"steps={steps}", f"eval_every={steps}"]
        if self.tiny:
            words += ["dataset=digits", "model=resnet_small", "model.width=8", "batch_size=2"]
        elif self.fashion.is_dir():
            words += [*FASHION, f"dataset.root={self.fashion.resolve()}", "model=resnet18", "batch_size=32"]
        else:
            raise SkipError(f"{self.fashion}: no such folder; give --fashion FOLDER, with Fashion-MNIST's files")
        (row,) = self.last_rows(words, study=(str(self.device), 0))
        return {
            "test error": 1 - row["test_accuracy"],
            "train loss": row["train_loss"],
            "MB sent": row["bytes_sent"] / 1e6,
        }

    def took(self, call: Callable[[], object]) -> float:
        """Seconds."""
        if not self.cuda:
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3


def captured(call: Callable[[], object]) -> Callable[[], object] | None:
    """The same call as a CUDA graph; None where it cannot be one, as when it waits for the GPU."""
    side = torch.cuda.Stream()
    try:
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph.replay


def children(pid: int) -> list[int]:
    """The processes that a process has started, as far as they run python."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, tail = path.read_text(encoding="utf-8").rsplit(")", 1)
        except OSError:  # it has ended meanwhile
            continue
        if int(tail.split()[1]) == pid:
            found.append(int(head.split()[0]))
    return sorted(found)


def distance(one: Any, other: Any) -> float:
    """Relative to the other; 0 for equal words and for NaN on both sides."""
    if isinstance(one, str) or isinstance(other, str):
        return 0.0 if one == other else math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    return abs(one - other) / max(abs(other), 1e-9)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def carry_out(checks: Iterable[Check], limits: Mapping[str, float] = PARTS) -> list[Outcome]:
    """Every check in turn, whatever becomes of those before it. ``limits``: of each part that is wanted, after how many
    seconds none of its checks begins."""
    begun: dict[str, float] = {}
    results = []
    for part, name, check in checks:
        if part not in limits:
            continue
        start = time.monotonic()
        begin = begun.setdefault(part, start)
        outcome: Outcome = {"part": part, "check": name, "status": "ok"}
        try:
            if start - begin > limits[part]:
                raise SkipError(f"{limits[part]:.0f} s are over; give --only {part}")
            outcome |= check()
        except SkipError as error:
            outcome |= {"status": "skipped", "reason": str(error)}
        except (Exception, SystemExit) as error:
            outcome |= {"status": "FAILED", "reason": one_line(error)}
        outcome["seconds"] = round(time.monotonic() - start, 2)
        results.append(outcome)
        rest = {k: v for k, v in outcome.items() if k not in ("part", "check", "status", "seconds")}
        print(f"{outcome['status']:8} {outcome['seconds']:6.1f} s  {name}{shown(rest)}", flush=True)
    return results


def shown(rest: Outcome) -> str:
    if "reason" in rest:
        return f": {rest['reason']}"
    flat = {**rest.pop("milliseconds", {}), **rest} if "milliseconds" in rest else rest
    return "".join(f"  {k} {v:.3g}" if isinstance(v, float) else f"  {k} {v}" for k, v in flat.items())


def kept(path: Path, about: Mapping[str, Any], wanted: Collection[str]) -> list[Outcome]:
    """What a file of the same card and versions holds of the other parts."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        alike = all(content[key] == value for key, value in about.items())
        return [one for one in content["checks"] if alike and one["part"] not in wanted]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu; default cuda")
    parser.add_argument("--tiny", action="store_true", help="small inputs: every codec and algorithm, in seconds")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_check.json"))
    parser.add_argument("--only", help=f"some of the parts {','.join(PARTS)}, whose limits are then four times as long")
    parser.add_argument("--fashion", type=Path, default=Path("data/fashion-mnist"), help="Fashion-MNIST's folder")
    parser.add_argument("--epochs", type=int, default=6, help="of the runs on Fashion-MNIST")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(PARTS)
    if unknown := [part for part in wanted if part not in PARTS]:
        print(f"gpu_check: error: --only={unknown[0]}: no part; give some of {','.join(PARTS)}", file=sys.stderr)
        sys.exit(2)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"gpu_check: error: --device={given.device}: torch finds no GPU; give --device cpu", file=sys.stderr)
        sys.exit(2)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    print(
        f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.get_num_threads()} threads", flush=True
    )
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as scratch:
        checks = Checks(device, given.tiny, Path(scratch), given.fashion, given.epochs)
        results = carry_out(checks, {part: PARTS[part] * (4 if given.only else 1) for part in wanted})
    counts = {s: sum(r["status"] == s for r in results) for s in ("ok", "FAILED", "skipped")}
    seconds = time.monotonic() - begin
    print(f"{counts['ok']} ok, {counts['FAILED']} failed, {counts['skipped']} skipped, {seconds:.0f} s: {given.out}")
    about = {"card": card, "torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}
    about |= {"device": str(device), "tiny": given.tiny}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    results = [*kept(given.out, about, wanted), *results]
    content = {**about, "seconds": seconds, "checks": results}
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if counts["FAILED"] else 0)


if __name__ == "__main__":
    main()
