"""The numbers of arXiv 2501.05633 that RegTop-k must meet: linear regression over seeds, and the toy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import pytest

from commexp.run_folder import Run

#: by codec and share; where a method stands still its curves hardly differ
SEEDS = {("regtopk", 0.9): 2, ("regtopk", 0.5): 3, ("regtopk", 0.4): 1} | {("topk", k): 1 for k in (0.9, 0.5, 0.4)}

GATHERED = ["comm.exchange=all_gather"]  # the sum is the same, and costs less to weigh

# log10 ||x - x*||^2 at rounds 500, 1000, 1500; None where the paper's table gives no number
TOPK = {0.9: (-4.3, None, -4.3), 0.5: (-2.6, None, -2.6), 0.4: (-2.4, None, -2.4)}
REGTOPK = {0.9: (-6.6, -14.2, None), 0.5: (-4.3, -4.4, -4.3), 0.4: (-2.5, -2.6, -2.6)}


def mean_log(run: Callable[..., Run], codec: str, share: float, rounds: int = 1500) -> pd.Series:
    curves = []
    for seed in range(SEEDS[codec, share]):
        result = run(
            "+experiment=regtopk_linreg", f"compress={codec}", f"compress.k={share}", f"seed={seed}",
            f"rounds={rounds}", "eval_every=50", *GATHERED,
        )  # fmt: skip
        curves.append(result.metrics.set_index("round")["dist_to_opt"].map(lambda d: 2 * math.log10(d)))
    return pd.concat(curves, axis=1).mean(axis=1)


@pytest.mark.parametrize(("codec", "table"), [("topk", TOPK), ("regtopk", REGTOPK)])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.4])
def test_linear_regression_matches_the_table(
    codec: str, table: dict[float, tuple[float | None, ...]], share: float, run: Callable[..., Run]
) -> None:
    measured = mean_log(run, codec, share, 1500 if table[share][2] is not None else 1000)
    for t, expected in zip((500, 1000, 1500), table[share], strict=True):
        if expected is not None:
            assert measured[t] == pytest.approx(expected, abs=0.5), f"round {t}"


def test_share_of_six_tenths(run: Callable[..., Run]) -> None:
    regtopk = run("+experiment=regtopk_linreg", "compress=regtopk", "compress.k=0.6", "rounds=1000", *GATHERED)
    assert regtopk.metrics["dist_to_opt"].iloc[-1] ** 2 < 1e-12
    topk = run("+experiment=regtopk_linreg", "compress=topk", "compress.k=0.6", "rounds=1000", *GATHERED)
    standing = topk.metrics.query("round >= 500")["dist_to_opt"] ** 2
    assert standing.min() > 10**-3.3
    assert standing.max() < 10**-2.3


def test_the_denominator_of_the_notebook_does_not_converge(run: Callable[..., Run]) -> None:
    wrong = run("+experiment=regtopk_linreg", "compress.denominator=current", "rounds=1000", *GATHERED)
    assert wrong.metrics["dist_to_opt"].iloc[-1] ** 2 > 1e-4


def test_toy(run: Callable[..., Run]) -> None:
    curves = {
        c: run("+experiment=regtopk_toy", f"compress={c}").metrics["train_loss"] for c in ("none", "topk", "regtopk")
    }
    topk = curves["topk"]
    assert (topk[:91] - topk[0]).abs().max() < 1e-9 * topk[0], "Top-1 has moved by round 90"
    assert topk[101:].max() < 0.1 * topk[0], "it jumps at about round 100"
    assert curves["regtopk"][20] < 0.06
    follows = curves["regtopk"][2:] / curves["none"][2:]
    assert follows.between(0.85, 1.15).all(), "RegTop-1 follows the dense curve from the second round"
