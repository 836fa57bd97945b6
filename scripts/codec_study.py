"""Error, bits and time of each registered codec on real gradients. Part of make figures.

outputs/figures/codec_study.{png,pdf,md};  cache/: the gradients (safetensors) and one JSON per codec and gradient
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bench_core import make
from matplotlib.axes import Axes
from safetensors.torch import load_file, save_file
from torch import Tensor

from commexp.api import compose_config
from commexp.compressors import CodecContext, Compressor, Message
from commexp.config.plan import prepare
from commexp.config.schema import CONF
from commexp.problems.module_problem import ModuleProblem
from commexp.report.style import COLOURS, MARKERS, figure, save
from commexp.report.tables import markdown
from commexp.run_folder import read_json, write_atomic, write_json

OUT = Path("outputs/figures")
CACHE = OUT / "cache"
ROUNDS = 3  # of each timing
SLOW = 5.0  # seconds of an encode from which one repetition must do
SMALL, LARGE = "digits", "digits-large"
# name: (rounds before the gradient is taken, the run)
GRADIENTS: dict[str, tuple[int, tuple[str, ...]]] = {
    SMALL: (50, ()),
    LARGE: (5, ("model.width=96", "model.stages=4", "batch_size=4", "workers=2")),
}
TITLES = {SMALL: "digits, default network", LARGE: "digits, network of ResNet-18's size"}
# codecs with such a field are studied at each of these values, as one line
SWEPT: dict[str, tuple[float, ...]] = {
    "k": (0.1, 0.01, 0.001),
    "entries.k": (0.1, 0.01, 0.001),
    "t": (0.1, 0.3, 0.6),
    "levels": (1, 7, 127),
    "rank": (1, 2, 8),
}
Row = dict[str, Any]


def plain_codec(name: str, changes: Mapping[str, object] | None = None) -> tuple[Compressor, dict[str, object]]:
    """A fresh codec as conf/compress has it, without error feedback, and its config with all fields."""
    fields = [f"compress.{field}={value}" for field, value in (changes or {}).items()]
    made = prepare(compose_config([f"compress={name}", "compress.error_feedback=false", *fields]))
    return made.compressor, made.resolved["compress"]


def registered() -> list[str]:
    return sorted(p.stem for p in (CONF / "compress").glob("*.yaml"))


def drive(codec: Compressor, a: Tensor) -> tuple[Tensor, list[Message], float, float]:
    """One whole exchange as ``Compressor.reduce`` has it, each worker's weight 1/W: (aggregate, messages, seconds of
    encoding, seconds of decoding). Any later phases count as encoding."""
    weights = a.new_full((len(a),), 1 / len(a))
    begin = time.perf_counter()
    messages = [codec.encode(a)]
    encoding, decoding = time.perf_counter() - begin, 0.0
    while True:
        begin = time.perf_counter()
        total = codec.add_up(messages[-1], weights)
        middle = time.perf_counter()
        following = codec.next_phase(messages[-1], total)
        end = time.perf_counter()
        decoding, encoding = decoding + middle - begin, encoding + end - middle
        if following is None:
            break
        messages.append(following)
    aggregate = codec.finalize(messages[-1], total)
    return aggregate, messages, encoding, decoding + time.perf_counter() - end


def against_cast(codec: Compressor, a: Tensor, rounds: int) -> tuple[float, float, float]:
    """Median seconds of encode, decode and of an fp16 cast there and back, taking turns after an unmeasured one."""
    begin = time.perf_counter()
    drive(codec, a)
    rounds = 1 if time.perf_counter() - begin > SLOW else rounds
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        a.half().to(a.dtype)
        both_ways = time.perf_counter() - begin
        aggregate, _, encoding, decoding = drive(codec, a)
        codec.feedback(aggregate)
        times.append((encoding, decoding, both_ways))
    encoding, decoding, both_ways = (float(t) for t in np.median(times, axis=0))
    return encoding, decoding, both_ways


def gradient(name: str) -> tuple[str, Path, dict[str, list[int]]]:
    """(key, file with [W, J], shapes of the parameters) of this run's next gradient, made once."""
    rounds, overrides = GRADIENTS[name]
    key = digest(rounds, prepare(compose_config(overrides)).name)
    path, about = CACHE / f"gradient-{name}-{key}.safetensors", CACHE / f"gradient-{name}-{key}.json"
    shapes = read_json(about)
    if not path.exists() or not shapes:
        setup = make(*overrides)
        for t in range(rounds):
            setup.algorithm.round(t)
        problem = setup.problem
        assert isinstance(problem, ModuleProblem)
        x = setup.algorithm.model().expand(setup.plan.config.workers, -1)
        _, found = problem.loss_and_grad(x, problem.batch(rounds))
        shapes = {layer: list(shape) for layer, shape in problem.layout.shapes.items()}
        CACHE.mkdir(parents=True, exist_ok=True)
        save_file({"gradient": found.contiguous()}, path)
        write_json(about, shapes)
    return key, path, shapes


def digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=6).hexdigest()


