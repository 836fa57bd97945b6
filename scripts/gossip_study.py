"""Decentralised methods, tables and figures: python scripts/gossip_study.py [--root FOLDER]

proxgt_a9a             five methods on a9a with the published and a tuned step; if FOLDER has the files
topology_independence  with enough mixings the graph does not matter, with one it does
proxgt_logistic        l1 logistic regression: stationarity, and the objective compared with scikit-learn
choco_digits           compressed gossip compared with gossip of whole models
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression

from commexp.api import compose_config
from commexp.check.batch import result, run_all
from commexp.config.messages import UserError
from commexp.config.plan import prepare
from commexp.experiment.setup import ExperimentSetup
from commexp.metrics import human_bytes
from commexp.report.curves import draw_line, dress
from commexp.report.style import figure, line_style, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
SEEDS = range(5)
METHODS = {
    "proxgt_sr_e": "ProxGT-SR-E",
    "proxgt_sr_o": "ProxGT-SR-O",
    "proxgt_sa": "ProxGT-SA",
    "deepstorm": "DEEPSTORM v1",
    "dsgt": "DSGT with prox",
}
PUBLISHED = 0.005
STEPS = (PUBLISHED, 0.02, 0.05, 0.1, 0.2, 0.5)
#: of the published setting: train loss, test accuracy, stationarity (with consensus), nonzero
QUOTED = {
    "third-party ProxGT-SR-E": ("0.3431", "84.20%", "2.2e-03", "90%"),
    "better methods": ("0.327", "85.1%", "1e-04", "2%"),
}
GRAPHS = ("complete", "ring", "ladder")
MIXINGS = {"1 mixing": "null", "distances shrink to 1/N": "0.03125"}
LOGISTIC = [("+experiment=proxgt_logistic", f"seed={seed}") for seed in SEEDS]
COMPRESSED = {"dpsgd": "D-PSGD, whole models", "choco": "CHOCO-SGD, Top-k 10 %"}


def mixed(graph: str, contraction: str, seed: int) -> tuple[str, ...]:
    given = f"gossip.contraction={contraction}"
    return "+experiment=topology_independence", f"topology={graph}", given, f"seed={seed}"


def compressed(method: str) -> list[tuple[str, ...]]:
    return [("+experiment=choco_digits", f"algo={method}", f"seed={seed}") for seed in range(3)]


def commands() -> list[tuple[str, ...]]:
    """Of all figures whose data need no download."""
    independent = [mixed(graph, c, seed) for graph in GRAPHS for c in MIXINGS.values() for seed in SEEDS]
    return [*LOGISTIC, *independent, *(each for method in COMPRESSED for each in compressed(method))]


def final(run: Run, column: str) -> float:
    return float(run.metrics[column].iloc[-1]) if run.status == "completed" else float("inf")


def a9a(root: str) -> None:
    """a9a: stationarity against samples and against bytes, with the published step and the best of six."""

    def words(method: str, step: float) -> tuple[str, ...]:
        return "+experiment=proxgt_a9a", f"algo={method}", f"algo.lr={step:g}", f"dataset.root={root}"

    run_all(words(method, step) for step in STEPS for method in METHODS)
    rows = [[name, "", *values, "", ""] for name, values in QUOTED.items()]
    with figure(2, 2, 3.4, 2.5) as (made, axes):
        for tuned in (False, True):
            for style, (method, name) in zip((0, 1, 2, 3, 12), METHODS.items(), strict=True):  # the last in dashes
                runs = {step: result(words(method, step)) for step in STEPS}
                best = min(STEPS, key=lambda step: final(runs[step], "objective")) if tuned else PUBLISHED
                run = runs[best]
                for i, x in enumerate(("samples_per_node", "bytes_sent")):
                    axis = axes[2 * tuned + i]
                    draw_line(
                        axis, [run.metrics], x, "stationarity", line_style(style), name if i == tuned == 0 else ""
                    )
                rows.append(row(name, best, run))
        for i, axis in enumerate(axes):
            x = ("samples_per_node", "bytes_sent")[i % 2]
            dress(axis, x, "stationarity", last_row=i > 1, first_column=i % 2 == 0)
            axis.set_title("each method's best step" if i > 1 else f"step {PUBLISHED}")
        made.legend(loc="outside right center")
        save(made, OUT / "proxgt_a9a")
    heads = ["method", "step", "train loss", "test accuracy", "stationarity", "nonzero", "samples per node", "sent"]
    text = markdown(heads, rows) + "\n"
    write_atomic(OUT / "proxgt_a9a.md", text)
    print(text)


def row(name: str, step: float, run: Run) -> list[str]:
    if run.status != "completed":
        return [name, f"{step:g}", *["-"] * 5, str(run.status)]
    loss, accuracy, nonzero = (final(run, c) for c in ("train_loss", "test_accuracy", "nonzero"))
    samples, sent = final(run, "samples_per_node"), human_bytes(final(run, "bytes_sent"))
    stationarity = f"{final(run, 'stationarity'):.1e}"
    return [
        name,
        f"{step:g}",
        f"{loss:.4f}",
        f"{accuracy:.2%}",
        stationarity,
        f"{nonzero:.1%}",
        f"{samples:,.0f}",
        sent,
    ]


def independence() -> None:
    """Stationarity against samples on three graphs, with one mixing and with as many as shrink distances to 1/N."""
    run_all(mixed(graph, c, seed) for graph in GRAPHS for c in MIXINGS.values() for seed in SEEDS)
    rows = []
    with figure(1, 2, 3.2, 2.8) as (made, axes):
        for axis, (title, contraction) in zip(axes, MIXINGS.items(), strict=True):
            for style, graph in zip((0, 8, 16), GRAPHS, strict=True):  # dashes, because lines lie on each other
                runs = [result(mixed(graph, contraction, seed)) for seed in SEEDS]
                k = int(runs[0].summary["mixings"])
                draw_line(
                    axis,
                    [r.metrics for r in runs],
                    "samples_per_node",
                    "stationarity",
                    line_style(style),
                    f"{graph}, K = {k}",
                )
                values = [final(r, "stationarity") for r in runs]
                rows.append(
                    [
                        title,
                        graph,
                        str(k),
                        f"{sum(values) / len(values):.2e}",
                        f"{min(values):.2e}",
                        f"{max(values):.2e}",
                    ]
                )
            dress(axis, "samples_per_node", "stationarity", first_column=axis is axes[0])
            axis.set_title(title)
            axis.set_ylim(1e-7, 1)
            axis.legend(loc="upper right")
        save(made, OUT / "topology_independence")
    text = (
        markdown(["mixings", "graph", "K", f"stationarity, mean of {len(SEEDS)} seeds", "least", "most"], rows) + "\n"
    )
    write_atomic(OUT / "topology_independence.md", text)
    print(text)


def logistic() -> None:
    """l1 logistic regression: stationarity of five seeds, and objectives beside scikit-learn's."""
    runs = list(run_all(LOGISTIC).values())
    rows = []
    for seed, run in zip(SEEDS, runs, strict=True):
        reached = run.metrics[run.metrics["stationarity"] <= 1e-5]["round"].min()
        best = solved(LOGISTIC[seed])
        ours = final(run, "objective")
        rows.append(
            [
                str(seed),
                str(reached),
                f"{final(run, 'stationarity'):.1e}",
                f"{ours:.12f}",
                f"{abs(ours / best - 1):.1e}",
            ]
        )
    with figure(1, 2, 3.2, 2.5) as (made, axes):
        for axis, x in zip(axes, ("samples_per_node", "bytes_sent"), strict=True):
            draw_line(axis, [r.metrics for r in runs], x, "stationarity", line_style(0))
            dress(axis, x, "stationarity", first_column=axis is axes[0])
        save(made, OUT / "proxgt_logistic")
    heads = ["seed", "stationarity <= 1e-5 in round", "at the end", "objective", "off scikit-learn's, relative"]
    text = markdown(heads, rows) + "\n"
    write_atomic(OUT / "proxgt_logistic.md", text)
    print(text)


