"""A user's mistake in one line: what is wrong, and what would be right."""

from __future__ import annotations

import difflib
import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, KeyValidationError, OmegaConfBaseException

from commexp.config.schema import Config
from commexp.ranks import NEEDED, joins

CONF = next(p for p in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf") if p.is_dir())


class UserError(Exception):
    """``<key>=<value>: <what is wrong>; <what would be right>``: printed as it is, exit status 2."""


class LaunchError(RuntimeError):
    """Processes that did not come together, or one that was lost. ``lost``: gone or silent, if the cause lies in
    another process. ``others``: ids of the run's other processes, as far as they are known."""

    def __init__(self, text: str, lost: str = "", others: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.lost, self.others = lost, others


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra's composition."""
    if isinstance(error, UserError):
        return str(error)
    text = re.sub(r"\s*See https://hydra\S* for details", "", str(error))
    if isinstance(error, MissingConfigException):
        if error.missing_cfg_file is None:
            return "--config-path: no such folder; leave it out"
        missing: Any = error.missing_cfg_file
        if error.options is None:
            return f"--config-name: there is no config {missing} here; leave it out"
        group, _, choice = str(missing).rpartition("/")
        return f"{_typed(group, choice, overrides)}: no such option; {_near(choice, error.options)}"
    there = re.search(r"An item is already at '([^']+)'", text)
    if there:
        given = _given(there[1], overrides)
        return f"{given}: it is there already; give {given.lstrip('+')}"
    unknown = re.search(r"Could not (?:override|append to|delete from config|find)\D*? '([^']+)'", text)
    if unknown:
        return unknown_key(unknown[1].removeprefix("config."), overrides)
    merging = re.search(r"Error merging override ([^\n]*)", text)
    if merging and isinstance(error.__cause__, OmegaConfBaseException):
        key = merging[1].lstrip("+~").partition("=")[0]
        return misfit(error.__cause__, _given(key, overrides))
    several = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^\n]*?)'(?: requires|\n|$)", text)
    if several:
        key, _, value = several[1].partition("=")
        listed = f", or give {key}=[{value}]" if example(key).partition("=")[2].startswith("[") else ""
        return f"{several[1]}: several values; add -m to run one after the other{listed}"
    if "does not support sweep type" in text:
        return f"{' '.join(overrides)}: an interval has no end of values; give values, or hydra/sweeper=optuna"
    twice = re.search(r"Multiple values for ([\w/@.]+)", text)
    if twice:
        return f"{_given(twice[1], overrides)}: {twice[1]} has a value already; give it once, without a plus"
    about = " ".join(text.split()) or type(error).__name__
    return f"{' '.join(overrides)}: {about}; see commexp --help"


def _typed(group: str, choice: str, overrides: Sequence[str]) -> str:
    """The override that chooses this option, among others perhaps."""
    given = _given(group, overrides)
    return f"{given.partition('=')[0]}={choice}" if "=" in given else f"{group}={choice}"


def unknown_key(key: str, overrides: Sequence[str]) -> str:
    given = _given(key, overrides)
    bare = given.lstrip("+~")
    if key in groups() and key not in added_groups():
        return f"{given}: {key} has no such field; commexp --cfg job shows those that it has"
    if key in added_groups():
        return f"{given}: {'an' if key[0] in 'aeiou' else 'a'} {key} is added to the config; give +{bare}"
    group, _, leaf = key.partition(".")
    others = holders(group, leaf)
    if others:
        chosen = next((o.split("=")[1] for o in overrides if o.startswith(f"{group}=")), _default(group))
        return f"{given}: {group}={chosen} has no '{leaf}'; choose {group}={either(others)}, or leave it out"
    if key.startswith("hydra."):
        return f"{given}: no such key of Hydra's; see commexp --cfg hydra"
    value = bare.partition("=")[2]
    if full := [f"{name}={value}" for name in meant(key) if name != key]:
        return f"{given}: no such key; give {either(full)}"
    return f"{given}: no such key; {_near(key, known_keys())}"


def options_of(group: str, target: str) -> list[str]:
    """The options of a config group that stand for this class."""
    return [p.stem for p in sorted((CONF / group).glob("*.yaml")) if node_of(p, group).get("_target_") == target]


def holders(group: str, leaf: str) -> list[str]:
    """The options of a config group that have this key."""
    return [p.stem for p in sorted((CONF / group).glob("*.yaml")) if _has(p, group, leaf)] if leaf else []


