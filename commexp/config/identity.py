"""What decides a result, and the names made of it: settings, our own numbers, the source of components from outside."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.utils import get_class, get_object

from commexp.comm import ALL_GATHER
from commexp.config.components import CodecWrapping
from commexp.config.messages import UserError
from commexp.config.schema import UNHASHED, Config, Speed, Stop
from commexp.ranks import joins

#: raised with every change of commexp that changes numbers beyond the last digits, or which of them are written
RESULTS = 2
INSTALLED = {"site-packages", "dist-packages"}  # folders of what pip and distributions install

_read: dict[str, tuple[object, str]] = {}  # of each module in this process: what it was loaded by, and its digest


def what_decides(resolved: dict[str, Any], parts: dict[str, Any], outside: dict[str, str]) -> dict[str, Any]:
    """Of a ``resolved`` config, whose components are ``parts``, all that changes the result: not launch, outputs, ...,
    nor a field that only says where a file lies (metadata ``location``), whose content the field ``digest`` beside it
    stands for, nor a field that has its default and was added (metadata ``added``) when runs had names already, in
    which that default counts for what they did without it; but the source of components from ``outside``, and RESULTS.
    Where real processes decide whose message comes first, that is another result."""
    top = {f.name: f for f in dataclasses.fields(Config)}
    kept = {k: v for k, v in resolved.items() if k not in UNHASHED and not _says_nothing(top[k], v)}
    kept["speed"] = _decisive(kept["speed"], Speed())
    if stop := _decisive(kept.pop("stop"), Stop()):  # the criteria that are given
        kept["stop"] = stop
    kept.update({name: _decisive(kept[name], part) for name, part in parts.items()})
    kept["compress"] = _decisive(kept["compress"], CodecWrapping())
    algo, comm = parts["algo"], resolved["comm"]
    by_arrival = algo.rejoins and not comm["deterministic"] and comm["exchange"] != ALL_GATHER.name
    if (algo.asynchronous or by_arrival) and (joins() or resolved["launch"]["kind"] == "torchrun"):
        kept["inject"] = resolved["launch"]["inject"]
    kept.update(results=RESULTS, outside=outside)
    return kept


def digest(described: dict[str, Any], size: int) -> str:
    """``size`` bytes of BLAKE2b, as hex digits."""
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=size).hexdigest()


def _decisive(described: Any, part: Any) -> Any:
    """What the fields of a component, and of the dataclasses within it, say that changes a result."""
    if not (dataclasses.is_dataclass(part) and isinstance(described, dict)):
        return described
    fields = {f.name: f for f in dataclasses.fields(part)}
    return {
        name: _decisive(value, getattr(part, name)) if name in fields else value
        for name, value in described.items()
        if name not in fields or not _says_nothing(fields[name], value)
    }


def _says_nothing(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field with this value is not part of a run's name."""
    if "added" in field.metadata:
        made: Any = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        return bool(value == (dataclasses.asdict(default) if dataclasses.is_dataclass(default) else default))  # type: ignore[arg-type]
    return "location" in field.metadata


def sources(described: Any, functions: Iterable[str] = ()) -> dict[str, str]:
    """Of every module from outside that the components of a config (``described``, with ``_target_`` at any depth) and
    a user's own ``functions``, by full name, come from: 16 hex digits of BLAKE2b of its file, by its name. Of an
    installed package that such a function comes from, its version.

    These are the modules of the functions, the classes and their base classes, and whatever of the user's own these
    import, in a function or at the top: what lies neither in Python's library nor among installed packages, and of an
    installed package that such a class comes from, that package. Raises UserError for a module without a file, or with
    one that has changed since this process loaded it.
    """
    bases = {base for target in _targets(described) for base in get_class(target).__mro__}
    wanted = {base.__module__ for base in bases}
    roots = {_root(base.__module__) for base in bases if any(_root(b.__module__) == "commexp" for b in base.__mro__)}
    named = {str(getattr(get_object(name), "__module__", None) or _root(name)) for name in functions}
    return {**_versions(named), **source_digests(sorted(wanted | named), roots)}


