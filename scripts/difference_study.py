"""Compressed differences and federated methods on convex problems, tables and figures: difference_study.py [--quick]

Part one: bits that a worker sends until ||grad F||^2 <= 1e-6, for gradient descent, EF21, DIANA, MARINA and DASHA with
Top-k and Rand-k, at the step of their theory and at the best of its multiples, which are tried one by one. Logistic
regression with an l2 term, gradients over all samples, float64: breast_cancer in the order of its file, a synthetic
problem whose workers' L_n differ by a factor of 100, and a9a where its files are. Then those that can with a quarter
of the workers in each round.

Part two: FedAvg, FedProx, SCAFFOLD and ProxSkip with ten local steps at one common step size, where the workers' data
are unlike: which of them reach the minimum.

Two runs at a time, on one core each. Finished runs are reused. --quick: a tenth of the rounds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from commexp.check.batch import Command, attempt_all
from commexp.config.messages import UserError
from commexp.metrics import human_bits
from commexp.report.bits import bits_per_worker
from commexp.report.style import COLOURS, figure, log_scale, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
TARGET = 1e-6  # of the squared gradient norm
FACTORS = tuple(2**i for i in range(10))  # multiples of the theoretical step
LOGISTIC = "model=logistic_regression batch_size=null dtype=float64"
SHARE = 0.25  # of the workers, in the second table


class Data(NamedTuple):
    """``words``: the problem. ``rounds``: of a run."""

    title: str
    words: str
    rounds: int


PROBLEMS = {
    "breast_cancer": Data(
        "breast cancer, 10 workers",
        f"dataset=breast_cancer {LOGISTIC} model.l2=0.1 partition=natural workers=10",
        3000,
    ),
    "logreg": Data(
        "synthetic, 20 workers",
        "dataset=logreg dataset.dim=100 dataset.samples=30 dataset.spread=100 model.l2=0.01 workers=20",
        3000,
    ),
    "a9a": Data("a9a, 20 workers", f"dataset=a9a {LOGISTIC} model.l2=0.01 partition=natural workers=20", 500),
}
RANDK = "compress=randk compress.shared=false"


class Method(NamedTuple):
    """``family``: the methods of one colour. ``k``: the share of entries that is sent, None for all."""

    family: str
    words: str
    k: float | None


METHODS = {"gradient descent": Method("gradient descent", "algo=sgd", None)}
for share in (0.01, 0.1):
    METHODS |= {
        f"EF21, Top-k {share:.0%}": Method("EF21, Top-k", "algo=ef21 compress=topk", share),
        f"EF21, Rand-k {share:.0%}": Method("EF21, Rand-k", f"algo=ef21 {RANDK} compress.rescale=false", share),
        f"DIANA, Rand-k {share:.0%}": Method("DIANA", f"algo=diana {RANDK}", share),
        f"MARINA, Rand-k {share:.0%}": Method("MARINA", f"algo=marina {RANDK}", share),
        f"DASHA, Rand-k {share:.0%}": Method("DASHA", f"algo=dasha {RANDK}", share),
    }
FAMILIES = list(dict.fromkeys(method.family for method in METHODS.values()))
SOME = tuple(name for name in METHODS if name.startswith(("EF21", "DIANA", "DASHA")))  # MARINA needs every worker
UNLIKE = (
    "dataset=logreg dataset.dim=20 dataset.samples=30 dataset.spread=1 dataset.own_variance=25 model.l2=0.1 workers=10"
)
LOCAL = {
    "FedAvg": "algo=localsgd algo.tau=10",
    "FedProx": "algo=fedprox algo.tau=10 algo.mu=0.1",
    "SCAFFOLD": "algo=scaffold algo.tau=10",
    "ProxSkip": "algo=proxskip algo.p=0.1",
}
LOCAL_STEPS = 6000


def command(problem: str, method: str, factor: int, quick: bool, share: float = 1.0) -> Command:
    data, chosen = PROBLEMS[problem], METHODS[method]
    rounds = data.rounds // (10 if quick else 1)
    words = [*data.words.split(), *chosen.words.split(), "algo.lr=theory", f"algo.lr_factor={factor}"]
    words += [f"rounds={rounds}", f"eval_every={max(1, rounds // 300)}"]
    words += [f"compress.k={chosen.k}"] if chosen.k else []
    return (*words, *([f"participation={share}"] if share < 1 else []))


def curve(run: Run) -> pd.DataFrame:
    """``bits``: that a worker has sent; ``norm``: ||grad F||^2. A row for each evaluation."""
    rounds = run.metrics["round"]
    sent = bits_per_worker(run.traffic, run.meta["workers"], rounds)["bits_up"]
    return pd.DataFrame({"bits": sent.to_numpy(), "norm": run.metrics["stationarity"].to_numpy()})


def reached(run: Run | Exception | None) -> float:
    """Bits of a worker until the target; infinity for a run that has not met it, or has diverged."""
    if not isinstance(run, Run) or run.status != "completed":
        return math.inf
    each = curve(run)
    there = each[each["norm"] <= TARGET]
    return float(there["bits"].iloc[0]) if len(there) else math.inf


def least(run: Run | Exception | None) -> float:
    if not isinstance(run, Run) or run.status != "completed":
        return math.inf
    return float(run.metrics["stationarity"].iloc[-1])


class Found(NamedTuple):
    """A method's runs at its theoretical step, and at the best multiple of it."""

    theory: Run | None
    best: Run | None
    factor: int