def _given(key: str, overrides: Sequence[str]) -> str:
    """The override that names ``key``, as it was typed."""
    return next((o for o in overrides if o.lstrip("+~").split("=")[0].split("@")[0] == key), key)


def misfit(error: OmegaConfBaseException, given: str) -> str:
    """What is wrong with the value of an override, ``given`` as it was typed or as ``key=value``, and what to type."""
    key, _, value = given.lstrip("+").partition("=")
    reason = str(error.msg or error).splitlines()[0].strip()
    owner = error.object_type if isinstance(error.object_type, type) and is_dataclass(error.object_type) else None
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and owner is not None and "not in" in reason:
        return f"{given}: no such key; {_near(str(error.key), [f.name for f in fields(owner)])}"
    if isinstance(error, KeyValidationError):
        return f"{given}: not keyed by whole numbers; give such as {key.rpartition('.')[0]}={{0:...}}"
    if key.startswith("hydra."):
        return f"{given}: does not fit; see commexp --cfg hydra"
    if "nterpolation" in reason:
        missing = re.search(r"[Ii]nterpolation key '([^']+)'|Environment variable '([^']+)'", reason)
        about = f"there is no {missing[1] or missing[2]}" if missing else "cannot be resolved"
        return f"{given}: {about}; give a value, such as {example(key)}"
    hint = get_type_hints(owner).get(str(error.key)) if owner is not None else error.ref_type
    if _called(hint) == SECTION:
        inner = [name for name in known_keys() if name.startswith(f"{key}.")]
        return f"{given}: one value for a section; give its fields{f', such as {example(inner[0])}' if inner else ''}"
    right = example(key)
    if hint is int and re.fullmatch(r"[+-]?\d+(\.0*)?([eE]\+?\d{1,2})?", value):
        right = f"{key}={int(float(value))}"
    elif "list" in _called(hint) and value and value[0] not in "[{" and value != "null":
        right = f"{key}=[{value}]"
    elif hint is bool:
        right = f"{key}=true or {key}=false"
    elif right.endswith("=..."):
        right = f"{key}={1 if 'whole' in _called(hint) else 0.5 if 'number' in _called(hint) else 'null'}"
    return f"{given}: is not {_called(hint)}; give {right}"


SECTION = "a section"


def _called(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, UnionType):
        kinds = set(get_args(hint))
        null = ", or null" if type(None) in kinds else ""
        kinds -= {type(None)}
        return f"{_called(float if kinds == {int, float} else kinds.pop())}{null}"
    words: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if get_origin(hint) is list:
        return "a list of " + words.get(get_args(hint)[0], "values").removeprefix("a ") + "s"
    return words.get(hint, SECTION)


def shown(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, dict | DictConfig):
        return "{" + ",".join(str(key) + ":" + shown(each) for key, each in value.items()) + "}"
    if isinstance(value, list | tuple | ListConfig):
        return f"[{','.join(map(shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def example(key: str) -> str:
    """``key=value`` with the value that it has by default, or in the first option that has one."""
    if key in groups():
        return f"{key}={_default(key)}"
    value: Any = OmegaConf.select(OmegaConf.structured(Config), key, throw_on_missing=False)
    group, _, leaf = key.partition(".")
    base = OmegaConf.load(CONF / "config.yaml")
    if value is None and leaf and isinstance(base, DictConfig):
        value = _plain(base, key)
    for path in sorted((CONF / group).glob("*.yaml")) if leaf else ():
        if value is None and (node := node_of(path, group)) is not None:
            value = _plain(node, leaf)
    if isinstance(value, DictConfig) or value is None:
        return f"{key}.<field>=..." if isinstance(value, DictConfig) else f"{key}=..."
    return f"{key}={shown(value)}".replace(" ", "")


def _plain(node: DictConfig, leaf: str) -> Any:
    """A field's value; of one that looks into the presets first, what it finds where there is none."""
    *path, name = leaf.split(".")
    for part in path:
        inner = node._get_node(part) if part in node else None
        if not isinstance(inner, DictConfig):
            return None
        node = inner
    found = node._get_node(name) if name in node else None
    raw = getattr(found, "_value", lambda: None)()
    preset = re.fullmatch(r"\$\{oc\.select:[\w.]+,(.*)\}", raw) if isinstance(raw, str) else None
    if preset:
        return preset[1]
    return None if isinstance(raw, str) and ("${" in raw or raw == "???") else found if isinstance(raw, dict) else raw


