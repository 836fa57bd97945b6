"""Every YAML composes, says how to use it, and runs; names of run folders depend on what changes the result alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from problems.test_datasets import write_fashion
from registry import composed, options, plan

from commexp.api import compose_config
from commexp.config.messages import UserError
from commexp.config.overrides import RENAMED, Word, arranged
from commexp.config.plan import prepare
from commexp.config.schema import CONF, known_keys, top_keys
from commexp.launch.sweep import register_resolvers
from commexp.run_folder import Run

EVERY = [(p.parent.name, p.stem) for p in sorted(CONF.glob("*/*.yaml"))]


ADDED = ("experiment", "cluster")  # groups without a default: chosen with a plus


def test_a_sweep_on_slurm_is_composed() -> None:
    """By the plugin's own schema; there is no Slurm here to hand it to."""
    register_resolvers()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config = compose("config", overrides=["+cluster=slurm", "algo=topk"], return_hydra_config=True)
    launcher = config.hydra.launcher
    assert launcher._target_ == "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    assert (launcher.tasks_per_node, launcher.timeout_min) == (1, 720)
    assert plan("+cluster=slurm").name == plan().name


@pytest.mark.parametrize(("group", "option"), EVERY)
def test_every_yaml_opens_with_a_command_that_uses_it(group: str, option: str) -> None:
    """Which composes and builds: test_readme.py."""
    head = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()[:2]
    assert any(f"{'+' if group in ADDED else ''}{group}={option}" in line and "# commexp " in line for line in head)


DEVICES = sorted(p.stem for p in (CONF / "network" / "compute").glob("*.yaml"))


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_is_chosen_as_it_is_named(device: str) -> None:
    """Its file says where its numbers are from; the choice goes with other values, and replaces an experiment's."""
    text = (CONF / "network" / "compute" / f"{device}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# commexp network.compute={device}\n")
    assert "utilisation:" in text.partition("flops:")[2]
    words = [f"network.compute={device}", "network.compute.utilisation=0.25", "network.compute.kind=lognormal"]
    compute = plan(*words, "algo=async_sgd").network.compute
    assert (compute.seconds, compute.utilisation, compute.kind) == (0.0, 0.25, "lognormal")
    assert compute.flops == plan(f"network/compute={device}").network.compute.flops


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("network.compute=h10", "network.compute=h10: no such option; did you mean h100"),
        ("network.compute=abacus", "network.compute=abacus: no such option; give one of a100, cpu, h100, rtx4090"),
        ("network.compute=0.02", "network.compute=0.02: neither a device nor a section; give network.compute=h100, or"),
        ("network.compute=a100,h100", "network.compute=a100,h100: several values; add -m to run one after the other"),
    ],
)
def test_what_is_no_device(word: str, wrong: str) -> None:
    with pytest.raises(UserError) as refused:
        compose_config([word])
    assert str(refused.value).startswith(wrong)


def test_devices_in_a_sweep_and_fields_as_before() -> None:
    assert arranged(["-m", "network.compute=a100,h100"]) == ["-m", "network/compute=a100,h100"]
    assert Word.read("network/compute=a100").key == "network.compute", "as a sweep's table names it"
    assert plan("network.compute={seconds:0.1,kind:pareto}").network.compute.kind == "pareto"
    assert plan("network.compute.seconds=0.1").name == plan("network.compute={seconds:0.1}").name
    assert len({plan(word).name for word in ("seed=0", "network.compute=a100", "network.compute=h100")}) == 3
    with pytest.raises(UserError, match=r"network.compute.seconds=1.0 network.compute.flops=312.0: both say"):
        plan("network.compute=a100", "network.compute.seconds=1")


#: what makes an experiment on data that are not here one on digits
INSTEAD = {
    "dppf_cifar10": ["dataset=digits", "model=resnet_small"],
    "dppf_cifar100": ["dataset=digits", "model=resnet_small"],
    "dppf_imagenet": ["dataset=digits", "model=resnet_small"],
    "regtopk_cifar10": ["dataset=digits", "model=resnet_small"],
    "qsr_imagenet": ["dataset=digits", "model.image_size=8", "model.patch=4", "model.layers=1", "model.heads=2"],
}
INSTEAD["proxgt_a9a"] = INSTEAD["async_logistic"] = ["dataset=breast_cancer"]
INSTEAD["async_movielens"] = ["dataset=ratings"]
INSTEAD["ring_10000"] = ["workers=300"]
INSTEAD["lowcomm_text"] = ["algo.tau=4"]
INSTEAD["qsr_imagenet"] += ["model.hidden=16", "model.mlp=16"]
FILES = {"dppf_fashion_mnist": "Fashion-MNIST", "regtopk_imagenette": "Imagenette and published weights"}


