"""The DDP hook: two real processes on loopback go through every registered codec; and the example script."""

from __future__ import annotations

import copy
import gc
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import warm
from conftest import environment
from registry import bare, options, plan
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from commexp.comm import Processes
from commexp.compressors import (
    FP16,
    QSGD,
    CodecContext,
    Compressor,
    ErrorFeedback,
    Layerwise,
    NoCompression,
    RandK,
    Sign,
    TopK,
)
from commexp.config.components import around_codec, build, wrap
from commexp.integrations.ddp import Hook, hook

HERE, RANKS = Path(__file__), 2
DDP = {**environment(), warm.ALSO: "torch._dynamo"}  # which DDP imports
SMALL, LARGE = 0.0003, 25.0  # MiB in a bucket: 78 numbers and what goes beyond, or the whole model
NARROW = {"fp16": 2.0**-10, "bf16": 2.0**-7}  # sums travel rounded, too


class Net(nn.Module):
    """Registered in another order than used, so that the order of DDP's first buckets is not that of later ones."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.conv = nn.Linear(20, 5), nn.Linear(216, 20), nn.Conv2d(1, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.conv(x).relu().flatten(1)).relu())


def network() -> Net:
    torch.manual_seed(7)
    return Net()


def batch(rank: int, step: int) -> Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(100 * step + rank))


def loss(model: nn.Module, rank: int, step: int) -> Tensor:
    return model(batch(rank, step).to(next(model.parameters()).dtype)).square().sum()


def wrapped(model: nn.Module, compress: object, mib: float = SMALL) -> DistributedDataParallel:
    ddp = DistributedDataParallel(model, bucket_cap_mb=mib)
    ddp.register_comm_hook(model, compress)
    return ddp


def gathered(x: Tensor) -> Tensor:
    """[...] of each rank -> [P, ...]."""
    everyone = [torch.empty_like(x) for _ in range(RANKS)]
    dist.all_gather(everyone, x.contiguous())
    return torch.stack(everyone)


def local_gradients(model: nn.Module, rank: int, step: int) -> dict[str, Tensor]:
    """Every rank's own gradient of each parameter, [P, J]."""
    alone = copy.deepcopy(model)
    gradients = torch.autograd.grad(loss(alone, rank, step), list(alone.parameters()))
    names = [name for name, _ in alone.named_parameters()]
    return {name: gathered(g.flatten()) for name, g in zip(names, gradients, strict=True)}


def given(ddp: DistributedDataParallel, rank: int, step: int) -> dict[str, Tensor]:
    """What DDP makes of the gradients, [J] each."""
    ddp.zero_grad()
    loss(ddp, rank, step).backward()
    return {name: p.grad.flatten().clone() for name, p in ddp.module.named_parameters()}


def fresh(codec: Compressor, name: str, model: nn.Module, workers: list[int]) -> Compressor:
    """A codec as the hook must set it up for this parameter."""
    codec = copy.deepcopy(codec)
    shapes = {name: model.get_parameter(name).shape}
    codec.setup(CodecContext(seed=5, worker_ids=workers, shapes=shapes, purpose=f"compressor.{name}"))
    return codec


def close(found: Tensor, wanted: Tensor, where: str, relative: float = 2e-6) -> None:
    scale = float(wanted.abs().max())
    torch.testing.assert_close(
        found.double(), wanted.double(), rtol=relative, atol=relative * scale, msg=lambda m: f"{where}: {m}"
    )


REGISTERED: dict[str, Compressor] = {}  # every codec, in the two processes
LINKS: dict[dist.ProcessGroup, Processes] = {}  # making them takes longer than most checks of one codec
State = tuple[dict[str, Tensor], dict[str, Tensor]]  # of parameters, and of a hook
AFTER: dict[str, list[State]] = {}  # with each, what there is after each of three steps


def more() -> dict[str, Compressor]:
    """Other ways through the exchange than the registered settings take."""
    return {
        "elias": QSGD(coding="elias"),
        "own sets": RandK(k=0.1, shared=False),
        "vote": Sign(vote=True),
        "small ones whole": Layerwise(FP16(), whole_below=50),
        "small ones whole, gathered": Layerwise(TopK(k=0.05), whole_below=50),
    }


