"""Optimisers on stacked vectors against those of torch on separate tensors; Muon also against its singular values."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from registry import interrupted, plan, untimed
from torch import Tensor

from commexp.algorithms import SGD, Schedule
from commexp.algorithms.gradient.optimizers import NEWTON_SCHULZ, Optimizer, orthogonal
from commexp.config.messages import UserError
from commexp.run_folder import Run

W, STEPS, LR, DECAY, BETAS = 3, 6, 0.05, 0.1, (0.8, 0.95)
SHAPES = {
    "wte.weight": (7, 4),
    "block.0.attention.weight": (6, 4),
    "block.0.attention.bias": (6,),
    "block.0.kernel": (2, 3, 2),
    "block.0.mlp.fc.weight": (4, 6),
    "block.1.attention.weight": (6, 4),
    "block.1.scale": (),
    "lm_head.weight": (7, 4),
}  # fmt: skip
HIDDEN = [name for name in SHAPES if name.startswith("block") and name.endswith("n.weight")] + ["block.0.mlp.fc.weight"]
SIZES = [torch.Size(shape).numel() for shape in SHAPES.values()]
J = sum(SIZES)
Groups = Callable[[dict[str, Tensor]], Iterable[torch.optim.Optimizer]]


def tensors(flat: Tensor) -> dict[str, Tensor]:
    """[J] -> copies of its tensors by name."""
    pieces = zip(SHAPES.items(), flat.split(SIZES), strict=True)
    return {name: piece.clone().view(shape) for (name, shape), piece in pieces}


def noise(step: int, dtype: torch.dtype = torch.float64, workers: int = W) -> Tensor:
    return torch.randn(workers, J, generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(dtype)


def made(kind: str, **fields: object) -> Optimizer:
    momentum = 0.0 if kind == "adamw" else 0.9
    return Optimizer(kind, momentum, DECAY, False, BETAS, shapes=SHAPES, **fields)  # type: ignore[arg-type]


def rate(step: int) -> float:
    return LR / (step + 1)


def ours(optimizer: Optimizer, x: Tensor, steps: Iterable[int] = range(STEPS)) -> Tensor:
    for step in steps:
        optimizer.step(x, noise(step, x.dtype)[: len(x)] if x.ndim == 2 else noise(step, x.dtype)[0], rate(step), step)
    return x


def torchs(groups: Groups, x: Tensor, steps: int = STEPS) -> Tensor:
    """The same steps, worker by worker; every optimiser has the learning rate ``lr`` times that of LR."""
    rows = []
    for n, row in enumerate(x):
        parameters = {name: torch.nn.Parameter(tensor) for name, tensor in tensors(row).items()}
        optimizers = list(groups(parameters))  # type: ignore[arg-type]
        first = [group["lr"] for each in optimizers for group in each.param_groups]
        for step in range(steps):
            for name, gradient in tensors(noise(step, x.dtype)[n]).items():
                parameters[name].grad = gradient
            for group, lr in zip((g for each in optimizers for g in each.param_groups), first, strict=True):
                group["lr"] = lr * rate(step) / LR
            for each in optimizers:
                each.step()
        rows.append(torch.cat([p.detach().flatten() for p in parameters.values()]))
    return torch.stack(rows)


def by_dimensions(parameters: dict[str, Tensor]) -> list[dict[str, object]]:
    """Two groups of parameters, as nanoGPT has them."""
    return [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("on", ["all", "matrices"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weight_decay_is_that_of_torchs_groups(kind: str, on: str) -> None:
    def groups(parameters: dict[str, Tensor]) -> list[torch.optim.Optimizer]:
        parts = by_dimensions(parameters) if on == "matrices" else [{"params": [*parameters.values()]}]
        if kind == "sgd":
            return [torch.optim.SGD(parts, LR, momentum=0.9, weight_decay=DECAY)]
        return [torch.optim.AdamW(parts, LR, BETAS, weight_decay=DECAY)]

    start = noise(99)
    found = ours(made(kind, weight_decay_on=on), start.clone())
    torch.testing.assert_close(found, torchs(groups, start), rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found, ours(made(kind, weight_decay_on="matrices" if on == "all" else "all"), start))


@pytest.mark.parametrize("on", ["all", "matrices"])
def test_sign_is_adamw_without_memory(on: str) -> None:
    """With both betas 0 the step of AdamW is lr g / (|g| + eps), after the same decay."""

    def groups(parameters: dict[str, Tensor]) -> list[torch.optim.Optimizer]:
        parts = by_dimensions(parameters) if on == "matrices" else [{"params": [*parameters.values()]}]
        return [torch.optim.AdamW(parts, LR, (0.0, 0.0), eps=1e-300, weight_decay=DECAY)]

    start = noise(99)
    found = ours(made("sign", weight_decay_on=on), start.clone())
    torch.testing.assert_close(found, torchs(groups, start), rtol=1e-12, atol=1e-14)


def muon_and_adamw(on: str, adam_ratio: float) -> Groups:
    def groups(parameters: dict[str, Tensor]) -> list[torch.optim.Optimizer]:
        hidden = [parameters.pop(name) for name in HIDDEN]
        rest = by_dimensions(parameters) if on == "matrices" else [{"params": [*parameters.values()]}]
        return [
            torch.optim.Muon(hidden, LR, DECAY, 0.9),
            torch.optim.AdamW(rest, LR * adam_ratio, BETAS, weight_decay=DECAY),
        ]

    def kept(parameters: dict[str, Tensor]) -> list[torch.optim.Optimizer]:
        return groups(dict(parameters))

    return kept


@pytest.mark.parametrize(("on", "adam_ratio"), [("all", 1.0), ("matrices", 0.25)])
def test_muon_is_torchs_in_the_precision_of_x(on: str, adam_ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch rounds to bfloat16 before its Newton-Schulz steps; without that both are the same to 12 digits."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    start = noise(99)
    found = ours(made("muon", weight_decay_on=on, adam_ratio=adam_ratio), start.clone())
    torch.testing.assert_close(found, torchs(muon_and_adamw(on, adam_ratio), start), rtol=1e-10, atol=1e-12)


def test_muon_is_torchs_own_to_the_digits_of_bfloat16() -> None:
    """The slope of the polynomial at zero is 3.4445^5 = 485, so that small singular values carry the rounding errors of
    bfloat16, 2^-9, up to a tenth of a step, whose entries are about lr in size."""
    start = noise(99, torch.float32)
    found, expected = ours(made("muon"), start.clone(), range(1)), torchs(muon_and_adamw("all", 1.0), start, 1)
    for name, moved in tensors(found[0]).items():
        there = tensors(expected[0])[name]
        torch.testing.assert_close(moved, there, rtol=0, atol=0.15 * LR if name in HIDDEN else 1e-6)


@pytest.mark.parametrize("shape", [(2, 6, 4), (1, 4, 6), (3, 5, 5), (1, 1, 7), (1, 1, 1)])
def test_newton_schulz_acts_on_the_singular_values_alone(shape: tuple[int, ...]) -> None:
    """U S V^T becomes U p(p(p(p(p(S / ||S||))))) V^T, p(s) = a s + b s^3 + c s^5."""
    a, b, c = NEWTON_SCHULZ
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(given, full_matrices=False)
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonal(given), u @ torch.diag_embed(s) @ vt, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(orthogonal(1e-3 * given), orthogonal(given), rtol=1e-9, atol=1e-11)


def test_the_step_of_a_gradient_that_is_zero_is_zero() -> None:
    optimizer = Optimizer("muon", 0.9, 0.0, False, BETAS, shapes=SHAPES)
    x = noise(99)
    before = x.clone()
    optimizer.step(x, torch.zeros_like(x), LR, 0)
    assert torch.equal(x, before)


@pytest.mark.parametrize("on", ["all", "matrices"])
@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon", "sign"])
def test_bits_do_not_depend_on_how_many_workers_step_together(kind: str, on: str) -> None:
    start = noise(99, torch.float32)
    together = ours(made(kind, weight_decay_on=on), start.clone())
    alone = ours(made(kind, weight_decay_on=on), start[:1].clone())
    shared = ours(made(kind, weight_decay_on=on), start[0].clone())
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[0], shared)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_an_optimiser_continues_from_its_state(kind: str) -> None:
    whole, half = made(kind, weight_decay_on="matrices"), made(kind, weight_decay_on="matrices")
    start = noise(99, torch.float32)
    expected, x = ours(whole, start.clone()), ours(half, start.clone(), range(3))
    second = made(kind, weight_decay_on="matrices")
    second.load_state_dict({name: each.clone() for name, each in sorted(half.state_dict().items(), reverse=True)})
    assert torch.equal(ours(second, x, range(3, STEPS)), expected)
    assert all(each.shape == x.shape for each in whole.buffers.values())


LIKE_HEADS = ["wte.weight", "lm_head.weight"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (None, HIDDEN),
        ([], [*HIDDEN, *LIKE_HEADS]),
        (["*attention*", "*head*"], ["block.0.mlp.fc.weight", "wte.weight"]),
    ],
)
def test_hidden_matrices_are_known_by_their_names(patterns: list[str] | None, expected: list[str]) -> None:
    optimizer = made("muon") if patterns is None else made("muon", muon_except=patterns)
    starts = dict(zip(SHAPES, torch.tensor([0, *SIZES]).cumsum(0).tolist(), strict=False))
    found = {place.start for places in optimizer.hidden.values() for place in places}
    assert found == {starts[name] for name in expected}


MLP = ["model=mlp", "model.hidden=[6,5]", "workers=4", "rounds=6", "eval_every=2", "batch_size=4", "save_every=1"]
MUON = ["algo.optimizer=muon", "algo.momentum=0.95", "algo.lr=0.02", "algo.adam_lr=0.005", "clip=0.5"]
MUON += ["algo.weight_decay_on=matrices", "algo.schedule.final=0.1", "algo.schedule.warmup=2"]


@pytest.mark.parametrize("algo", ["sgd", "localsgd", "diloco", "dpsgd", "gradient_coding", "dppf"])
def test_runs_with_muon_resume_bit_for_bit(algo: str, run: Callable[..., Run]) -> None:
    words = [f"algo={algo}", *MLP, *MUON]
    whole = run(*words)
    assert whole.status == "completed"
    assert whole.summary["train_loss"] < whole.metrics["train_loss"].iloc[0]
    expected = untimed(whole.folder / "metrics.csv")
    with interrupted(3):
        half = run(*words, "rerun=true")
    assert half.status == "interrupted"
    resumed = run(*words)
    assert "resumed after round 3" in (resumed.folder / "run.log").read_text()
    assert untimed(resumed.folder / "metrics.csv") == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("algo.optimizer=muon", r"algo.momentum=0.0: Muon needs momentum; give momentum=0.95"),
        ("algo.optimizer=muon algo.momentum=0.9 algo.nesterov=true", r"algo.nesterov=True: .*; give nesterov=false"),
        ("algo.weight_decay_on=some", r"algo.weight_decay_on=some: unknown; give all or matrices"),
        ("algo.adam_lr=0", r"algo.adam_lr=0.0: must be positive; give .*"),
        ("algo.schedule.final=1.5", r"algo.schedule.final=1.5: out of range; give .*"),
        ("algo.optimizer=lion", r"algo.optimizer=lion: unknown; give one of sgd, adamw, muon, sign"),
    ],
)
def test_values_that_mean_nothing_are_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        plan(*words.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "model=vit model.image_size=8 algo.muon_except=[*weight]",
            "algo.optimizer=muon: this model has no hidden .*",
        ),
        (
            "model=mlp algo.muon_except=[hed.weight]",
            r"algo.muon_except=\[hed.weight\]: no tensor .* has such a name; .*",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_the_run(
    words: str, message: str, run: Callable[..., Run]
) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        run(*words.split(), "algo.optimizer=muon", "algo.momentum=0.9", "rounds=1")


def test_presets_reach_the_optimiser() -> None:
    given = {"beta2": "0.95", "weight_decay_on": "matrices", "final": "0.1", "optimizer": "adamw"}
    algorithm = plan(*(f"+preset.{key}={value}" for key, value in given.items())).algorithm
    assert isinstance(algorithm, SGD)
    assert (algorithm.betas, algorithm.weight_decay_on, algorithm.optimizer) == ([0.9, 0.95], "matrices", "adamw")
    assert algorithm.schedule.final == 0.1


def test_cosine_ends_at_its_last_share() -> None:
    plain, floor = Schedule(kind="cosine", warmup=10), Schedule(kind="cosine", warmup=10, final=0.1)
    for t in (0, 9, 10, 55, 99, 100):
        expected = plain.factor(t, 100) if t < 10 else 0.1 + 0.9 * plain.factor(t, 100)
        assert floor.factor(t, 100) == pytest.approx(expected, rel=1e-12)
    assert floor.factor(100, 100) == pytest.approx(0.1)
    assert Schedule(kind="constant", final=0.1).factor(50, 100) == 1.0


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_without_the_new_fields_the_bits_are_torchs_on_one_vector(kind: str) -> None:
    parameter = torch.nn.Parameter(noise(99, torch.float32))
    expected: torch.optim.Optimizer = torch.optim.SGD([parameter], LR, momentum=0.9, weight_decay=DECAY, foreach=False)
    if kind == "adamw":
        expected = torch.optim.AdamW([parameter], LR, BETAS, weight_decay=DECAY, foreach=False)
    for step in range(STEPS):
        parameter.grad = noise(step, torch.float32)
        expected.param_groups[0]["lr"] = rate(step)
        expected.step()
    assert torch.equal(ours(made(kind), noise(99, torch.float32)), parameter.detach())
