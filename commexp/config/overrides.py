"""The words that a user types: flags and overrides, what Hydra can read of them, and what is wrong with the rest."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Any, NoReturn

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from commexp import __version__
from commexp.config.messages import UserError, either, misfit, near
from commexp.config.schema import (
    COMPONENTS,
    added_groups,
    default_option,
    example,
    groups,
    holders,
    keys_meant,
    known_keys,
    top_keys,
)

TYPOGRAPHIC = "‐‑‒–—−"  # dashes  # noqa: RUF001
QUOTES = str.maketrans("“”„‟«»‘’‚‛", '"' * 6 + "'" * 4)  # noqa: RUF001
KEY = r"(\+{1,2}|~)?[A-Za-z_$][\w$./@:-]*"
CLOSES = {"[": "]", "{": "}", "(": ")"}
FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|int|float|str|bool)\s*\(")  # of Hydra's grammar
DEVICES = "network/compute"  # a group in the folder of another one; its options are typed network.compute=h100
RENAMED = {  # experiments, by the names that they had up to version 0.1.0
    "async_logistic_small": "async_logistic_breast_cancer",
    "async_ratings_small": "async_ratings",
    "dppf_small": "dppf_fashion_mnist",
    "lowcomm_small": "lowcomm_text",
    "onebit_images_small": "onebit_digits",
}
FIELD = re.compile(rf"({'|'.join(COMPONENTS)})\.[\w.]+=")


@dataclass(frozen=True)
class Word:
    """One override as it was typed. ``sign``: +, ++, ~ or nothing. ``key``: without a package (@...). ``value``: None
    where there is no '='."""

    text: str
    sign: str
    key: str
    value: str | None

    @classmethod
    def read(cls, text: str) -> Word:
        name, equals, value = text.partition("=")
        key = name.lstrip("+~")
        meant = key.partition("@")[0].replace(DEVICES, DEVICES.replace("/", "."))
        return cls(text, name.removesuffix(key), meant, value if equals else None)

    @property
    def unsigned(self) -> str:
        return self.text.removeprefix(self.sign)


def arranged(words: Sequence[str]) -> list[str]:
    """A command line with its flags in front, as Hydra's parser wants it, and overrides that Hydra can read. Raises
    UserError for a word that is neither."""
    flags, overrides = _flags_and_overrides(words)
    sweep = any(word in ("-m", "--multirun") for word in flags) or "hydra.mode=MULTIRUN" in overrides
    given = legible(overrides)
    return [*flags, *(map(_choice_of_one, given) if sweep else given)]


def legible(overrides: Sequence[str]) -> list[str]:
    """The overrides with quotes where Hydra's grammar asks for them, as in outputs=ausgänge, and with ``~`` replaced by
    the home folder, as a shell would do, and with ``network.compute=h100`` as the choice of an option. Raises UserError
    for one that cannot be meant as it stands."""
    _check_spaces(overrides)
    return [_device(_legible(_renamed(word))) for word in overrides]


def _renamed(text: str) -> str:
    """``+experiment=NAME`` by the name that an experiment has now; the user is told of it."""
    word = Word.read(text)
    if word.key != "experiment" or word.value is None:
        return text
    names = word.value.split(",")
    for name in RENAMED.keys() & {*names}:
        print(f"commexp: note: experiment={name} is called {RENAMED[name]} now", file=sys.stderr, flush=True)
    return text.replace(word.value, ",".join(RENAMED.get(name, name) for name in names))


def _device(text: str) -> str:
    """``network.compute=NAME`` as Hydra spells the choice of an option; anything else as it is."""
    word = Word.read(text)
    chosen = word.key == DEVICES.replace("/", ".") and not word.sign and word.value and word.value[0] != "{"
    return f"{DEVICES}={word.value}" if chosen else text


def _flags_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    parser = get_args_parser()
    for action in parser._actions:
        if isinstance(action, argparse._VersionAction):
            action.version = f"commexp {__version__}"
    flags = sorted((flag for action in parser._actions for flag in action.option_strings), key=len)

    def refuse(message: str) -> NoReturn:
        reason = re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", " ".join(message.split()))
        raise UserError(f"{reason}; see commexp --help")

    parser.error = refuse  # type: ignore[method-assign]
    for word in words:
        if re.match(r"-+[^\W\d][\w./@]*=", word) and not any(f.startswith(word.split("=")[0]) for f in flags):
            raise UserError(f"{word}: overrides have no dashes; give {_meant(word.lstrip('-'))}")
        if word and word[0] in TYPOGRAPHIC:
            name = word.lstrip(TYPOGRAPHIC + "-")
            raise UserError(f"{word}: a typographic dash; give {'-' if len(name) == 1 else '--'}{name}")
    given, extras = parser.parse_known_intermixed_args(list(words))
    overrides = [*given.overrides, *(word for word in extras if not word.startswith("-"))]
    for word in extras:
        if word.startswith("-"):
            key, value = word.lstrip("-"), (*words[words.index(word) + 1 :], "...")[0]
            if keys_meant(key):
                raise UserError(f"{word}: no such flag; give {_meant(f'{key}={value}')}")
            near = difflib.get_close_matches(word, flags, n=1)
            raise UserError(f"{word}: no such flag; {f'did you mean {near[0]}?' if near else 'see commexp --help'}")
    if given.package not in (None, "_global_") and given.package.partition(".")[0] not in ("hydra", *known_keys()):
        raise UserError(f"--package {given.package}: no such part of the config; give one such as algo")
    if given.experimental_rerun is not None:
        raise UserError("--experimental-rerun: runs whatever the file holds; repeat the command, or give rerun=true")
    rest = list(words)
    for word in overrides:
        rest.remove(word)
    return rest, overrides


def _meant(word: str) -> str:
    """The override with its key in full, where one key alone can be meant."""
    key, equals, value = word.partition("=")
    full = keys_meant(key)
    return f"{full[0] if len(full) == 1 else key}{equals}{value}"


def _check_spaces(overrides: Sequence[str]) -> None:
    """Raises UserError for ``seed = 3``, which a shell makes three words of."""
    for before, word, *after in zip_longest(overrides, overrides[1:], overrides[2:], fillvalue=""):
        if not word:
            continue
        if word.startswith("=") and "=" not in before:
            value = word.lstrip("=") or "".join(after)
            raise UserError(f"{before} {word}: spaces around '='; give {before}={value}")
        if before.endswith("=") and before.count("=") == 1 and "=" not in word and word not in known_keys():
            raise UserError(f"{before} {word}: a space after '='; give {before}{word}")
        if before.endswith(",") and "=" in before and "=" not in word:
            raise UserError(f"{before} {word}: a space after ','; give {before}{word}")


def _legible(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        _check_valueless(word)
        return word
    if not key.strip(" +~"):
        raise UserError(f"{word}: has no key; give key=value, such as {example('algo')}")
    if key != key.strip():
        raise UserError(f"{word}: spaces around '='; give {key.strip()}={value.strip()}")
    override = _parsed(word)
    if override is None:
        for reason in _mistakes(word, key, value):
            raise UserError(f"{word}: {reason}")
        word = f"{key}={_quoted(value)}"
        override = _parsed(word)
    if override is None:
        raise UserError(f"{key}={value}: cannot be read; put quotes around it: '{key}=\"{value}\"'")
    _check_override(word, override)
    return word


def _parsed(word: str) -> Override | None:
    try:
        return parsed(word)
    except HydraException:
        return None


@lru_cache(4096)
def parsed(word: str) -> Override:
    """What Hydra reads in an override; to be looked at only. Many runs and the jobs of a sweep have words in common.
    Raises HydraException."""
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


def _check_valueless(word: str) -> None:
    """Raises UserError for a word without '='."""
    if word.startswith("~hydra"):
        return
    if word.startswith("~"):
        _check_taken_out(word, word[1:])
        return
    if not word.strip(" =+"):
        raise UserError(f"'{word}': says nothing; leave it out")
    key, colon, value = word.partition(":")
    if colon and keys_meant(key):
        raise UserError(f"{word}: no '='; give {_meant(f'{key}={value}')}")
    if word in known_keys() or len(keys_meant(word)) == 1:
        key = keys_meant(word)[0]
        raise UserError(f"{word}: has no value; give {example(key)}")
    raise UserError(f"{word}: is not key=value; give such as algo=topk, see commexp --help")


def _check_taken_out(word: str, key: str) -> None:
    """Raises UserError for what every run needs: all but the fields of components, which have defaults of their own."""
    if FIELD.match(f"{key}=") and key in known_keys():
        return
    if key in groups():
        raise UserError(f"{word}: a run needs one; choose another with {key}=..., see commexp --help")
    if key in known_keys():
        raise UserError(f"{word}: a run needs it; leave it out, or give {example(key)}")
    raise UserError(unknown_key(key, [word]))


def _mistakes(word: str, key: str, value: str) -> Iterator[str]:
    """Why an override that cannot be read must be a mistake, and what to type; nothing where quotes may help."""
    if not re.fullmatch(KEY, key, re.ASCII):
        yield "no such key; see commexp --help"
    if value.startswith("="):
        yield f"two '='; give {key}={value.lstrip('=')}"
    plain = value.translate(QUOTES)
    if plain != value:
        yield f"typographic quotes; give {key}={plain.replace(chr(34), '').replace(chr(39), '')}"
    several = re.findall(r"[^\s=]+\s*=\s*[^\s=]+", word)
    if re.search(r"\s\S+=", value) and len(several) > 1:
        yield f"several overrides in one pair of quotes; give {' '.join(several)}"
    tidy = ",".join(part.strip() for part in value.split(",") if part.strip())
    if tidy != value and re.search(r"(^|,)\s*(,|$)", value):
        yield f"a comma without a value; give {key}={tidy}"
    if "${" in value and "}" not in value:
        yield f"${{...}} is not closed; give a value, such as {example(key)}"
    if value.count('"') % 2 or value.count("'") % 2:
        bare = value.replace('"', "").replace("'", "")
        yield f"a quote that is not closed; give {key}={bare}"
    closed = _closed(value) if re.search(r"[\[{]|\w\s*\(", value) else re.sub(r"[(){}\[\]]", "", value)
    if _closed(value) != value and closed != value:
        yield f"brackets that do not match; give {key}={closed}"
    if function := FUNCTION.match(value):
        yield f"{function[1]}(...) cannot be evaluated; give the values, such as {key}=1,2,3"


def _closed(value: str) -> str:
    """The value with its brackets closed, and without those that close nothing."""
    open_, kept = [], ""
    for letter in value:
        if letter in CLOSES:
            open_.append(CLOSES[letter])
        elif letter in CLOSES.values():
            if not open_ or open_[-1] != letter:
                continue
            open_.pop()
        kept += letter
    return kept + "".join(reversed(open_))


def _quoted(value: str) -> str:
    """The value with quotes around each part of it that Hydra cannot read without: of a sweep, or of a list."""
    parts, depth = [""], 0
    for letter in value:
        depth += (letter in CLOSES) - (letter in CLOSES.values())
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    if len(parts) > 1:
        return ",".join(map(_quoted, parts))
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        return f"[{_quoted(text[1:-1])}]"
    text = os.path.expanduser(text) if text.startswith("~") else text
    if _parsed(f"key={text}") is not None:
        return text
    escaped = text.replace("\\", "\\\\") if text.endswith("\\") else text
    return '"' + escaped.replace('"', '\\"') + '"'


def _check_override(word: str, override: Override) -> None:
    """Raises UserError for what Hydra would refuse, or take, in words or ways that say nothing of commexp."""
    key, group, sweep = override.key_or_group, override.key_or_group in groups(), override.is_sweep_override()
    if override.is_delete() and not key.startswith("hydra"):
        _check_taken_out(word, key)
    if override.is_add() and not FIELD.match(f"{key}=") and key in known_keys() and key not in added_groups():
        raise UserError(f"{word}: it is there already; give {word.lstrip('+')}")
    added = override.is_add() or override.is_force_add()
    if added and re.split(r"[./]", key)[0] not in (*top_keys(), "hydra"):
        raise UserError(unknown_key(key, [word.lstrip("+")]))
    value = "" if sweep else override.value()
    if group and isinstance(value, list) and len(value) == 1:
        raise UserError(f"{word}: takes one option, not a list; give {key}={value[0]}")
    if group and not isinstance(value, str | dict):
        raise UserError(f"{word}: takes the name of an option; give one such as {example(key)}")


def _choice_of_one(word: str) -> str:
    """In a sweep, a single value for a component's field as a choice of one.

    Hydra applies single values already to the config that it composes before the sweep, where ``algo=topk,regtopk``
    has not been chosen yet and ``compress.k=0.01`` finds no k.
    """
    override = _parsed(word) if FIELD.match(word) else None
    if override is None or override.is_sweep_override():
        return word
    name, _, value = word.partition("=")
    return f"{name}=choice({value})"


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra's composition."""
    if isinstance(error, UserError):
        return str(error)
    text = re.sub(r"\s*See https://hydra\S* for details", "", str(error))
    if isinstance(error, MissingConfigException):
        if error.missing_cfg_file is None:
            return "--config-path: no such folder; leave it out"
        missing: Any = error.missing_cfg_file
        if error.options is None:
            return f"--config-name: there is no config {missing} here; leave it out"
        group, _, choice = str(missing).rpartition("/")
        name = as_typed(group.replace("/", ".") if group == DEVICES else group, overrides).partition("=")[0]
        return f"{name}={choice}: no such option; {near(choice, error.options)}"
    there = re.search(r"An item is already at '([^']+)'", text)
    if there:
        given = as_typed(there[1], overrides)
        return f"{given}: it is there already; give {Word.read(given).unsigned}"
    unknown = re.search(r"Could not (?:override|append to|delete from config|find)\D*? '([^']+)'", text)
    if unknown:
        return unknown_key(unknown[1].removeprefix("config."), overrides)
    merging = re.search(r"Error merging override ([^\n]*)", text)
    if merging and isinstance(error.__cause__, OmegaConfBaseException):
        return misfit(error.__cause__, as_typed(Word.read(merging[1]).key, overrides))
    if "Config group override must be a string" in text:
        given = as_typed(DEVICES.replace("/", "."), overrides)
        return f"{given}: neither a device nor a section; give network.compute=h100, or network.compute.seconds=0.02"
    several = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^\n]*?)'(?: requires|\n|$)", text)
    if several:
        key, _, value = several[1].replace(DEVICES, DEVICES.replace("/", ".")).partition("=")
        listed = f", or give {key}=[{value}]" if example(key).partition("=")[2].startswith("[") else ""
        return f"{key}={value}: several values; add -m to run one after the other{listed}"
    if "does not support sweep type" in text:
        return f"{' '.join(overrides)}: an interval has no end of values; give values, or hydra/sweeper=optuna"
    twice = re.search(r"Multiple values for ([\w/@.]+)", text)
    if twice:
        return f"{as_typed(twice[1], overrides)}: {twice[1]} has a value already; give it once, without a plus"
    about = " ".join(text.split()) or type(error).__name__
    return f"{' '.join(overrides)}: {about}; see commexp --help"


