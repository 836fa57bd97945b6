"""Components from their nodes in the config: what ``_target_`` names, with its fields checked."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hydra.utils import get_class
from omegaconf import Container, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from commexp.algorithms import Algorithm
from commexp.allocations import Allocation
from commexp.compressors import Compressor, ErrorFeedback, Feedback, Layerwise, Transform
from commexp.compressors.dct import transformed
from commexp.config.messages import UserError, either, misfit
from commexp.config.schema import holders, options_of, shown, typed_fields
from commexp.network import Network, Straggler
from commexp.problems import Dataset, Model, Partition, Prox
from commexp.topologies import Topology

T = TypeVar("T")
KEPT = 1000  # checked components
_CHECKED: dict[tuple[Any, str], Container] = {}
KINDS: dict[str, type[Any]] = {
    "dataset": Dataset,
    "partition": Partition,
    "allocation": Allocation,
    "model": Model,
    "prox": Prox,
    "topology": Topology,
    "compress": Compressor,
    "algo": Algorithm,
    "network": Network,
    "straggler": Straggler,
}


def build(node: Mapping[str, Any], key: str, kind: type[T], foreign: bool = False) -> T:
    """The object that ``node`` (``_target_`` and fields) describes; a dataclass's field types are enforced.

    A field may hold a node of its own where its class declares a component there. ``foreign``: the node comes from a
    run folder, which anybody may have written. It may then name only classes of commexp itself that are of the right
    kind, it is checked to its last depth before the first object is made, and nothing is imported for it.
    Raises UserError if a target cannot be found, is no ``kind``, or refuses its fields.
    """
    if foreign:
        check_plain(node, key)
    cls, inner = _classes(node, key, kind, foreign)
    if dataclasses.is_dataclass(cls):
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := next((name for name in node if name not in known and name != "_target_"), None):
            raise UserError(_unknown(key, str(node["_target_"]), unknown, node[unknown]))
    values: dict[str, Any] = {name: value for name, value in node.items() if name != "_target_"}
    values.update({name: build(node[name], f"{key}.{name}", part, foreign) for name, part in inner.items()})
    target = node["_target_"]
    try:
        if dataclasses.is_dataclass(cls):
            merged = OmegaConf.merge(typed_fields(cls), values) if inner else checked(cls, values)
            return cast(T, OmegaConf.to_object(merged))
        return cls(**values)
    except OmegaConfBaseException as error:
        raise UserError(_mistyped(key, values, error)) from error
    except (ValueError, OverflowError) as error:
        raise UserError(f"{key}.{error}") from error
    except TypeError as error:
        raise UserError(f"{key}._target_={target}: {error}; give its fields their values") from error


def _classes(node: Mapping[str, Any], key: str, kind: type[T], foreign: bool) -> tuple[type[T], dict[str, type[Any]]]:
    """The class of a node, and what kind of component each field is that holds a node of its own; those are checked
    too, and no node may stand anywhere else. Raises UserError."""
    target = node.get("_target_")
    cls: Any = our_class(target, key, kind) if foreign else any_class(str(target), key)
    if not issubclass(cls, kind):
        raise UserError(f"{key}._target_={target}: is no {kind.__name__}; give a subclass of it")
    inner: dict[str, type[Any]] = {}
    declared = _component_fields(cls)
    for name, value in node.items():
        if name in declared and isinstance(value, Mapping) and "_target_" in value:
            inner[name] = declared[name]
            _classes(value, f"{key}.{name}", declared[name], foreign)
            continue
        for where, stray in _targets(value, f"{key}.{name}"):
            raise UserError(f"{where}._target_={stray}: {target} takes no component there; leave it out")
    return cls, inner


def any_class(target: str, key: str) -> type[Any]:
    """What a user names on the command line, their own package's classes included. Raises UserError."""
    try:
        return cast(type[Any], get_class(target))
    except Exception as error:
        raise UserError(
            f"{key}._target_={target}: cannot be imported ({' '.join(str(error).split())}); give a class's full name"
        ) from error


def our_class(target: object, key: str, kind: type[Any]) -> type[Any]:
    """The class of that name, if it is commexp's own and a ``kind``. Raises UserError."""
    cls = _imported(target, kind)
    if cls is None:
        raise UserError(f"{key}._target_={target}: is no {kind.__name__} of commexp's own")
    return cls


def outside(config: Mapping[str, Any]) -> list[str]:
    """What a run's config names, at any depth, that is none of commexp's own components."""
    return [
        f"{where}._target_={target}"
        for where, target in _targets(config, "config")
        if not any(_imported(target, kind) for kind in KINDS.values())
    ]