def sources() -> str:
    """A hash of the compressors' sources: an edited codec is studied anew."""
    folder = Path(__file__).parent.parent / "commexp" / "compressors"
    return digest([p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.py"))])


def points(name: str) -> list[tuple[str, dict[str, float]]]:
    """(label, changes to the preset) of each point of this codec's line."""
    node = plain_codec(name)[1]
    for field, values in SWEPT.items():
        part: Any = node
        for step in field.split("."):
            part = part.get(step) if isinstance(part, Mapping) else None
        if part is not None:
            return [(f"{name} {field.split('.')[-1]}={v:g}", {field: v}) for v in values]
    return [(name, {})]


def measure(name: str, changes: dict[str, float], a: Tensor, shapes: dict[str, list[int]]) -> Row:
    """Each worker's gradient on its own: the error of all over the norm of all, bits and times over an fp16 cast."""
    error = norm = 0.0
    bits = 0
    for worker, g in enumerate(a.split(1)):
        codec, _ = plain_codec(name, changes)
        codec.setup(CodecContext(worker_ids=[worker], shapes=shapes))
        decoded, messages, _, _ = drive(codec, g)
        error += float((decoded - g[0]).double().square().sum())
        norm += float(g.double().square().sum())
        bits += 8 * sum(m.nbytes for m in messages)
    codec, _ = plain_codec(name, changes)
    codec.setup(CodecContext(worker_ids=[0], shapes=shapes))
    encoding, decoding, casting = against_cast(codec, a[:1], ROUNDS)
    return {
        "error": error / norm,
        "bits": bits / a.numel(),
        "encode_ms": 1e3 * encoding,
        "decode_ms": 1e3 * decoding,
        "encode": encoding / casting,
        "decode": decoding / casting,
    }


def rows_of(name: str) -> tuple[int, list[Row]]:
    """J and every point at this gradient: from the cache where codec, its source and the gradient are the same."""
    key, file, shapes = gradient(name)
    version, rows = sources(), []
    for codec in registered():
        for label, changes in points(codec):
            _, resolved = plain_codec(codec, changes)
            path = CACHE / f"{name}-{codec}-{digest(key, version, resolved)}.json"
            row = read_json(path)
            if not row:
                row = {"codec": codec, "label": label, **measure(codec, changes, load_file(file)["gradient"], shapes)}
                write_json(path, row)
            rows.append(row)
    return sum(math.prod(shape) for shape in shapes.values()), rows


def draw(axis: Axes, rows: list[Row], value: str) -> None:
    """A line or a point per codec against bits per entry; what is exact or does nothing has no place on log scales."""
    for i, codec in enumerate(registered()):
        mine = sorted((r for r in rows if r["codec"] == codec and r["error"] > 0), key=lambda r: r["bits"])
        if mine:
            again = i // len(COLOURS)  # colours come round again: hollow markers, dashed
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + again) % len(MARKERS)]}
            style |= {"fillstyle": "none", "linestyle": "--"} if again else {}
            bits, values = [r["bits"] for r in mine], [r[value] for r in mine]
            axis.plot(bits, values, label=codec, linewidth=1.0, markersize=6, **style)  # type: ignore[arg-type]
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("bits per entry sent")


def study() -> None:
    """Registered codecs on real gradients: error and time against bits per entry."""
    found = {name: rows_of(name) for name in GRADIENTS}
    titles = {name: f"{TITLES[name]}, J = {dim:,}" for name, (dim, _) in found.items()}
    with figure(2, 2, 4.4, 3.3) as (made, axes):
        for axis, name in zip(axes, found, strict=False):
            draw(axis, found[name][1], "error")
            axis.set_title(titles[name])
            axis.axhline(1.0, color="grey", linewidth=0.6)
            axis.set_ylabel(r"$\|g - C(g)\|^2\ /\ \|g\|^2$")
        for axis, value in zip(axes[2:], ("encode", "decode"), strict=True):
            draw(axis, found[LARGE][1], value)
            axis.axhline(1.0, color="grey", linewidth=0.6)
            axis.set_title(titles[LARGE])
            axis.set_ylabel(f"time to {value} over fp16 cast and back")
        handles, names = axes[0].get_legend_handles_labels()
        made.legend(handles, names, loc="outside right center")
        save(made, OUT / "codec_study")
    write_atomic(OUT / "codec_study.md", table(found, titles))


def table(found: Mapping[str, tuple[int, list[Row]]], titles: Mapping[str, str]) -> str:
    text = [
        "Registered codecs without error feedback on each worker's gradient alone. Error: ||g - C(g)||^2 / ||g||^2 "
        "over all workers; times over an fp16 cast there and back of the same gradient, medians, taking turns. "
        "RegTop-k's first round is Top-k's.\n"
    ]
    for name, (_, rows) in found.items():
        cells = [
            [r["label"], f"{r['bits']:.3g}", f"{r['error']:.3g}", f"{r['encode']:.3g}", f"{r['decode']:.3g}"]
            for r in rows
        ]
        text += [f"{titles[name]}\n", markdown(["codec", "bits per entry", "error", "encode", "decode"], cells) + "\n"]
    return "\n".join(text)


if __name__ == "__main__":
    study()
