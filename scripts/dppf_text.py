"""DPPF against dense training and LocalSGD where a GPT interpolates its text; the second part of lowcomm_study.py

Four workers train on so little text, for so long, that the training loss ends near the least that windows of a text
allow. One recipe serves all methods, and nothing is tuned. Test loss at the end and at its best, and around the model
that the run ends with the mean valley and the sharpness. The size of the model and of the text are arguments.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from commexp.check.batch import Command, result, run_all
from commexp.problems.datasets import Text
from commexp.report.curves import draw_line
from commexp.report.style import count_axis, figure, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
RECIPE = ("dataset=text", "dataset.test_tokens=20000", "partition=iid", "workers=4", "algo.lr=0.006", "flatness=valley")
EVALUATIONS = 20
DPPF = "algo=dppf algo.pull=0.1 algo.push=0.5"  # as published for CIFAR-10: a width of 5
NARROW = "algo=dppf algo.pull=0.5 algo.push=0.5"  # a width of 1, near the mean valley of LocalSGD
METHODS = {
    "dense": "algo=sgd",
    "dense + SAM": "algo=sam",
    "LocalSGD, tau = 8": "algo=localsgd algo.tau=8",
    "LocalSGD, tau = 16": "algo=localsgd algo.tau=16",
    "DPPF, tau = 8": f"{DPPF} algo.tau=8",
    "DPPF, tau = 16": f"{DPPF} algo.tau=16",
    "narrow DPPF, tau = 8": f"{NARROW} algo.tau=8",
}
STYLES = (6, 2, 1, 5, 0, 4, 7)
#: what is measured, by the head of its column: its name, and how it is shown
COLUMNS = {
    "test loss, end": ("test_loss", ".3f"),
    "best": ("best", ".3f"),
    "train loss, end": ("train_loss", ".3f"),
    "workers' distance": ("valley_width", ".2f"),
    "mean valley": ("mean_valley", ".2f"),
    "sharpness": ("sharpness", ".4f"),
}


class Size(NamedTuple):
    """``model``: the config's name of it. ``tokens``: of the training text. ``batch``: windows of a worker and step."""

    model: str = "gpt"
    tokens: int = 8192
    batch: int = 4
    steps: int = 1000
    seeds: int = 5


def add_sizes(parser: argparse.ArgumentParser) -> None:
    for name, value in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"of the second part; {value}")


def runs(method: str, size: Size) -> list[Command]:
    sizes = (f"model={size.model}", f"dataset.tokens={size.tokens}", f"batch_size={size.batch}", f"steps={size.steps}")
    every = f"eval_every={size.steps // EVALUATIONS}"
    common = (*RECIPE, *sizes, every, *METHODS[method].split())
    return [(*common, f"seed={seed}") for seed in range(size.seeds)]


def measured(found: Sequence[Run]) -> pd.DataFrame:
    """A row for each seed."""
    rows = []
    for run in found:
        last = run.metrics.iloc[-1].to_dict()
        rows.append({**last, **run.summary, "best": float(run.metrics["test_loss"].min())})
    return pd.DataFrame(rows)


def least_loss(tokens: int, block: int = 64) -> float:
    """Train loss of who knows the text by heart, but not where in it a window begins: each next token with its share
    among all places where what has been seen of the window stands."""
    text = Text(tokens=tokens).load(4, 0, torch.float32).train_x.stream.tobytes()
    total, before = 0.0, Counter(text[i : i + 1] for i in range(len(text)))
    starts = range(0, len(text) - block, block)
    for seen in range(1, block + 1):
        now = Counter(text[i : i + seen + 1] for i in range(len(text) - seen))
        total += sum(math.log(before[text[s : s + seen]] / now[text[s : s + seen + 1]]) for s in starts)
        before = now
    return total / len(starts) / block


def study(size: Size) -> None:
    run_all(each for method in METHODS for each in runs(method, size))
    rows, numbers = [], []
    for method in METHODS:
        seeds = measured([result(each) for each in runs(method, size)])
        row, kept = [method], {"method": method}
        for name, how in COLUMNS.values():
            column = seeds[name].astype(float) if name in seeds else pd.Series([float("nan")])
            row.append(f"{column.mean():{how}} ± {column.sem():{how}}" if column.notna().any() else "-")
            kept |= {name: column.mean(), f"{name}_error": column.sem()}
        rows.append(row)
        numbers.append(kept)
    told = f"model={size.model}, {size.tokens} tokens, 4 workers, {size.steps} steps of {size.batch} windows each; "
    told += f"mean ± standard error of {size.seeds} seeds; the least train loss is {least_loss(size.tokens):.3f}"
    text = f"{told}\n\n{markdown(['method', *COLUMNS], rows)}\n"
    name = f"dppf_text_{size.model}"
    write_atomic(OUT / f"{name}.md", text)
    write_atomic(OUT / f"{name}.csv", pd.DataFrame(numbers).to_csv(index=False))
    print(text)
    draw(size, name)


def draw(size: Size, name: str) -> None:
    """Train and test loss against local steps."""
    with figure(1, 2, 3.4, 3.0) as (made, axes):
        for style, method in zip(STYLES, METHODS, strict=True):
            found = [result(each).metrics for each in runs(method, size)]
            for axis, metric in zip(axes, ("train_loss", "test_loss"), strict=True):
                draw_line(axis, found, "step", metric, style, method if axis is axes[0] else "")
        for axis, label in zip(axes, ("train loss", "test loss"), strict=True):
            axis.set(xlabel="local steps", ylabel=f"{label} (mean and range of {size.seeds} seeds)")
            count_axis(axis.xaxis)
        made.legend(loc="outside right center")
        save(made, OUT / name)