def mean_of_decoded(rank: int, _: Path) -> None:
    """p.grad == reduce of all ranks' gradients; and in float64, 1/P sum_n decode(encode(g_n)), parameter by
    parameter."""
    weights = torch.full((RANKS,), 1.0 / RANKS)
    for kind, codec in {**REGISTERED, **more()}.items():
        model = network()
        ddp, names = wrapped(model, hook(codec, error_feedback=False, seed=5)), dict(model.named_parameters())
        together = {name: fresh(codec, name, model, [0, 1]) for name in names}
        apart = {name: [fresh(codec, name, model, [w]) for w in range(RANKS)] for name in names}
        for step in range(2):  # the buckets of the first step are not those of the second
            mine, found = local_gradients(model, rank, step), given(ddp, rank, step)
            for name, g in mine.items():
                where, precision = f"{kind}, step {step}, {name}", NARROW.get(kind, 2e-6)
                wanted = together[name].reduce(together[name].encode(g.clone()), weights)
                together[name].feedback(wanted, weights)
                close(found[name], wanted, where, precision)
                if codec.phases == 1 and kind not in (*more(), "sparseloco"):  # whose sum is one of the senders
                    sent = [c.decode(c.encode(g[w : w + 1].clone())) for w, c in enumerate(apart[name])]
                    close(found[name], torch.cat(sent).double().mean(0), f"{where}, by worker", precision)
                    for w, c in enumerate(apart[name]):
                        c.feedback(found[name], weights[w : w + 1])


def fed(codec: Compressor) -> Hook:
    """With error feedback wherever the codec allows it; through the group that other hooks have made."""
    made = hook(codec, error_feedback=not codec.expands)
    made._links = LINKS
    return made


def train(
    model: nn.Module, compress: Hook, rank: int, steps: Iterable[int], mib: float = SMALL
) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """After each step its gradients, and its buckets as names of their parameters."""
    names, buckets = {p: name for name, p in model.named_parameters()}, []

    def watched(state, bucket):  # type: ignore[no-untyped-def]
        buckets.append(" ".join(names[p] for p in bucket.parameters()))
        return compress(state, bucket)

    ddp, optimizer = wrapped(model, watched, mib), torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in steps:
        buckets.clear()
        found = given(ddp, rank, step)
        optimizer.step()
        yield found, buckets[:]


