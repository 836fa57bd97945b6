"""Published claims as data: claims.yaml, or a file of the same form, read and checked."""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from commexp.check.quantities import QUANTITIES, misfit
from commexp.config.messages import UserError
from commexp.files import read_text

CLAIMS = Path(__file__).with_name("claims.yaml")
MEANS = ("arithmetic", "geometric")


@dataclass(frozen=True)
class Bound:
    """``at_most``, ``at_least``, or both."""

    at_most: float = math.inf
    at_least: float = -math.inf

    def holds(self, number: float) -> bool:
        return self.at_least <= number <= self.at_most

    def __str__(self) -> str:
        if math.isinf(self.at_least):
            return f"<= {self.at_most:.4g}"
        if math.isinf(self.at_most):
            return f">= {self.at_least:.4g}"
        return f"{self.at_least:.3g} to {self.at_most:.3g}"


@dataclass(frozen=True)
class System:
    """``figures``: pictures of it and what each shows."""

    id: str
    title: str
    paper: str
    figures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """``runs``: by label, the words after ``commexp``. ``measure``: a quantity and its arguments, see quantities.py.
    ``mean``: over seeds. ``data``: files that must be there. ``published``: their number. ``costs``: what it takes,
    where that is too much for it to be run without being named."""

    id: str
    system: str
    says: str
    source: str
    scale: str
    runs: Mapping[str, str]
    measure: Mapping[str, Any]
    bound: Bound
    seeds: int = 1
    mean: str = "arithmetic"
    data: str = ""
    published: str = ""
    costs: str = ""

    def commands(self, label: str, more: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """A run's words, for each seed."""
        return [(*shlex.split(self.runs[label]), f"seed={seed}", *more) for seed in range(self.seeds)]

    def measured(self, frames: Mapping[str, Any]) -> float:
        """On the metrics of one seed's runs. Raises Unmeasured."""
        arguments = dict(self.measure)
        return QUANTITIES[arguments.pop("quantity")](frames, **arguments)


def load(path: Path = CLAIMS) -> tuple[dict[str, System], list[Claim]]:
    """The systems by id, and what is claimed of them. Raises UserError."""
    try:
        content = yaml.safe_load(read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"--file={path}: cannot be read ({why}); give a YAML file") from error
    whole = isinstance(content, dict) and set(content) == {"systems", "claims"}
    if not whole or not isinstance(content["systems"], dict) or not isinstance(content["claims"], list):
        raise UserError(f"--file={path}: not a file of claims; give systems: and claims: as in {CLAIMS.name}")
    try:
        systems = {str(key): _made(System, {"id": key, **node}, path) for key, node in content["systems"].items()}
        claims = [_claim(node, systems, path) for node in content["claims"]]
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"--file={path}: not a file of claims ({error}); give them as in {CLAIMS.name}") from error
    twice = {c.id for c in claims if sum(c.id == other.id for other in claims) > 1}
    if twice:
        raise UserError(f"--file={path}: {', '.join(sorted(twice))}: stands there twice; give each claim its own id")
    return systems, claims


def _claim(node: Mapping[str, Any], systems: Mapping[str, System], path: Path) -> Claim:
    given = dict(node)
    given["bound"] = _made(Bound, {key: float(number) for key, number in given.get("bound", {}).items()}, path)
    claim: Claim = _made(Claim, given, path)
    where = f"--file={path}: {claim.id}"
    for name in ("says", "source", "scale", "published", "data", "costs"):
        if not isinstance(getattr(claim, name), str):
            raise UserError(f"{where}: {name}={getattr(claim, name)}: not a text; put it in quotes")
    if claim.system not in systems:
        raise UserError(f"{where}: system={claim.system}: no such system; give one of {', '.join(systems)}")
    if claim.mean not in MEANS:
        raise UserError(f"{where}: mean={claim.mean}: no such mean; give one of {', '.join(MEANS)}")
    if claim.bound == Bound():
        raise UserError(f"{where}: bound: bounds nothing; give at_most, at_least or both")
    arguments = dict(claim.measure)
    quantity = arguments.pop("quantity", "")
    if quantity not in QUANTITIES:
        raise UserError(f"{where}: quantity={quantity}: no such quantity; give one of {', '.join(QUANTITIES)}")
    if wrong := misfit(quantity, arguments):
        raise UserError(f"{where}: {quantity}: {wrong}; it takes {inspect.signature(QUANTITIES[quantity])}")
    for key in ("of", "to"):
        if key in arguments and arguments[key] not in claim.runs:
            raise UserError(f"{where}: {key}={arguments[key]}: no such run; give one of {', '.join(claim.runs)}")
    return claim


def _made(cls: type[Any], given: Mapping[str, Any], path: Path) -> Any:
    name = given.get("id", cls.__name__.lower())
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(given) - known):
        raise UserError(f"--file={path}: {name}: {unknown[0]}: no such key; give {', '.join(sorted(known))}")
    try:
        return cls(**given)
    except TypeError as error:
        raise UserError(f"--file={path}: {name}: {error}; give all that a claim needs, as in {CLAIMS.name}") from error


def picked(claims: Sequence[Claim], names: Sequence[str]) -> list[Claim]:
    """Those of the names, or all. Raises UserError."""
    known = {claim.id: claim for claim in claims}
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such claim; give some of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(claims)
