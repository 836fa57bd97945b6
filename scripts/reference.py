"""Generates the reference pages of the documentation, docs/reference, from conf/ and the classes that its files name.

A page per family of methods, and per other group of conf/, has for each option: its command, what it is and when to use
it (the comment at the head of its YAML file), the docstring of its class, and its keys with type, default and meaning
(the comment beside a key, or else the docstring). config.md has the keys that belong to no component. Whatever stands
in a page above ``MARK`` is written by hand and kept. The pages are committed, so that they can be read and linked to
without a build; ``docs/conf.py`` writes them anew whenever the documentation is built.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.utils import get_class

from commexp.compressors import Feedback, Transform
from commexp.config.components import CodecWrapping
from commexp.config.schema import CONF, UNHASHED, Comm, Config, Launch, Speed, Stop, shown
from commexp.state import Stateful
from commexp.topologies import Gossip

MARK = "<!-- scripts/reference.py writes what follows, from conf/ and docstrings: edit those, then run make docs -->"
#: pages of methods, and the methods whose order or page does not follow from the folder of their class
FAMILIES = {
    "gradient": ("Gradient methods", ("sgd", "topk", "regtopk", "sam")),
    "local": ("Local methods", ("localsgd", "postlocal", "qsr", "dppf", "easgd", "lsgd", "mgrawa")),
    "low_communication": (
        "Low-communication methods",
        (
            "diloco", "streaming_diloco", "muloco", "sparseloco", "local_adam", "desloc", "noloco", "sparta", "demo",
        ),
    ),
    "federated": ("Federated methods", ("fedavg", "fedprox", "fedopt", "scaffold", "proxskip")),
    "differences": ("Compressed differences", ("ef21", "ef21_sgdm", "diana", "marina", "dasha")),
    "decentralised": ("Decentralised methods", ("dpsgd", "choco", "d2", "extra", "nids", "kgt", "sgp", "adpsgd")),
    "coded": ("Redundant data and late workers", ("gradient_coding", "exact_coding", "ignore", "wait")),
    "asynchronous": ("Asynchronous methods", ("async_ps", "sync_ps", "ssp", "async_sgd")),
}  # fmt: skip
TITLES = {
    "compress": "Compressors", "topology": "Topologies", "allocation": "Allocations of redundant data",
    "straggler": "Late workers", "partition": "Partitions of the data", "prox": "Proximal terms", "model": "Models",
    "dataset": "Data sets", "network": "Networks", "network/compute": "Devices: network.compute",
    "experiment": "Experiments", "launch": "Launch", "cluster": "Clusters",
}  # fmt: skip
SECTIONS: dict[str, tuple[type, ...]] = {"stop": (Stop,), "comm": (Comm,), "speed": (Speed,), "launch": (Launch,)}
BESIDE: dict[str, tuple[tuple[str, str, tuple[type, ...]], ...]] = {
    "compress": (("Around every compressor", "compress.", (CodecWrapping, Feedback, Transform)),),
    "topology": (("How often to mix", "gossip.", (Gossip,)),),
}  # pages with sections of their own: title, prefix of the keys, classes
WHOLE = ("cluster", "experiment", "launch", "network", "network/compute")  # whose files are shown as they are
NOTE = "† A data set or an experiment may bring another default."
PRESET = re.compile(r"\$\{oc\.select:[\w.]+,(.*)\}")


class Option(NamedTuple):
    """An option of a config group: ``group``/``name``.yaml of conf/."""

    group: str
    name: str

    @property
    def path(self) -> Path:
        return CONF / self.group / f"{self.name}.yaml"

    @property
    def page(self) -> str:
        return page_of(self)


def write_reference(folder: Path) -> None:
    """Writes all pages into ``folder``; a page that is as it was is left alone, and so is what stands above MARK."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"config": ("Keys of the config", "\n".join(config_page()))}
    made |= {name: (title, "\n".join(page(name))) for name, title in titles().items()}
    for path in folder.glob("*.md"):
        if path.stem not in made:
            path.unlink()
    for name, (title, text) in made.items():
        path = folder / f"{name}.md"
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        by_hand = before.partition(MARK)[0] if MARK in before else f"# {title}\n\n"
        text = re.sub(r"\n{3,}", "\n\n", f"{by_hand}{MARK}\n\n{text}").rstrip() + "\n"
        if before != text:
            path.write_text(text, encoding="utf-8")