def snapshot(model: nn.Module, compress: Hook) -> State:
    """Copies of the parameters and of what the hook keeps for them."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}, compress.state_dict()


def equal(found: State, wanted: State) -> bool:
    pairs = list(zip(found, wanted, strict=True))
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


def nothing_is_lost(rank: int, _: Path) -> None:
    """sum_t p.grad + mean residual == sum_t mean gradient, over three steps, after each of which parameters change. The
    buckets of the first are not those of the second. What there is after two and after three is kept for the checks
    below."""
    for kind, codec in {**REGISTERED, **more()}.items():
        model, compress, applied, wanted, grouped = network(), fed(codec), {}, {}, []

        def steps(model=model, wanted=wanted):  # type: ignore[no-untyped-def]
            for step in range(3):
                for name, g in local_gradients(model, rank, step).items():
                    wanted[name] = wanted.get(name, 0.0) + g.double().mean(0)
                yield step

        AFTER[kind] = []
        for found, buckets in train(model, compress, rank, steps()):
            for name, g in found.items():
                applied[name] = applied.get(name, 0.0) + g.double()
            grouped.append({frozenset(b.split()) for b in buckets})
            AFTER[kind].append(snapshot(model, compress))
        assert len(grouped[1]) > 1, grouped
        assert grouped[0] != grouped[1], grouped
        if codec.expands or kind in (*more(), "sparseloco"):  # nothing goes around it; its sum is one of the senders
            continue
        for name, total in wanted.items():
            left = gathered(AFTER[kind][-1][1][f"{name}..workers.residual"][0]).double().mean(0)
            close(applied[name] + left, total, f"{kind}, {name}", 4 * NARROW.get(kind, 2e-6))


def residuals_outlive_buckets(rank: int, _: Path) -> None:
    """Training does not depend on how DDP groups the parameters."""
    for kind, codec in REGISTERED.items():
        model, compress = network(), fed(codec)
        for _, buckets in train(model, compress, rank, range(2), LARGE):
            assert len(buckets) == 1, buckets
        assert equal(snapshot(model, compress), AFTER[kind][1]), kind


def resumes(rank: int, folder: Path) -> None:
    """2 + 1 steps with a new process group, model and hook in between == the 3 steps of nothing_is_lost."""
    for kind in REGISTERED:
        parameters, state = AFTER[kind][1]
        save_file(state, folder / f"{kind}-{rank}.safetensors")
        torch.save(parameters, folder / f"{kind}-{rank}.pt")
    dist.destroy_process_group()
    connect(rank, folder, "second")
    for kind, codec in REGISTERED.items():
        model, compress = network(), fed(codec)
        model.load_state_dict(torch.load(folder / f"{kind}-{rank}.pt"))
        compress.load_state_dict(load_file(folder / f"{kind}-{rank}.safetensors"))
        assert equal(snapshot(model, compress), AFTER[kind][1]), kind
        (_,) = train(model, compress, rank, [2])
        assert equal(snapshot(model, compress), AFTER[kind][2]), kind


def equals_plain_ddp(rank: int, _: Path) -> None:
    """No compression is what DDP does by itself, in either dtype and memory layout."""
    for change in (lambda m: m, lambda m: m.to(memory_format=torch.channels_last), lambda m: m.to(torch.bfloat16)):
        model, plain = change(network()), change(network())
        ddp, reference = wrapped(model, hook(NoCompression())), DistributedDataParallel(plain)
        for step in range(3):
            found, wanted = given(ddp, rank, step), given(reference, rank, step)
            for name, g in wanted.items():
                assert found[name].dtype == g.dtype
                close(found[name], g, name, 1e-6 if g.dtype == torch.float32 else 2.0**-7)


def hook_does_not_wait(rank: int, folder: Path) -> None:
    """With one collective a bucket, the hook returns although the other process is late: so late that it waits to be
    told that the hook has returned for every bucket."""
    for codec in (TopK(k=0.05), NoCompression()):
        model, compress, calls = network(), hook(codec), []

        def watched(state, bucket, compress=compress, calls=calls, name=codec.name):  # type: ignore[no-untyped-def]
            future = compress(state, bucket)
            calls.append(bucket.is_last())
            if rank == 0 and bucket.is_last():
                (folder / f"{name} returned {sum(calls)}").touch()
            return future

        ddp = wrapped(model, watched)
        given(ddp, rank, 0)
        given(ddp, rank, 1)
        result, end = loss(ddp, rank, 2), time.monotonic() + 15
        while rank == 1 and not (folder / f"{codec.name} returned 3").exists():
            assert time.monotonic() < end, codec
            time.sleep(0.01)
        result.backward()


class DeafTopK(TopK):
    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        raise ValueError("k=0.1: heard nothing")


def refusals(rank: int, _: Path) -> None:
    other, inner, unknown = network(), hook(TopK()), {"tail.weight..round": torch.tensor(1)}
    with pytest.raises(ValueError, match=r"^state=Net: has no such parameter of shape \[5, 20\]; give register"):
        given(wrapped(network(), lambda state, bucket: inner(other, bucket), LARGE), rank, 0)
    compress, model = hook(TopK()), network()
    compress.load_state_dict(unknown)
    with pytest.raises(ValueError, match=r"^state_dict=tail.weight: no parameter of Net; give what was saved for"):
        given(wrapped(model, compress), rank, 0)
    compress.load_state_dict({})
    given(wrapped(model, compress), rank, 0)
    with pytest.raises(ValueError, match=r"^state_dict=tail.weight: no parameter of Net"):
        compress.load_state_dict(unknown)
    with pytest.raises(ValueError, match=r"^k=100: more entries than the 5 parameters"):  # while sending
        given(wrapped(network(), hook(TopK(k=100))), rank, 0)
    with pytest.raises(RuntimeError, match=r"ValueError: k=0\.1: heard nothing"):  # while receiving
        given(wrapped(network(), hook(DeafTopK(k=0.1))), rank, 0)


def stays_within_its_group(rank: int, _: Path) -> None:
    """Groups of one rank each: the gradient is the rank's own; beside it, one model over all ranks by the same hook."""
    alone = [dist.new_group([r]) for r in range(RANKS)][rank]
    for codec in (NoCompression(), FP16(), TopK(k=0.2)):
        compress, model, other = hook(codec, error_feedback=False), network(), network()
        ddp = DistributedDataParallel(model, process_group=alone)
        ddp.register_comm_hook(model, compress)
        everyone = wrapped(other, compress)
        for step in range(2):
            mine, found, mean = local_gradients(model, rank, step), given(ddp, rank, step), given(everyone, rank, step)
            for name, g in mine.items():
                one = fresh(codec, name, model, [0])
                close(found[name], one.decode(one.encode(g[rank : rank + 1]))[0], name, 1e-3)
                sent = [one.decode(one.encode(g[r : r + 1]))[0] for r in range(RANKS)]
                close(mean[name], torch.stack(sent).mean(0), name, 1e-3)


