"""The errors that end a run, and how they are said: what is wrong, and what would be right, in one line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf.errors import ConfigAttributeError, ConfigKeyError, KeyValidationError, OmegaConfBaseException

from commexp.config.schema import example, known_keys
from commexp.ranks import NEEDED, joins


class UserError(Exception):
    """``<key>=<value>: <what is wrong>; <what would be right>``: printed as it is, exit status 2."""


class LaunchError(RuntimeError):
    """Processes that did not come together, or one that was lost. ``lost``: gone or silent, if the cause lies in
    another process. ``others``: ids of the run's other processes, as far as they are known."""

    def __init__(self, text: str, lost: str = "", others: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.lost, self.others = lost, others


def misfit(error: OmegaConfBaseException, given: str) -> str:
    """What is wrong with the value of an override, ``given`` as it was typed or as ``key=value``, and what to type."""
    key, _, value = given.lstrip("+").partition("=")
    reason = str(error.msg or error).splitlines()[0].strip()
    owner = error.object_type if isinstance(error.object_type, type) and is_dataclass(error.object_type) else None
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and owner is not None and "not in" in reason:
        return f"{given}: no such key; {near(str(error.key), [f.name for f in fields(owner)])}"
    if isinstance(error, KeyValidationError):
        return f"{given}: not keyed by whole numbers; give such as {key.rpartition('.')[0]}={{0:...}}"
    if key.startswith("hydra."):
        return f"{given}: does not fit; see commexp --cfg hydra"
    if "nterpolation" in reason:
        missing = re.search(r"[Ii]nterpolation key '([^']+)'|Environment variable '([^']+)'", reason)
        about = f"there is no {missing[1] or missing[2]}" if missing else "cannot be resolved"
        return f"{given}: {about}; give a value, such as {example(key)}"
    hint = get_type_hints(owner).get(str(error.key)) if owner is not None else error.ref_type
    if type_in_words(hint) == SECTION:
        inner = [name for name in known_keys() if name.startswith(f"{key}.")]
        return f"{given}: one value for a section; give its fields{f', such as {example(inner[0])}' if inner else ''}"
    right = example(key)
    if hint is int and re.fullmatch(r"[+-]?\d+(\.0*)?([eE]\+?\d{1,2})?", value):
        right = f"{key}={int(float(value))}"
    elif "list" in type_in_words(hint) and value and value[0] not in "[{" and value != "null":
        right = f"{key}=[{value}]"
    elif hint is bool:
        right = f"{key}=true or {key}=false"
    elif right.endswith("=..."):
        right = f"{key}={1 if 'whole' in type_in_words(hint) else 0.5 if 'number' in type_in_words(hint) else 'null'}"
    return f"{given}: is not {type_in_words(hint)}; give {right}"


SECTION = "a section"


def type_in_words(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, UnionType):
        kinds = set(get_args(hint))
        null = ", or null" if type(None) in kinds else ""
        kinds -= {type(None)}
        return f"{type_in_words(float if kinds == {int, float} else kinds.pop())}{null}"
    words: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if get_origin(hint) is list:
        return "a list of " + words.get(get_args(hint)[0], "values").removeprefix("a ") + "s"
    return words.get(hint, SECTION)


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


def near(word: str, options: Iterable[str]) -> str:
    options = sorted(options)
    close = difflib.get_close_matches(word, options, n=3, cutoff=0.5)
    if close:
        return f"did you mean {either(close)}?"
    return f"give one of {', '.join(options)}" if len(options) < 12 else "see commexp --help"


def either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
