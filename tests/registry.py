"""Every component that conf/ registers, so that a new one is tested by existing."""

from __future__ import annotations

import copy
import csv
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from commexp.api import compose_config
from commexp.compressors import Compressor
from commexp.config.plan import Plan, prepare
from commexp.config.schema import CONF


def untimed(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, cell by cell as they are written, without the columns that no two runs share."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.endswith("_seconds") or k == "sim_seconds"} for row in rows]


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def on_vectors(algo: str) -> list[str]:
    """``algo=`` and what it needs on a model without hidden matrices."""
    return [f"algo={algo}", *(["algo.optimizer=sgd", "algo.lr=0.01"] if algo == "muloco" else [])]


def target(group: str, name: str) -> Any:
    """The class that conf/<group>/<name>.yaml names, or, a preset, the first of its defaults."""
    whole: Any = OmegaConf.load(CONF / group / f"{name}.yaml")
    node = whole.get(group, whole)
    return get_class(node["_target_"]) if "_target_" in node else target(group, whole.defaults[0].partition("@")[0])


@cache
def composed(*overrides: str) -> DictConfig:
    """The same words, the same config: composing is most of the time that a plan takes."""
    return compose_config(overrides)


def plan(*overrides: str) -> Plan:
    return prepare(composed(*overrides), overrides)


def compressor(name: str, *overrides: str) -> Compressor:
    """A fresh compressor as conf/compress/<name>.yaml describes it, error feedback as given there."""
    return copy.deepcopy(_compressor(name, *overrides))


@cache
def _compressor(name: str, *overrides: str) -> Compressor:
    """Never used itself, so that each copy is as new."""
    return plan(f"compress={name}", *overrides).compressor


def bare(name: str, *overrides: str) -> Compressor:
    """The same without error feedback."""
    return compressor(name, "compress.error_feedback=false", *overrides)


@contextmanager
def interrupted(after: int) -> Iterator[None]:
    """As if Ctrl-C were pressed after so many rounds."""

    class Interrupts:
        rounds = 0

        def __enter__(self) -> Interrupts:
            return self

        def __exit__(self, *args: object) -> None:
            pass

        @property
        def seen(self) -> bool:
            self.rounds += 1
            return self.rounds == after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("commexp.experiment.loop.Interrupts", Interrupts)
        yield


def assert_one_line(error: Exception, start: str) -> None:
    """A refusal is one line that begins with what is wrong and says what would be right."""
    text = str(error)
    assert "\n" not in text
    assert text.startswith(start), text
    assert "; " in text.partition(":")[2], text