def unknown_key(key: str, overrides: Sequence[str]) -> str:
    given = as_typed(key, overrides)
    unsigned = Word.read(given).unsigned
    if key in groups() and key not in added_groups():
        return f"{given}: {key} has no such field; commexp --cfg job shows those that it has"
    if key in added_groups():
        return f"{given}: {'an' if key[0] in 'aeiou' else 'a'} {key} is added to the config; give +{unsigned}"
    group, _, leaf = key.partition(".")
    others = holders(group, leaf)
    if others:
        values = [word.value for word in map(Word.read, overrides) if not word.sign and word.key == group]
        chosen = values[-1] if values and values[-1] else default_option(group)
        return f"{given}: {group}={chosen} has no '{leaf}'; choose {group}={either(others)}, or leave it out"
    if key.startswith("hydra."):
        return f"{given}: no such key of Hydra's; see commexp --cfg hydra"
    value = Word.read(given).value or ""
    if full := [f"{name}={value}" for name in keys_meant(key) if name != key]:
        return f"{given}: no such key; give {either(full)}"
    return f"{given}: no such key; {near(key, known_keys())}"


def as_typed(key: str, overrides: Sequence[str]) -> str:
    """The override that names ``key``; the key itself where none does."""
    return next((text for text in overrides if Word.read(text).key == key), key)


@contextmanager
def composing_once(words: Sequence[str]) -> Iterator[None]:
    """Hydra composes the config a first time to see whether ``hydra.mode`` asks for a sweep. Nothing in our conf/ does,
    so that takes a word that names Hydra's keys, or a folder or file of the user's own; otherwise -m decides."""
    asks = Hydra.get_mode
    if not any("hydra." in word or word.startswith(("-c", "--config")) for word in words):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = asks  # type: ignore[method-assign]
