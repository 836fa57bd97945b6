"""A plan from the config of a run folder, which anybody may have written: it chooses neither code nor files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from commexp.config.components import KINDS, check_plain, our_class
from commexp.config.messages import UserError
from commexp.config.overrides import Word, parsed
from commexp.config.plan import Plan, prepare
from commexp.config.schema import COMPONENTS, UNHASHED, shown
from commexp.files import printable

Node = dict[str, Any]


def foreign_plan(config: Mapping[str, Any], words: Sequence[str], own: Mapping[str, Any]) -> Plan:
    """The plan of a run's ``config``, whose components are commexp's own. Where files lie is told by ``words``, such as
    dataset.root=FOLDER, or is the components' default, never what the config says; likewise all else that decides no
    result, for which ``own`` has values. Raises UserError for a config that names code or asks for more than that, for
    a word that is none of this, and as ``prepare`` does."""
    for key, value in config.items():
        check_plain(value, str(key))
    for key in ("loss", "metrics"):
        if config.get(key):
            raise UserError(f"{key}={shown(config[key])}: code that the run's author has; call commexp.run with it")
    nodes = {key: _copied(value) for key, value in config.items() if key not in UNHASHED}
    for group in ("model", "dataset"):
        target = str((nodes.get(group) or {}).get("_target_"))
        if target.rpartition(".")[2].startswith("Own"):
            raise UserError(f"{group}={target}: what the run's author has handed over; call commexp.run with it")
    places: dict[str, tuple[Node, dataclasses.Field[Any]]] = {}
    for group in COMPONENTS:
        node = nodes.get(group)
        if isinstance(node, dict):
            cls = our_class(node.get("_target_"), group, KINDS[group])
            places |= {f"{group}.{key}": place for key, place in _places(node, cls)}
    said = {key: node.pop(field.name, None) for key, (node, field) in places.items()}
    for text in words:
        word = Word.read(text)
        if word.value is None or word.key not in places:
            some = f"give such as {next(iter(places))}=..." if places else "leave it out"
            raise UserError(f"{text}: does not say where a file of this run lies; {some}")
        node, field = places[word.key]
        node[field.name] = parsed(text).value()
    for key, (node, field) in places.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        given = said[key] not in (None, "") and not isinstance(said[key], bool | int)
        lost = given and field.default in (None, "", dataclasses.MISSING)
        if field.name not in node and (needed or lost):
            raise UserError(f"{key}={printable(str(said[key]))}: a file of the run's author; give {key}=YOUR_FILE")
    return prepare(OmegaConf.create({**nodes, **own}), foreign=True)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _places(node: Node, cls: type[Any]) -> Iterator[tuple[str, tuple[Node, dataclasses.Field[Any]]]]:
    """The fields, also of dataclasses within, that say where something lies."""
    if not dataclasses.is_dataclass(cls):
        return
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "location" in field.metadata:
            yield field.name, (node, field)
        elif isinstance(node.get(field.name), dict) and isinstance(hints[field.name], type):
            for key, place in _places(node[field.name], hints[field.name]):
                yield f"{field.name}.{key}", place