def a_step_that_is_skipped_leaves_nothing(rank: int, folder: Path) -> None:
    """One rank's Inf is seen as NaN at both; in the end all is as in nothing_is_lost, without that step. Top-k with
    error feedback in float64, by hand: e_n is what g_n + e_n has beside its k largest entries, of steps not skipped."""
    for kind, codec in {**REGISTERED, **more()}.items():
        model, compress = network(), fed(codec)
        ddp, optimizer = wrapped(model, compress), torch.optim.SGD(model.parameters(), lr=1e-3)
        for step in (0, 9, 1):
            if step == 9:
                ddp.zero_grad()
                (loss(ddp, rank, step) * (torch.inf if rank else 1.0)).backward()
                assert all(p.grad.isnan().all() for p in model.parameters()), kind
                continue
            given(ddp, rank, step)
            optimizer.step()
        assert equal(snapshot(model, compress), AFTER[kind][1]), kind
    model, residual = network(), {}
    ddp = wrapped(model, hook(TopK(k=0.2)))
    for step in range(4):
        mine = local_gradients(model, rank, step)
        ddp.zero_grad()
        value = loss(ddp, rank, step)
        (value if step != 2 or rank else value + model.head.bias[0] * torch.nan).backward()
        for name, g in mine.items() if step != 2 else ():
            a = g.double() + residual.get(name, 0.0)
            kept = a.abs().topk(max(1, round(0.2 * a.shape[1])), dim=1).indices
            sent = torch.zeros_like(a).scatter(1, kept, a.gather(1, kept))
            residual[name] = a - sent
            close(model.get_parameter(name).grad.flatten(), sent.mean(0), f"step {step}, {name}", 1e-5)


class Odd(nn.Module):
    """Sparse gradients, complex parameters, no entries, one entry, one that is tied, one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.rows, self.none = nn.Embedding(6, 4, sparse=True), nn.Parameter(torch.randn(0, 3))
        self.phase = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))
        self.scale, self.still = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.randn(3), requires_grad=False)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, which: Tensor) -> Tensor:
        hidden = self.second(self.first(self.rows(which)).relu()) * self.scale
        return (hidden.to(self.phase.dtype) @ self.phase).abs().square().sum() + self.none.sum() + self.still.sum()


def odd_parameters(rank: int, _: Path) -> None:
    """With a codec that loses nothing, what DDP does by itself; with every other one, in small buckets or in one,
    something finite."""
    plain, which = DistributedDataParallel(Odd()), torch.tensor([rank, 2, 2 + rank])
    plain(which).backward()
    for n, (kind, codec) in enumerate(REGISTERED.items()):
        model = Odd()
        for mib in (SMALL, LARGE) if kind == "none" else ((SMALL, LARGE)[n % 2],):
            ddp = wrapped(model, hook(codec, error_feedback=False), mib)
            ddp.zero_grad()
            ddp(which).backward()
            for (name, p), q in zip(model.named_parameters(), plain.module.parameters(), strict=True):
                assert (p.grad is None) == (q.grad is None), name
                if p.grad is None:
                    continue
                assert (p.grad.shape, p.grad.dtype, p.grad.layout) == (q.grad.shape, q.grad.dtype, q.grad.layout), name
                found, wanted = (x.to_dense() if x.is_sparse else x for x in (p.grad, q.grad))
                assert found.isfinite().all(), (kind, name)
                if kind == "none" or q.grad.is_sparse:
                    torch.testing.assert_close(found, wanted)


def death_is_noticed(rank: int, _: Path) -> None:
    """A process that is gone makes the others' backward pass fail, and soon."""
    ddp = wrapped(network(), hook(TopK(k=0.05)))
    given(ddp, rank, 0)
    result = loss(ddp, rank, 1)
    if rank == 0:
        with pytest.raises(RuntimeError):
            result.backward()
    os._exit(0)


