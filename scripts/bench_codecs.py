"""make bench: the compressors' speed and memory at the size of ResNet-18; ratios are of medians of this run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from bench_core import alternately
from codec_study import against_cast, drive, plain_codec, registered
from torch import Tensor

from commexp.compressors import CodecContext, Compressor, ErrorFeedback, RegTopK, TopK
from commexp.compressors.sparse import Selector
from commexp.compressors.wire import pack_bits, unpack_bits
from commexp.report.tables import markdown

DIM = 11_173_962  # ResNet-18 for ten classes of small images
SHARES = (0.0001, 0.001, 0.01, 0.1)
INPUTS = ("heavy tail", "all equal", "sorted", "one spike")


def vector(kind: str, device: str = "cpu") -> Tensor:
    """[1, J] of this kind."""
    generator = torch.Generator().manual_seed(0)
    if kind == "all equal":
        x = torch.ones(1, DIM)
    elif kind == "one spike":
        x = torch.zeros(1, DIM)
        x[0, DIM // 2] = 1.0
    else:
        x = torch.randn(1, DIM, generator=generator) * torch.randn(1, DIM, generator=generator).exp()
        x = x.sort().values if kind == "sorted" else x
    return x.to(device)


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def timed(calls: Sequence[Callable[[], object]], rounds: int, device: str) -> list[float]:
    """``alternately``, each call waiting for the device."""
    return alternately([lambda c=c: (c(), wait(device)) for c in calls], rounds)  # type: ignore[misc]


def selection(device: str) -> None:
    """The k largest of J against torch.topk and a copy."""
    rows = []
    for kind in INPUTS:
        x = vector(kind, device)
        target = torch.empty_like(x)
        for share in SHARES:
            k, carried = round(share * DIM), Selector()
            calls: list[Callable[[], object]] = [
                x.clone,
                lambda x=x, t=target: t.copy_(x),
                lambda x=x, k=k: x.abs().topk(k, sorted=False),
                lambda x=x, k=k: Selector().largest(x, k),
                lambda x=x, k=k, s=carried: s.largest(x, k),
            ]
            clone, copy, topk, fresh, again = timed(calls, 5, device)
            ours = [f"{t / clone:.1f} / {t / copy:.1f} / {topk / t:.1f}" for t in (fresh, again)]
            rows.append([kind, f"{share:.2%}", *(f"{1e3 * t:.2f}" for t in (clone, copy, topk)), *ours])
    print(f"Exact Top-k on {device}, J = {DIM:,}. Each cell: clones / copies into a tensor / times faster than torch")
    print("aims: 0.1 %: at most 3 clones, 5 times faster than torch; 10 %: no slower than torch\n")
    heads = ["input", "k/J", "clone ms", "copy ms", "torch.topk ms", "first round", "threshold carried over"]
    print(markdown(heads, rows), "\n")


def with_feedback(device: str) -> None:
    """A whole encode with error feedback: RegTop-k over Top-k."""
    rows = []
    weights = torch.ones(1, device=device)
    for share in (0.001, 0.01):
        codecs: list[Compressor] = [ErrorFeedback(TopK(share)), ErrorFeedback(RegTopK(share))]
        gradients = [torch.roll(vector("heavy tail", device), 1000 * i, 1) for i in range(3)]
        times: list[list[float]] = [[], []]
        for t in range(15):
            for codec, mine in zip(codecs, times, strict=True):
                wait(device)
                begin = time.perf_counter()
                message = codec.encode(gradients[t % 3])
                wait(device)
                mine.append(time.perf_counter() - begin)
                codec.feedback(codec.reduce(message, weights), weights)
        topk, regtopk = (float(np.median(mine[3:])) for mine in times)
        rows.append([f"{share:.1%}", f"{1e3 * topk:.1f}", f"{1e3 * regtopk:.1f}", f"{regtopk / topk:.2f}"])
    print(f"Encode with error feedback on {device}; aim: RegTop-k at most 1.3 times Top-k\n")
    print(markdown(["k/J", "Top-k ms", "RegTop-k ms", "ratio"], rows), "\n")


def signs() -> None:
    flags = vector("heavy tail") > 0
    packed, plain = pack_bits(flags), flags[0].numpy()
    theirs = np.packbits(plain)
    x, target = vector("heavy tail"), torch.empty(1, DIM)
    calls: list[Callable[[], object]] = [
        lambda: pack_bits(flags),
        lambda: np.packbits(plain),
        lambda: unpack_bits(packed, DIM),
        lambda: np.unpackbits(theirs, count=DIM),
        x.clone,
    ]
    # a copy before each, so that none finds the bits in the cache where the one before it left them
    apart = [each for call in calls for each in (lambda: target.copy_(x), call)]
    copy, pack, _, np_pack, _, unpack, _, np_unpack, _, clone = alternately(apart, 40)
    rows = [
        [name, f"{1e3 * t:.2f}", f"{t / numpy:.2f}", f"{t / clone:.2f}", f"{t / copy:.2f}"]
        for name, t, numpy in (("pack_bits", pack, np_pack), ("unpack_bits", unpack, np_unpack))
    ]
    print("Signs, bool [1, J]; aim: at most 1.5 times numpy\n")
    print(markdown(["", "ms", "over numpy", "over clone", "over copy"], rows), "\n")


def resnet18_shapes() -> dict[str, Sequence[int]]:
    """Of the parameters that make up J."""
    from torchvision.models import resnet18  # slow to import

    with torch.device("meta"):
        module = resnet18(num_classes=10)
        module.conv1 = torch.nn.Conv2d(3, 64, 3, bias=False)
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def codecs() -> None:
    """Every registered codec: encode and decode (with the addition over one worker) against an fp16 cast."""
    x, shapes, rows = vector("heavy tail"), resnet18_shapes(), []
    for name in registered():
        codec, _ = plain_codec(name)
        codec.setup(CodecContext(shapes=shapes))
        encoding, decoding, casting = against_cast(codec, x, 5)
        bits = 8 * sum(m.nbytes for m in drive(codec, x)[1]) / DIM
        times = [
            f"{1e3 * encoding:.1f}",
            f"{1e3 * decoding:.1f}",
            f"{encoding / casting:.2f}",
            f"{decoding / casting:.2f}",
        ]
        rows.append([name, f"{bits:.3g}", *times])
    print(f"Every codec at J = {DIM:,}, as its preset has it; decoding includes the sum over the one worker")
    print("aim: codes by block (kbit, fp8, fp4) encode in at most 4 casts\n")
    heads = ["codec", "bits per entry", "encode ms", "decode ms", "encode / fp16 cast", "decode / fp16 cast"]
    print(markdown(heads, rows), "\n")


def memory() -> None:
    """Peak memory of an encode with error feedback over the size of the vector, each in a process of its own."""
    rows = []
    for name in ("topk", "regtopk"):
        command = [sys.executable, __file__, "--memory", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append([name, *done.stdout.split()])
    print("Peak memory over 4 J bytes, with error feedback, k/J = 0.1 %; aim: at most 2\n")
    print(markdown(["codec", "three encodes, residual [J] included", "one more, beyond what it found"], rows), "\n")


def memory_of(name: str) -> None:
    """Prints how far the peak of resident memory grew over three encodes, then over one more; '-' where the system
    does not reset its mark."""
    codec = ErrorFeedback({"topk": TopK, "regtopk": RegTopK}[name](0.001))
    small, weights = torch.randn(1, 1 << 18), torch.ones(1)
    warm = ErrorFeedback(RegTopK(0.001))  # so that what torch itself allocates once is not counted
    for _ in range(2):
        warm.encode(small)
        warm.feedback(small[0], weights)
    gradient, aggregate = torch.empty(1, DIM).normal_(), torch.empty(DIM).normal_()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before = _status("VmRSS")
    for _ in range(3):
        codec.encode(gradient)
        codec.feedback(aggregate, weights)
    grown = [_status("VmHWM") - before]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    resident = _status("VmRSS")
    codec.encode(gradient)
    grown.append(max(0, _status("VmHWM") - resident))
    print(*(f"{1024 * kib / (4 * DIM):.2f}" for kib in grown))


def _status(field: str) -> int:
    """Of this process, in KiB."""
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) if found else 0


def synchronisations() -> None:
    """Whether Selector.largest on the GPU ever makes the host wait."""
    x, selector, rows = vector("heavy tail", "cuda"), Selector(), []
    for share in SHARES:
        torch.cuda.set_sync_debug_mode("error")
        try:
            selector.largest(x, round(share * DIM))
            found = "none"
        except RuntimeError as error:
            found = str(error).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        rows.append([f"{share:.2%}", found])
    print(markdown(["k/J", "synchronisations of Selector.largest"], rows), "\n")


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        return memory_of(sys.argv[2])
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    selection("cpu")
    with_feedback("cpu")
    signs()
    codecs()
    memory()
    if torch.cuda.is_available():
        selection("cuda")
        with_feedback("cuda")
        synchronisations()


if __name__ == "__main__":
    main()
