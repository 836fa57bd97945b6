"""Figures of the deep-learning experiments on digits, small enough for two cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from commexp.check.batch import result
from commexp.metrics import human_bytes
from commexp.report.curves import draw_line
from commexp.report.style import bytes_axis, figure, line_style, percent_axis, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
SEEDS = 2
#: each twin's title, and the methods that are compared on it
TWINS = {
    "dppf_digits": ("DPPF: digits, 4 workers", {"SGD": "algo=sgd", "LocalSGD": "algo=localsgd", "DPPF": ""}),
    "dppf_digits_few": ("DPPF: few digits", {"SGD": "algo=sgd", "LocalSGD": "algo=localsgd", "DPPF": ""}),
    "dppf_digits_8_workers": ("DPPF: digits, 8 workers", {"SGD": "algo=sgd", "LocalSGD": "algo=localsgd", "DPPF": ""}),
    "qsr_digits": ("QSR: a ViT, AdamW", {"AdamW": "algo=sgd", "Local AdamW": "algo=localsgd", "QSR": ""}),
    "regtopk_digits": (
        "RegTop-k: random shares, 0.1 %",
        {"SGD": "compress=none", "Top-k": "compress=topk", "RegTop-k": ""},
    ),
    "regtopk_digits_linear": (
        "RegTop-k: a linear head, 1 %",
        {"SGD": "compress=none", "Top-k": "compress=topk", "RegTop-k": ""},
    ),
}
STYLES = (6, 1, 7)  # black, orange, and blue in dashes, because two may lie on each other


def words(twin: str, choice: str) -> list[tuple[str, ...]]:
    fixed = (f"+experiment={twin}", *([choice] if choice else []))
    return [(*fixed, f"seed={seed}") for seed in range(SEEDS)]


def commands() -> list[tuple[str, ...]]:
    return [each for twin, (_, methods) in TWINS.items() for choice in methods.values() for each in words(twin, choice)]


def regtopk_small() -> None:
    """RegTop-k's deep-learning experiments on small data: test accuracy against bytes sent."""
    draw([twin for twin in TWINS if twin.startswith("regtopk")], 2, "regtopk_small")


def dppf_twins() -> None:
    """DPPF's deep-learning experiments, and QSR's, on small data: test accuracy against bytes sent."""
    draw([twin for twin in TWINS if not twin.startswith("regtopk")], 2, "dppf_twins")


def draw(chosen: Sequence[str], columns: int, name: str) -> None:
    """One picture and one table of these."""
    rows = []
    lines = len(chosen) // columns
    with figure(lines, columns, 3.3, 2.7) as (made, axes):
        for number, (axis, twin) in enumerate(zip(axes, chosen, strict=True)):
            title, methods = TWINS[twin]
            for style, (method, choice) in zip(STYLES, methods.items(), strict=True):
                found = [result(each) for each in words(twin, choice)]
                draw_line(axis, [r.metrics for r in found], "bytes_sent", "test_accuracy", line_style(style), method)
                rows.append([twin, method, *numbers(found)])
            axis.set_title(title)
            axis.set_ylim(0.75, 1.0)
            bytes_axis(axis.xaxis)
            percent_axis(axis, "test accuracy" if number % columns == 0 else "")
            axis.set_xlabel("bytes sent" if number >= columns * (lines - 1) else "")
            axis.legend(loc="best")
        save(made, OUT / name)
    heads = ["experiment", "method", f"test accuracy, {SEEDS} seeds", "sent", "sent / dense"]
    text = markdown(heads, rows) + "\n"
    write_atomic(OUT / f"{name}.md", text)
    print(text)


def numbers(found: list[Run]) -> list[str]:
    """Final accuracy with its standard deviation, bytes, and those over dense ones after every step."""
    accuracy = pd.Series([r.metrics["test_accuracy"].iloc[-1] for r in found])
    sent, dense = (sum(float(r.summary[k]) for r in found) / len(found) for k in ("bytes_sent", "dense_bytes"))
    return [f"{accuracy.mean():.2%} ± {100 * accuracy.std():.2f}", human_bytes(sent), f"{sent / dense:.4g}"]


FIGURES = (regtopk_small, dppf_twins)
