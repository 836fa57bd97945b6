"""make figures: every figure of the report, from finished runs where they exist.

outputs/figures/  regtopk_linreg  regtopk_toy  digits_bytes  codec_study  dppf_small  twins  proxgt_logistic
topology_independence  choco_digits  onebit_small   (png, pdf); the numbers of most in tables (md)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from codec_study import study
from gossip_study import choco, independence, logistic
from twins import local_methods, twins

from commexp.api import run_experiment
from commexp.report.curves import draw_line, dress
from commexp.report.style import bytes_axis, figure, line_style, percent_axis, save
from commexp.report.tables import markdown
from commexp.rundir import Run, write_atomic
from commexp.units import human_bytes

OUT = Path("outputs/figures")
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def runs(*overrides: str, seeds: int) -> list[Run]:
    return [run_experiment([*overrides, f"seed={seed}"], figures=False) for seed in range(seeds)]


def mean_log(found: Sequence[Run]) -> pd.Series:
    """log10 ||x - x*||^2 by round, mean over seeds."""
    curves = [r.metrics.set_index("round")["dist_to_opt"].pow(2).clip(lower=1e-300) for r in found]
    return pd.concat(curves, axis=1).map(math.log10).mean(axis=1)


def linreg() -> None:
    """arXiv 2501.05633: squared distance to the optimum against round, by share S = k/J."""
    experiment = "+experiment=regtopk_linreg"
    dense = mean_log(runs(experiment, "compress=none", seeds=5))
    rows = [["dense", "1.0", *(f"{dense[t]:.1f}" for t in (500, 1000, 1500, 2500))]]
    with figure(1, 2, 3.6, 3.2) as (made, axes):
        for axis, method, title in zip(axes, ("topk", "regtopk"), ("Top-k", "RegTop-k"), strict=True):
            axis.plot(dense.index, 10**dense, color="black", linestyle=":", label="dense" if method == "topk" else None)
            for i, share in enumerate(SHARES):
                mean = mean_log(runs(experiment, f"compress={method}", f"compress.k={share}", seeds=5))
                axis.plot(mean.index, 10**mean, label=f"S = {share}" if method == "topk" else None, **line_style(i))
                rows.append([method, str(share), *(f"{mean[t]:.1f}" for t in (500, 1000, 1500, 2500))])
            axis.set_title(title)
            axis.set_yscale("log")
            axis.set_ylim(1e-28, 1e3)
            axis.set_xlabel("round")
        axes[0].set_ylabel("squared distance to the optimum\n(geometric mean of 5 seeds)")
        made.legend(loc="outside right center")
        save(made, OUT / "regtopk_linreg")
    heads = ["method", "S", *(f"round {t}" for t in (500, 1000, 1500, 2500))]
    text = "log10 of the squared distance to the optimum, mean of 5 seeds\n\n" + markdown(heads, rows) + "\n"
    write_atomic(OUT / "regtopk_linreg.md", text)
    print(text)


def toy() -> None:
    """arXiv 2501.05633: two workers whose large gradients cancel."""
    with figure(1, 1, 4.2, 3.0) as (made, axes):
        # black, orange, and blue in dashes, because the first and the last lie on each other
        for method, name, style in (("none", "dense", 6), ("topk", "Top-1", 1), ("regtopk", "RegTop-1", 7)):
            found = runs("+experiment=regtopk_toy", f"compress={method}", seeds=1)
            draw_line(axes[0], [r.metrics for r in found], "step", "train_loss", style, name)
        dress(axes[0], "step", "train_loss")
        axes[0].set_xlabel("round")
        axes[0].set_yscale("log")
        axes[0].set_ylim(1e-3, 1)
        axes[0].legend()
        save(made, OUT / "regtopk_toy")


def digits() -> None:
    """Digits: test accuracy against bytes sent, dense and at three shares."""
    with figure(1, 1, 5.6, 3.2) as (made, axes):
        axis = axes[0]

        def line(name: str, style: int, *overrides: str) -> float:
            found = [r.metrics for r in runs(*overrides, seeds=3)]
            draw_line(axis, found, "bytes_sent", "test_accuracy", style, name)
            return float(found[0]["bytes_sent"].iloc[-1])

        axis.annotate("k/J = 1", (line("dense", 6, "algo=sgd"), 1.0), ha="right", va="bottom")
        for k in (0.1, 0.01, 0.001):
            first = k == 0.1
            line("Top-k" if first else "", 1, "algo=topk", f"compress.k={k}")
            end = line("RegTop-k" if first else "", 0, "algo=regtopk", f"compress.k={k}")
            axis.annotate(f"k/J = {k:g}", (end, 1.0), ha="right", va="bottom")
        axis.set_ylim(0, 1.08)
        bytes_axis(axis.xaxis)
        axis.set_xlabel("bytes sent, all workers (mean and range of 3 seeds)")
        percent_axis(axis, "test accuracy")
        axis.legend(loc="lower right")
        save(made, OUT / "digits_bytes")


def onebit() -> None:
    """1-bit gradient coding beside real-valued, half of 100 peers late: excess loss by copies d, one seed and step."""
    experiment, rows = ("+experiment=onebit_linreg", "algo.lr=0.05"), []
    with figure(1, 1, 5.2, 3.2) as (made, axes):
        for d, bits, real in ((1, 0, 7), (2, 1, 8), (5, 2, 9), (10, 3, 10)):
            for name, style, words in (("1-bit", bits, ()), ("real", real, ("compress=none", "rounds=500"))):
                (found,) = runs(*experiment, *words, f"allocation.d={d}", seeds=1)
                draw_line(axes[0], [found.metrics], "bytes_sent", "excess_loss", style, f"{name}, d = {d}")
                end = found.metrics["excess_loss"].iloc[-len(found.metrics) // 10 :].mean()
                rows.append([name, str(d), f"{end:.2g}", human_bytes(float(found.metrics["bytes_sent"].iloc[-1]))])
        dress(axes[0], "bytes_sent", "excess_loss")
        axes[0].set_ylabel("excess loss")
        made.legend(loc="outside right center")
        save(made, OUT / "onebit_small")
    text = markdown(["messages", "d", "excess loss, last tenth", "sent"], rows) + "\n"
    write_atomic(OUT / "onebit_small.md", text)
    print(text)


def main() -> None:
    for draw in (linreg, toy, digits, study, local_methods, twins, logistic, independence, choco, onebit):
        print(f"{draw.__name__}: {(draw.__doc__ or '').splitlines()[0]}", file=sys.stderr)
        draw()
    print("\n".join(str(p) for p in sorted(OUT.glob("*.*"))))


if __name__ == "__main__":
    main()
