"""Figures of the small versions of the experiments, one per claim. Part of make figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from commexp.check.batch import Command, result
from commexp.report.curves import draw_line, dress
from commexp.report.style import figure, log_scale, save
from commexp.run_folder import Run

OUT = Path("outputs/figures")
SEEDS = 3
Words = tuple[str, ...]

SOLVED = ("+experiment=async_logistic_breast_cancer", "network.compute.slow=[10]", "algo.solver=svrg")
#: line style (blue, orange, green, black in dashes) and words of each method; claims.yaml has most of these runs, too
LOGISTIC: dict[str, tuple[int, Words]] = {
    "nobody waits": (0, (*SOLVED, "algo.lr=0.4", "algo.iterations=40")),
    "barrier": (1, (*SOLVED, "algo=sync_ps", "algo.lr=0.4", "algo.iterations=40", "rounds=100", "eval_every=1")),
    "gradient push": (2, (*SOLVED, "algo=async_sgd", "algo.lr=0.4", "rounds=5000", "eval_every=50")),
}
RATINGS: dict[str, tuple[int, Words]] = {
    "nobody waits": (0, ("+experiment=async_ratings",)),
    "barrier": (1, ("+experiment=async_ratings", "algo=sync_ps", "rounds=50", "eval_every=1")),
}
A9A: dict[str, tuple[int, Words]] = {
    "ProxGT-SR-E": (0, ("+experiment=proxgt_breast_cancer",)),
    "ProxGT-SA": (1, ("+experiment=proxgt_breast_cancer", "algo=proxgt_sa")),
    "DSGT with prox": (9, ("+experiment=proxgt_breast_cancer", "algo=dsgt")),
}
CODED = ("+experiment=onebit_digits", "allocation.d=5")
IMAGES: dict[str, tuple[int, Words]] = {
    "1-bit": (0, CODED),
    "real-valued": (
        1,
        (
            "+experiment=onebit_digits",
            "allocation.d=5",
            "compress=none",
            "rounds=150",
            "eval_every=1",
            "algo.lr=0.5",
        ),
    ),
}
WIDTHS: dict[str, tuple[int, Words]] = {
    "push 0.05, pull 0.5": (0, ("+experiment=dppf_digits", "algo.push_schedule=constant")),
    "push 0.15, pull 0.5": (1, ("+experiment=dppf_digits", "algo.push_schedule=constant", "algo.push=0.15")),
}
TEXT = ("+experiment=lowcomm_text",)
TEXTS: dict[str, tuple[int, Words]] = {
    "dense": (6, (*TEXT, "algo=sgd")),
    "LocalSGD": (1, (*TEXT, "algo=localsgd")),
    "DiLoCo": (0, TEXT),
    "DiLoCo, 2 bits": (7, (*TEXT, "compress=kbit", "compress.bits=2")),
    "Streaming DiLoCo": (2, (*TEXT, "algo=streaming_diloco", "algo.delay=3")),
}


def seeded(words: Words) -> list[Command]:
    return [(*words, f"seed={seed}") for seed in range(SEEDS)]


def commands() -> list[Command]:
    tables = (LOGISTIC, RATINGS, A9A, IMAGES, WIDTHS, TEXTS)
    return [each for table in tables for _, words in table.values() for each in seeded(words)]


def runs(words: Words) -> list[Run]:
    return [result(each) for each in seeded(words)]


def panels(table: Mapping[str, tuple[int, Words]], across: tuple[str, ...], metric: str, name: str) -> None:
    """A metric of each method against each of ``across``, on a log scale where one line goes far beyond another."""
    with figure(1, len(across), 3.3, 2.7) as (made, axes):
        found = {
            method: [r.metrics.iloc[1:].reset_index(drop=True) for r in runs(w)] for method, (_, w) in table.items()
        }
        for number, (axis, x) in enumerate(zip(axes, across, strict=True)):
            ends = [float(frames[0][x].iloc[-1]) for frames in found.values()]
            log = max(ends) > 4 * min(ends) or x == "bytes_sent"
            for method, (style, _) in table.items():
                draw_line(axis, found[method], x, metric, style, method, log)
            dress(axis, x, metric, first_column=number == 0, log=log, least=2)
        axes[0].legend()
        save(made, OUT / name)


def async_logistic_small() -> None:
    """Objective against virtual time and against messages, one worker of ten ten times slower."""
    panels(LOGISTIC, ("sim_seconds", "calls"), "objective", "async_logistic_small")


def async_ratings_small() -> None:
    """Test RMSE against virtual time and against messages, one worker of eight ten times slower."""
    panels(RATINGS, ("sim_seconds", "calls"), "test_rmse", "async_ratings_small")


def proxgt_breast_cancer() -> None:
    """Stationarity of a perceptron on breast cancer data, against samples and bytes."""
    panels(A9A, ("samples_per_node", "bytes_sent"), "stationarity", "proxgt_breast_cancer")


def onebit_images_small() -> None:
    """Accuracy on digits against bytes and virtual time, half of 20 peers late."""
    panels(IMAGES, ("bytes_sent", "sim_seconds"), "test_accuracy", "onebit_images_small")


def dppf_width() -> None:
    """DPPF's valley against rounds, and push / pull."""
    with figure(1, 1, 4.6, 3.0) as (made, (axis,)):
        for method, (style, words) in WIDTHS.items():
            found = runs(words)
            draw_line(
                axis, [r.metrics.iloc[1:].reset_index(drop=True) for r in found], "round", "valley_width", style, method
            )
            limit = float(found[0].metrics["valley_limit"].iloc[-1])
            axis.axhline(limit, color="grey", linewidth=0.8, linestyle=":")
        axis.set_xlabel("round")
        axis.set_ylabel("valley width")
        log_scale(axis.yaxis)
        axis.legend()
        save(made, OUT / "dppf_width")


def lowcomm_small() -> None:
    """Test loss of local methods on text, against bytes and virtual time at 100 Mbit/s."""
    panels(TEXTS, ("bytes_sent", "sim_seconds"), "test_loss", "lowcomm_small")


FIGURES = (
    async_logistic_small,
    async_ratings_small,
    proxgt_breast_cancer,
    onebit_images_small,
    dppf_width,
    lowcomm_small,
)
