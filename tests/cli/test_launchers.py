"""Hydra's launchers and sweepers: sweeps in parallel, and sweeps that search."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from conftest import Cli
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from problems.test_image_files import write_idx

from commexp.config.schema import CONF
from commexp.launch.sweep import minimised, register_resolvers
from commexp.run_folder import Run, write_json

SMALL = ("dataset=linreg", "dataset.dim=20", "dataset.samples=20", "workers=4", "rounds=10")


def needs(plugin: str, extra: str) -> None:
    if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin} is not installed: pip install 'commexp[{extra}]'")


def test_a_sweep_in_parallel_ends_with_one_table(cli: Cli, tmp_path: Path) -> None:
    """Of its four jobs, two at a time, each run is asked for twice: algo=topk is sgd with that compressor."""
    needs("hydra_joblib_launcher", "joblib")
    parallel = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "launch.threads=1")
    done = cli(*parallel, *SMALL, "compress=topk,none", "algo=sgd,topk")
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    assert "sent / dense" in done.stdout
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    table = pd.read_csv(sweep / "sweep.csv", keep_default_na=False)
    assert sorted(zip(table["algo"], table["compress"], strict=True)) == [
        ("sgd", "none"), ("sgd", "topk"), ("topk", "none"), ("topk", "topk"),
    ]  # fmt: skip
    assert set(table["status"]) == {"1 completed"}
    assert (sweep / "figures" / "curves.png").is_file()
    runs = list((tmp_path / "outputs" / "runs").iterdir())
    assert len(runs) == 2
    assert all(json.loads((r / "meta.json").read_text())["status"] == "completed" for r in runs)
    assert [p for p in (tmp_path / "outputs").rglob(".*") if p.name != ".lock"] == [], "temporary files were left"


def test_optuna_composes_and_searches(entry: Cli, tmp_path: Path) -> None:
    needs("hydra_optuna_sweeper", "optuna")
    register_resolvers()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config = compose("config", overrides=["hydra/sweeper=optuna", "algo=topk"], return_hydra_config=True)
    assert config.hydra.sweeper._target_.endswith("OptunaSweeper")
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", *SMALL, "algo.lr=interval(0.001,0.1)"]
    assert entry(*search, "hydra.sweeper.n_trials=4").returncode == 0
    done = entry(*search, "hydra.sweeper.n_trials=3")  # its table does not have the fourth trial of the search before
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    table = pd.read_csv(sweep / "sweep.csv")
    assert len(table) == 3
    found = OmegaConf.load(sweep / "optimization_results.yaml")
    assert found.best_value == min(table["best_train_loss"])
    assert list(table["best_train_loss"]) == sorted(table["best_train_loss"]), "the best is not first"
    assert table["algo.lr"][0] == found.best_params["algo.lr"]
    rate, loss = f"{found.best_params['algo.lr']:.3g}", f"{found.best_value:.4g}"
    last = done.stdout.splitlines()[-1]
    assert last == f"best setting: algo.lr={rate} (best train loss {loss}); see optimization_results.yaml"
    shown = [row.split("|")[1].strip() for row in (sweep / "sweep.md").read_text().splitlines()[2:]]
    assert shown == [f"{value:.3g}" for value in table["algo.lr"]]
    assert "tunes on the test set" not in done.stderr


def test_a_search_on_the_test_set_says_so(entry: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("hydra_optuna_sweeper", "optuna")
    write_idx(tmp_path / "data", monkeypatch, "MNIST")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=0"]
    images = ["dataset=mnist", "dataset.root=data", "dataset.samples=30", "model=cnn", "workers=2", "rounds=2"]
    digits = ["model.width=8", "workers=2", "rounds=2", "batch_size=4"]
    note = "commexp: note: the search tunes on the test set; "
    for words, told in (
        (images, [note + "give dataset.validation=..., a number of training samples that take its place"]),
        ([*images, "dataset.validation=20"], []),
        (digits, [note + "give dataset.validation=..., a number of training samples that take its place"]),
    ):
        done = entry("-m", *search, *words, "algo.lr=interval(0.001,0.1)")
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stderr.splitlines() if line.startswith("commexp: note")] == told
        assert "(best test accuracy " in done.stdout.splitlines()[-1]
    plain = entry("-m", *digits, "algo.lr=0.1,0.2")
    assert "tunes" not in plain.stderr
    assert "best setting" not in plain.stdout


def test_what_a_search_makes_small(tmp_path: Path) -> None:
    made = Run(tmp_path)
    made.set_meta(status="completed")
    for summary, expected in (
        ({"best_train_loss": 0.2, "best_test_accuracy": 0.75}, 0.25),
        ({"best_train_loss": 0.2, "best_test_rmse": 0.9}, 0.9),
        ({"best_train_loss": 0.2, "best_objective": 0.3}, 0.3),
        ({}, math.inf),
    ):
        write_json(tmp_path / "summary.json", summary)
        assert minimised(made) == expected
    made.set_meta(status="diverged")
    assert minimised(made) == math.inf
