"""Components from their nodes in the config: what ``_target_`` names, with its fields checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from hydra.utils import get_class
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from commexp.compressors import Compressor, ErrorFeedback, Feedback, Layerwise
from commexp.refusals import UserError, either, holders, options_of

T = TypeVar("T")


def build(node: dict[str, Any], key: str, kind: type[T]) -> T:
    """The object that ``node`` (``_target_`` and fields) describes; a dataclass's field types are enforced.

    Raises UserError if the target cannot be found, is no ``kind``, or refuses its fields.
    """
    target = str(node.get("_target_"))
    try:
        cls = get_class(target)
    except Exception as error:
        raise UserError(
            f"{key}._target_={target}: cannot be imported ({' '.join(str(error).split())}); give a class's full name"
        ) from error
    if not issubclass(cls, kind):
        raise UserError(f"{key}._target_={target}: is no {kind.__name__}; give a subclass of it")
    if dataclasses.is_dataclass(cls):
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := next((name for name in node if name not in known and name != "_target_"), None):
            raise UserError(_unknown(key, target, unknown, node[unknown]))
    values = {
        name: build(value, f"{key}.{name}", object) if isinstance(value, dict) and "_target_" in value else value
        for name, value in node.items()
        if name != "_target_"
    }
    try:
        if dataclasses.is_dataclass(cls):
            return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values)))
        return cls(**values)
    except OmegaConfBaseException as error:
        raise UserError(_mistyped(key, values, error) + f"; see {target}") from error
    except ValueError as error:
        raise UserError(f"{key}.{error}") from error
    except TypeError as error:
        raise UserError(f"{key}._target_={target}: {error}; give its fields their values") from error


def _unknown(key: str, target: str, field: str, value: Any) -> str:
    """What the choice of a component lacks, which another choice gives it a value for."""
    options, others = options_of(key, target), holders(key, field)
    said = f"{key}={options[0]}" if len(options) == 1 else f"{key}._target_={target}"
    right = f"choose {key}={either(others)}, or add ~{key}.{field}" if others else f"add ~{key}.{field}"
    return f"{said}: has no field {field}, for which something else that is chosen gives {value}; {right}"


def typed(key: str, values: dict[str, Any], kind: type[T], refuses: str = "") -> T:
    """A dataclass from plain values, their types enforced. ``refuses``: the key whose values it may refuse, if it is
    not ``key``. Raises UserError."""
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values)))
    except OmegaConfBaseException as error:
        raise UserError(_mistyped(key, values, error) + "; commexp --cfg job shows a value that fits") from error
    except ValueError as error:
        raise UserError(f"{refuses or key}.{error}") from error


def _mistyped(key: str, values: dict[str, Any], error: OmegaConfBaseException) -> str:
    """Which field of a component has a value of the wrong type, and which type is right."""
    field = str(error.full_key).split(".")[0].split("[")[0]
    reason = str(error.msg).splitlines()[0].replace("incompatible with type hint", "no")
    if not field:  # a whole section given as one value: the error names the value alone
        field = next((name for name, value in values.items() if reason.endswith(f"value: {value}")), "")
        reason = "not one value but a section; set its fields"
    if field in values:
        return f"{key}.{field}={values[field]}: {reason}"
    return f"{key}: {reason}"


@dataclass
class Around:
    """What stands around whichever codec is chosen. ``error_feedback``: with a residual, kept as ``feedback`` says.
    ``scope``, ``whole_below``: see Layerwise."""

    error_feedback: bool = False
    scope: str = "model"
    whole_below: int = 0
    feedback: Feedback = dataclasses.field(default_factory=Feedback)


def around_codec(node: dict[str, Any]) -> Around:
    """Takes the fields of Around out of the compress node. Raises UserError."""
    values = {f.name: node.pop(f.name) for f in dataclasses.fields(Around) if f.name in node}
    feedback = values.get("error_feedback", False)
    if not isinstance(feedback, bool):
        raise UserError(f"compress.error_feedback={feedback}: not a truth value; give true or false")
    return typed("compress", values, Around, "compress.feedback")


def wrap(codec: Compressor, around: Around) -> Compressor:
    """The codec within what stands around it. Raises UserError for a pair that makes no sense."""
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
        raise UserError(f"compress.feedback.{error}") from error


def short(target: str) -> str:
    """commexp.compressors.topk.TopK -> topk (its file, as design has one component a file); else the class."""
    module = get_class(target).__module__
    return module.rsplit(".", 1)[-1] if module.startswith("commexp.") else target.rsplit(".", 1)[-1].lower()
