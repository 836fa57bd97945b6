"""The three ways to W gradients against plain autograd in float64, worker by worker."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commexp.problems.gradients import Batch, CannotFoldError, ModuleGradients
from commexp.problems.models import ResNetCifar, ResNetSmall
from commexp.problems.tasks import Classification
from commexp.run_folder import Run

W, B = 3, 5


def modules() -> dict[str, nn.Module]:
    """What folding has rules for, and what it has not."""
    torch.manual_seed(0)
    return {
        "resnet_small": ResNetSmall(width=8).module((1, 8, 8), 10),
        "padded channels": ResNetCifar(depth=20, norm="batch").module((1, 8, 8), 10),
        "bias and stride": nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)),
        "dilated": nn.Sequential(
            nn.Conv2d(1, 2, 3, dilation=2, bias=False), nn.Flatten(), nn.Linear(32, 10, bias=False)
        ),
        "layer norm": nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.LayerNorm(12), nn.Tanh(), nn.Linear(12, 10)),
        "grouped": nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 10)),
        "running": nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)),
        "batch norm": nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(144, 10)
        ),
    }


FOLDS = ("resnet_small", "padded channels", "bias and stride", "dilated", "grouped", "batch norm", "layer norm")


def reference(module: nn.Module, x: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One worker after the other, parameters copied into the module."""
    losses, grads = [], []
    for row, batch, labels in zip(x, inputs, targets, strict=True):
        params = [p.requires_grad_() for p in module.parameters()]
        nn.utils.vector_to_parameters(row.clone(), params)
        loss = F.cross_entropy(module(batch), labels)
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)]))
        losses.append(loss.detach())
    module.requires_grad_(False)
    return torch.stack(losses), torch.stack(grads)


@pytest.mark.parametrize("name", modules())
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("way", ["auto", "deterministic", "fold", "vmap", "loop"])
def test_every_way_gives_each_workers_own_gradient(name: str, shared: bool, way: str) -> None:
    module = modules()[name].double()
    ways = ModuleGradients(module, Classification(), deterministic=way == "deterministic")
    g = torch.Generator().manual_seed(1)
    inputs = torch.randn(W, B, 1, 8, 8, generator=g, dtype=torch.float64)
    targets = torch.randint(0, 10, (W, B), generator=g)
    dim = ways.layout.dim
    x = 0.3 * torch.randn(1 if shared else W, dim, generator=g, dtype=torch.float64)
    x = x[0].expand(W, -1) if shared else x
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and name != "running":
            norm.track_running_stats = False
    batch = Batch((inputs, targets))
    if (way == "fold" and name not in FOLDS) or (way == "vmap" and name == "running"):
        with pytest.raises((CannotFoldError, RuntimeError)):
            ways.by(way, x, batch)
        return
    losses, grads = ways(x, batch) if way in ("auto", "deterministic") else ways.by(way, x, batch)
    expected_losses, expected = reference(module, x, inputs, targets)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grads, expected, rtol=1e-8, atol=1e-9)


def test_one_worker_gives_the_bits_of_the_loop() -> None:
    module = modules()["resnet_small"]
    ways = ModuleGradients(module, Classification())
    g = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(W, B, 1, 8, 8, generator=g), torch.randint(0, 10, (W, B), generator=g)
    x = torch.randn(W, ways.layout.dim, generator=g)
    together = ways.by("loop", x, Batch((inputs, targets)))[1]
    for w in range(W):
        assert torch.equal(ways(x[w : w + 1], Batch((inputs[w : w + 1], targets[w : w + 1])))[1][0], together[w])


@pytest.mark.parametrize(
    ("module", "shape", "workers", "way"),
    [
        (nn.Linear(10, 3), (10,), 1, "one"),
        (nn.Linear(10, 3), (10,), 2, "fold"),
        (nn.Linear(1023, 1024), (1023,), 4, "fold"),  # 2^20 parameters
        (nn.Linear(1024, 1024), (1024,), 4, "loop"),
        (modules()["layer norm"], (1, 8, 8), 20, "fold"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Softmax(1)), (1, 8, 8), 20, "vmap"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5)), (1, 8, 8), 20, "loop"),
        (modules()["running"], (1, 8, 8), 20, "loop"),
        (modules()["batch norm"], (1, 8, 8), 20, "fold"),
    ],
)
def test_which_way_is_a_rule_of_the_model_and_the_number_of_workers(
    module: nn.Module, shape: tuple[int, ...], workers: int, way: str
) -> None:
    g = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(workers, 2, *shape, generator=g), torch.zeros(workers, 2, dtype=torch.long)
    start = module.requires_grad_(True)
    x = 0.1 * torch.randn(workers, sum(p.numel() for p in start.parameters()), generator=g)
    gradients = ModuleGradients(copy.deepcopy(start), Classification())
    assert gradients.choose(workers, (inputs[0], targets[0])) == way
    if way != "one":
        found = ModuleGradients(module, Classification())(x, Batch((inputs, targets)))  # without being asked before
        assert all(map(torch.equal, found, gradients.by(way, x, Batch((inputs, targets)))))


@pytest.mark.parametrize("kept", ["[]", "{}", "loop", "vmap", None])
def test_nothing_in_the_home_folder_decides(
    kept: str | None, run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything written there."""
    home = tmp_path / "home"
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    ways = home / "commexp" / "ways.json"
    ways.parent.mkdir(parents=True)
    if kept is not None:
        ways.write_text(kept)
    small = ("model=mlp", "model.hidden=[4]", "workers=3", "rounds=3", "eval_every=3", "dataset.test=0.8")
    found, again = run(*small), run(*small, "rounds=3", "rerun=true")
    assert found.meta["gradients"] == "fold"
    assert found.meta["gradients"] == again.meta["gradients"]
    assert [p for p in home.rglob("*") if p.is_file()] == ([] if kept is None else [ways])


def test_meta_says_which_way_gradients_went(run: Callable[..., Run]) -> None:
    small = ("model=mlp", "model.hidden=[4]", "rounds=1", "dataset.test=0.8")
    wanted = {"workers=1": "one", "workers=2": "fold", "speed.workers=vmap": "vmap", "comm.deterministic=true": "loop"}
    assert {words: run(*small, words).meta["gradients"] for words in wanted} == wanted
    assert "gradients" not in run("dataset=linreg", "rounds=1").meta  # there is only one way
