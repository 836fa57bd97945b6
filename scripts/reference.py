"""Generates the reference pages of the documentation from the config groups and the classes that they name.

A page per group of conf/ has, for each option, its YAML, its fields with defaults, and the docstring of its class;
config.md has the keys that belong to no component. ``docs/conf.py`` writes them when the documentation is built.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from commexp.compressors import Feedback, Transform
from commexp.config.components import CodecWrapping
from commexp.config.schema import CONF, UNHASHED, Comm, Config, Launch, Speed, Stop, node_of
from commexp.topologies import Gossip

TITLES = {
    "algo": "Algorithms", "allocation": "Allocations", "cluster": "Clusters", "compress": "Compressors",
    "dataset": "Datasets", "experiment": "Experiments", "launch": "Launch", "model": "Models", "network": "Networks",
    "partition": "Partitions", "prox": "Proximal terms", "straggler": "Stragglers", "topology": "Topologies",
}  # fmt: skip
SECTIONS: dict[str, tuple[type, ...]] = {
    "stop": (Stop,), "comm": (Comm,), "speed": (Speed,), "launch": (Launch,), "gossip": (Gossip,),
    "compress": (CodecWrapping, Feedback, Transform),
}  # fmt: skip


def write_reference(folder: Path) -> None:
    """Writes config.md and a page per group into ``folder``; a page that is as it was is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = sorted({path.parent.name for path in CONF.glob("*/*.yaml")})
    pages = {"config": "\n".join(config_page()), **{g: "\n".join(group_page(g)) for g in groups}}
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def config_page() -> Iterator[str]:
    yield f"# Keys of the config\n\n{prose(Config)}\n\n{table(Config)}\n"
    yield "These change no result, so the name of the run's folder does not depend on them: "
    yield ", ".join(f"`{key}`" for key in UNHASHED) + ".\n"
    for key, classes in SECTIONS.items():
        said = "\n\n".join(map(prose, classes))
        yield f"## {key}\n\n{said}\n\n{table(classes[0], f'{key}.')}\n"
    text = (CONF / "config.yaml").read_text(encoding="utf-8").partition("\nhydra:")[0]
    yield f"## conf/config.yaml\n\nWhat is chosen when nothing is said:\n\n{fenced(text)}\n"


def group_page(group: str) -> Iterator[str]:
    yield f"# {TITLES.get(group, group.capitalize())}\n"
    files = sorted((CONF / group).glob("*.yaml"))
    targets = {path.stem: node_of(path, group).get("_target_") for path in files}
    classes = {stem: get_class(target) for stem, target in targets.items() if target}
    shared = list(dict.fromkeys(base for cls in classes.values() for base in bases(cls, group)))
    for path in files:
        yield f"## {path.stem}\n\n{fenced(path.read_text(encoding='utf-8'))}\n"
        if path.stem in classes:
            cls = classes[path.stem]
            yield f"{prose(cls)}\n\n{table(cls, f'{group}.')}\n"
            own = [f"[{base.__name__}](#{base.__name__.lower()})" for base in bases(cls, group)]
            yield f"`{targets[path.stem]}`" + (f"; builds on {', '.join(own)}" if own else "") + "\n"
    for cls in shared:
        yield f"## {cls.__name__}\n\n{prose(cls)}\n"


def bases(cls: type, group: str) -> list[type]:
    """Of the package's own classes below ``cls`` those that say something of themselves, the nearest first."""
    names = {path.stem for path in (CONF / group).glob("*.yaml")}
    return [b for b in cls.__mro__[1:] if "commexp." in b.__module__ and documented(b) and b.__name__ not in names]


def documented(cls: type) -> bool:
    """Dataclasses make up a docstring that is their signature."""
    return bool(cls.__doc__) and not str(cls.__doc__).startswith(f"{cls.__name__}(")


def prose(cls: type) -> str:
    """The docstring as Markdown. Its indented blocks are code blocks there, too; elsewhere only ``names`` are marked
    up, so that whatever else Markdown would read something into is escaped."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines() if documented(cls) else []
    return "\n".join(line if line.startswith("    ") else _escaped(line) for line in lines)


def _escaped(line: str) -> str:
    parts = re.split(r"(``.+?``)", line)
    return "".join(p if p.startswith("``") else re.sub(r"([\\*_<>\[\]#|`~])", r"\\\1", p) for p in parts)


def table(cls: type, prefix: str = "") -> str:
    """Fields, types and defaults; of a field that is a dataclass itself, its fields."""
    rows = list(_rows(cls, prefix)) if dataclasses.is_dataclass(cls) else []
    return "\n".join(["| key | type | default |", "| --- | --- | --- |", *rows]) if rows else ""


def _rows(cls: Any, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default  # type: ignore[misc]
        if dataclasses.is_dataclass(default):
            yield from () if cls is Config else _rows(type(default), f"{prefix}{field.name}.")
        elif field.type != "Any":
            shown = "must be given" if default is dataclasses.MISSING else f"`{_plain(default)}`"
            kind = str(field.type).replace("|", "\\|")
            yield f"| `{prefix}{field.name}` | `{kind}` | {shown} |"


def _plain(value: object) -> str:
    """As the command line spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value) if str(value) else '""'


def fenced(text: str) -> str:
    return f"```yaml\n{text.rstrip()}\n```"


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]))