def check_environment() -> None:
    """Raises UserError for what no launcher tells its processes: a process alone would otherwise take part in a run of
    several, or the other way about."""
    numbers: dict[str, int] = {}
    for name, least in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 1}.items():
        text = os.environ.get(name)
        if text is None:
            continue
        most = 65535 if name == "MASTER_PORT" else 2**31 - 1
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or not least <= int(text) <= most:
            raise UserError(
                f"{name}={text}: not a whole number from {least} up, in the environment; type unset {name}, or let "
                "torchrun set it"
            )
        numbers[name] = int(text)
    for one, of in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if one in numbers and of in numbers and numbers[one] >= numbers[of]:
            raise UserError(
                f"{one}={numbers[one]}: not below {of}={numbers[of]}; type unset {one}, or give a lower one"
            )
    if "RANK" in numbers and numbers.get("WORLD_SIZE", 1) > 1 and not joins():
        missing = " and ".join(name for name in NEEDED if name not in os.environ)
        raise UserError(
            f"WORLD_SIZE={numbers['WORLD_SIZE']}: {missing} is not set, so that the processes cannot meet; set it, or "
            "type unset RANK WORLD_SIZE"
        )


@cache
def groups() -> tuple[str, ...]:
    return tuple(sorted(p.name for p in CONF.iterdir() if p.is_dir()))


@cache
def added_groups() -> tuple[str, ...]:
    """Those of which nothing is chosen by default."""
    return tuple(group for group in groups() if _default(group) == "?")


def _default(group: str) -> str:
    """What conf/config.yaml chooses for a group."""
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    return next((str(entry[group]) for entry in defaults if isinstance(entry, DictConfig) and group in entry), "?")


@cache
def known_keys() -> tuple[str, ...]:
    """Every key and group that an override may name."""
    base = OmegaConf.load(CONF / "config.yaml")
    assert isinstance(base, DictConfig)
    keys = {*_flatten(OmegaConf.structured(Config)), *_flatten(base)}
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        keys |= {group, *_flatten(node_of(path, group), group + ".")}
    return tuple(sorted(keys))


def meant(key: str) -> list[str]:
    """The keys that ``key`` may stand for: itself, or those that end with it, the shortest of each group."""
    if key in known_keys():
        return [key]
    ends = sorted((k for k in known_keys() if k.endswith(f".{key}")), key=lambda k: k.count("."))
    shortest: dict[str, str] = {}
    for name in ends:
        shortest.setdefault(name.partition(".")[0], name)
    return list(shortest.values())


def choices() -> str:
    """A paragraph per config group: its options; an experiment's small twin with the experiment."""
    groups = sorted(p for p in CONF.iterdir() if p.is_dir())
    names = {p.name: sorted(f.stem for f in p.glob("*.yaml")) for p in groups}
    options = {
        group: ", ".join(f"{n}[_small]" if f"{n}_small" in found else n for n in found if not _is_twin(n, found))
        for group, found in names.items()
    }
    return "\n".join(
        textwrap.fill(f"{name}: {text}", 119, initial_indent="  ", subsequent_indent=" " * (len(name) + 4))
        for name, text in options.items()
    )


def _is_twin(name: str, names: Sequence[str]) -> bool:
    return name.endswith("_small") and name.removesuffix("_small") in names


def node_of(path: Path, group: str) -> DictConfig:
    """The part of a group's file that ends up under the group's own name, with what it has from files beside it."""
    loaded = OmegaConf.load(path)
    assert isinstance(loaded, DictConfig)
    beside = [path.with_name(f"{d.split('@')[0]}.yaml") for d in loaded.get("defaults", []) if isinstance(d, str)]
    if "@package _global_" in path.read_text(encoding="utf-8"):
        loaded = loaded.get(group) or OmegaConf.create()
    merged = OmegaConf.merge(*(node_of(p, group) for p in beside if p.is_file()), loaded)
    assert isinstance(merged, DictConfig)
    return merged


def _has(path: Path, group: str, leaf: str) -> bool:
    return leaf in _flatten(node_of(path, group))


def _flatten(node: DictConfig, prefix: str = "") -> Iterable[str]:
    for key in map(str, node):
        if key in ("defaults", "_target_", "hydra"):
            continue
        yield f"{prefix}{key}"
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _flatten(value, f"{prefix}{key}.")


def _near(word: str, options: Iterable[str]) -> str:
    options = sorted(options)
    close = difflib.get_close_matches(word, options, n=3, cutoff=0.5)
    if close:
        return f"did you mean {either(close)}?"
    return f"give one of {', '.join(options)}" if len(options) < 12 else "see commexp --help"


def either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
