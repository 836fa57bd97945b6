"""make figures: every figure of the report, from finished runs where they exist, and a page with the papers' claims.

outputs/report/index.html   a section per system: the claims, the results, our figure
outputs/figures/            the figures (png, pdf), the numbers of most in tables (md)
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import gossip_study
import pandas as pd
import small_forms
import twins
from codec_study import study

from commexp.check.batch import result, run_all
from commexp.check.claim import load
from commexp.check.judge import judge
from commexp.check.show import sections, write
from commexp.cli.claims import folders
from commexp.metrics import human_bytes
from commexp.report.curves import draw_line, dress
from commexp.report.findings import findings_page
from commexp.report.style import bytes_axis, figure, line_style, percent_axis, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
PAGE = Path("outputs/report/index.html")
Words = tuple[str, ...]
LINREG: Words = ("+experiment=regtopk_linreg",)
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
TOY: Words = ("+experiment=regtopk_toy",)
METHODS = {"none": "dense", "topk": "Top-1", "regtopk": "RegTop-1"}
#: 1-bit and real-valued messages
ONEBIT: Words = ("+experiment=onebit_linreg", "algo.lr=0.05")
MESSAGES: dict[str, Words] = {"1-bit": (), "real": ("compress=none", "rounds=500")}
COPIES = (1, 2, 5, 10)
KEPT = (0.1, 0.01, 0.001)  # k/J on digits


def runs(*overrides: str, seeds: int) -> list[Run]:
    return [result((*overrides, f"seed={seed}")) for seed in range(seeds)]


def commands() -> list[Words]:
    """Of all runs that are drawn here."""
    fixed = {
        5: [
            (*LINREG, "compress=none"),
            *((*LINREG, f"compress={c}", f"compress.k={k}") for c in ("topk", "regtopk") for k in SHARES),
        ],
        1: [
            *((*TOY, f"compress={c}") for c in METHODS),
            *((*ONEBIT, *words, f"allocation.d={d}") for words in MESSAGES.values() for d in COPIES),
        ],
        3: [
            ("algo=sgd",),
            *((f"algo={c}", f"compress.k={k}") for c in ("topk", "regtopk") for k in KEPT),
        ],
    }
    return [(*words, f"seed={seed}") for seeds, each in fixed.items() for words in each for seed in range(seeds)]


def mean_log(found: Sequence[Run]) -> pd.Series:
    """log10 ||x - x*||^2 by round, mean over seeds."""
    curves = [r.metrics.set_index("round")["dist_to_opt"].pow(2).clip(lower=1e-300) for r in found]
    return pd.concat(curves, axis=1).map(math.log10).mean(axis=1)


def linreg() -> None:
    """arXiv 2501.05633: squared distance to the optimum against round, by share S = k/J."""
    dense = mean_log(runs(*LINREG, "compress=none", seeds=5))
    rows = [["dense", "1.0", *(f"{dense[t]:.1f}" for t in (500, 1000, 1500, 2500))]]
    with figure(1, 2, 3.6, 3.2) as (made, axes):
        for axis, method, title in zip(axes, ("topk", "regtopk"), ("Top-k", "RegTop-k"), strict=True):
            axis.plot(dense.index, 10**dense, color="black", linestyle=":", label="dense" if method == "topk" else None)
            for i, share in enumerate(SHARES):
                mean = mean_log(runs(*LINREG, f"compress={method}", f"compress.k={share}", seeds=5))
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
        for (method, name), style in zip(METHODS.items(), (6, 1, 7), strict=True):
            found = runs(*TOY, f"compress={method}", seeds=1)
            draw_line(axes[0], [r.metrics for r in found], "step", "train_loss", line_style(style), name)
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
            draw_line(axis, found, "bytes_sent", "test_accuracy", line_style(style), name)
            return float(found[0]["bytes_sent"].iloc[-1])

        axis.annotate("k/J = 1", (line("dense", 6, "algo=sgd"), 1.0), ha="right", va="bottom")
        for k in KEPT:
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
    rows = []
    with figure(1, 1, 5.2, 3.2) as (made, axes):
        for i, d in enumerate(COPIES):
            for style, (name, words) in zip((i, i + 7), MESSAGES.items(), strict=True):
                (found,) = runs(*ONEBIT, *words, f"allocation.d={d}", seeds=1)
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


def page(roots: Mapping[str, str]) -> None:
    """The papers' claims, judged, with the figures."""
    systems, claims = load()
    verdicts = judge(claims, named=False, outputs="outputs", roots=roots, jobs=2)
    write(verdicts, PAGE.parent)
    told = "What the papers of five systems say, and what came of it here, on two cores: make reproduce, make figures."
    write_atomic(PAGE, findings_page(sections(systems, verdicts, OUT), told))


def main() -> None:
    parser = argparse.ArgumentParser(description="Every figure, and a page with the papers' claims.")
    parser.add_argument("--root", action="append", default=[], metavar="DATA=FOLDER", help="as of commexp-check claims")
    roots = folders(parser.parse_args().root, load()[1])
    run_all([*commands(), *small_forms.commands(), *twins.commands(), *gossip_study.commands()])
    mine = (linreg, toy, digits, onebit, study)
    others = (*small_forms.FIGURES, *twins.FIGURES, *gossip_study.FIGURES)
    for draw in (*mine, *others):
        print(f"{draw.__name__}: {(draw.__doc__ or '').splitlines()[0]}", file=sys.stderr)
        draw()
    page(roots)
    print("\n".join(str(p) for p in [*sorted(OUT.glob("*.*")), PAGE]))


if __name__ == "__main__":
    main()