@pytest.mark.parametrize("experiment", sorted(set(options("experiment")) - FILES.keys()))
def test_every_experiment_runs(experiment: str, run: Callable[..., Run]) -> None:
    words = [f"+experiment={experiment}", *INSTEAD.get(experiment, []), "batch_size=2"]
    whole = plan(*words[:-1]).config.batch_size is None
    length = ["steps=12", "eval_every=12"] if plan(*words).config.steps else ["rounds=3", "eval_every=3"]
    result = run(*(words[:-1] if whole else words), *length)
    assert result.status == "completed"
    assert list(result.metrics["round"]) == [0, 3]


def test_the_fashion_experiment_runs(run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import FashionMNIST as Published

    monkeypatch.setattr(Published, "resources", list(write_fashion(tmp_path, train=200).items()))
    here = [f"dataset.root={tmp_path}", "dataset.samples=100", "dataset.test_samples=null"]
    result = run("+experiment=dppf_fashion_mnist", *here, "steps=8", "eval_every=8")
    assert result.status == "completed"
    first, last = result.metrics["train_accuracy"].iloc[[0, -1]]
    assert first == pytest.approx(0.1), "of ten classes alike in number, one is right"
    assert 0.2 < last <= 1


def test_data_that_are_not_here_are_named_in_one_line(cli: Callable[..., Any]) -> None:
    ended = cli("dataset=cifar10")
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("commexp: error: dataset=cifar10: data/cifar-10-batches-py/data_batch_1 is missing")
    assert "; give dataset.download=true, or put cifar-10-python.tar.gz" in line


@pytest.mark.parametrize("dataset", ["a9a", "cifar10", "cifar100", "imagenet", "imagenette", "mnist"])
def test_whatever_is_missing_it_says_what_to_do(dataset: str, run: Callable[..., Run], tmp_path: Path) -> None:
    missing = rf"^dataset={dataset}: .*(missing|is not in).*; (give dataset.download=true|put)"
    with pytest.raises(UserError, match=missing):
        run(f"dataset={dataset}", "model=cnn", f"dataset.root={tmp_path}")


#: how long a run is, where it is said once
SAID_ONCE = {
    "steps=100": (500, 100),
    "rounds=7": (7, None),
    "+experiment=regtopk_linreg steps=100": (2500, 100),
    "+experiment=dppf_digits rounds=7 steps=null": (7, None),
    "+experiment=dppf_digits steps=8": (500, 8),
}


@pytest.mark.parametrize("overrides", SAID_ONCE)
def test_a_length_is_said_once(overrides: str) -> None:
    config = plan(*overrides.split()).config
    assert (config.rounds, config.steps) == SAID_ONCE[overrides]


def test_a_length_said_twice_is_refused_however_it_is_typed(entry: Callable[..., Any], tmp_path: Path) -> None:
    for words, told in ((("rounds=100",), "rounds=100"), (("-m", "rounds=1,2"), "rounds=1")):
        ended = entry(*words, "steps=100")
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"commexp: error: {told} steps=100: both say how long the run is; give one")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("experiment", options("experiment"))
def test_an_experiment_runs_what_its_name_says(experiment: str) -> None:
    """Every option of these groups that its name holds is the one that is chosen."""
    register_resolvers()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config = compose("config", overrides=[f"+experiment={experiment}"], return_hydra_config=True)
    groups = ("algo", "compress", "dataset", "topology")
    chosen = {str(config.hydra.runtime.choices[group]) for group in groups}
    named = {o for group in groups for o in options(group) if f"_{o}_" in f"_{experiment}_"}
    parts = {o for o in named if any(o != longer and f"_{o}_" in f"_{longer}_" for longer in named)}  # mnist
    assert named - parts <= chosen