def _imported(target: object, kind: type[Any]) -> type[Any] | None:
    """Importing a module runs it, so that a name is only looked up in what has been imported."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    room = ".".join(kind.__module__.split(".")[:2])  # commexp.network
    if f"{module}.".startswith(f"{room}.") and module in sys.modules:
        cls = vars(sys.modules[module]).get(name)
        if isinstance(cls, type) and issubclass(cls, kind) and f"{cls.__module__}.".startswith(f"{room}."):
            return cls
    return None


@cache
def _component_fields(cls: type[Any]) -> dict[str, type[Any]]:
    """The fields of a class, or what it is made with, that are declared to be components, and of which kind."""
    try:
        hints = get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__)
    except Exception:  # declared by names that only type checkers see
        return {}
    kinds = {}
    for name, hint in hints.items():
        for one in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
            if isinstance(one, type) and get_origin(one) is None and issubclass(one, tuple(KINDS.values())):
                kinds[name] = one
    return kinds


def _targets(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Where in a value, at any depth, a ``_target_`` stands."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield key, value["_target_"]
        for name, each in value.items():
            yield from _targets(each, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _targets(each, f"{key}[{index}]")


def check_plain(value: Any, key: str) -> None:
    """Raises UserError for an interpolation, which would read the environment, or run whatever a resolver does."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            check_plain(name, f"{key}.{name}")
            check_plain(each, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            check_plain(each, f"{key}[{index}]")
    elif isinstance(value, str) and "${" in value:
        raise UserError(f"{key}={value}: is an interpolation")


def _unknown(key: str, target: str, field: str, value: Any) -> str:
    """What the choice of a component lacks, which another choice gives it a value for."""
    options, others = options_of(key, target), holders(key, field)
    said = f"{key}={options[0]}" if len(options) == 1 else f"{key}._target_={target}"
    right = f"choose {key}={either(others)}, or add ~{key}.{field}" if others else f"add ~{key}.{field}"
    return f"{said}: has no field {field}, for which something else that is chosen gives {value}; {right}"


def typed(key: str, values: dict[str, Any], kind: type[T], refuses: str = "") -> T:
    """A dataclass from plain values, their types enforced. ``refuses``: the key whose values it may refuse, if it is
    not ``key``. Raises UserError."""
    cls: Any = kind
    try:
        return cast(T, OmegaConf.to_object(checked(cls, values)))
    except OmegaConfBaseException as error:
        raise UserError(_mistyped(key, values, error)) from error
    except ValueError as error:
        raise UserError(f"{refuses or key}.{error}") from error


def checked(cls: Any, values: Mapping[str, Any]) -> Container:
    """The fields of a dataclass with these plain values, whose types are enforced; to be looked at only: what has been
    checked is kept, as the jobs of a sweep have most components in common. Raises OmegaConfBaseException."""
    key = cls, repr(values)
    if key not in _CHECKED:
        if len(_CHECKED) >= KEPT:
            _CHECKED.clear()
        _CHECKED[key] = OmegaConf.merge(typed_fields(cls), values)
    return _CHECKED[key]


def _mistyped(key: str, values: dict[str, Any], error: OmegaConfBaseException) -> str:
    """Which field of a component has a value of the wrong type, and which type is right."""
    path = re.split(r"\[", str(error.full_key or ""))[0].split(".")
    if not path[0]:  # a whole section given as one value: the error names the value alone
        reason = str(error.msg).splitlines()[0]
        path = [next((name for name, value in values.items() if reason.endswith(f"value: {value}")), "")]
        return f"{key}.{path[0]}={shown(values.get(path[0]))}: not one value but a section; set its fields"
    value: Any = values
    for part in path:
        value = value.get(part, value.get(int(part)) if part.isdecimal() else None) if isinstance(value, dict) else None
    return misfit(error, f"{key}.{'.'.join(path)}={shown(value)}")


@dataclass
class CodecWrapping:
    """What stands around whichever codec is chosen. ``error_feedback``: with a residual, kept as ``feedback`` says.
    ``scope``, ``whole_below``: see Layerwise. ``transform``: of the vector, or of each layer, that the codec encodes.
    """

    error_feedback: bool = False
    scope: str = "model"
    whole_below: int = 0
    feedback: Feedback = dataclasses.field(default_factory=Feedback)
    transform: Transform = dataclasses.field(default_factory=Transform, metadata={"added": True})


def around_codec(node: dict[str, Any]) -> CodecWrapping:
    """Takes the fields of CodecWrapping out of the compress node. Raises UserError."""
    values = {f.name: node.pop(f.name) for f in dataclasses.fields(CodecWrapping) if f.name in node}
    feedback = values.get("error_feedback", False)
    if not isinstance(feedback, bool):
        raise UserError(f"compress.error_feedback={feedback}: not a truth value; give true or false")
    return typed("compress", values, CodecWrapping, "compress.feedback")


def wrap(codec: Compressor, around: CodecWrapping) -> Compressor:
    """The codec within what stands around it. Raises UserError for a pair that makes no sense."""
    try:
        codec = transformed(codec, around.transform)
    except ValueError as error:
        raise UserError(f"compress.transform.{error}") from error
    try:
        if around.scope != "model" or around.whole_below:
            codec = Layerwise(codec, around.scope, around.whole_below)
    except ValueError as error:
        raise UserError(f"compress.{error}") from error
    if not around.error_feedback and around.feedback != Feedback():
        raise UserError(
            "compress.error_feedback=false: compress.feedback has nothing to act on; give compress.error_feedback=true"
        )
    try:
        return ErrorFeedback(codec, around.feedback) if around.error_feedback else codec
    except ValueError as error:
        if str(error).startswith("error_feedback"):  # what is right is told with the keys of the codec
            wrong, _, right = str(error).partition("; give ")
            keys = ", or ".join(f"compress.{each}" for each in right.split(", or "))
            raise UserError(f"compress.{wrong}; give {keys}") from error
        raise UserError(f"compress.feedback.{error}") from error


def short(target: str) -> str:
    """commexp.compressors.topk.TopK -> topk (its file, as design has one component a file); else the class."""
    module = get_class(target).__module__
    return module.rsplit(".", 1)[-1] if module.startswith("commexp.") else target.rsplit(".", 1)[-1].lower()
