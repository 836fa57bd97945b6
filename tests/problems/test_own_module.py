"""A user's own module, samples, loss and metrics: gradients against plain torch, equal for every split, in the name."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from problems import own_parts
from problems.own_parts import Net, make_data, make_dicts, make_masked, make_model, make_plain
from registry import interrupted, plan
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from commexp.api import plan_of, run_experiment
from commexp.config.fingerprint import fingerprint
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.problems import ProblemContext, build_problem
from commexp.problems.module_problem import ModuleProblem
from commexp.run_folder import Run
from commexp.seeding import derive

WORDS = ("workers=4", "rounds=6", "eval_every=2", "batch_size=8", "algo.lr=0.1", "+preset.schedule=constant",
         "+preset.warmup=0", "launch.device=cpu")  # fmt: skip
OURS = ("model=module", "dataset=module", "model.factory=problems.own_parts.make_model",
        "dataset.factory=problems.own_parts.make_data")  # fmt: skip
Own = Callable[..., Run]


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """``commexp.run`` with objects, into the test's own folder."""

    def call(*words: str, **handed: Any) -> Run:
        parts = {"model": make_model, **dict(zip(("train", "test"), make_data(), strict=True)), **handed}
        kept = {key: value for key, value in parts.items() if value is not None}
        return run_experiment([*WORDS, f"outputs={tmp_path / 'outputs'}", *words], handed=kept)

    return call


def problem_of(*words: str, ids: range = range(3), **handed: Any) -> ModuleProblem:
    """The problem of the workers ``ids`` of 3."""
    parts = {"model": make_model, **dict(zip(("train", "test"), make_data(), strict=True)), **handed}
    made = plan_of(("workers=3", "batch_size=8", "dtype=float64", *words), parts)
    data = made.dataset.load(3, 0, torch.float64)
    context = ProblemContext(
        made.partition.split(data, 3, 0), ids, 8, 0, torch.device("cpu"), torch.float64, loss=made.loss,
        metrics=made.metrics,
    )  # fmt: skip
    problem = build_problem(made.model, data, context)
    assert isinstance(problem, ModuleProblem)
    return problem


# -- gradients


def start(problem: ModuleProblem, seed: int = 0) -> Tensor:
    return problem.init(torch.Generator().manual_seed(derive(seed, "start")))


def reference(problem: ModuleProblem, x: Tensor, batch: Any, step: int) -> tuple[Tensor, Tensor]:
    """Plain torch in float64: a new network, its dropout from the worker's own stream."""
    torch.manual_seed(derive(0, "start"))
    net = Net().double().train()
    losses, grads = [], []
    for n, (row, inputs, targets) in enumerate(zip(x, *batch.tree, strict=True)):
        one = copy.deepcopy(net)
        params = [p for p in one.parameters() if p.requires_grad]
        nn.utils.vector_to_parameters(row.clone(), params)
        torch.manual_seed(derive(0, "dropout", n, step))
        loss = F.cross_entropy(one(inputs), targets)
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)]))
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(grads)


def test_gradients_with_dropout_norms_ties_and_frozen_parameters_are_plain_autograds() -> None:
    problem = problem_of()
    assert problem.dim == sum(p.numel() for p in Net().parameters() if p.requires_grad)
    assert problem.way == "loop"
    x = start(problem) * torch.tensor([[1.0], [0.7], [1.3]])
    for step in (0, 3):
        batch = problem.batch(step)
        expected = reference(problem, x, batch, step)
        for _ in range(2):  # the masks belong to the batch
            torch.testing.assert_close(problem.loss_and_grad(x, batch), expected, rtol=1e-12, atol=1e-13)


def test_a_worker_has_the_same_batches_masks_and_bits_wherever_it_lives() -> None:
    together = problem_of()
    x = start(together) * torch.tensor([[1.0], [0.7], [1.3]])
    losses, grads = (t.clone() for t in together.loss_and_grad(x, together.batch(5)))
    fresh = [t.clone() for t in together.loss_and_grad(x, together.fresh(5, 6))]
    for n in range(3):
        alone, taken = problem_of(ids=range(n, n + 1)), together.for_workers([n])
        for one in (alone, taken):
            found = one.loss_and_grad(x[n : n + 1], one.batch(5))
            assert torch.equal(found[0][0], losses[n])
            assert torch.equal(found[1][0], grads[n])
        assert torch.equal(alone.loss_and_grad(x[n : n + 1], alone.fresh(5, 6))[1][0], fresh[1][n])