def searched(problem: str, methods: Sequence[str], quick: bool, share: float = 1.0) -> dict[str, Found]:
    """Tries multiples, two at a time, for as long as a larger one is better."""
    found: dict[str, Found] = {}
    tried: dict[str, dict[int, Run | None]] = {method: {} for method in methods}
    going = list(methods)
    for some in zip(FACTORS[::2], FACTORS[1::2], strict=True):
        commands = {(m, f): command(problem, m, f, quick, share) for m in going for f in some}
        outcomes = attempt_all(commands.values())
        for (method, factor), words in commands.items():
            outcome = outcomes[words]
            if isinstance(outcome, UserError):
                raise outcome
            tried[method][factor] = outcome if isinstance(outcome, Run) else None
        going = [method for method in going if max(tried[method]) < 2 * _best(tried[method])]
    for method, runs in tried.items():
        factor = _best(runs)
        found[method] = Found(runs[1], runs[factor], factor)
    return found


def _best(runs: dict[int, Run | None]) -> int:
    return min(runs, key=lambda factor: (reached(runs[factor]), least(runs[factor]), factor))


def cell(run: Run | None) -> str:
    bits = reached(run)
    if math.isfinite(bits):
        return human_bits(bits)
    return f"not reached: {least(run):.1e}" if math.isfinite(least(run)) else "diverged"


def table(found: dict[str, Found]) -> str:
    heads = ["method", "theoretical step", "bits at it", "best multiple", "bits at it"]
    rows = []
    for method, each in found.items():
        step = each.theory.summary["theoretical_step"] if each.theory is not None else math.nan
        rows.append([method, f"{step:.3g}", cell(each.theory), f"{each.factor}", cell(each.best)])
    return markdown(heads, rows)


def draw(axis: Axes, runs: dict[str, Run | None], title: str, labelled: bool) -> None:
    for method, run in runs.items():
        if run is None or run.status != "completed":
            continue
        chosen, each = METHODS[method], curve(run).iloc[1:]
        colour = COLOURS[FAMILIES.index(chosen.family) % len(COLOURS)]
        dash = "--" if chosen.k == 0.01 else "-"
        axis.plot(each["bits"], each["norm"].clip(lower=1e-16), dash, color=colour, label=method if labelled else None)
    axis.axhline(TARGET, color="grey", linewidth=0.7)
    axis.set(ylim=(1e-13, None), title=title, xlabel="bits sent by a worker")
    scales(axis)


def scales(axis: Axes) -> None:
    log_scale(axis.xaxis, human_bits)
    axis.xaxis.set_major_locator(LogLocator(base=100))
    log_scale(axis.yaxis)


def differences(quick: bool) -> str:
    texts, found = [], {}
    for problem, data in PROBLEMS.items():
        try:
            found[problem] = searched(problem, list(METHODS), quick)
        except UserError as error:
            texts.append(f"{data.title}: left out ({error})")
            continue
        heading = f"{data.title}: bits of a worker to ||grad F||^2 <= {TARGET:g}, {data.rounds} rounds at most"
        texts.append(f"{heading}\n\n{table(found[problem])}")
    with figure(2, len(found), 3.1, 3.0) as (made, axes):
        for column, (problem, methods) in enumerate(found.items()):
            for row, best in enumerate((False, True)):
                axis = axes[row * len(found) + column]
                runs = {name: each.best if best else each.theory for name, each in methods.items()}
                which = "best multiple of it" if best else "theoretical step"
                draw(axis, runs, f"{PROBLEMS[problem].title}\n{which}", labelled=not row and not column)
                if not column:
                    axis.set_ylabel("squared gradient norm")
        made.legend(loc="outside lower center", ncols=4)
        save(made, OUT / "differences")
    for problem in found:
        some = searched(problem, SOME, quick, SHARE)
        texts.append(
            f"{PROBLEMS[problem].title}, {SHARE:.0%} of the workers in each round; bits as a mean over all of them\n\n"
            + table(some)
        )
    return "\n\n".join(texts)


def local(quick: bool) -> str:
    """Federated methods on unlike data: the squared gradient norm at the end, and a figure."""
    steps = LOCAL_STEPS // (10 if quick else 1)
    problem = [*UNLIKE.split(), "algo.lr=0.2", f"steps={steps}", f"eval_every={max(1, steps // 300)}"]
    commands = {name: (*problem, *words.split()) for name, words in LOCAL.items()}
    outcomes = attempt_all(commands.values())
    rows, runs = [], {}
    for name, words in commands.items():
        run = outcomes[words]
        if not isinstance(run, Run):
            raise run
        runs[name] = run
        rows.append([name, f"{least(run):.1e}", human_bits(float(curve(run)["bits"].iloc[-1]))])
    with figure(1, 1, 4.4, 3.2) as (made, (axis,)):
        for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
            each = curve(run).iloc[1:]
            axis.plot(each["bits"], each["norm"].clip(lower=1e-30), color=colour, label=name)
        axis.set(xlabel="bits sent by a worker", ylabel="squared gradient norm")
        scales(axis)
        axis.legend()
        save(made, OUT / "drift")
    text = f"Unlike data, {steps} local steps, an exchange after ten of them\n\n"
    return text + markdown(["method", "squared gradient norm at the end", "bits of a worker"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compressed differences and federated methods: tables and figures.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    quick = parser.parse_args().quick
    text = f"{differences(quick)}\n\n{local(quick)}\n"
    write_atomic(OUT / "differences.md", text)
    print(text)


if __name__ == "__main__":
    main()
