"""Does a wide valley mean a small gap? python scripts/valley_study.py

Inverse Mean Valley (arXiv 2507.20424) against the generalisation gap of models that differ in batch size, learning
rate and weight decay: Kendall's tau of the two, and a scatter plot. Two runs at a time, on one core each.
"""

from __future__ import annotations

import itertools

import pandas as pd
from dppf_study import OUT, result, run_all

from commexp.report.style import COLOURS, MARKERS, figure, save
from commexp.report.tables import markdown
from commexp.run_folder import write_atomic

BATCHES, RATES, DECAYS = (8, 16, 32), (0.02, 0.05, 0.1), (0.0, 1e-3, 5e-3)
STEPS = 1000


def words(batch: int, rate: float, decay: float) -> tuple[str, ...]:
    fields = (f"batch_size={batch}", f"algo.lr={rate}", f"algo.weight_decay={decay:g}", f"steps={STEPS}")
    steady = "algo.schedule.kind=step"  # a rate of zero at the end would leave the workers in one place
    return (
        "+experiment=dppf_fashion_mnist",
        "algo=localsgd",
        "algo.tau=4",
        steady,
        *fields,
        f"eval_every={STEPS}",
        "flatness=valley",
    )


def main() -> None:
    settings = list(itertools.product(BATCHES, RATES, DECAYS))
    run_all(words(*s) for s in settings)
    rows = []
    for batch, rate, decay in settings:
        run = result(words(batch, rate, decay))
        if run.status == "completed":
            s = run.summary
            kept = (
                "train_loss",
                "test_accuracy",
                "mean_valley",
                "inverse_mean_valley",
                "sharpness",
                "generalisation_gap",
            )
            rows.append({"batch": batch, "lr": rate, "decay": decay, **{k: float(s[k]) for k in kept}})
    table = pd.DataFrame(rows)
    defined = table.dropna(subset=["inverse_mean_valley", "generalisation_gap"])
    gaps = defined["generalisation_gap"]
    kendall = {m: defined[m].corr(gaps, method="kendall") for m in ("inverse_mean_valley", "sharpness")}
    shown = {"batch": "{:.0f}", "lr": "{:g}", "decay": "{:g}", "train_loss": "{:.3g}", "test_accuracy": "{:.2%}"}
    shown |= {"mean_valley": "{:.3g}", "sharpness": "{:.3g}", "generalisation_gap": "{:.2%}"}
    heads = ["batch", "lr", "weight decay", "train loss", "test accuracy", "mean valley", "sharpness", "gap"]
    cells = [[how.format(row[name]) for name, how in shown.items()] for _, row in table.iterrows()]
    text = f"{len(defined)} models; Kendall's tau with the generalisation gap: inverse mean valley "
    text += f"{kendall['inverse_mean_valley']:.3f}, sharpness {kendall['sharpness']:.3f}\n\n{markdown(heads, cells)}\n"
    write_atomic(OUT / "valley.md", text)
    print(text)
    with figure(1, 2, 3.4, 3.0) as (made, axes):
        for axis, measure, label in zip(axes, kendall, ("inverse mean valley", "SAM-style sharpness"), strict=True):
            for i, batch in enumerate(BATCHES):
                mine = defined[defined["batch"] == batch]
                marker = MARKERS[i]
                axis.plot(mine[measure], 100 * mine["generalisation_gap"], marker, color=COLOURS[i], label=str(batch))
            axis.set_xlabel(label)
            axis.set_title(f"Kendall's tau {kendall[measure]:.2f}")
        axes[0].set_ylabel("generalisation gap (percentage points)")
        made.legend(*axes[0].get_legend_handles_labels(), title="batch size", loc="outside right center")
        save(made, OUT / "valley")


if __name__ == "__main__":
    main()
