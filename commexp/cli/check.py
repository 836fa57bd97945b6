"""``commexp-check compressor SPEC``: does a compressor keep its promises? ``claims``: do the papers' hold here?"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from commexp import __version__
from commexp.api import compose_config
from commexp.check.compressor import CHECKS, Result, one_line, run_checks
from commexp.cli.claims import add_arguments, check_claims
from commexp.compressors import Compressor
from commexp.config.components import around_codec, build
from commexp.config.messages import UserError
from commexp.config.schema import CONF
from commexp.launch.streams import lenient_streams
from commexp.report.tables import markdown
from commexp.report.terminal import in_terminal


@lenient_streams()
def main() -> None:
    parser = argparse.ArgumentParser(prog="commexp-check", description="Check that promises are kept.")
    parser.add_argument("--version", action="version", version=f"commexp {__version__}")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    codec = kinds.add_parser("compressor", help="what a compressor must hold: sizes, bias, state ...")
    codec.add_argument("spec", metavar="SPEC", help="my.module:MyCodec, a name of conf/compress, or all")
    add_arguments(kinds.add_parser("claims", help="what the papers of the five systems say, run here"))
    given = parser.parse_args()
    try:
        failed = check_claims(given) if given.kind == "claims" else check_compressors(given.spec)
    except UserError as error:
        print(f"commexp-check: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failed else 0)


def check_compressors(spec: str) -> int:
    """Shows the table of one or all; the number of failed checks. Raises UserError."""
    if spec == "all":
        return show_all({name: registered(name) for name in names()})
    return show(next(iter(one(spec).values())))


def names() -> list[str]:
    """Of every registered compressor."""
    return sorted(p.stem for p in (CONF / "compress").glob("*.yaml"))


def one(spec: str) -> dict[str, Callable[[], Compressor]]:
    """What a SPEC names. Raises UserError."""
    if ":" in spec:
        return {spec: imported(spec)}
    if spec not in names():
        raise UserError(f"{spec}: no such compressor; give one of {', '.join(names())}, all, or my.module:MyCodec")
    return {spec: registered(spec)}


def registered(name: str) -> Callable[[], Compressor]:
    """Makes conf/compress/<name>.yaml's codec, without what would be wrapped around it. Raises UserError."""
    node = OmegaConf.to_container(compose_config([f"compress={name}"]).compress, resolve=True)
    assert isinstance(node, dict)
    plain: dict[str, Any] = {str(key): value for key, value in node.items()}
    around_codec(plain)
    make = partial(build, plain, "compress", Compressor)  # type: ignore[type-abstract]
    make()
    return make


def imported(spec: str) -> Callable[[], Compressor]:
    """``my.module:MyCodec``, a class or a function without arguments, from the current folder too. Raises UserError."""
    module, _, attribute = spec.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise UserError(f"{spec}: {one_line(error)}; give a class of that module") from error
    except Exception as error:
        raise UserError(f"{spec}: cannot be imported ({one_line(error)}); give my.module:MyCodec") from error
    if not callable(factory):
        raise UserError(f"{spec}: is a {type(factory).__name__}; give a class, or a function that makes a codec")
    try:
        codec = factory()
    except Exception as error:
        raise UserError(f"{spec}: cannot be made without arguments ({one_line(error)}); give defaults") from error
    if not isinstance(codec, Compressor):
        made = f"makes a {type(codec).__name__}"
        raise UserError(f"{spec}: {made}; must make a commexp.compressors.Compressor")
    make: Callable[[], Compressor] = factory
    return make


def show(factory: Callable[[], Compressor]) -> int:
    """Prints a row per check; returns how many failed."""
    results = run_checks(factory)
    rows = [[r.check, "passed" if r.reason is None else "FAILED", r.reason or ""] for r in results]
    print(in_terminal([markdown(["check", "", "reason"], rows)]))
    failed = failures(results)
    print(f"\n{len(results) - len(failed)} of {len(results)} checks passed")
    return len(failed)


def show_all(codecs: dict[str, Callable[[], Compressor]]) -> int:
    """Prints a row per codec, then each failure; returns how many checks failed in all."""
    rows, lines = [], []
    for name, factory in codecs.items():
        start = time.perf_counter()
        failed = failures(run_checks(factory))
        seconds = f"{time.perf_counter() - start:.1f} s"
        rows.append(
            [name, f"{len(CHECKS) - len(failed)} of {len(CHECKS)}", seconds, ", ".join(r.check for r in failed)]
        )
        lines += [f"- {name}: {r.check}: {r.reason}" for r in failed]
    table = markdown(["compressor", "passed", "took", "failed"], rows)
    print(in_terminal([table, *(["\n".join(lines)] if lines else [])]), end="\n\n")
    whole = len(CHECKS) * len(codecs)
    print(f"{whole - len(lines)} of {whole} checks passed")
    return len(lines)


def failures(results: list[Result]) -> list[Result]:
    return [r for r in results if r.reason is not None]
