"""Which runs are meant by ``algo=dppf``, ``compress.k<0.1``, ``status=completed``, ``test_accuracy>=0.9``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import OmegaConf

from commexp.config.messages import UserError, either, near
from commexp.config.schema import CONF, groups, keys_meant, known_keys, node_of, shown
from commexp.files import number
from commexp.metrics import METRICS

COMPARISON = re.compile(r"([^=!<>]+?)\s*(!=|<=|>=|=|<|>)\s*(.*)", re.DOTALL)
ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
OTHERS = ("status", "device", "threads", "parameters", "samples", "processes", "commexp", "torch", "git_commit")


@dataclass(frozen=True)
class Query:
    """One comparison. ``key``: of the config, of meta.json or of summary.json, or a group of the config, or ``status``.
    ``sign``: one of = != < <= > >=. ``value``: what stands after it; ``a,b`` after = means one of both. A run without
    the key fits ``!=`` alone."""

    key: str
    sign: str
    value: str

    @classmethod
    def read(cls, word: str) -> Query:
        """Raises UserError for what is no comparison, and for < and the like with what is no number."""
        found = COMPARISON.fullmatch(word)
        if not found:
            raise UserError(f"{word}: no comparison; give such as algo=topk, 'compress.k<0.1' or status=completed")
        query = cls(*found.groups())
        if query.sign in ORDER and number(query.value) is None:
            raise UserError(f"{word}: {query.value!r} is no number; give one, or {query.key}={query.value}")
        return query

    def fits(self, values: Mapping[str, Any]) -> bool:
        """``values``: of a run, by key; those of a group are the set of the names that it may have, see ``spelled``."""
        if self.sign in ORDER:
            value = _number(values.get(self.key))
            return value is not None and ORDER[self.sign](value, float(self.value))
        return self._equals(values) == (self.sign == "=")

    def _equals(self, values: Mapping[str, Any]) -> bool:
        value = values.get(self.key)
        if isinstance(value, frozenset) or self.key in groups():
            names = value or frozenset()
            return any(spelled(option) in names or self._is_option(option, values) for option in self._options)
        return self.key in values and any(_same(value, option) for option in self._options)

    @cached_property
    def _options(self) -> list[str]:
        whole = self.value[:1] in ("[", "{") or "," not in self.value
        return [self.value] if whole else [option.strip() for option in self.value.split(",")]

    def _is_option(self, option: str, values: Mapping[str, Any]) -> bool:
        """Whether the config is as the option of the group, such as the preset algo=topk, makes it."""
        meant = self._meanings[option]
        return bool(meant) and all(key in values and values[key] == value for key, value in meant.items())

    @cached_property
    def _meanings(self) -> dict[str, dict[str, Any]]:
        return {option: meaning(self.key, option) for option in self._options}

    def check(self, known: Iterable[str]) -> None:
        """Raises UserError if the key is neither one of ``known``, which some run has, nor one that a run can have."""
        known = {*known, *known_keys(), *METRICS, *(metric.best for metric in METRICS.values()), *OTHERS}
        if self.key in known:
            return
        said = f"{self.key}{self.sign}{self.value}"
        if full := [f"{name}{self.sign}{self.value}" for name in keys_meant(self.key)]:
            raise UserError(f"{said}: no such key; give {either(full)}")
        raise UserError(f"{said}: no such key; {near(self.key, known)}")


def is_comparison(word: str) -> bool:
    """Whether a word compares, and is no name of a run."""
    return COMPARISON.fullmatch(word) is not None


def spelled(name: str) -> str:
    """A name in the one spelling in which names of options, files and classes are compared."""
    return re.sub(r"[_-]", "", name).lower()


def meaning(group: str, option: str) -> dict[str, Any]:
    """What the option's file says of its own group, and the components that it chooses in other groups, as flat keys of
    a run's config; empty where there is no such file, or it chooses no component of its group."""
    path = CONF / group / f"{option}.yaml"
    if not re.fullmatch(r"[\w-]+", option, re.ASCII) or not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    plain: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    own = (plain.get(group) or {}) if "@package _global_" in text else plain
    meant = {f"{group}.{key}": _default(value) for key, value in own.items() if key != "defaults"}
    meant[f"{group}._target_"] = node_of(path, group).get("_target_")
    for entry in plain.get("defaults", []):
        for name, chosen in entry.items() if isinstance(entry, dict) else ():
            other = str(name).removeprefix("override /")
            if (file := CONF / other / f"{chosen}.yaml").is_file():
                meant[f"{other}._target_"] = node_of(file, other).get("_target_")
    return {k: v for k, v in meant.items() if v is not None} if meant[f"{group}._target_"] else {}


def _default(value: Any) -> Any:
    """A value of a file; of one that looks into the presets first, what it finds where there is none; None for one that
    depends on other keys, has to be given, or is a section."""
    found = re.fullmatch(r"\$\{oc\.select:[\w.]+,([^${}]*)\}", value) if isinstance(value, str) else None
    if found:
        value = OmegaConf.create(f"value: {found[1]}").value
    return None if isinstance(value, dict | list) or "${" in str(value) or value == "???" else value


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return float(value) if isinstance(value, int | float) else number(value)


def _same(value: Any, text: str) -> bool:
    """Numbers are compared as numbers, so that 0.10 is 0.1; all else as it is typed."""
    one, other = _number(value), number(text)
    if one is not None and other is not None:
        return one == other
    return shown(value).replace(" ", "") == text.replace(" ", "")
