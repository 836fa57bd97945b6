"""Local methods on a small image problem: python scripts/dppf_study.py [--tune]

A table of test error and bytes for synchronous SGD, the same with SAM, and six local methods at tau = 4, 8 and 16.
Every method is tuned over as many settings as any other (BUDGET), on validation images, with seeds of its own; the
settings that came out stand in dppf_tuned.json, and --tune finds them anew. Two runs at a time, on a core each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from commexp.api import run_experiment
from commexp.report.tables import markdown
from commexp.rundir import Run, write_atomic, write_json
from commexp.units import human_bytes

OUT = Path("outputs/figures")
TUNED = Path(__file__).with_name("dppf_tuned.json")
EXPERIMENT = "+experiment=dppf_small"
TAUS = (4, 8, 16)
SEEDS = range(10)
TUNING_SEEDS = (100, 101)
VALIDATION = ("dataset.validation=4000",)
BUDGET = 9

Setting = dict[str, float]


def grid(**values: Sequence[float]) -> list[Setting]:
    settings = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    assert len(settings) == BUDGET
    return settings


RATES = (0.05, 0.1, 0.2)
#: what is tuned, and over which values
SPACES: dict[str, list[Setting]] = {}
BASELINES = ("sgd", "sam")


def cells() -> list[tuple[str, int]]:
    """Every method at every tau; those that exchange after each step once."""
    return [(m, 1) if m in BASELINES else (m, tau) for m in SPACES for tau in (TAUS if m not in BASELINES else (1,))]


def command(method: str, tau: int, setting: Setting, seed: int) -> list[str]:
    fields = [f"algo.{name}={value:g}" for name, value in setting.items()]
    return [EXPERIMENT, f"algo={method}", *([f"algo.tau={tau}"] if tau > 1 else []), *fields, f"seed={seed}"]