def test_a_field_that_an_experiment_sets_can_be_taken_away() -> None:
    assert plan("+experiment=onebit_linreg", "straggler=none", "~straggler.p").name


def test_the_toy_takes_another_model(run: Callable[..., Run]) -> None:
    """Its start is for the model that has one; nobody has typed it."""
    assert plan("dataset=toy").resolved["model"]["start"] == [0.0, 1.0]
    assert run("dataset=toy", "model=linear_regression", "algo.lr=1e-4", "rounds=2").status == "completed"


def test_a_batch_may_be_larger_than_the_smallest_share(run: Callable[..., Run]) -> None:
    """It goes on into that worker's next epochs; as of any worker it has so many samples."""
    found = run(
        "partition=dirichlet", "partition.alpha=0.1", "batch_size=100", "rounds=2", "eval_every=2", "model.width=8"
    )
    sizes = pd.read_csv(found.folder / "partition.csv").groupby("worker")["samples"].sum()
    assert sizes.min() < 100 < sizes.max()
    assert found.metrics["samples"].iloc[-1] == 2 * 8 * 100


def test_small_data_are_run_with_the_default_batch(run: Callable[..., Run]) -> None:
    """Nobody has typed it: batches go over several epochs."""
    small = ("dataset=breast_cancer", "dataset.test=0.98", "workers=4", "rounds=2", "eval_every=2")
    found = run(*small)
    assert found.metrics["samples"].iloc[-1] == 2 * 4 * 16
    assert found.metrics["epoch"].iloc[-1] > 8
    with pytest.raises(UserError, match=r"^batch_size=17: none of 4 workers has more than 3 samples; give 3 or less$"):
        run(*small, "batch_size=17")


def test_experiment_takes_any_compressor() -> None:
    for name in options("compress"):
        made = plan("+experiment=regtopk_linreg", f"compress={name}")
        assert made.resolved["compress"]["_target_"] == plan(f"compress={name}").resolved["compress"]["_target_"]


def test_preset_picks_the_compressor_and_the_command_line_has_the_last_word() -> None:
    assert plan("algo=regtopk", "compress.k=0.05").resolved["compress"]["k"] == 0.05
    assert plan("algo=regtopk", "compress=topk").resolved["compress"]["_target_"].endswith("TopK")
    assert plan("+experiment=regtopk_toy").resolved["compress"]["mu"] == 1.0
    assert plan("+experiment=regtopk_toy", "compress.mu=2").resolved["compress"]["mu"] == 2.0


def test_k_keeps_its_meaning() -> None:
    assert plan("compress=topk", "compress.k=1").resolved["compress"]["k"] == 1
    assert isinstance(plan("compress=topk", "compress.k=1").resolved["compress"]["k"], int)
    assert isinstance(plan("compress=topk", "compress.k=1.0").resolved["compress"]["k"], float)


def test_name_covers_what_changes_the_result_and_nothing_else() -> None:
    name = plan().name
    same = ["outputs=elsewhere", "launch.threads=1", "launch.device=cpu", "target_accuracy=0.5", "rerun=true"]
    assert {plan(o).name for o in same} == {name}
    assert plan("algo.lr=0.50").name == name
    assert plan("algo=topk").name == plan("algo=sgd", "compress=topk").name
    changed = [
        "seed=1", "rounds=499", "algo.lr=0.4", "compress=topk", "workers=4", "model.width=8", "partition=dirichlet",
        "batch_size=8", "dtype=float64", "comm.exchange=server", "eval_every=5", "network=mobile",
        "algo.schedule.kind=constant",
    ]  # fmt: skip
    assert len({plan(o).name for o in changed} | {name}) == len(changed) + 1


def test_a_clock_that_moves_may_stop_a_run_of_one_worker() -> None:
    alone = ("workers=1", "stop.seconds=5")
    for words in (["network.compute.seconds=0.01"], ["network.compute.kind=measured"], ["comm.exchange=server"]):
        assert plan(*alone, *words).config.stop.seconds == 5
    with pytest.raises(UserError, match=r"^stop.seconds=5.0: "):
        plan(*alone, "network.compute.kind=lognormal")