CHECKS: list[Callable[[int, Path], None]] = [
    mean_of_decoded, nothing_is_lost, residuals_outlive_buckets, equals_plain_ddp, hook_does_not_wait, refusals,
    stays_within_its_group, a_step_that_is_skipped_leaves_nothing, odd_parameters, resumes, death_is_noticed,
]  # fmt: skip


def connect(rank: int, folder: Path, store: str) -> None:
    method = f"file://{folder / store}"
    dist.init_process_group("gloo", method, timedelta(seconds=20), RANKS, rank)
    LINKS.clear()
    LINKS[dist.group.WORLD] = Processes(timedelta(seconds=20), dist.group.WORLD)


def member(rank: int, folder: Path) -> None:
    """One of the two processes: every check in turn."""
    torch.set_num_threads(1)
    for name, node in json.loads((folder / "registered.json").read_text()).items():
        around = around_codec(node)
        REGISTERED[name] = wrap(build(node, "compress", Compressor), around)
    importlib.import_module("torch._dynamo")  # DDP does
    gc.freeze()  # for each model the hook looks through all objects
    gc.enable()
    connect(rank, folder, "first")
    for check in CHECKS:
        start = time.monotonic()
        print(check.__name__, flush=True)
        check(rank, folder)
        print(f"  {time.monotonic() - start:.1f} s", flush=True)


def test_two_processes(tmp_path: Path) -> None:
    env = {**DDP, "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE.parents[2]}", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(HERE)]
    bare = "compress.error_feedback=false"
    nodes = {name: plan(f"compress={name}", bare).resolved["compress"] for name in options("compress")}
    (tmp_path / "registered.json").write_text(json.dumps(nodes))
    members = [
        warm.Popen([*command, str(rank), str(tmp_path)], env=env, stdout=-1, stderr=subprocess.STDOUT, text=True)
        for rank in range(RANKS)
    ]
    try:
        said = [m.communicate(timeout=300)[0] for m in members]
    finally:
        for m in members:
            m.kill()
    assert [m.returncode for m in members] == [0, 0], "\n".join(said)
    assert CHECKS[-1].__name__ in said[0]


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def stepped(ddp: DistributedDataParallel, steps: range) -> list[dict[str, Tensor]]:
    return [given(ddp, 0, step) for step in steps]


def same(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]]) -> bool:
    return all(torch.equal(a[n], b[n]) for a, b in zip(found, wanted, strict=True) for n in b)


def test_every_module_has_a_state_of_its_own(alone: None) -> None:
    """Two at once and one after them, by one hook: what each has by a hook of its own."""
    wanted = stepped(wrapped(network(), hook(TopK(k=0.1))), range(3))
    compress, models = hook(TopK(k=0.1)), [network(), network()]
    both = [wrapped(model, compress) for model in models]
    found = [[given(ddp, 0, step) for ddp in both] for step in range(3)]
    assert all(same(list(each), wanted) for each in zip(*found, strict=True))
    assert same(stepped(wrapped(network(), compress), range(3)), wanted)
    with pytest.raises(ValueError, match=r"^module=None: this hook serves 2 modules \(Net, Net\); say whose state"):
        compress.state_dict()
    first = compress.state_dict(models[0])
    later = hook(TopK(k=0.1))
    later.load_state_dict(first)
    assert same(stepped(wrapped(models[0], later), range(3, 5)), stepped(wrapped(models[1], compress), range(3, 5)))


