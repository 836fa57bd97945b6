"""Which methods several runs are, in which order and under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from commexp.report.looks import BASELINE
from commexp.report.tables import DENSE, labels, words_of
from commexp.run_folder import Run

R = TypeVar("R", bound=Run)


def named(runs: Sequence[R], order: Sequence[str] = (), label: Mapping[str, str] | None = None) -> dict[str, list[R]]:
    """The runs by method. ``label``: new names, by the names that tables have, such as ``topk k=0.01``, or by algorithm
    and codec, such as ``sgd-topk``, or the codec alone: that begins the names of all such methods, and is the whole
    name of a single one. ``order``: the methods that come first, by old or new names or by ``sgd-topk``. Raises
    ValueError for those of no method, and for the same name for two methods."""
    groups: dict[str, list[R]] = {}
    for name, run in zip(labels(runs), runs, strict=True):
        groups.setdefault(name, []).append(run)
    new = {name: name for name in groups}
    for old, text in (label or {}).items():
        for name in (mine := _meant(groups, old, "label")):
            new[name] = text if len(mine) == 1 else text + _rest(name, groups[name][0])
    if twice := next((text for text in new.values() if [*new.values()].count(text) > 1), None):
        raise ValueError(f"label={twice}: two methods would have this name; give each its own, of {_listed(groups)}")
    by_new = {new[name]: name for name in groups}
    first = [name for word in order for name in ([by_new[word]] if word in by_new else _meant(groups, word, "order"))]
    return {new[name]: groups[name] for name in dict.fromkeys((*first, *groups))}


def _meant(groups: Mapping[str, Sequence[Run]], word: str, key: str) -> list[str]:
    if word in groups:
        return [word]
    words = {name: words_of(runs[0]) for name, runs in groups.items()}
    found = [name for name, told in words.items() if word in _short(*told)]
    if not found:
        raise ValueError(f"{key}={word}: no such method; give one of {_listed(groups)}")
    return found


def _short(algo: str, codec: str) -> tuple[str, ...]:
    """What a method may be called by."""
    dense = (DENSE,) if (algo, codec) == BASELINE else ()
    return (f"{algo}-{codec}", algo if codec == "none" else codec, *dense)


def _rest(name: str, run: Run) -> str:
    """Of a method's name, what comes after algorithm and codec."""
    algo, codec = words_of(run)
    for beginning in (f"{algo} {codec}", codec, algo, DENSE):
        before, found, rest = name.partition(beginning)
        if found and (not before or before.endswith(": ")):
            return rest
    return f" {name}"


def _listed(groups: Mapping[str, object], most: int = 12) -> str:
    names = [*groups]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
