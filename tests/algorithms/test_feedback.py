"""A codec that learns from aggregates is told of them, or refused: every algorithm with every such codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from registry import bare, on_vectors, options, plan
from torch import Tensor

from commexp.compressors import Composition, RegTopK, TopK
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.run_folder import Run

WORDS = ["dataset=linreg", "dataset.dim=20", "dataset.samples=10", "workers=4", "rounds=3", "algo.lr=0.01"]
WORDS += ["network.compute.seconds=0.01"]
LEARNING = [name for name in options("compress") if bare(name).learns]
told: list[int] = []


class Learning(TopK):
    """A user's own, which says nothing of itself but that it has a ``feedback``."""

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        told.append(len(aggregate))


def test_who_learns() -> None:
    assert LEARNING == ["regtopk"]
    assert Composition(RegTopK(k=0.1), bare("qsgd")).learns
    assert not bare("topk_qsgd").learns


BARE = ["compress.error_feedback=false"]
#: entries of a message, and how many have been told after round t; else 20, one a round
TOLD: dict[str, tuple[int, Callable[[int], int]]] = {
    "streaming_diloco": (10, lambda t: t),  # a fragment of two, in the round after
    "local_adam": (20, lambda t: 3 * (t + 1)),  # with both moments
    "sparta": (1, lambda t: t + 1),
    "scaffold": (20, lambda t: 2 * (t + 1)),  # with what its controls lack
}
AROUND = [(algo, BARE) for algo in options("algo")] + [("sgd", []), ("sgd", ["compress.scope=layer"])]


@pytest.mark.parametrize(("algo", "around"), AROUND)
def test_every_algorithm_tells_its_codecs_or_refuses_them(algo: str, around: list[str]) -> None:
    words = [
        *WORDS,
        *on_vectors(algo),
        "compress=topk",
        f"compress._target_={__name__}.Learning",
        "compress.k=3",
        *around,
    ]
    told.clear()
    try:
        made = ExperimentSetup(plan(*words), torch.device("cpu"), Run(Path("none")))
    except UserError as refused:
        text = str(refused)
        assert text.startswith("compress")
        assert "\n" not in text
        assert "; give " in text
        return
    for t in range(2):
        made.comm.begin_round(t + 1)
        made.algorithm.round(t)
        made.comm.end_round()
        each, times = TOLD.get(algo, (20, lambda t: t + 1))
        assert told == [each] * times(t), "once a round, all of it"


@pytest.mark.parametrize("algo", ["async_ps", "async_sgd", "sync_ps", "ssp", "choco", "dsgt", "proxgt_sr_e"])
@pytest.mark.parametrize(
    "codec", [["compress=regtopk"], ["compress=topk_qsgd", "compress.entries._target_=commexp.compressors.RegTopK"]]
)
def test_where_nobody_has_the_aggregate_it_is_refused(algo: str, codec: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        plan(*WORDS, f"algo={algo}", *codec)
    assert "learns from the aggregate of all workers, which nobody has with algo=" in str(refused.value)
    assert str(refused.value).endswith("; give compress=topk")