def solved(words: Sequence[str]) -> float:
    """The objective at scikit-learn's solution (SAGA) of the same problem, F the mean of the workers' means."""
    plan = prepare(compose_config(words))
    problem = ExperimentSetup(plan, torch.device("cpu"), Run(OUT / "none")).problem
    signed, shares = problem.margins.signed.numpy(), problem.shares.numpy()  # type: ignore[attr-defined]
    labels = [1 - 2 * (i % 2) for i in range(len(signed))]  # a sample and its mirror image have the same loss
    features = signed * torch.tensor(labels).numpy()[:, None]
    weight = plan.prox.weight * len(signed)  # type: ignore[attr-defined]
    model = LogisticRegression(l1_ratio=1, solver="saga", C=1 / weight, fit_intercept=False, tol=1e-11, max_iter=10**6)
    model.fit(features, labels, sample_weight=shares * len(signed))
    return problem.evaluate(torch.from_numpy(model.coef_[0]))["objective"]


def choco() -> None:
    """Digits on a ring: train loss against bytes, whole models and Top-k at a tenth."""
    run_all(each for method in COMPRESSED for each in compressed(method))
    rows = []
    with figure(1, 2, 3.2, 2.6) as (made, axes):
        for style, (method, name) in enumerate(COMPRESSED.items()):
            runs = [result(each) for each in compressed(method)]
            for axis, metric in zip(axes, ("train_loss", "test_accuracy"), strict=True):
                draw_line(axis, [r.metrics for r in runs], "bytes_sent", metric, line_style(style), name)
            means = [sum(final(r, c) for r in runs) / len(runs) for c in ("train_loss", "test_accuracy", "bytes_sent")]
            rows.append([name, f"{means[0]:.4f}", f"{means[1]:.2%}", human_bytes(means[2])])
        for axis, metric in zip(axes, ("train_loss", "test_accuracy"), strict=True):
            dress(axis, "bytes_sent", metric)
        axes[1].legend(loc="lower right")
        save(made, OUT / "choco_digits")
    text = markdown(["method", "train loss", "test accuracy", "sent"], rows) + "\n"
    write_atomic(OUT / "choco_digits.md", text)
    print(text)


FIGURES = (logistic, independence, choco)


def main() -> None:
    parser = argparse.ArgumentParser(description="Decentralised methods: tables and figures in outputs/figures.")
    parser.add_argument("--root", default="data", help="the folder of a9a and a9a.t")
    root = parser.parse_args().root
    for study in FIGURES:
        study()
    try:
        a9a(root)
    except UserError as error:
        print(f"a9a is skipped: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
