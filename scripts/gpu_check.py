"""Checks commexp on a GPU: python scripts/gpu_check.py, in under 4 minutes; see docs/gpu.md.

Prints a line for each check and writes outputs/gpu_check.json; exit status 1 if any check failed. It downloads nothing,
and commexp need not be installed. ``--device cpu --tiny`` runs the same checks on small inputs, without a GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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

LIMIT = 220.0  # seconds after which no check begins
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

Outcome = dict[str, Any]
Check = tuple[str, Callable[[], Outcome]]


class SkipError(Exception):
    """Why a check cannot be made here."""


class Checks:
    """All checks, on one device."""

    def __init__(self, device: torch.device, tiny: bool, scratch: Path) -> None:
        self.device, self.tiny, self.scratch = device, tiny, scratch
        self.cuda = device.type == "cuda"

    def __iter__(self) -> Iterator[Check]:
        from commexp.config.schema import CONF

        names = {group: sorted(p.stem for p in (CONF / group).glob("*.yaml")) for group in ("compress", "algo")}
        for count in (10**5,) if self.tiny else (10**7, 10**8):
            yield f"top-k of {count:.0e} entries", partial(self.top_k, count)
        yield "the DDP hook", self.ddp_hook
        if not self.tiny:
            yield f"one process by torchrun, {'NCCL' if self.cuda else 'Gloo'}", partial(self.processes, 1)
        yield "two processes by torchrun, Gloo", partial(self.processes, 2)
        for codec in names["compress"]:
            yield f"codec {codec}", partial(self.codec, codec)
        for algo in names["algo"]:
            yield f"algorithm {algo}", partial(self.algorithm, algo)
        yield "a convolutional network, float32", self.network

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
        """The run on the device and on the CPU: the last row of each must agree."""
        here, there = self.last_rows(overrides, here=(str(self.device), 0), cpu=("cpu", 0))
        compared = {k: (here[k], there[k]) for k in there if not k.endswith("wall_seconds")}
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

    def top_k(self, count: int) -> Outcome:
        """Ours, torch.topk of the magnitudes and a copy on the device, taking turns; medians."""
        from commexp.compressors import TopK

        a = torch.empty(1, count, device=self.device)
        a.normal_(generator=torch.Generator(self.device).manual_seed(0))
        k, other, codec = count // 100, torch.empty_like(a), TopK(k=0.01)
        ways: dict[str, Callable[[], object]] = {
            "select": lambda: codec.selector.largest(a, k),
            "encode": lambda: codec.encode(a),
            "torch": lambda: a.abs().topk(k, dim=1, sorted=False),
            "copy": lambda: other.copy_(a),
        }
        ours = a.gather(1, codec.selector.largest(a, k)).abs().sort().values
        assert bool(torch.equal(ours, a.abs().topk(k, dim=1).values.flip(1))), "not the k largest"
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(FEW if self.tiny else TIMES):
            for name, way in ways.items():
                seconds[name].append(self.took(way))
        medians = {name: statistics.median(s) for name, s in seconds.items()}
        ratios = {f"{name} / {base}": medians[name] / medians[base] for name in ways for base in ("torch", "copy")}
        wanted = [f"{name} / {base}" for name in ("select", "encode") for base in ("torch", "copy")]
        return {"milliseconds": {n: s * 1e3 for n, s in medians.items()}, **{name: ratios[name] for name in wanted}}

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


def distance(one: Any, other: Any) -> float:
    """Relative to the other; 0 for equal words and for NaN on both sides."""
    if isinstance(one, str) or isinstance(other, str):
        return 0.0 if one == other else math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    return abs(one - other) / max(abs(other), 1e-9)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def carry_out(checks: Checks) -> list[Outcome]:
    """Every check in turn, whatever becomes of those before it."""
    begin, results = time.monotonic(), []
    for name, check in checks:
        start = time.monotonic()
        outcome: Outcome = {"check": name, "status": "ok"}
        try:
            if start - begin > LIMIT:
                raise SkipError(f"{LIMIT:.0f} s are over")
            outcome |= check()
        except SkipError as error:
            outcome |= {"status": "skipped", "reason": str(error)}
        except (Exception, SystemExit) as error:
            outcome |= {"status": "FAILED", "reason": one_line(error)}
        outcome["seconds"] = round(time.monotonic() - start, 2)
        results.append(outcome)
        rest = {k: v for k, v in outcome.items() if k not in ("check", "status", "seconds")}
        print(f"{outcome['status']:8} {outcome['seconds']:6.1f} s  {name}{shown(rest)}", flush=True)
    return results


def shown(rest: Outcome) -> str:
    if "reason" in rest:
        return f": {rest['reason']}"
    flat = {**rest.pop("milliseconds", {}), **rest} if "milliseconds" in rest else rest
    return "".join(f"  {k} {v:.3g}" if isinstance(v, float) else f"  {k} {v}" for k, v in flat.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu; default cuda")
    parser.add_argument("--tiny", action="store_true", help="small inputs: every codec and algorithm, in seconds")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_check.json"))
    given = parser.parse_args()
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
        results = carry_out(Checks(device, given.tiny, Path(scratch)))
    counts = {s: sum(r["status"] == s for r in results) for s in ("ok", "FAILED", "skipped")}
    seconds = time.monotonic() - begin
    print(f"{counts['ok']} ok, {counts['FAILED']} failed, {counts['skipped']} skipped, {seconds:.0f} s: {given.out}")
    about = {"card": card, "torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    content = {**about, "device": str(device), "tiny": given.tiny, "seconds": seconds, "checks": results}
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if counts["FAILED"] else 0)


if __name__ == "__main__":
    main()
