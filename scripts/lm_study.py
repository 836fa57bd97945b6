"""DiLoCo with more and more workers at equal tokens, a table and a figure: python scripts/lm_study.py [--tune]

The GPT of 0.12 million parameters on the sources of Python's library. In every step all workers together draw 64
windows of 64 tokens, whatever their number, so that all runs see the same number of tokens. For every number of workers
the inner and the outer learning rate are tuned on validation text, and so is the rate of the dense baseline.
lm_tuned.json holds the results; --tune repeats the tuning. Two runs at a time, on one core each. Finished runs are
reused.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path

import pandas as pd

from commexp.check.batch import result, run_all
from commexp.metrics import human_bytes
from commexp.report.style import COLOURS, MARKERS, figure, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic, write_json

OUT = Path("outputs/figures")
TUNED = Path(__file__).with_name("lm_tuned.json")
WINDOWS, STEPS, TAU = 64, 240, 15
WORKERS = (1, 2, 4, 8)
SEEDS = range(2)
TUNING_SEED = 100
DENSE = "dense"
RATES = (0.003, 0.006, 0.012)
SPACE = {
    DENSE: [{"lr": lr} for lr in RATES],
    "diloco": [{"lr": lr, "outer_lr": outer} for lr, outer in itertools.product(RATES, (0.35, 0.7))],
}
Cell = tuple[str, int]  # method, workers
CELLS: list[Cell] = [(DENSE, 8), *(("diloco", n) for n in WORKERS)]
Rates = dict[str, float]


def words(cell: Cell, rates: Rates, seed: int, validation: bool = False) -> tuple[str, ...]:
    method, workers = cell
    algo = ["algo=sgd"] if method == DENSE else ["algo=diloco", f"algo.tau={TAU}"]
    fields = [f"algo.{name}={value:g}" for name, value in rates.items()]
    held_out = ["dataset.validation=0.05"] if validation else []
    common = [
        "dataset=text",
        f"steps={STEPS}",
        f"workers={workers}",
        f"batch_size={WINDOWS // workers}",
        "eval_every=30",
    ]
    return (*common, *algo, *fields, *held_out, f"seed={seed}")


def loss(run: Run) -> float:
    """The last test loss; infinity for a run that has diverged."""
    return float(run.metrics["test_loss"].iloc[-1]) if run.status == "completed" else math.inf


def tune() -> None:
    """The rates with the smallest validation loss."""
    run_all(words(cell, rates, TUNING_SEED, True) for cell in CELLS for rates in SPACE[cell[0]])
    found = {}
    for cell in CELLS:
        losses = [loss(result(words(cell, rates, TUNING_SEED, True))) for rates in SPACE[cell[0]]]
        best = min(range(len(losses)), key=losses.__getitem__)
        found[f"{cell[0]} {cell[1]}"] = {"rates": SPACE[cell[0]][best], "validation_loss": losses[best]}
    write_json(TUNED, found)


def main() -> None:
    parser = argparse.ArgumentParser(description="DiLoCo on text with 1 to 8 workers at equal tokens.")
    parser.add_argument("--tune", action="store_true", help="repeat the tuning first")
    if parser.parse_args().tune:
        tune()
    tuned = json.loads(TUNED.read_text(encoding="utf-8"))
    rates = {cell: tuned[f"{cell[0]} {cell[1]}"]["rates"] for cell in CELLS}
    run_all(words(cell, rates[cell], seed) for cell in CELLS for seed in SEEDS)
    rows, numbers = [], []
    for cell in CELLS:
        runs = [result(words(cell, rates[cell], seed)) for seed in SEEDS]
        perplexities = pd.Series([math.exp(loss(run)) for run in runs])
        last = runs[0].metrics.iloc[-1]
        sent = float(pd.Series([run.summary["bytes_sent"] for run in runs]).mean()) / cell[1]
        numbers.append({"method": cell[0], "workers": cell[1], "perplexity": perplexities.mean(), "sent": sent})
        chosen = ", ".join(f"{name} {value:g}" for name, value in rates[cell].items())
        spread = f"{perplexities.mean():.2f} ± {perplexities.std():.2f}"
        rows.append([cell[0], str(cell[1]), spread, f"{last['tokens'] / 1e6:.2f} M", human_bytes(sent), chosen])
    heads = ["method", "N", f"test perplexity, {len(SEEDS)} seeds", "tokens", "sent by a worker", "tuned"]
    text = f"DiLoCo every {TAU} steps, {STEPS} steps; mean ± standard deviation\n\n{markdown(heads, rows)}\n"
    write_atomic(OUT / "lm_study.md", text)
    write_atomic(OUT / "lm_study.csv", pd.DataFrame(numbers).to_csv(index=False))
    print(text)
    draw(rates)


def draw(rates: dict[Cell, Rates]) -> None:
    """Perplexity against tokens, the first seed."""
    with figure(1, 1, 4.2, 2.8) as (made, (axes,)):
        for i, cell in enumerate(CELLS):
            rows = result(words(cell, rates[cell], SEEDS[0])).metrics.iloc[1:]
            label = "dense" if cell[0] == DENSE else f"DiLoCo, N = {cell[1]}"
            axes.plot(rows["tokens"] / 1e6, rows["test_perplexity"], color=COLOURS[i], marker=MARKERS[i], label=label)
        axes.set(xlabel="million tokens, all workers", ylabel="test perplexity", yscale="log")
        ticks = [8, 10, 15, 20, 30]
        axes.set_yticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.legend()
        save(made, OUT / "lm_study")


if __name__ == "__main__":
    main()
