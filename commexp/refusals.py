"""A user's mistake in one line: what is wrong, and what would be right."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from commexp.schema import Config

CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parent.parent / "conf") if p.is_dir())


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
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={choice}: no such option; {_near(choice, error.options)}"
    unknown = re.search(r"Could not (?:override|append to|delete from config|find)\D*? '([^']+)'", text)
    if unknown:
        return _unknown_key(unknown[1].removeprefix("config."), overrides)
    parsing = re.search(r"Error parsing override '([^\n]*)'\n([^\n]*)", text)
    if parsing:
        return f"{parsing[1]}: cannot be read ({parsing[2]}); give key=value, quoted where it holds special characters"
    merging = re.search(r"Error merging override ([^\n]*)", text)
    if merging:
        cause = str(error.__cause__ or "it does not fit").splitlines()[0].strip()
        if "is not a ListConfig" in cause:
            return f"{merging[1]}: not a list; give {merging[1].replace('=', '=[')}]"
        return f"{merging[1].lstrip('+')}: {cause[0].lower()}{cause[1:]}; commexp --cfg job shows a value that fits"
    several = re.search(r"Ambiguous value for argument '([^\n]*)'", text)
    if several:
        return f"{several[1]}: several values; add -m to run one after the other"
    return f"{' '.join(overrides)}: {' '.join(text.split()) or type(error).__name__}; see commexp --help"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    given = _given(key, overrides)
    if key == "experiment":
        return f"{given}: an experiment is added to the config; give +{given}"
    group, _, leaf = key.partition(".")
    others = holders(group, leaf)
    if others:
        chosen = next((o.split("=")[1] for o in overrides if o.startswith(f"{group}=")), _default(group))
        return f"{given}: {group}={chosen} has no '{leaf}'; choose {group}={either(others)}, or leave it out"
    return f"{given}: no such key; {_near(key, known_keys())}"


def options_of(group: str, target: str) -> list[str]:
    """The options of a config group that stand for this class."""
    return [p.stem for p in sorted((CONF / group).glob("*.yaml")) if node_of(p, group).get("_target_") == target]


def holders(group: str, leaf: str) -> list[str]:
    """The options of a config group that have this key."""
    return [p.stem for p in sorted((CONF / group).glob("*.yaml")) if _has(p, group, leaf)] if leaf else []


def _given(key: str, overrides: Sequence[str]) -> str:
    """The override that names ``key``, as it was typed."""
    words = (o.lstrip("+~") for o in overrides)
    return next((w for w in words if w.split("=")[0].split("@")[0] == key), key)


def _default(group: str) -> str:
    """What conf/config.yaml chooses for a group."""
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    return next((str(entry[group]) for entry in defaults if isinstance(entry, DictConfig) and group in entry), "?")


def known_keys() -> list[str]:
    """Every key and group that an override may name."""
    keys = set(_flatten(OmegaConf.structured(Config)))
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        keys |= {group, *_flatten(node_of(path, group), group + ".")}
    return sorted(keys)


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