def source_digests(wanted: Sequence[str], roots: Iterable[str] = (), strict: bool = True) -> dict[str, str]:
    """Of the modules ``wanted``, and of those of the user's own that they import. ``roots``: installed packages that
    count as the user's own. ``strict``: whether a module without a file is a mistake of the user's, see ``sources``;
    else it is passed over."""
    waiting, digests = list(wanted), dict[str, str]()
    while waiting:
        name = waiting.pop()
        if name in digests or not _is_own(name, roots):
            continue
        spec = _spec(name)
        if spec is None or (spec.origin is None and spec.submodule_search_locations is None):
            if name not in wanted or not strict:
                continue  # no module: a name in one, or one that is not there
            raise UserError(f"_target_={name}: lies in no file by which the run could be named; put it into a module")
        if spec.origin is None:
            continue  # a folder without __init__.py
        content = _content(name, spec)
        digests[name] = hashlib.blake2b(content, digest_size=8).hexdigest()
        waiting.extend(_imports(name, spec, content))
    return {name: digests[name] for name in sorted(digests)}


def _versions(modules: Iterable[str]) -> dict[str, str]:
    """Of installed packages that modules belong to; the user's own have none."""
    versions = {}
    for root in sorted({_root(module) for module in modules}):
        if root not in sys.stdlib_module_names and not _is_own(root, ()):
            with suppress(PackageNotFoundError):
                versions[root] = version(root)
    return versions


def _targets(described: Any) -> Iterator[str]:
    if isinstance(described, dict):
        if "_target_" in described:
            yield str(described["_target_"])
        for value in described.values():
            yield from _targets(value)
    elif isinstance(described, list):
        for value in described:
            yield from _targets(value)


def _root(name: str) -> str:
    return name.partition(".")[0]


def _is_own(name: str, roots: Iterable[str]) -> bool:
    root = _root(name)
    if root == "commexp" or root in sys.stdlib_module_names:
        return False
    spec = _spec(root)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    return root in roots or not any(INSTALLED & set(Path(place).parts) for place in places)


def _spec(name: str) -> ModuleSpec | None:
    """How a module is or would be loaded; None where there is none."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__spec__", None) is None:  # __main__, or made by hand
        origin = getattr(loaded, "__file__", None)
        return ModuleSpec(name, None, origin=origin)
    try:
        return importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None


def _content(name: str, spec: ModuleSpec) -> bytes:
    """Of the module's file, as it is and as it was loaded."""
    try:
        place, get = str(spec.origin), getattr(spec.loader, "get_data", None)  # which also reads within a zip
        content: bytes = get(place) if get else Path(place).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"_target_={name}: {spec.origin} cannot be read ({reason}); put it into a file") from error
    if name in sys.modules:
        loaded = getattr(sys.modules[name], "__spec__", None) or sys.modules[name]  # loading it anew makes a new one
        digest = hashlib.blake2b(content).hexdigest()
        if _read.setdefault(name, (loaded, digest))[0] is not loaded:
            _read[name] = loaded, digest
        if _read[name][1] != digest:
            raise UserError(
                f"_target_={name}: {spec.origin} has changed since this process has read it; start Python anew, or "
                "reload the module"
            )
    return content


def _imports(name: str, spec: ModuleSpec, content: bytes) -> Iterator[str]:
    """Every module, and every name that may be one, that the file imports, with the packages around them."""
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    yield from _around(name)
    if not str(spec.origin).endswith(".py"):
        return
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _around(alias.name)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            for alias in node.names:
                yield from _around(f"{base}.{alias.name}")


def _around(name: str) -> Iterator[str]:
    """a.b.c: a, a.b, a.b.c."""
    words = name.split(".")
    yield from (".".join(words[: i + 1]) for i in range(len(words)))
