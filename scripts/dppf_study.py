"""Local methods on Fashion-MNIST, a table and a figure: python scripts/dppf_study.py [--tune]

Test error and bytes of synchronous SGD, of SGD with SAM, and of six local methods for tau = 4, 8 and 16. For every tau
each method is tuned over the same number of settings, on validation images and with separate seeds. dppf_tuned.json
holds the results; --tune repeats the tuning. Two runs at a time, on one core each. Finished runs are reused.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from commexp.check.batch import result, run_all
from commexp.metrics import human_bytes
from commexp.report.style import COLOURS, MARKERS, bytes_axis, figure, percent_axis, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic, write_json

OUT = Path("outputs/figures")
TUNED = Path(__file__).with_name("dppf_tuned.json")
TAUS = (4, 8, 16)
SEEDS = range(5)
TUNING_SEEDS = (100,)
BUDGET = 9  # settings that are tried for each method at each tau

ProblemContext = dict[str, float]
Cell = tuple[str, int]  # method, tau


def grid(**values: Sequence[float]) -> list[ProblemContext]:
    """Every combination of the values of algo's fields."""
    settings = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    assert len(settings) == BUDGET
    return settings


ALL_RATES = (0.0044, 0.0062, 0.0088, 0.0125, 0.018, 0.025, 0.035, 0.05, 0.1)
RATES = (0.0062, 0.018, 0.05)
SPACES = {
    "sgd": grid(lr=ALL_RATES),
    "sam": grid(lr=RATES, sam=(0.05, 0.1, 0.2)),
    "localsgd": grid(lr=ALL_RATES),
    "qsr": grid(lr=RATES, growth=(0.02, 0.04, 0.08)),
    "easgd": grid(lr=RATES, beta=(0.5, 0.9, 1.0)),
    "lsgd": grid(lr=RATES, pull=(0.1, 0.3, 0.7)),
    "mgrawa": grid(lr=RATES, pull=(0.2, 0.5, 1.0)),
    "dppf": [{"lr": r, "pull": a, "push": b} for r in RATES for a, b in ((0.3, 0.3), (0.3, 1.0), (1.0, 1.0))],
}
CELLS: list[Cell] = [(m, tau) for m in SPACES for tau in ((1,) if m in ("sgd", "sam") else TAUS)]
NAMES = {"sgd": "SGD", "sam": "SGD + SAM", "localsgd": "LocalSGD", "qsr": "LocalSGD + QSR", "dppf": "DPPF"}


def words(cell: Cell, setting: ProblemContext, seed: int, validation: bool = False) -> tuple[str, ...]:
    method, tau = cell
    fields = [f"algo.{name}={value:g}" for name, value in setting.items()]
    local = [f"algo.tau={tau}"] if tau > 1 else []
    held_out = ["dataset.validation=4000"] if validation else []
    return "+experiment=dppf_fashion_mnist", f"algo={method}", *local, *fields, *held_out, f"seed={seed}"


def error(run: Run) -> float:
    """The test error; 1 for a run that has diverged."""
    return 1 - float(run.metrics["test_accuracy"].iloc[-1]) if run.status == "completed" else 1.0


def tune() -> None:
    """The setting of each space with the smallest mean validation error."""
    run_all(words(c, s, seed, True) for c in CELLS for s in SPACES[c[0]] for seed in TUNING_SEEDS)
    found = {}
    for cell in CELLS:
        errors = [
            sum(error(result(words(cell, s, seed, True))) for seed in TUNING_SEEDS) / len(TUNING_SEEDS)
            for s in SPACES[cell[0]]
        ]
        best = min(range(BUDGET), key=errors.__getitem__)
        found[f"{cell[0]} {cell[1]}"] = {"setting": SPACES[cell[0]][best], "validation_error": errors[best]}
    write_json(TUNED, found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Local methods on Fashion-MNIST: a table of test error and bytes.")
    parser.add_argument("--tune", action="store_true", help="repeat the tuning first")
    if parser.parse_args().tune:
        tune()
    tuned = json.loads(TUNED.read_text(encoding="utf-8"))
    settings = {cell: tuned[f"{cell[0]} {cell[1]}"]["setting"] for cell in CELLS}
    run_all(words(cell, settings[cell], seed) for cell in CELLS for seed in SEEDS)
    rows, numbers = [], []
    for cell in CELLS:
        runs = [result(words(cell, settings[cell], seed)) for seed in SEEDS]
        errors = pd.Series([error(run) for run in runs])
        standard_error = float(errors.sem())
        sent = float(pd.Series([run.summary["bytes_sent"] for run in runs]).mean())
        dense = float(runs[0].summary["dense_bytes"])
        method, tau = NAMES.get(cell[0], cell[0].upper()), str(cell[1])
        numbers.append({"method": cell[0], "tau": cell[1], "error": errors.mean(), "se": standard_error, "sent": sent})
        chosen = ", ".join(f"{name} {value:g}" for name, value in settings[cell].items())
        shown = f"{errors.mean():.2%} ± {100 * standard_error:.2f}"
        rows.append([method, tau, shown, human_bytes(sent), f"{sent / dense:.4f}", chosen])
    heads = ["method", "tau", f"test error, {len(SEEDS)} seeds", "sent", "sent / dense", "tuned"]
    text = "Mean and standard error\n\n" + markdown(heads, rows) + "\n"
    write_atomic(OUT / "dppf_small.md", text)
    write_atomic(OUT / "dppf_small.csv", pd.DataFrame(numbers).to_csv(index=False))
    print(text)
    local_methods()


def local_methods() -> None:
    """Local methods on Fashion-MNIST, each as tuned by dppf_study.py: test error against bytes sent."""
    tuned = json.loads(TUNED.read_text(encoding="utf-8"))
    methods = (("sgd", (1,)), ("localsgd", TAUS), ("easgd", TAUS), ("dppf", TAUS))
    with figure(1, 1, 4.6, 3.2) as (made, (axis,)):
        for i, (method, taus) in enumerate(methods):
            sent, middle, spread = [], [], []
            for tau in taus:
                setting = tuned[f"{method} {tau}"]["setting"]
                found = [result(words((method, tau), setting, seed)) for seed in SEEDS]
                errors = pd.Series([error(run) for run in found])
                sent.append(float(found[0].summary["bytes_sent"]))
                middle.append(errors.mean())
                spread.append(errors.sem())
            look = {"color": COLOURS[(6, 1, 2, 0)[i]], "marker": MARKERS[i], "capsize": 2.5}
            axis.errorbar(sent, middle, spread, label=NAMES.get(method, method.upper()), **look)
        bytes_axis(axis.xaxis)
        percent_axis(axis, f"test error (mean ± s.e. of {len(SEEDS)} seeds)")
        axis.set_xlabel("bytes sent, all workers")
        axis.legend()
        save(made, OUT / "dppf_small")


if __name__ == "__main__":
    main()