def test_the_callers_module_and_generators_are_left_alone(own: Own) -> None:
    module = Net()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    own(model=module)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))
    assert module.norm.track_running_stats
    assert all(p.requires_grad == (name != "frozen") for name, p in module.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_modules_own_initialisation_is_the_start() -> None:
    torch.manual_seed(5)
    module = Net()
    found = start(problem_of(model=module), seed=7)
    assert torch.equal(found, torch.cat([p.flatten() for p in module.parameters() if p.requires_grad]).double())
    drawn = [start(problem_of(), seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_accumulating_pieces_of_a_batch_changes_the_last_digits_alone() -> None:
    whole, pieces = (problem_of(model=make_plain), problem_of(model=make_plain))
    pieces.gradients.speed = type(whole.gradients.speed)(accumulate=3)
    x = start(whole) * torch.tensor([[1.0], [0.7], [1.3]])
    expected = [t.clone() for t in whole.loss_and_grad(x, whole.batch(1))]
    torch.testing.assert_close(pieces.loss_and_grad(x, pieces.batch(1)), tuple(expected), rtol=1e-12, atol=1e-14)
    one, other = problem_of(model=make_plain, ids=range(1)), problem_of(model=make_plain, ids=range(1))
    other.gradients.speed = type(whole.gradients.speed)(accumulate=4)
    told: list[int] = []
    found = other.loss_and_grad(x[:1], other.batch(1), lambda gradient, first: told.append(first))
    torch.testing.assert_close(found, one.loss_and_grad(x[:1], one.batch(1)), rtol=1e-12, atol=1e-14)
    assert told[-1] == 0
    assert told == sorted(told, reverse=True)
    assert len(told) == len(one.shapes), "entries are final in the last piece alone"


class Checkpointed(nn.Module):
    def __init__(self, using: bool) -> None:
        super().__init__()
        self.net, self.using = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 3)), using

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.net, x, use_reentrant=False) if self.using else self.net(x)
        return out


def test_gradient_checkpointing_changes_nothing() -> None:
    found = []
    for using in (False, True):
        problem = problem_of(model=partial(Checkpointed, using))
        x = start(problem).expand(3, -1)
        local = problem.local_gradient(x)
        found.append([t.clone() for t in (*problem.loss_and_grad(x, problem.batch(2)), *local)])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-12, atol=1e-14)


# -- losses, batches, data sets


def test_a_loss_and_metrics_of_ones_own(own: Own) -> None:
    found = own("seed=3", model=make_plain, loss=own_parts.loss, metrics={"margin": own_parts.margin, "first": first})
    row = found.metrics.iloc[-1]
    assert {"train_loss", "test_loss", "test_margin", "test_first"} <= {*found.metrics}
    assert "test_accuracy" not in found.metrics
    assert math.isfinite(row["test_margin"])
    assert own("seed=3", model=make_plain).metrics["test_loss"].iloc[0] != found.metrics["test_loss"].iloc[0]
    table = (found.folder / "summary.md").read_text()
    assert "test margin" in table


def first(module: nn.Module, batch: Any) -> float:
    return float(module(batch[0])[0, 0])


