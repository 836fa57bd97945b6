"""A default stands once: the option that is a class's plain form and the class itself say the same."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf
from registry import composed, options

from commexp.algorithms import Schedule
from commexp.config.components import KINDS


def off(value: Any) -> bool:
    """Whether this default leaves something out, which an option may put in: zero, null, an empty text, no schedule."""
    if isinstance(value, dict):
        return value == dataclasses.asdict(Schedule()) or all(map(off, value.values()))
    return not value


def unlike(group: str, name: str, cls: type[Any]) -> dict[str, tuple[Any, Any]]:
    """Fields to which the class gives one value and the option another."""
    node: Any = OmegaConf.to_container(composed(f"{group}={name}")[group], resolve=True)
    found = {}
    for field in dataclasses.fields(cls):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or field.name not in node:
            continue
        given = node[field.name]
        if dataclasses.is_dataclass(default) and isinstance(given, dict):
            default = {name: value for name, value in dataclasses.asdict(default).items() if name in given}  # type: ignore[arg-type]
        if given != default and not off(default):
            found[field.name] = default, given
    return found


@pytest.mark.parametrize("group", KINDS)
def test_an_option_of_each_class_has_its_defaults(group: str) -> None:
    by_class: dict[type[Any], list[str]] = defaultdict(list)
    for name in options(group):
        node: Any = composed(f"{group}={name}")[group]
        by_class[get_class(node["_target_"])].append(name)
    for cls, names in by_class.items():
        if dataclasses.is_dataclass(cls):
            differences = {name: unlike(group, name, cls) for name in names}
            assert not all(differences.values()), f"{cls.__name__}: {differences}"