@cache
def titles() -> dict[str, str]:
    """Of every page but config.md, by the name of its file."""
    families = {name: title for name, (title, _) in FAMILIES.items()}
    return families | {group.replace("/", "_"): TITLES.get(group, group) for group in all_groups() if group != "algo"}


@cache
def all_groups() -> tuple[str, ...]:
    return tuple(sorted({str(path.parent.relative_to(CONF)) for path in CONF.rglob("*/*.yaml")}))


@cache
def options() -> tuple[Option, ...]:
    """All of them, in the order in which their pages have them."""
    listed = [name for _, names in FAMILIES.values() for name in names]
    every = [Option(group, path.stem) for group in all_groups() for path in sorted((CONF / group).glob("*.yaml"))]
    return tuple(sorted(every, key=lambda o: listed.index(o.name) if o.group == "algo" and o.name in listed else 99))


@cache
def page_of(option: Option) -> str:
    """The name of the page on which an option stands: a method's family, or the group."""
    if option.group != "algo":
        return option.group.replace("/", "_")
    named = [family for family, (_, names) in FAMILIES.items() if option.name in names]
    return named[0] if named else class_of(option).__module__.split(".")[2]  # type: ignore[union-attr]


@cache
def class_of(option: Option) -> type | None:
    target = target_of(option)
    return get_class(target) if target else None


def target_of(option: Option) -> str:
    """The full name of its class; empty where it has none."""
    parent = parent_of(option)
    return _node(option).get("_target_") or (target_of(parent) if parent else "")


@cache
def parent_of(option: Option) -> Option | None:
    """The option of the same group on which its file builds."""
    for entry in _loaded(option.path).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            other = Option(option.group, entry.partition("@")[0])
            if other.path.is_file() and other != option:
                return other
    return None


@cache
def home_of(cls: type) -> Option | None:
    """The option that stands for a class: the one that does not build on another one of the same class."""
    same = [o for o in options() if class_of(o) is cls]
    return next((o for o in same if (p := parent_of(o)) is None or class_of(p) is not cls), same[0] if same else None)


@cache
def places() -> Mapping[type, str]:
    """On which page each class has its section: classes that options share, on the first page that needs one."""
    found: dict[type, str] = {}
    for name in titles():
        for option in on_page(name):
            for base in bases(class_of(option)):
                if home_of(base) is None:
                    found.setdefault(base, name)
    return found


@cache
def on_page(name: str) -> tuple[Option, ...]:
    return tuple(o for o in options() if o.page == name)


def config_page() -> Iterator[str]:
    yield f"{prose(Config)}\n\n{table(class_rows(Config, ''))}\n"
    yield "These change no result, so the name of the run's folder does not depend on them: "
    yield ", ".join(f"`{key}`" for key in UNHASHED) + ".\n"
    for key, classes in SECTIONS.items():
        yield section(key, f"{key}.", classes)
    yield f"## algo\n\n{table(group_rows('algo'))}\n"
    text = (CONF / "config.yaml").read_text(encoding="utf-8").partition("\nhydra:")[0]
    yield f"## conf/config.yaml\n\nWhat is chosen when nothing is said:\n\n{fenced(text)}\n"


def section(title: str, prefix: str, classes: Sequence[type]) -> str:
    said = "\n\n".join(map(prose, classes))
    return f"## {title}\n\n{said}\n\n{table(class_rows(classes[0], prefix))}\n"


def page(name: str) -> Iterator[str]:
    found = on_page(name)
    group = found[0].group
    heads = {o: head(o.path) for o in found}
    rows = [(f"`{group.replace('/', '.')}=`", "what it is", "when to use it"), ("---",) * 3]
    for option, said in heads.items():
        what = said.what.partition(". ")[0] if group in WHOLE else said.what
        rows.append((f"[`{option.name}`](#{option.name})", what, said.when))
    columns = 3 if any(said.when for said in heads.values()) else 2
    yield "\n".join(f"| {' | '.join(row[:columns])} |".replace("||", "\\|\\|") for row in rows) + "\n"
    for option in found:
        yield from option_section(option, heads[option])
    for title, prefix, classes in BESIDE.get(group, ()):
        yield section(title, prefix, classes)
    if group not in ("algo", "compress") and _base(group):
        yield f"## Keys of all\n\n{table(group_rows(group))}\n"
    for cls, place in places().items():
        if place == name:
            yield f"## {cls.__name__}\n\n{prose(cls)}\n"


