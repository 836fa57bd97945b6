"""The GPT against a decoder written with NumPy, its gradients for several workers, and language models as a task."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from registry import options, plan
from torch import Tensor, nn

from commexp.config.messages import UserError
from commexp.problems import GradientOptions, ProblemContext, build_problem
from commexp.problems.data import Data
from commexp.problems.models import GPT
from commexp.problems.models.gpt import Decoder
from commexp.problems.module_problem import ModuleProblem
from commexp.problems.tasks import IGNORED, LanguageModelling, token_losses
from commexp.problems.tokens import Tokens
from commexp.run_folder import Run
from commexp.seeding import derive

W, B, T, V = 4, 3, 8, 11


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def by_numpy(model: GPT, net: nn.Module, tokens: np.ndarray) -> np.ndarray:
    """Logits [b, T, V] as the docstring of GPT has them, position by position and head by head."""
    p = {name: value.detach().double().numpy() for name, value in net.named_parameters()}

    def norm(h: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * weight

    def turned(x: np.ndarray, t: int) -> np.ndarray:
        half = len(x) // 2
        angles = t * 10000.0 ** (-2 * np.arange(half) / len(x))
        a, b = x[:half], x[half:]
        return np.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)])

    logits = []
    size = model.width // model.heads
    for sequence in tokens:
        h = p["token_embedding.weight"][sequence]
        if model.positions == "learned":
            h = h + p["position_embedding.weight"][: len(sequence)]
        for layer in range(model.layers):
            name = f"blocks.{layer}"
            qkv = norm(h, p[f"{name}.norm1.weight"]) @ p[f"{name}.attention.qkv.weight"].T
            mixed = np.zeros_like(h)
            for head in range(model.heads):
                here = slice(head * size, (head + 1) * size)
                q, k, v = (part[:, here] for part in np.split(qkv, 3, axis=1))
                if model.positions == "rotary":
                    q, k = (np.stack([turned(x, t) for t, x in enumerate(part)]) for part in (q, k))
                for t in range(len(sequence)):
                    scores = np.exp(q[t] @ k[: t + 1].T / np.sqrt(size))
                    mixed[t, here] = scores / scores.sum() @ v[: t + 1]
            h = h + mixed @ p[f"{name}.attention.out.weight"].T
            inner = norm(h, p[f"{name}.norm2.weight"]) @ p[f"{name}.feed_forward.0.weight"].T
            inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
            h = h + inner @ p[f"{name}.feed_forward.2.weight"].T
        head_matrix = p["token_embedding.weight"] if model.tied else p["head.weight"]
        logits.append(norm(h, p["norm.weight"]) @ head_matrix.T)
    return np.stack(logits)


MODELS = [GPT(2, 2, 8), GPT(2, 2, 8, positions="rotary"), GPT(1, 1, 6, tied=False)]


@pytest.mark.parametrize("model", MODELS, ids=["learned", "rotary", "untied"])
def test_the_decoder_computes_what_its_docstring_says(model: GPT) -> None:
    torch.manual_seed(0)
    net = Decoder(model, V, T).double()
    for p in net.parameters():  # far from the start, where every part counts
        nn.init.normal_(p, std=0.5)
    for length in (T, T - 3):
        tokens = torch.randint(V, (B, length))
        np.testing.assert_allclose(net(tokens).detach().numpy(), by_numpy(model, net, tokens.numpy()), atol=1e-11)


@pytest.mark.parametrize(
    ("option", "millions"), [("gpt", 0.119), ("gpt_800k", 0.828), ("gpt_10m", 10.74), ("gpt_124m", 85.2)]
)
def test_presets_have_the_sizes_of_their_names(option: str, millions: float) -> None:
    """With 256 bytes and windows of 64; at 50,257 tokens and 1,024 positions the last one has 124 million."""
    model = plan(f"model={option}", "dataset=text").model
    assert isinstance(model, GPT)
    with torch.device("meta"):
        count = sum(p.numel() for p in Decoder(model, 256, 64).parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.01)
        if option == "gpt_124m":
            assert sum(p.numel() for p in Decoder(model, 50257, 1024).parameters()) / 1e6 == pytest.approx(
                124.3, abs=0.1
            )


def stream(size: int = 8 * 248 + 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, V, size).astype(np.uint8)


def problem_of(
    model: GPT, way: str = "auto", ids: range = range(W), dtype: torch.dtype = torch.float64, **options: bool
) -> ModuleProblem:
    data = Data(Tokens(stream(), T, V, 1.0), torch.empty(0), Tokens(stream(200), T, V, 1.0))
    shards = list(torch.arange(len(data.train_x)).chunk(W))
    context = ProblemContext(
        shards, ids, B, 0, torch.device("cpu"), dtype, speed=GradientOptions(workers=way, **options)
    )
    problem = build_problem(model, data, context)
    assert isinstance(problem, ModuleProblem)
    return problem


def apart(problem: ModuleProblem) -> Tensor:
    """A different x for every worker, away from the start."""
    start = problem.init(torch.Generator().manual_seed(3))
    noise = torch.randn(W, problem.dim, generator=torch.Generator().manual_seed(1), dtype=start.dtype)
    return start + 0.1 * noise


def reference(model: GPT, x: Tensor, tree: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One network after the other, by plain autograd."""
    losses, grads = [], []
    for row, tokens, targets in zip(x, *tree, strict=True):
        net = Decoder(model, V, T).to(x.dtype)
        nn.utils.vector_to_parameters(row.clone(), net.parameters())
        loss = F.cross_entropy(net(tokens).flatten(0, 1), targets.flatten())
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]))
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(grads)