def test_a_metric_is_the_mean_over_samples_not_over_chunks(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = own(model=make_plain, loss=own_parts.loss, metrics={"margin": own_parts.margin})
    monkeypatch.setattr("commexp.problems.feeds.base.VECTORS", 7)  # 20 test samples: 7, 7, 6
    parts = own("rerun=true", model=make_plain, loss=own_parts.loss, metrics={"margin": own_parts.margin})
    for column in ("train_loss", "test_loss", "test_margin"):
        assert parts.metrics[column].tolist() == pytest.approx(whole.metrics[column].tolist(), rel=1e-5)


def test_unequal_shards_weigh_workers_alike_under_a_scalar_loss() -> None:
    words = ("partition=random_shares", "partition.ratio=9")
    vector = problem_of(*words, model=make_plain)
    scalar = problem_of(
        *words, model=make_plain, loss=lambda module, batch: F.cross_entropy(module(batch[0]), batch[1])
    )
    assert len({*vector.local_sizes}) > 1
    x = start(vector) * 3
    assert scalar.evaluate(x)["train_loss"] == pytest.approx(vector.evaluate(x)["train_loss"], rel=1e-12)
    torch.testing.assert_close(scalar.training_gradient(x)[1], vector.training_gradient(x)[1], rtol=1e-10, atol=1e-12)
    each = vector.local_gradient(x.expand(3, -1))[1].mean(0)
    torch.testing.assert_close(scalar.training_gradient(x)[1], each, rtol=1e-10, atol=1e-12)


def test_dicts_with_masks_and_the_modules_own_loss(own: Own) -> None:
    parts = make_dicts()
    found = own(model=make_masked, train=parts["train"], test=parts["test"])
    assert found.metrics["test_loss"].iloc[-1] < found.metrics["test_loss"].iloc[0]
    named = own("model=module", "dataset=module", "model.factory=problems.own_parts.make_masked",
                "dataset.factory=problems.own_parts.make_dicts", model=None, train=None, test=None)  # fmt: skip
    assert named.metrics.drop(columns="wall_seconds").equals(found.metrics.drop(columns="wall_seconds"))


def test_the_modules_method_loss_comes_before_everything_but_a_given_one(own: Own) -> None:
    class WithLoss(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 3)

        def loss(self, batch: Any) -> Tensor:
            return 7.0 + 0 * self(batch[0]).sum()

    assert own(model=WithLoss).metrics["train_loss"].tolist() == [7.0] * 4
    assert own(model=WithLoss, loss=own_parts.loss).metrics["train_loss"].iloc[0] < 7


@pytest.mark.parametrize("kind", ["dataset", "numpy", "iterable", "noisy"])
def test_every_kind_of_samples(kind: str, own: Own) -> None:
    train, test = make_data()
    plain = own(model=make_plain, train=train, test=test).metrics.drop(columns="wall_seconds")
    given: dict[str, Any] = {
        "dataset": TensorDataset(*train),
        "numpy": tuple(t.numpy() for t in train),
        "iterable": own_parts.Streamed(60),
        "noisy": own_parts.Noisy(60),
    }
    found = own(model=make_plain, train=given[kind], test=test)
    rows = found.metrics.drop(columns="wall_seconds")
    if kind == "noisy":
        again = own("rerun=true", model=make_plain, train=given[kind], test=test)
        assert again.metrics.drop(columns="wall_seconds").equals(rows), "its random numbers are the run's"
        assert not rows.equals(plain)
    else:
        assert rows.equals(plain)


def test_validation_takes_samples_away_from_training(own: Own) -> None:
    found = own("dataset.validation=20", model=make_plain)
    assert found.meta["samples"] == 40


WRITERS = [f"writer {i % 5}" for i in range(len(make_data()[0][0]))]


@pytest.mark.parametrize("column", [False, True])
def test_own_samples_go_by_source(column: bool, own: Own) -> None:
    """By an id of each sample, or by a column of samples that are dicts, which no batch has then."""
    (x, y), test = make_data()
    seen: set[str] = set()

    def loss(module: nn.Module, batch: Any) -> Tensor:
        seen.update(batch if column else ())
        return F.cross_entropy(module(batch["x"] if column else batch[0]), batch["y"] if column else batch[1])

    data: Any = {"x": x, "y": y, "writer": torch.arange(len(x)) % 5} if column else (x, y)
    held = {"x": test[0], "y": test[1]} if column else test
    handed = {"train": data, "test": held, "source": "writer" if column else WRITERS, "loss": loss}
    found = own("partition=by_source", model=make_plain, **handed)
    rows = found.rows("partition")
    assert sorted(int(row["source"]) for row in rows) == list(range(5))
    assert sum(int(row["samples"]) for row in rows) == len(x)
    assert seen == ({"x", "y"} if column else set())


def test_sources_are_part_of_a_runs_name() -> None:
    train, test = make_data()
    names = {
        plan_of(WORDS, {"model": make_model, "train": train, "test": test, **more}).name
        for more in ({}, {"source": WRITERS}, {"source": WRITERS[::-1]}, {"source": [w.upper() for w in WRITERS]})
    }
    assert len(names) == 3, "who wrote what counts, not how the writers are called"


def test_sources_that_do_not_fit_are_refused(own: Own) -> None:
    train, _ = make_data()
    dicts = dict(zip("xy", train, strict=True))
    for handed, wrong in (
        ({"source": [1, 2]}, f"source: 2 ids for {len(train[0])} training samples; give one for each"),
        ({"source": "writer"}, "source=writer: train has no such column; give one, or an id of each sample"),
        ({"train": dicts, "source": "writer"}, "source=writer: train has no such column; its columns are x, y; give"),
        ({"train": None, "test": None, "source": [1]}, "source: of samples that are handed over; give train and test"),
    ):
        with pytest.raises(UserError) as refused:
            own("partition=by_source", **handed)
        assert str(refused.value).startswith(wrong)
    with pytest.raises(UserError, match=r"^partition=by_source: the data have no sources; give"):
        own("partition=by_source")


def test_own_classes_are_split_by_class_and_go_with_any_model(own: Own) -> None:
    g = torch.Generator().manual_seed(0)
    images, labels = torch.randn(80, 1, 8, 8, generator=g), torch.arange(80) % 4
    found = own("partition=by_class", "model=cnn", "model.width=8", model=None, train=(images, labels),
                test=(images[:20], labels[:20]))  # fmt: skip
    assert (found.folder / "partition.csv").is_file()
    assert "test_accuracy" in found.metrics


def test_real_targets_are_regression(own: Own) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(80, 4, generator=g)
    found = own(model=partial(nn.Linear, 4, 1), train=(x, x.sum(1)), test=(x[:9], x[:9].sum(1)))
    last = found.metrics.iloc[-1]
    assert last["test_rmse"] == pytest.approx(math.sqrt(last["test_loss"]))
    assert last["test_loss"] < found.metrics["test_loss"].iloc[0]


# -- runs


def test_names_in_a_config_do_what_objects_do(own: Own) -> None:
    objects = own("algo=diloco", "algo.tau=2", loss=own_parts.loss, metrics={"margin": own_parts.margin}, name=None)
    named = own(
        *OURS, "algo=diloco", "algo.tau=2", "loss=problems.own_parts.loss", "+metrics.margin=problems.own_parts.margin",
        "name=mine", model=None, train=None, test=None,
    )  # fmt: skip
    assert named.metrics.drop(columns="wall_seconds").equals(objects.metrics.drop(columns="wall_seconds"))
    assert named.name.startswith("diloco-none-mine-")
    assert "problems.own_parts" in named.meta["sources"]


@pytest.mark.parametrize("words", [("algo=sgd", "compress=topk", "compress.k=0.2"), ("algo=dppf", "algo.tau=2")])
def test_an_interrupted_run_goes_on_bit_for_bit(words: tuple[str, ...], own: Own) -> None:
    whole = own(*words, "rerun=true")
    expected = whole.metrics.drop(columns="wall_seconds")
    with interrupted(3):
        assert own(*words, "rerun=true", "save_every=1").status == "interrupted"
    found = own(*words, "save_every=1")
    assert found.status == "completed"
    assert found.metrics.drop(columns="wall_seconds").equals(expected)


def test_what_is_handed_over_is_in_the_name() -> None:
    train, test = make_data()
    other = (train[0] + 0.1, train[1])

    def rate(value: float) -> Callable[[], nn.Module]:
        return lambda: Net(value)

    def name(**handed: Any) -> str:
        parts = {"model": rate(0.1), "train": train, "test": test, "loss": own_parts.loss, **handed}
        return plan_of(WORDS, {k: v for k, v in parts.items() if v is not None}).name

    torch.manual_seed(0)
    module = Net()
    torch.manual_seed(1)
    names = [name(), name(model=rate(0.2)), name(train=other), name(test=other), name(loss=None), name(model=module),
             name(model=Net()), name(model=partial(Net, 0.1)), name(metrics={"margin": own_parts.margin})]  # fmt: skip
    assert len({*names}) == len(names)
    assert name() == names[0]
    assert name(model=copy.deepcopy(module)) == names[5]


def test_a_finished_run_is_not_run_again(own: Own) -> None:
    first_time = own(model=make_plain)
    assert own(model=make_plain).meta["started"] == first_time.meta["started"]


@pytest.mark.parametrize(
    "words",
    [
        ("algo=sgd", "compress=regtopk", "compress.k=0.1"), ("algo=sgd", "compress=powersgd"),
        ("algo=localsgd", "compress=qsgd"), ("algo=choco", "compress=topk", "topology=ring"),
        ("algo=gradient_coding", "straggler=bernoulli"), ("algo=async_sgd",), ("algo=deepstorm", "topology=ring"),
        ("algo=sam",), ("algo=sgd", "clip=0.5", "on_nonfinite=skip", "algo.optimizer=muon", "algo.momentum=0.9"),
    ],
)  # fmt: skip
def test_every_family_trains_it(words: tuple[str, ...], own: Own) -> None:
    found = own(*words)
    assert found.status == "completed"
    assert found.metrics["train_loss"].notna().all()


# -- mistakes


class Changing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.linear(x)
        return out


X, Y = make_data()[0]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "vector loss": (
        {"loss": lambda module, batch: module(batch[0])},
        r"loss: returns no scalar but a value of shape \[2, 3\]; return the mean over the batch",
    ),
    "no tensor": ({"loss": lambda module, batch: None}, r"loss: returns no scalar but a value a NoneType; return"),
    "constant loss": (
        {"loss": lambda module, batch: torch.tensor(1.0)},
        r"loss: does not depend on the module's parameters; return",
    ),
    "metric": ({"metrics": {"m": lambda module, batch: module(batch[0])}}, r"metrics.m: returns no scalar"),
    "bad metric name": (
        {"metrics": {"a b": own_parts.margin}},
        r"metrics.a b: no name of a column; give letters, digits and _",
    ),
    "no parameters": ({"model": nn.Flatten}, r"model: the module has no parameter that requires a gradient; give"),
    "batch": (
        {"model": partial(nn.Linear, 5, 3)},
        r"model: a step of training fails on a batch of float32 \[2, 8\], int64 \[2\] \(RuntimeError: .*\); give",
    ),
    "buffer": ({"model": Changing}, r"model: its buffer calls changes in training, and only batch norm's"),
    "no module": ({"model": lambda: 3}, r"model: returns a int, no torch module; return an nn.Module"),
    "not callable": ({"model": 3}, r"model: a int; give a torch module or a function"),
    "failing": ({"model": lambda: 1 / 0}, r"model: fails \(ZeroDivisionError: division by zero\); "),
    "no length": ({"train": own_parts.Endless()}, r"train: a Endless without a length; give it __len__"),
    "no test set": ({"test": None}, r"test: missing; give test samples to judge models by"),
    "no training set": ({"train": None}, r"train: missing; give train samples"),
    "lengths": ({"train": (X, Y[:5])}, r"train: tensors of \[5, 60\] samples; give all the same number"),
    "empty": ({"train": (X[:0], Y[:0])}, r"train: no samples; give one or more"),
    "unreadable": (
        {"train": own_parts.Broken()},
        r"train: the first sample cannot be taken \(OSError: the disk is gone\); give tensors, numbers or arrays",
    ),
    "no samples": ({"train": "folder"}, r"train: a str; give a torch Dataset, or tensors"),
    "dict without loss": (
        {"model": make_masked, **{k: {n: t for n, t in v.items() if n != "labels"} for k, v in make_dicts().items()}},
        r"loss: the module returns none for this batch; give it targets, or loss=...",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_told_in_one_line_before_anything_is_written(case: str, own: Own, tmp_path: Path) -> None:
    handed, wanted = BAD[case]
    with pytest.raises(UserError, match=f"^{wanted}") as caught:
        own(**{"model": make_plain, **handed})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "outputs").exists()


NAMES = {
    "model.factory=nowhere.make": r"model.factory=nowhere.make: cannot be imported \(.*\); give a function's full name",
    "model.factory=problems.own_parts.W": r"model.factory=problems.own_parts.W: cannot be imported",
    "model.factory=problems.own_parts.__doc__": r"model.factory=.*: is a str, which cannot be called; give a function",
    "model.factory=": r"model.factory=: empty; give the full name of a function that returns a torch module",
    "+model.arguments.depth=3": r"model.factory=.*: fails \(TypeError: .*depth.*\); give a function that works",
    "dataset.factory=problems.own_parts.make_plain": r"dataset.factory=.*: returns no pair \(train, test\); return one",
    "dataset.validation=60": r"dataset.validation=60: out of range; give 1 to 59 samples, or null",
    "loss=problems.own_parts.nothing": r"loss=problems.own_parts.nothing: cannot be imported",
    "+metrics.m=nowhere.m": r"metrics.m=nowhere.m: cannot be imported",
    "name=a/b": r"name=a/b: no name of a folder; give up to 40 letters, digits and ._-",
    "speed.accumulate=0": r"speed.accumulate=0: must not be less than 1; 1 is the whole batch at once",
    "speed.workers=fold": r"speed.workers=fold: this model cannot be \(it draws random numbers, each worker its own\)",
}


@pytest.mark.parametrize("word", NAMES)
def test_a_wrong_name_in_a_config_is_told_in_one_line(word: str, own: Own, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{NAMES[word]}"):
        own(*OURS, word, model=None, train=None, test=None)
    assert not (tmp_path / "outputs").exists()


def test_objects_stay_in_their_process(own: Own) -> None:
    with pytest.raises(
        UserError, match=r"^launch=torchrun: other processes cannot have what is handed over from Python"
    ):
        own("launch=torchrun")


def test_problems_with_losses_of_their_own_refuse_another() -> None:
    words = ("dataset=linreg", "model=linear_regression", "batch_size=null", "loss=problems.own_parts.loss")
    with pytest.raises(UserError, match=r"^loss: the LinearRegression model has its own; leave it out"):
        ExperimentSetup(plan(*words), torch.device("cpu"), Run(Path("nowhere")))


def test_a_run_folder_chooses_no_code(own: Own, tmp_path: Path) -> None:
    """What a folder's config names is not imported by those who read it."""
    from commexp.config.components import build
    from commexp.problems import Dataset, Model

    node = {"_target_": "commexp.problems.models.module.OwnModule", "factory": "problems.trap.make"}
    assert build(node, "model", Model, foreign=True).factory == "problems.trap.make"  # type: ignore[attr-defined]
    node = {"_target_": "commexp.problems.datasets.module.OwnDataset", "factory": "problems.trap.make"}
    build(node, "dataset", Dataset, foreign=True)


def typed(factor: str) -> Any:
    """What a cell of a notebook makes: a class without a file."""
    code = f"""
from torch import nn
class Typed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)
    def forward(self, x):
        return {factor} * self.linear(x)
def make():
    return Typed()
"""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(code, space)
    return space


def test_a_class_that_was_typed_in_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    one, other, again = typed("1"), typed("2"), typed("1")
    for key in ("make", "Typed"):
        assert fingerprint(one[key]) == fingerprint(again[key]) != fingerprint(other[key])
    torch.manual_seed(0)
    first = one["make"]()
    torch.manual_seed(0)
    assert fingerprint(first) != fingerprint(other["make"]())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.gru(x.view(len(x), 2, 4))[0][:, -1])
        return out


def test_a_module_that_vmap_cannot_take_goes_worker_by_worker(own: Own) -> None:
    found = own(model=Recurrent)
    assert found.meta["gradients"] == "loop"
    assert found.status == "completed"


def test_a_list_of_samples_is_a_dataset(own: Own) -> None:
    train, _ = make_data()
    plain, listed = own(model=make_plain), own(model=make_plain, train=list(zip(*train, strict=True)))
    of_tensors = plain.metrics.drop(columns=["wall_seconds", "stationarity"])  # what a sample is, a list does not say
    assert listed.metrics.drop(columns="wall_seconds").equals(of_tensors)