def option_section(option: Option, said: Head) -> Iterator[str]:
    yield f"## {option.name}\n"
    if said.commands:
        yield "```sh\n" + "\n".join(said.commands) + "\n```\n"
    yield f"{said.what}\n"
    if said.when:
        yield f"**When to use it:** {said.when}\n"
    cls, parent = class_of(option), parent_of(option)
    if cls and (parent is None or class_of(parent) is not cls) and documented(cls):
        yield f"{prose(cls)}\n"
    if option.group in WHOLE:
        yield fenced("\n".join(rest_of(option.path))) + "\n"
    else:
        rows = list(option_rows(option))
        if rows:
            yield table(rows)
            yield ""
        changes = ", ".join(f"`{change}`" for change in beyond(option))
        if changes:
            yield f"It also chooses {changes}.\n"
    if parent:
        yield f"All other keys are those of {link(option.page, parent.page, parent.name, code=True)}.\n"
    if cls:
        built = [name_of(base, option.page) for base in bases(cls)]
        yield f"Class: `{target_of(option)}`" + (f"; builds on {', '.join(built)}." if built else ".") + "\n"


class Head(NamedTuple):
    """The comment with which an option's file begins: commands, what it is, and after ``When:`` when to use it."""

    commands: Sequence[str]
    what: str
    when: str


@cache
def head(path: Path) -> Head:
    lines = [line[1:].strip() for line in takewhile(lambda s: s.startswith("#"), path.read_text("utf-8").splitlines())]
    lines = [line for line in lines if not line.startswith("@package")]
    commands = [re.sub(r"^(.*?\S) {2,}(\S.*)$", r"\1    # \2", s) for s in lines if re.match(r"commexp(-\w+)? ", s)]
    text = " ".join(s for s in lines if not re.match(r"commexp(-\w+)? ", s))
    what, _, when = text.partition("When: ")
    return Head(commands, linked(what.strip()), linked(when.strip()))