@pytest.mark.parametrize("model", MODELS, ids=["learned", "rotary", "untied"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("way", ["fold", "vmap", "loop"])
def test_every_way_gives_each_workers_own_gradient(model: GPT, way: str, dtype: torch.dtype) -> None:
    problem = problem_of(model, way, dtype=dtype)
    assert problem.way == way
    x, batch, tolerance = apart(problem), problem.batch(1), 1e-12 if dtype == torch.float64 else 1e-6
    losses, grads = problem.loss_and_grad(x, batch)
    expected_losses, expected = reference(model, x, batch.tree)
    assert float((losses - expected_losses).abs().max()) < 10 * tolerance
    assert float((grads - expected).abs().max() / expected.abs().max()) < tolerance


def test_small_ones_are_folded_and_those_with_dropout_are_not() -> None:
    assert problem_of(GPT(1, 2, 8)).way == "fold"
    assert problem_of(GPT(1, 2, 8, dropout=0.1)).way == "loop"
    with pytest.raises(ValueError, match=r"^speed.workers=fold: this model cannot be \(it draws random numbers"):
        problem_of(GPT(1, 2, 8, dropout=0.1), "fold")


def test_bfloat16_is_near() -> None:
    exact, near = (problem_of(GPT(1, 2, 8), dtype=torch.float32, amp=amp) for amp in (False, True))
    x = apart(exact)
    a, b = exact.loss_and_grad(x, exact.batch(0))[1].clone(), near.loss_and_grad(x, near.batch(0))[1]
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert float((a - b).norm() / a.norm()) < 0.05


def test_dropout_is_each_workers_own_and_the_same_wherever_it_lives() -> None:
    model = GPT(1, 2, 8, dropout=0.3)
    together = problem_of(model)
    x = apart(together)
    batch = together.batch(2)
    assert list(batch.seeds) == [derive(0, "dropout", n, 2) for n in range(W)]
    losses, grads = (t.clone() for t in together.loss_and_grad(x, batch))
    for n in range(W):
        alone = problem_of(model, ids=range(n, n + 1))
        found = alone.loss_and_grad(x[n : n + 1], alone.batch(2))
        assert torch.equal(found[0][0], losses[n])
        assert torch.equal(found[1][0], grads[n])
    same = together.batch(2)
    same.seeds = (same.seeds[0],) * W
    assert not torch.equal(together.loss_and_grad(x, same)[0][1:], losses[1:])


# -- the task


def test_targets_that_are_ignored_have_no_part() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, V, generator=g, dtype=torch.float64)
    targets = torch.randint(V, (3, 5), generator=g)
    targets[0, 2:], targets[2] = IGNORED, IGNORED
    log_p = logits.log_softmax(-1)
    wanted = [-sum(float(log_p[i, t, targets[i, t]]) for t in range(n)) / max(n, 1) for i, n in enumerate((2, 5, 0))]
    assert token_losses(logits, targets).tolist() == pytest.approx(wanted)


def test_perplexity_and_bits_per_byte() -> None:
    columns = LanguageModelling(bytes_per_token=2.5).evaluated({"loss": 1.0}, {"loss": 2.0})
    assert columns == {
        "train_loss": 1.0,
        "test_loss": 2.0,
        "test_perplexity": pytest.approx(math.e**2),
        "test_bits_per_byte": pytest.approx(2 / math.log(2) / 2.5),
    }
    assert LanguageModelling().evaluated({"loss": 1.0}, {"loss": 1e4})["test_perplexity"] == math.inf


def test_an_evaluation_is_the_mean_over_all_windows() -> None:
    problem = problem_of(GPT(1, 2, 8))
    x = apart(problem)[0]
    net = Decoder(GPT(1, 2, 8), V, T).double()
    nn.utils.vector_to_parameters(x.clone(), net.parameters())
    found = problem.evaluate(x)
    for part, tokens in (("train", stream()), ("test", stream(200))):
        starts = torch.arange(0, len(tokens) - T, T)
        pieces = torch.tensor(tokens.astype(np.int64))[starts[:, None] + torch.arange(T + 1)]
        with torch.no_grad():
            loss = F.cross_entropy(net(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())
        assert found[f"{part}_loss"] == pytest.approx(float(loss), rel=1e-12)
    assert found["test_perplexity"] == pytest.approx(math.exp(found["test_loss"]))
    assert problem.training_loss(x) == pytest.approx(found["train_loss"], rel=1e-12)


# -- windows


def test_windows_lie_in_their_workers_text_and_begin_anywhere() -> None:
    problem, tokens = problem_of(GPT(1, 1, 4)), stream()
    ends = [(int(rows[0]) * T, (int(rows[-1]) + 1) * T) for rows in problem.feed.context.shards]
    text = [tokens[first : last + 1].tolist() for first, last in ends]
    offsets = set()
    for step in range(60):
        inputs, targets = problem.feed.batch(step)
        assert inputs.shape == targets.shape == (W, B, T)
        assert torch.equal(inputs[..., 1:], targets[..., :-1])
        for n in range(W):
            for window in torch.cat([inputs[n], targets[n, :, -1:]], dim=1).tolist():
                places = [i for i in range(len(text[n]) - T) if text[n][i : i + T + 1] == window]
                assert places, "it crosses into another worker's text"
                offsets |= {place % T for place in places}
    assert offsets == set(range(T))
    assert torch.equal(problem.feed.batch(7)[0], problem_of(GPT(1, 1, 4)).feed.batch(7)[0])
    alone = problem_of(GPT(1, 1, 4), ids=range(2, 3))
    assert torch.equal(alone.feed.batch(7)[0][0], problem.feed.batch(7)[0][2])


def test_an_epoch_sees_every_window_once() -> None:
    problem = problem_of(GPT(1, 1, 4))
    size = len(problem.feed.context.shards[0])
    rows = torch.cat([problem.feed.sampler.batch(step)[0] for step in range(math.ceil(size / B))])[:size]
    assert sorted(rows.tolist()) == list(range(size))


# -- runs

TEXT = ("dataset=text", "dataset.tokens=2000", "dataset.test_tokens=500", "dataset.block=16", "workers=4",
        "batch_size=2", "model.width=8", "model.layers=1", "model.heads=2", "eval_every=1")  # fmt: skip


@pytest.mark.parametrize("name", options("algo"))
def test_every_algorithm_trains_it(name: str, run: Callable[..., Run]) -> None:
    found = run(*TEXT, f"algo={name}", "rounds=2")
    assert found.status == "completed"
    rows = found.metrics
    assert rows["test_perplexity"].notna().all()
    assert rows["tokens"].tolist() == (16 * rows["samples"]).tolist()
    assert rows["tokens"].iloc[-1] > 0


def test_a_run_says_perplexity_bits_per_byte_and_tokens(run: Callable[..., Run]) -> None:
    found = run(*TEXT, "rounds=20", "eval_every=10", "flatness=valley")
    table = (found.folder / "summary.md").read_text()
    assert "test perplexity" in table
    assert "test bits per byte" in table
    assert found.summary["best_test_perplexity"] < 256
    assert found.metrics["test_loss"].iloc[-1] < found.metrics["test_loss"].iloc[0]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("dataset=digits", "model=gpt"), r"model=GPT: needs tokens; give dataset=text"),
        (("dataset=text", "model=resnet_small"), r"model=ResNetSmall: needs labelled images; give dataset=digits"),
        (("dataset=text", "model=mlp"), r"model=MLP: needs labelled samples; give dataset=digits"),
        (("dataset=text", "model=logistic_regression"), r"model=logistic_regression: needs feature vectors"),
        (("dataset=text", "model=linear_regression", "batch_size=null"), r"model=linear_regression: needs feature"),
        (("dataset=text", "model=matrix_factorisation"), r"model=matrix_factorisation: needs ratings; give"),
        (("dataset=text", "partition=dirichlet"), r"partition=dirichlet: the data have no classes; give"),
        (("dataset=text", "batch_size=null"), r"batch_size=null: "),
        (("dataset=text", "model.heads=3"), r"model.heads=3: must divide width=64; give one of its divisors"),
        (("dataset=text", "model.positions=none"), r"model.positions=none: unknown; give learned or rotary"),
        (("dataset=text", "model.dropout=1.0"), r"model.dropout=1.0: must lie in \[0, 1\); 0 is none"),
        (("dataset=text", "model.positions=rotary", "model.width=12"), r"model.heads=4: rotary positions turn pairs"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(words: tuple[str, ...], wanted: str, run: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match=f"^{wanted}"):
        run(*words, "rounds=1")
