"""Operations of a gradient, by hand: two for each multiplication and addition of its products."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from registry import plan
from torch import nn

import commexp
from commexp.cli.report import main
from commexp.config.messages import UserError
from commexp.experiment.flops import gradient_flops
from commexp.experiment.replay import Replay
from commexp.experiment.setup import ExperimentSetup
from commexp.network import Compute
from commexp.problems import Problem
from commexp.run_folder import Run


@cache
def problem(*words: str) -> Problem:
    return ExperimentSetup(plan(*words, "workers=2"), torch.device("cpu"), Run(Path("/nowhere"))).problem


def mlp(widths: list[int], batch: int) -> float:
    """Forward and weights of each layer, and the inputs of all but the first, whose nobody asks for."""
    pairs = list(pairwise(widths))
    return 2 * batch * (3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1])


def linears(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("way", ["fold", "vmap", "loop"])
def test_a_perceptron_in_every_way(way: str) -> None:
    found = problem("model=mlp", f"speed.workers={way}", "batch_size=6")
    widths = [m.in_features for m in found.module.modules() if isinstance(m, nn.Linear)] + [10]  # type: ignore[attr-defined]
    assert gradient_flops(found) == mlp(widths, 6)


def test_pieces_of_a_batch_and_workers_one_at_a_time_count_alike() -> None:
    whole = gradient_flops(problem("model=mlp", "batch_size=7"))
    assert gradient_flops(problem("model=mlp", "batch_size=7", "speed.accumulate=3")) == whole
    assert gradient_flops(problem("model=mlp", "batch_size=7", "algo=async_sgd")) == whole
    assert whole == 7 * gradient_flops(problem("model=mlp", "batch_size=1"))


def test_convolutions_and_batch_norm() -> None:
    """A residual network: of each convolution out_h out_w c_out c_in k^2, thrice; inputs of the first not."""
    found: Any = problem()
    sizes: list[int] = []

    def note(layer: Any, given: Any, output: torch.Tensor) -> None:
        sizes.append(output[0].numel() * layer.weight[0].numel())

    layers = [m for m in found.module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        found.module(found.feed.example()[0])
    for hook in hooks:
        hook.remove()
    assert gradient_flops(found) == 2 * 16 * (3 * sum(sizes) - sizes[0])


def test_a_transformer() -> None:
    """6 for each weight of a linear layer and token, the tied head included, and 12 t d of the attention in each layer:
    the whole square of scores, though half of it is masked."""
    words = ("dataset=text", "model=gpt", "model.layers=2", "model.width=16", "model.heads=2", "dataset.block=12")
    found: Any = problem(*words, "batch_size=3", "dataset.tokens=4000", "dataset.test_tokens=500")
    head = found.module.head.weight.numel() if hasattr(found.module, "head") else 0
    tied = 0 if head else max(p.numel() for p in found.module.parameters())
    weights = linears(found.module) + tied
    assert gradient_flops(found) == 3 * 12 * (6 * weights + 2 * 12 * 12 * 16)


def test_least_squares_from_gram_matrices() -> None:
    assert gradient_flops(problem("dataset=linreg", "dataset.dim=20")) == 2 * 20**2


def test_sparse_vectors_count_what_they_store(tmp_path: Path) -> None:
    lines = ["-1 1:0.5 7:1", "1 3:2", "-1 2:1 5:1 6:1", "1 4:1 7:1 8:1 9:1"]
    (tmp_path / "data").write_text("\n".join(lines) + "\n")
    data = ("dataset=libsvm", f"dataset.path={tmp_path / 'data'}", f"dataset.test_path={tmp_path / 'data'}")
    assert gradient_flops(problem(*data, "model=logistic_regression", "batch_size=2")) == 4 * (10 / 4) * 2
    dense = problem("dataset=breast_cancer", "model=logistic_regression", "batch_size=2")
    assert gradient_flops(dense) == 4 * dense.dim * 2


def test_matrix_factorisation() -> None:
    """Of all factors, <u, v> and the error times either; of items' factors, a user's system with 6 unknowns."""
    factors = ("dataset=ratings", "model=matrix_factorisation", "model.rank=5", "batch_size=8", "partition=by_user")
    assert gradient_flops(problem(*factors, "model.travels=all")) == 8 * 6 * 5
    items: Any = problem(*factors, "model.travels=items")
    rated = [int(count) for count in items.user_counts if count]
    each = [c * (2 * 6**2 + 6 * 6) + 6**3 / 3 + 2 * 6**2 for c in rated]
    assert gradient_flops(items) == pytest.approx(8 * sum(each) / len(each), rel=1e-12)


class Elementwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_what_cannot_be_counted_needs_its_seconds() -> None:
    data = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    words = ("workers=2", "rounds=2", "batch_size=2", "launch.device=cpu")
    given: dict[str, Any] = {"model": Elementwise, "train": data, "test": data}
    with pytest.raises(UserError, match=r"network.compute.flops=312.0: .*no product of matrices.*; give network.comp"):
        commexp.run(*words, "network.compute=a100", "outputs=/nowhere", **given)


def test_a_device_by_hand() -> None:
    device = Compute(kind="lognormal", flops=312.0, utilisation=0.5, slow=[2.0])
    priced = device.for_gradient(7.8e11)
    assert priced == Compute(kind="lognormal", seconds=7.8e11 / 156e12, slow=[2.0])
    assert (device.is_instant, priced.is_instant) == (False, False)
    assert priced.for_gradient(1.0) is priced


SMALL = ["dataset=linreg", "dataset.dim=20", "dataset.samples=10", "workers=3", "rounds=6", "eval_every=2"]


def test_a_run_on_a_device_and_a_replay_on_it(run: Callable[..., Run]) -> None:
    """Seconds by hand, of a utilisation of one's own. A run that does not say its operations is refused."""
    words = ["network.compute=cpu", "network.compute.utilisation=0.25"]
    plain, timed = run(*SMALL), run(*SMALL, *words)
    assert plain.meta["gradient_flops"] == 2 * 20**2
    each = 2 * 20**2 / (0.97e12 * 0.25)
    gaps = timed.metrics["sim_seconds"] - plain.metrics["sim_seconds"]
    assert list(gaps) == pytest.approx([0, 2 * each, 4 * each, 6 * each])
    assert Replay(plain).seconds(plan(*words).network) == list(timed.metrics["sim_seconds"])
    plain.set_meta(gradient_flops=None)
    with pytest.raises(
        UserError, match="does not say how many operations a gradient takes; run it again, with rerun=t"
    ):
        Replay(plain).seconds(plan(*words).network)


def test_sharpness_aware_steps_and_local_steps_take_their_gradients(run: Callable[..., Run]) -> None:
    for method, gradients in (["algo=sam"], 2), (["algo=localsgd", "algo.tau=4"], 4):
        small = ("model=mlp", "workers=2", "batch_size=2", "rounds=2", "eval_every=2", *method)
        done = run(*small)
        own, device = Replay(done).seconds(plan().network), Replay(done).seconds(plan("network.compute=cpu").network)
        each = float(done.meta["gradient_flops"]) / (0.97e12 * 0.5)
        assert device[-1] - own[-1] == pytest.approx(2 * gradients * each)


def test_the_report_takes_a_device(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(*SMALL)
    for device, said in ("", ", communication only"), ("h100", ""):
        words = ["--replay", "network=mobile", *(["--replay", f"network.compute={device}"] if device else [])]
        monkeypatch.setattr("sys.argv", ["commexp-report", *words, "--out", str(tmp_path / "out"), str(done.folder)])
        main()
        told = capsys.readouterr().out
        assert f"| all rounds{said} " in told
        assert ("note: computing takes no time here" in told) == bool(said)
