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
import math
from pathlib import Path

import pandas as pd
from tuning import Rates, fields, loss, shown, tune, tuned

from commexp.check.batch import Command, result, run_all
from commexp.metrics import human_bytes
from commexp.report.style import COLOURS, MARKERS, figure, save
from commexp.report.tables import markdown
from commexp.run_folder import write_atomic

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
#: method and workers of each row
CELLS: dict[str, tuple[str, int]] = {f"{m} {n}": (m, n) for m, n in ((DENSE, 8), *(("diloco", n) for n in WORKERS))}


def problem(workers: int, every: int) -> Command:
    """The task, with an evaluation after ``every`` steps."""
    sizes = (f"workers={workers}", f"batch_size={WINDOWS // workers}", f"eval_every={every}")
    return ("dataset=text", f"steps={STEPS}", *sizes)


def held_out(seed: int) -> Command:
    """For tuning: validation text in place of the test text."""
    return ("dataset.validation=0.05", f"seed={seed}")


def words(cell: str, rates: Rates) -> Command:
    method, workers = CELLS[cell]
    algo = ("algo=sgd",) if method == DENSE else ("algo=diloco", f"algo.tau={TAU}")
    return (*problem(workers, 30), *algo, *fields(rates))


def runs(cell: str, rates: Rates) -> list[Command]:
    return [(*words(cell, rates), f"seed={seed}") for seed in SEEDS]


def main() -> None:
    parser = argparse.ArgumentParser(description="DiLoCo on text with 1 to 8 workers at equal tokens.")
    parser.add_argument("--tune", action="store_true", help="repeat the tuning first")
    if parser.parse_args().tune:
        spaces = {cell: SPACE[method] for cell, (method, _) in CELLS.items()}
        tune(TUNED, spaces, lambda cell, rates: (*words(cell, rates), *held_out(TUNING_SEED)))
    rates = tuned(TUNED)
    run_all(each for cell in CELLS for each in runs(cell, rates[cell]))
    rows, numbers = [], []
    for cell, (method, workers) in CELLS.items():
        found = [result(each) for each in runs(cell, rates[cell])]
        perplexities = pd.Series([math.exp(loss(run)) for run in found])
        last = found[0].metrics.iloc[-1]
        sent = float(pd.Series([run.summary["bytes_sent"] for run in found]).mean()) / workers
        numbers.append({"method": method, "workers": workers, "perplexity": perplexities.mean(), "sent": sent})
        spread = f"{perplexities.mean():.2f} ± {perplexities.std():.2f}"
        tokens = f"{last['tokens'] / 1e6:.2f} M"
        rows.append([method, str(workers), spread, tokens, human_bytes(sent), shown(rates[cell])])
    heads = ["method", "N", f"test perplexity, {len(SEEDS)} seeds", "tokens", "sent by a worker", "tuned"]
    text = f"DiLoCo every {TAU} steps, {STEPS} steps; mean ± standard deviation\n\n{markdown(heads, rows)}\n"
    write_atomic(OUT / "lm_study.md", text)
    write_atomic(OUT / "lm_study.csv", pd.DataFrame(numbers).to_csv(index=False))
    print(text)
    draw(rates)


def draw(rates: dict[str, Rates]) -> None:
    """Perplexity against tokens, the first seed."""
    with figure(1, 1, 4.2, 2.8) as (made, (axes,)):
        for i, (cell, (method, workers)) in enumerate(CELLS.items()):
            rows = result(runs(cell, rates[cell])[0]).metrics.iloc[1:]
            label = "dense" if method == DENSE else f"DiLoCo, N = {workers}"
            axes.plot(rows["tokens"] / 1e6, rows["test_perplexity"], color=COLOURS[i], marker=MARKERS[i], label=label)
        axes.set(xlabel="million tokens, all workers", ylabel="test perplexity", yscale="log")
        ticks = [8, 10, 15, 20, 30]
        axes.set_yticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.legend()
        save(made, OUT / "lm_study")


if __name__ == "__main__":
    main()