@pytest.mark.parametrize("kind", ["topk", "regtopk", "powersgd", "qsgd"])
@pytest.mark.parametrize("way", ["deepcopy", "save"])
def test_copies_of_the_module_go_on_as_it_does(alone: None, kind: str, way: str) -> None:
    codec = bare(kind)
    model, compress = network(), hook(codec, error_feedback=not codec.expands)
    ddp = wrapped(model, compress)
    stepped(ddp, range(2))
    if way == "deepcopy":
        twin = copy.deepcopy(ddp)
    else:
        torch.save(ddp, file := io.BytesIO())
        twin = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    theirs, state = twin._comm_hooks[0]
    assert theirs is not compress
    assert state is twin.module
    twin.register_comm_hook(twin.module, theirs)
    assert same(stepped(twin, range(2, 4)), stepped(ddp, range(2, 4)))
    assert copy.deepcopy(compress).state_dict() == {}, "without its module there is no state"


def test_a_layer_that_was_replaced_starts_anew(alone: None, caplog: pytest.LogCaptureFixture) -> None:
    model, compress = network(), hook(TopK(k=0.1))
    stepped(wrapped(model, compress), range(2))
    before = compress.state_dict()
    model.head = nn.Linear(20, 7)
    model.conv.double().float()  # the same parameters, in another dtype and back
    with caplog.at_level(logging.WARNING):
        compress.state_dict()
    assert "hook: head.weight of Net was replaced; it starts anew" in caplog.text
    found = stepped(wrapped(model, compress), range(1))[0]
    own = {name: p.clone() for name, p in model.named_parameters()}
    for name in own:
        g = local_gradient(model, name)
        a = g if name.startswith("head") else g + before[f"{name}..workers.residual"][0]
        kept = a.abs().topk(max(1, round(0.1 * len(a)))).indices
        close(found[name], torch.zeros_like(a).scatter(0, kept, a[kept]), name)


def local_gradient(model: nn.Module, name: str) -> Tensor:
    alone = copy.deepcopy(model)
    return torch.autograd.grad(loss(alone, 0, 0), alone.get_parameter(name))[0].flatten()


def test_which_group_is_told_or_asked(alone: None) -> None:
    """Two DDPs of different groups around one model: the model does not tell which is meant, the DDP itself does."""
    model, compress = network(), hook(TopK(k=0.1))
    mine = [DistributedDataParallel(model, process_group=dist.new_group([0])) for _ in range(2)]
    mine[0].register_comm_hook(model, compress)
    with pytest.raises(
        ValueError, match=r"^state=Net: 2 DistributedDataParallel found around it, so its process group"
    ):
        given(mine[0], 0, 0)
    told = network()
    others = [DistributedDataParallel(told, process_group=dist.new_group([0])) for _ in range(2)]
    others[1].register_comm_hook(others[1], compress)
    given(others[1], 0, 0)


def test_what_makes_no_sense_is_refused() -> None:
    for codec in (ErrorFeedback(TopK()), Layerwise(ErrorFeedback(TopK()))):
        with pytest.raises(ValueError, match=r"^compressor=ErrorFeedback: has a residual already; give error_feedback"):
            hook(codec)
        hook(codec, error_feedback=False)
    with pytest.raises(ValueError, match=r"^state=None: is no module; give register_comm_hook the model"):
        hook(TopK())(None, None)  # type: ignore[arg-type]


def test_names_that_begin_alike_do_not_mix() -> None:
    compress = hook(TopK())
    state = {
        "a..round": torch.tensor(1),
        "a.b..round": torch.tensor(2),
        "a.workers..workers.residual": torch.ones(1, 3),
    }
    compress.load_state_dict(state)
    found = compress.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_the_example_reaches_95_percent_and_saves_its_state(tmp_path: Path) -> None:
    root = HERE.parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(root / "scripts" / "ddp_example.py"), str(tmp_path)]
    done = warm.run(command, cwd=root, env=DDP, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy")[1]) > 0.95
    assert {p.name for p in tmp_path.iterdir()} == {f"{n}.safetensors" for n in ("model", "hook-0", "hook-1")}
    key = "0.weight..workers.residual"
    assert not torch.equal(*(load_file(tmp_path / f"hook-{rank}.safetensors")[key] for rank in range(RANKS)))


if __name__ == "__main__":
    member(int(sys.argv[1]), Path(sys.argv[2]))