def rest_of(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[sum(1 for _ in takewhile(lambda s: s.startswith("#"), lines)) :]


class Row(NamedTuple):
    key: str
    type: str
    default: str
    meaning: str


def option_rows(option: Option) -> Iterator[Row]:
    """What its own file says, and the fields that its class has beyond those of the option on which it builds."""
    here, fields, parent = _flat(_node(option)), _fields_of(option), parent_of(option)
    elsewhere = {*_flat(_base(option.group)), *dict(_fields(CodecWrapping)), *(_fields_of(parent) if parent else ())}
    for key in [*here, *(key for key in fields if key not in {*here, *elsewhere})]:
        default = here[key] if key in here else fields[key].default
        yield Row(f"{option.group}.{key}", fields[key].type, _default(default), meaning(option, key))


@cache
def _fields_of(option: Option) -> dict[str, Field]:
    """All that an option's node may hold: fields of its class, of components in it, and of what is around a codec."""
    found = dict(_fields(class_of(option)))
    at: Option | None = option
    while at:
        for key, value in _node(at).items():
            if isinstance(value, dict) and "_target_" in value:
                found |= dict(_fields(get_class(value["_target_"]), f"{key}."))
        at = parent_of(at)
    return found | (dict(_fields(CodecWrapping)) if option.group == "compress" else {})


def group_rows(group: str) -> list[Row]:
    """Keys that conf/config.yaml gives to every option of a group."""
    classes = [cls for o in options() if o.group == group and (cls := class_of(o))]
    rows = []
    for key, value in _flat(_base(group)).items():
        field = next((f for cls in classes if (f := dict(_fields(cls)).get(key))), None)
        beside = comments(CONF / "config.yaml", "")
        text = beside.get(f"{group}.{key}") or next((t for cls in classes if (t := told(cls, key))), "")
        text = text or beside.get(group, "")
        rows.append(Row(f"{group}.{key}", field.type if field else "float", _default(value), text))
    return rows


def class_rows(cls: Any, prefix: str) -> list[Row]:
    """Fields of a class; of a field that is a dataclass itself, its fields."""
    fields = dict(_fields(cls, nested=cls is not Config))
    return [Row(f"{prefix}{k}", f.type, _default(f.default), told(cls, k)) for k, f in fields.items()]


def beyond(option: Option) -> Iterator[str]:
    """What a file chooses in other groups, and sets there."""
    loaded = _loaded(option.path)
    for entry in loaded.get("defaults", []):
        if not isinstance(entry, str):
            for key, value in entry.items():
                if str(key).startswith("override /"):
                    yield f"{str(key).removeprefix('override /')}={value}"
    if "@package _global_" in option.path.read_text(encoding="utf-8"):
        others = {k: v for k, v in loaded.items() if k not in ("defaults", option.group)}
        yield from (f"{key}={_plain(value)}" for key, value in _flat(others).items())


def meaning(option: Option, key: str) -> str:
    """The comment beside the key in the option's file, in one on which it builds, or in config.yaml; or the class's
    docstring, or that of a field."""
    at: Option | None = option
    while at:
        if text := comments(at.path, at.group).get(key):
            return text
        at = parent_of(at)
    text = comments(CONF / "config.yaml", "").get(f"{option.group}.{key}", "")
    return text or told(class_of(option), key) or (told(CodecWrapping, key) if option.group == "compress" else "")


def told(cls: type | None, key: str) -> str:
    """What the docstring of a class, of one on which it builds, or of a field's class says of a field."""
    *outer, name = key.split(".")
    for part in outer:
        fields = {f.name: f.default_factory for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
        made = fields.get(part)
        cls = made if isinstance(made, type) else None
    for base in cls.__mro__ if cls else ():
        if "commexp." in base.__module__ and documented(base) and (text := _definitions(base).get(name)):
            return text
    return ""


@cache
def _definitions(cls: type) -> dict[str, str]:
    """A docstring's sentences on its fields: "``k``: text" or "``a``, ``b``: text", up to the next."""
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(cls.__doc__ or "")):
        if paragraph.startswith("    "):
            found.update(re.findall(r"^ {4}(\w+):  +(.+)$", paragraph, flags=re.MULTILINE))
            continue
        names: list[str] = []
        for sentence in re.split(r"(?<=[.;]) (?=``|[A-Z])|(?<=:) (?=``\w+``:)", " ".join(paragraph.split())):
            start = re.match(r"((?:``\w+``(?:, | and )?)+)(?: = \w+)?: (.*)", sentence)
            if start:
                names = re.findall(r"``(\w+)``", start[1])
                found.update({n: start[2] for n in names if n not in found})
            elif re.match(r"``|Raises|Source|Diagnostic|For the", sentence):
                names = []
            else:
                found.update({n: f"{found[n]} {sentence}" for n in names})
    return {name: linked(_escaped(text.replace("``", "`"), code="`").rstrip(".;")) for name, text in found.items()}


@cache
def comments(path: Path, group: str) -> dict[str, str]:
    """The comment beside each key of a file, by the key's full name below ``group``."""
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    prefix = f"{group}." if any("@package _global_" in line for line in lines) and group else ""
    for line in lines:
        entry = re.match(r"( *)([\w-]+):(.*)", line)
        if not entry:
            continue
        depth = len(entry[1])
        stack = [(d, n) for d, n in stack if d < depth]
        stack.append((depth, entry[2]))
        key = ".".join(n for _, n in stack)
        comment = re.search(r"\s#\s+(.*)$", entry[3])
        if comment and key.startswith(prefix):
            found[key.removeprefix(prefix)] = re.sub(r"([|<])", r"\\\1", comment[1])
    return found


class Field(NamedTuple):
    type: str
    default: Any


def _fields(cls: Any, prefix: str = "", nested: bool = True) -> Iterator[tuple[str, Field]]:
    """The fields of a dataclass that a config may set, by key."""
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default  # type: ignore[misc]
        if dataclasses.is_dataclass(default):
            yield from _fields(type(default), f"{prefix}{field.name}.") if nested else ()
        elif field.type != "Any" and field.init:
            yield f"{prefix}{field.name}", Field(str(field.type), "???" if default is dataclasses.MISSING else default)


@cache
def _loaded(path: Path) -> dict[str, Any]:
    """A file's values as they are written: every scalar is a text."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)) or {}


def _base(group: str) -> dict[str, Any]:
    whole = _loaded(CONF / "config.yaml")
    return whole.get(group) or {}


def _node(option: Option) -> dict[str, Any]:
    """What a file says itself for its own group."""
    loaded = _loaded(option.path)
    own = loaded.get(option.group) or {} if "@package _global_" in option.path.read_text(encoding="utf-8") else loaded
    return {k: v for k, v in own.items() if k != "defaults"}


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        if key != "_target_":
            inner = isinstance(value, dict) and value
            found |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _default(value: Any) -> str:
    if value == "???":
        return "must be given"
    preset = PRESET.fullmatch(value) if isinstance(value, str) else None
    text = preset[1] if preset else value
    if isinstance(text, str) and (other := re.fullmatch(r"\$\{([\w.]+)\}", text)):
        return f"that of `{other[1]}`" + (" †" if preset else "")
    return f"`{_plain(text)}`" + (" †" if preset else "")


def _plain(value: Any) -> str:
    """As the command line spells it."""
    if isinstance(value, str):
        preset = PRESET.fullmatch(value)
        return (preset[1] if preset else value) or '""'
    return shown([_plain(each) for each in value]).replace(",", ", ") if isinstance(value, list) else shown(value)


def _kind(text: str) -> str:
    """A type in words."""
    text = re.sub(r"Optional\[(.*)\]", r"\1 or null", text)
    text = re.sub(r"Union\[(\w+), (\w+)\]", r"\1 or \2", text)
    return text.replace("NoneType", "null").replace(" | None", " or null").replace("|", "\\|")


def bases(cls: type | None) -> list[type]:
    """Of the package's own classes below ``cls`` those that say something of themselves to a user, the nearest first:
    not those that only tell a contributor what to implement."""
    mro = cls.__mro__[1:] if cls else ()
    ours = [b for b in mro if "commexp." in b.__module__ and b is not Stateful and documented(b)]
    return [b for b in ours if _fields_of_its_own(b) or _formula(b)]


def _fields_of_its_own(cls: type) -> bool:
    own = inspect.get_annotations(cls)
    return dataclasses.is_dataclass(cls) and any(f.name in own for f in dataclasses.fields(cls))


def _formula(cls: type) -> bool:
    return any(line.startswith("    ") for line in inspect.cleandoc(cls.__doc__ or "").splitlines())


def name_of(cls: type, page: str) -> str:
    home = home_of(cls)
    return link(page, home.page, home.name, code=True) if home else link(page, places()[cls], cls.__name__)


def link(here: str, there: str, name: str, code: bool = False) -> str:
    text = f"`{name}`" if code else name
    return f"[{text}]({'' if here == there else f'{there}.md'}#{name.lower()})"


def documented(cls: type) -> bool:
    """Dataclasses make up a docstring that is their signature."""
    return bool(cls.__doc__) and not str(cls.__doc__).startswith(f"{cls.__name__}(")


def prose(cls: type) -> str:
    """The docstring as Markdown. Its indented blocks are code blocks there, too; elsewhere only ``names`` are marked
    up, so that whatever else Markdown would read something into is escaped."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines() if documented(cls) else []
    return "\n".join(line if line.startswith("    ") else linked(_escaped(line)) for line in lines)


def linked(text: str) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _escaped(line: str, code: str = "``") -> str:
    parts = re.split(rf"({code}.+?{code})", line)
    return "".join(p if p.startswith(code) else re.sub(r"([\\*_<>\[\]#|`~])", r"\\\1", p) for p in parts)


def table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = [f"| `{r.key}` | {_kind(r.type)} | {r.default} | {r.meaning} |" for r in rows]
    note = f"\n\n{NOTE}" if any("†" in line for line in lines) else ""
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *lines]) + note


def fenced(text: str) -> str:
    return f"```yaml\n{text.strip()}\n```"


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "reference")
