"""Every component that conf/ registers, so that a new one is tested by existing."""

from __future__ import annotations

from commexp.api import compose_config
from commexp.compressors import Compressor
from commexp.config import Plan, prepare
from commexp.refusals import CONF


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def plan(*overrides: str) -> Plan:
    return prepare(compose_config(overrides))


def compressor(name: str, *overrides: str) -> Compressor:
    """A fresh compressor as conf/compress/<name>.yaml describes it, error feedback as given there."""
    return plan(f"compress={name}", *overrides).compressor


def bare(name: str, *overrides: str) -> Compressor:
    """The same without error feedback."""
    return compressor(name, "compress.error_feedback=false", *overrides)
