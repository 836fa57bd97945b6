"""The low-communication methods of 2024 to 2026 on text, a table and a figure: python scripts/lowcomm_study.py [--tune]

Four workers train the GPT of 0.12 million parameters on the sources of Python's library, all methods with as many
tokens as in lm_study.py. For every method four settings are tried on validation text with a seed of its own; then
follow three seeds on the test text. Seconds are those of the virtual clock at four bandwidths, to which the runs are
priced by replay. lowcomm_tuned.json holds the tuned rates; --tune repeats the tuning.

    python scripts/lowcomm_study.py --dppf      the second part: DPPF where models interpolate, see dppf_text.py

Two runs at a time, on one core each. Finished runs are reused.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import dppf_text
import pandas as pd
from lm_study import STEPS, TAU, held_out, problem
from tuning import Rates, fields, loss, shown, tune, tuned

from commexp.api import compose_config
from commexp.check.batch import Command, result, run_all
from commexp.config.plan import prepare
from commexp.experiment.replay import Replay
from commexp.metrics import human_bytes
from commexp.network import Network
from commexp.report.style import COLOURS, MARKERS, bytes_axis, figure, log_scale, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
TUNED = Path(__file__).with_name("lowcomm_tuned.json")
WORKERS = 4
SEEDS = range(3)
TUNING_SEED = 100
EVERY = 60  # steps between evaluations
GRADIENT = 0.01  # seconds that a worker computes a gradient on the virtual clock
BANDWIDTHS = {"10 Mbit/s": 10, "100 Mbit/s": 100, "1 Gbit/s": 1000, "10 Gbit/s": 10_000}
SETTINGS = 4  # that are tried for each method


def grid(**values: Sequence[float]) -> list[Rates]:
    """Every combination of the values of algo's fields."""
    settings = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    assert len(settings) == SETTINGS
    return settings


class Method(NamedTuple):
    """``family``: methods of one colour. ``space``: the settings that are tried."""

    family: str
    words: str
    space: list[Rates]


ONE = grid(lr=(0.003, 0.006, 0.012, 0.024))
TWO = grid(lr=(0.003, 0.006), outer_lr=(0.2, 0.5))
MUON = grid(lr=(0.02, 0.044), outer_lr=(0.2, 0.5))
DILOCO = f"algo=diloco algo.tau={TAU}"
STREAMING = f"algo=streaming_diloco algo.tau={TAU} algo.fragments=2 algo.delay=3"
MULOCO = f"algo=muloco algo.tau={TAU}"
METHODS = {
    "dense AdamW": Method("dense", "algo=sgd", ONE),
    "dense AdamW, fp16": Method("dense", "algo=sgd compress=fp16", ONE),
    "LocalSGD": Method("average", f"algo=localsgd algo.tau={TAU}", ONE),
    "local Adam": Method("average", f"algo=local_adam algo.tau={TAU}", ONE),
    "DES-LOC": Method("average", f"algo=desloc algo.tau={TAU}", ONE),
    "DiLoCo": Method("diloco", DILOCO, TWO),
    "DiLoCo, 4 bits": Method(
        "diloco", f"{DILOCO} compress=kbit compress.bits=4 comm.exchange=quantised_all_reduce", TWO
    ),
    "DiLoCo, 2 bits": Method("diloco", f"{DILOCO} compress=kbit compress.bits=2", TWO),
    "Streaming DiLoCo": Method("streaming", STREAMING, TWO),
    "Streaming DiLoCo, E3M0": Method(
        "streaming", f"{STREAMING} compress=fp4 compress.format=e3m0 compress.error_feedback=false", TWO
    ),
    "MuLoCo": Method("muloco", MULOCO, MUON),
    "MuLoCo, 2 bits": Method("muloco", f"{MULOCO} compress=kbit compress.bits=2 compress.feedback.decay=0.9", MUON),
    "SparseLoCo": Method("sparse", f"algo=sparseloco algo.tau={TAU}", grid(lr=(0.003, 0.006), outer_lr=(0.5, 1.0))),
    "DeMo": Method("sparse", "algo=demo", grid(lr=(0.001, 0.002, 0.004, 0.008))),
    "SPARTA": Method("random", "algo=sparta", ONE),
    "SPARTA with DiLoCo": Method("random", f"algo=sparta algo.outer=nesterov algo.tau={TAU}", TWO),
    "NoLoCo": Method("random", f"algo=noloco algo.tau={TAU}", grid(lr=(0.003, 0.006), outer_lr=(0.35, 0.7))),
}
#: whose test losses are subtracted, seed by seed: a method and what it is said to equal, or to be better or worse than
PAIRS = (
    ("DiLoCo", "dense AdamW"),
    ("LocalSGD", "dense AdamW"),
    ("LocalSGD", "DiLoCo"),
    ("MuLoCo", "DiLoCo"),
    ("MuLoCo", "dense AdamW"),
    ("DiLoCo, 4 bits", "DiLoCo"),
    ("DiLoCo, 2 bits", "DiLoCo"),
    ("MuLoCo, 2 bits", "MuLoCo"),
    ("Streaming DiLoCo", "DiLoCo"),
    ("Streaming DiLoCo, E3M0", "Streaming DiLoCo"),
    ("SparseLoCo", "DiLoCo"),
    ("DeMo", "dense AdamW"),
    ("DeMo", "DiLoCo"),
    ("SPARTA", "dense AdamW"),
    ("SPARTA", "DiLoCo"),
    ("SPARTA with DiLoCo", "DiLoCo"),
    ("NoLoCo", "DiLoCo"),
    ("DES-LOC", "local Adam"),
    ("DES-LOC", "LocalSGD"),
)
FAMILIES = {family: i for i, family in enumerate(dict.fromkeys(m.family for m in METHODS.values()))}