def test_a_target_that_is_typed_stands_in_place_of_the_datasets() -> None:
    both = [(made.target_accuracy, made.target_loss) for made in (plan().config, plan("target_loss=0.3").config)]
    assert both == [(0.95, None), (None, 0.3)]
    typed = plan("target_loss=0.3", "target_accuracy=null")
    assert (typed.config.target_accuracy, typed.config.target_loss) == (None, 0.3)
    assert typed.resolved["target_accuracy"] is None
    assert plan("target_loss=null").config.target_accuracy == 0.95
    assert plan("target_loss=0.3").name == plan().name
    with pytest.raises(UserError, match=r"^target_accuracy=0.95 target_loss=0.3: two targets"):
        prepare(OmegaConf.merge(composed(), {"target_loss": 0.3}))  # a file of the user's has added one
    by_file = prepare(OmegaConf.merge(composed(), {"target_loss": 0.3}), ["target_accuracy=0.95"]).config
    assert (by_file.target_accuracy, by_file.target_loss) == (0.95, None)


def test_name_does_not_cover_where_data_lie() -> None:
    here, there = (plan("dataset=fashion_mnist", f"dataset.root={root}").name for root in ("a", "b"))
    assert here == there


REFUSED = {
    "compress.k=0": "compress.k=0:",
    "+foo=1": "foo=1: no such key",
    "algo.lr=inf": "algo.lr=inf: not a finite number",
    "dataset=toy model.start=[nan,1]": "model.start=nan: not a finite number",
    "algo.schedule=foo": "algo.schedule=foo:",
    "seed=abc": "seed=abc: is not a whole number; give seed=0",
    "outputs=": "outputs=: empty",
    "experiment=regtopk_toy": "experiment=regtopk_toy: an experiment is added to the config; give +experiment",
    "comm.exchange=all_reduce": "comm.exchange=all_reduce: messages of RegTopK",
    "algo=topk,regtopk": "algo=topk,regtopk: several values; add -m",
    "compress=null": "compress=null: takes the name of an option",
    "compress.k=1.5": "compress.k=1.5:",
    "compress.k=-1": "compress.k=-1:",
    "compress.k=nan": "compress.k=nan:",
    "compress.k=many": "compress.k=many:",
    "compress.k=true": "compress.k=",
    "compress.mu=0": "compress.mu=0",
    "compress.error_feedback=perhaps": "compress.error_feedback=perhaps:",
    "compress.scope=tensor": "compress.scope=tensor: unknown",
    "compress.whole_below=-1": "compress.whole_below=-1:",
    "compress.feedback.decay=0": "compress.feedback.decay=0.0:",
    "compress.feedback.masking=true": "compress.feedback.masking=True: masks the velocity",
    "compress.feedback.momentum=0.9 algo.momentum=0.9": "compress.feedback.momentum=0.9: algo.momentum",
    "compress=powersgd compress.scope=layer": "compress.scope=layer: PowerSGD goes by matrices",
    "compress=sign compress.feedback.warmup=5": "compress.feedback.warmup: Sign has no k",
    "compress=sign compress.feedback={momentum:0.9,masking:true}": "compress.feedback.masking=True: Sign",
    "compress=none compress.feedback.decay=0.5": "compress.error_feedback=false:",
    "compress=qsgd compress.levels=200": "compress.levels=200:",
    "compress=qsgd compress.coding=huffman": "compress.coding=huffman:",
    "compress=threshold compress.t=2": "compress.t=2.0:",
    "compress=onebit compress.bound=min": "compress.bound=min:",
    "compress=powersgd compress.rank=0": "compress.rank=0:",
    "compress=int8 compress.block=0": "compress.block=0:",
    "compress=terngrad compress.clip=0": "compress.clip=0.0:",
    "compress=topk_qsgd compress.entries.k=0": "compress.entries.k=0",
    "compress=topk_qsgd compress.entries._target_=commexp.compressors.Sign": "compress.entries",
    "algo.lr=-0.1": "algo.lr=-0.1:",
    "topology=ring": "topology: algo=sgd exchanges with all workers at once",
    "gossip.rounds=2": "gossip: algo=sgd exchanges with all workers at once",
    "gossip.rounds=0": "gossip.rounds=0:",
    "gossip.rounds=many": "gossip.rounds=many:",
    "gossip=3": "gossip=3:",
    "prox=l1": "prox: algo=sgd takes gradient steps alone",
    "algo=dsgt prox=l1 prox.weight=-1": "prox.weight=-1.0: must not be negative",
    "algo=dsgt topology=file": "topology.path",
    "algo=dpsgd compress=topk": "compress=topk: algo=dpsgd exchanges whole models",
    "algo=choco compress=topk compress.error_feedback=true": "compress.error_feedback=true: algo=choco keeps",
    "algo=choco algo.gamma=0": "algo.gamma=0.0:",
    "algo=choco compress=topk comm.exchange=server": "comm.exchange=server: algo=choco",
    "algo=dpsgd topology.failure=1": "topology.failure=1.0:",
    "algo=dpsgd topology.weights=equal": "topology.weights=equal:",
    "algo.lr=nan": "algo.lr=nan:",
    "algo.momentum=1": "algo.momentum=1.0:",
    "algo.schedule.kind=linear": "algo.schedule.kind=linear:",
    "partition=dirichlet partition.alpha=0": "partition.alpha=0",
    "network.bandwidth=0": "network.bandwidth=0",
    "network.links={3:{up:0}}": "network.links={3:{up:0.0}}: up must be positive",
    "network.links={3:{bandwith:10}}": "network.links.3.bandwith=10: no such key; did you mean bandwidth",
    "network.links={a:{up:1}}": "network.links.a={up:1}: not keyed by whole numbers",
    "network.links=5": "network.links=5:",
    "workers=0": "workers=0:",
    "workers=two": "workers",
    "rounds=0": "rounds=0:",
    "batch_size=0": "batch_size=0:",
    "dtype=int8": "dtype=int8:",
    "on_nonfinite=foo": "on_nonfinite=foo: unknown; give stop, skip or zero",
    "comm.exchange=pigeon": "comm.exchange=pigeon:",
    "target_accuracy=2": "target_accuracy=2",
    "target_loss=0": "target_loss=0.0: must be positive; give a loss such as 1.5",
    "target_loss=1.5 target_accuracy=0.9": "target_accuracy=0.9 target_loss=1.5: two targets; give one of the two",
    "stop.accuracy=95": "stop.accuracy=95.0: out of range; give a share in (0, 1]",
    "stop.accuracy=0": "stop.accuracy=0.0: out of range",
    "stop.loss=-1": "stop.loss=-1.0: must be positive; give a loss such as 1.5",
    "stop.loss=nan": "stop.loss=nan: must be positive",
    "stop.loss=inf": "stop.loss=inf: not a finite number",
    "stop.bytes=0": "stop.bytes=0.0: must be positive; give bytes such as 1e9",
    "stop.bytes=1GB": "stop.bytes=1GB: is not a number, or null",
    "stop.seconds=-1": "stop.seconds=-1.0: must be positive; give seconds",
    "stop.rounds=5": "stop.rounds=5: no such key",
    "stop.seconds=5 workers=1": "stop.seconds=5.0: one worker sends nothing and computes in no time, so that its clock",
    "model.width=12": "model.width=12:",
    "compress._target_=commexp.compressors.Nothing": "compress._target_=commexp.compressors.Nothing:",
    "compress._target_=commexp.algorithms.SGD": "compress._target_=commexp.algorithms.SGD:",
    "algo=regtopkk": "algo=regtopkk: no such option; did you mean regtopk",
    "algo.learning=1": "algo.learning=1: no such key",
    "worker=4": "worker=4: no such key; did you mean workers",
    "datset=digits": "datset=digits: no such key; did you mean dataset",
    "rounds=100 steps=100": "rounds=100 steps=100: both say how long the run is; give one of the two",
    "+experiment=dppf_digits rounds=9": "rounds=9: this experiment is steps=1600 long; give steps=..., or add",
    "+experiment=async_logistic_breast_cancer algo=sgd model=mlp": "model=mlp: has no field l2, for which something "
    "else that is chosen gives 0.002197802; choose model=logistic_regression, or add ~model.l2",
    "+experiment=onebit_linreg straggler=none": "straggler=none: has no field p, for which something else",
    "+experiment=dppf_digits_few dataset=fashion_mnist": "dataset=fashion_mnist: has no field test,",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_mistakes_are_refused_in_one_line_that_names_the_key(overrides: str) -> None:
    with pytest.raises(UserError) as refusal:
        plan("compress=regtopk", *overrides.split())
    message = str(refusal.value)
    assert message.startswith(REFUSED[overrides])
    assert "\n" not in message
    assert ";" in message or "did you mean" in message, "it does not say what would be right"


def test_a_key_that_the_chosen_option_lacks_names_those_that_have_it() -> None:
    choices = "chunked, dct_chunked, randk, regtopk or topk"
    with pytest.raises(UserError, match=f"compress=none has no 'k'; choose compress={choices}"):
        plan("compress=none", "compress.k=0.1")


MISFITS = {
    "workers=2000": "workers=2000: more workers than the 1437 training samples",
    "compress=topk compress.k=1000000": "compress.k=1000000: more entries than",
    "network.links={8:{up:10}}": "network.links={8:{up:10.0}}: there is no worker 8 of 8; give 0 to 7",
    "dataset=toy workers=3": "workers=3: the toy has two workers",
    "dataset=linreg model=resnet_small": "model=ResNetSmall: needs labelled images",
    "dataset=linreg batch_size=4": "batch_size=4:",
    "dataset=linreg partition=by_class": "partition=by_class: the data have no classes",
    "batch_size=null": "batch_size=null:",
    "model=linear_regression batch_size=null": "model=linear_regression: needs feature vectors",
    "launch.device=abacus": "launch.device=abacus: no such device; give",
    "batch_size=5000": "batch_size=5000: none of 8 workers has more than 180 samples; give 180 or less",
    "partition=random_shares batch_size=2000": "batch_size=2000: none of 8 workers has more than ",
    "dataset=breast_cancer model=logistic_regression batch_size=58": "batch_size=58: none of 8 workers has more than "
    "57 samples; give 57 or less, or null for all of a worker's",
    "dataset=ratings batch_size=39": "batch_size=39: none of 8 workers has more than 38 samples",
    "dataset=ratings algo=async_ps batch_size=39": "batch_size=39: none of 8 workers has more than 38 samples",
}


@pytest.mark.parametrize("overrides", MISFITS)
def test_pairs_that_make_no_sense_are_refused_before_anything_is_written(
    overrides: str, tmp_path: Path, run: Callable[..., Run]
) -> None:
    from commexp.api import run_experiment

    with pytest.raises(UserError) as refusal:
        run_experiment([*overrides.split(), f"outputs={tmp_path / 'outputs'}"])
    assert str(refusal.value).startswith(MISFITS[overrides])
    assert not (tmp_path / "outputs").exists()


def test_missing_files_say_where_they_belong_and_how_to_get_them(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commexp.problems.datasets.fashion_mnist.DEBIAN", tmp_path / "none")
    with pytest.raises(UserError, match=r"dataset=fashion_mnist: .* is not in .*; put .* or install"):
        run("dataset=fashion_mnist", f"dataset.root={tmp_path}")


def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    from commexp.api import run_experiment

    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(UserError, match="outputs="):
            run_experiment([f"outputs={place}", "rounds=1"])


def test_rounds_that_are_typed_stand_in_place_of_a_datasets_steps() -> None:
    assert plan("dataset=text").config.steps == 500
    assert plan("dataset=text", "rounds=7").config.steps is None
    assert plan("dataset=text", "steps=7").config.steps == 7
    assert plan("dataset=text", "rounds=7").name != plan("dataset=text").name


def test_keys_at_the_top_are_the_known_ones_without_a_dot() -> None:
    assert set(top_keys()) == {key for key in known_keys() if "." not in key}


def test_experiments_are_found_by_the_names_that_they_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(RENAMED.values()) <= set(options("experiment"))
    assert compose_config(["+experiment=async_ratings_small"]) == compose_config(["+experiment=async_ratings"])
    assert capsys.readouterr().err == ("commexp: note: experiment=async_ratings_small is called async_ratings now\n")


def test_flags_may_stand_anywhere() -> None:
    wanted = arranged(["-m", "algo=topk", "seed=0,1"])
    assert arranged(["algo=topk", "-m", "seed=0,1"]) == arranged(["algo=topk", "seed=0,1", "-m"]) == wanted