def words(method: str, rates: Rates, every: int) -> Command:
    return (*problem(WORKERS, every), *METHODS[method].words.split(), *fields(rates))


def runs(method: str, rates: Rates) -> list[Command]:
    return [(*words(method, rates, EVERY), f"seed={seed}") for seed in SEEDS]


def networks() -> list[Network]:
    base = prepare(compose_config((f"network.compute.seconds={GRADIENT}",))).network
    return [dataclasses.replace(base, bandwidth=float(rate)) for rate in BANDWIDTHS.values()]


def measured(found: Sequence[Run]) -> dict[str, float]:
    """Means over a method's runs, and the standard errors of what the seed changes."""
    losses = pd.Series([loss(run) for run in found])
    perplexities = losses.map(math.exp)
    replays, priced = [Replay(run) for run in found], networks()
    seconds = {
        name: sum(replay.seconds(network)[-1] for replay in replays) / len(replays)
        for name, network in zip(BANDWIDTHS, priced, strict=True)
    }
    return {
        "loss": float(losses.mean()),
        "loss_error": float(losses.sem()),
        "perplexity": float(perplexities.mean()),
        "perplexity_error": float(perplexities.sem()),
        "sent": float(pd.Series([run.summary["bytes_sent"] for run in found]).mean()),
        "wire": float(pd.Series([run.summary["bytes_wire"] for run in found]).mean()),
        **seconds,
    }


def table(rows: dict[str, dict[str, float]], rates: dict[str, Rates]) -> str:
    heads = ["method", f"test loss, {len(SEEDS)} seeds", "perplexity", "sent", "on the wire", *BANDWIDTHS, "tuned"]
    cells = [
        [
            method,
            f"{row['loss']:.3f} ± {row['loss_error']:.3f}",
            f"{row['perplexity']:.2f} ± {row['perplexity_error']:.2f}",
            human_bytes(row["sent"]),
            human_bytes(row["wire"]),
            *(f"{row[name]:.3g} s" for name in BANDWIDTHS),
            shown(rates[method]),
        ]
        for method, row in rows.items()
    ]
    return markdown(heads, cells)


def differences(rates: dict[str, Rates]) -> str:
    def losses(method: str) -> pd.Series[float]:
        return pd.Series([loss(result(each)) for each in runs(method, rates[method])])

    rows = []
    for method, other in PAIRS:
        less = losses(method) - losses(other)
        rows.append([method, other, f"{less.mean():+.3f} ± {less.sem():.3f}"])
    return markdown(["method", "less", "difference of the test losses"], rows)


def methods(again: bool) -> None:
    if again:
        spaces = {name: method.space for name, method in METHODS.items()}
        tune(TUNED, spaces, lambda method, rates: (*words(method, rates, STEPS), *held_out(TUNING_SEED)))
    rates = tuned(TUNED)
    run_all(each for method in METHODS for each in runs(method, rates[method]))
    rows = {method: measured([result(each) for each in runs(method, rates[method])]) for method in METHODS}
    told = f"{WORKERS} workers, {STEPS} steps, an exchange every {TAU}; mean ± standard error; seconds of the virtual "
    text = f"{told}clock with {GRADIENT:g} s a gradient\n\n{table(rows, rates)}\n\n{differences(rates)}\n"
    write_atomic(OUT / "lowcomm.md", text)
    write_atomic(OUT / "lowcomm.csv", pd.DataFrame.from_dict(rows, orient="index").to_csv(index_label="method"))
    print(text)
    draw(rows)


def draw(rows: dict[str, dict[str, float]]) -> None:
    """Test loss against bytes on the wire, and against seconds at 100 Mbit/s."""
    with figure(1, 2, 3.6, 3.6) as (made, axes):
        for axis, x in zip(axes, ("wire", "100 Mbit/s"), strict=True):
            for method, row in rows.items():
                family = METHODS[method].family
                alike = [name for name in METHODS if METHODS[name].family == family]
                colour, marker = COLOURS[FAMILIES[family] % len(COLOURS)], MARKERS[alike.index(method)]
                look = {"color": colour, "marker": marker, "linestyle": "none", "capsize": 2.0, "elinewidth": 0.8}
                axis.errorbar(row[x], row["loss"], row["loss_error"], label=method if axis is axes[0] else None, **look)
        bytes_axis(axes[0].xaxis)
        log_scale(axes[1].xaxis)
        axes[1].set_xticks([3, 5, 10, 15], ["3", "5", "10", "15"])
        axes[0].set(xlabel="bytes on the wire, all workers", ylabel=f"test loss (mean ± s.e. of {len(SEEDS)} seeds)")
        axes[1].set(xlabel=f"seconds at 100 Mbit/s, {1000 * GRADIENT:g} ms a gradient")
        made.legend(loc="outside right center")
        save(made, OUT / "lowcomm")


def main() -> None:
    parser = argparse.ArgumentParser(description="Low-communication methods on text: tables and figures.")
    parser.add_argument("--tune", action="store_true", help="repeat the tuning first")
    parser.add_argument("--dppf", action="store_true", help="the second part: DPPF where models interpolate")
    dppf_text.add_sizes(parser)
    given = parser.parse_args()
    if given.dppf:
        dppf_text.study(dppf_text.Size(given.model, given.tokens, given.batch, given.steps, given.seeds))
    else:
        methods(given.tune)


if __name__ == "__main__":
    main()
