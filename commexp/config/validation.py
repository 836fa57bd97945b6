"""What a config may not say: words that mean nothing in it, and values out of range that belong to no component."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from commexp.config.components import CodecWrapping, any_class
from commexp.config.messages import UserError
from commexp.config.overrides import Word
from commexp.config.schema import TRACKERS, Config, Stop
from commexp.problems import POLICIES, WAYS

DTYPES = ("float32", "float64")
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}", re.ASCII)
LONGEST = 10**7  # rounds or local steps: what is planned for each takes memory, and a run's tables have a row for each


def check_words(given: Sequence[str], config: Config, nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """What the overrides that a user has typed cannot mean beside the config that they have made, with a ``_target_``
    and fields in ``nodes``.

    Raises UserError where they say twice how long the run is; where they say it in rounds and an experiment says it in
    ``steps``, beside which rounds count for nothing; and where one with a plus gives a component a field that its class
    does not have.
    """
    words = [word for word in map(Word.read, given) if word.sign != "~"]
    lengths = {w.key: w.unsigned for w in words if w.key in ("rounds", "steps") and w.unsigned != "steps=null"}
    if len(lengths) == 2:
        raise UserError(f"{lengths['rounds']} {lengths['steps']}: both say how long the run is; give one of the two")
    if "rounds" in lengths and config.steps is not None:
        raise UserError(
            f"{lengths['rounds']}: this experiment is steps={config.steps} long; give steps=..., or add steps=null"
        )
    for word in words:
        group, _, field = word.key.partition(".")
        if not (word.sign and field and "_target_" in nodes.get(group, ())):
            continue
        cls = any_class(str(nodes[group]["_target_"]), group)
        if not dataclasses.is_dataclass(cls):
            continue
        fields = [*dataclasses.fields(cls), *(dataclasses.fields(CodecWrapping) if group == "compress" else ())]
        if field.partition(".")[0] not in {f.name for f in fields}:
            raise UserError(f"{word.unsigned}: no such key of {cls.__name__}; leave it out, or see commexp --cfg job")


def one_target(given: Sequence[str], config: Config) -> tuple[float | None, float | None]:
    """``target_accuracy`` and ``target_loss``, of which one at most has a value: one that a user has typed stands in
    place of the other, which the dataset has by default. Raises UserError where both are typed, or neither is and both
    have a value."""
    accuracy, loss = config.target_accuracy, config.target_loss
    if accuracy is None or loss is None:
        return accuracy, loss
    typed = {word.key for word in map(Word.read, given)} & {"target_accuracy", "target_loss"}
    if len(typed) != 1:
        raise UserError(f"target_accuracy={accuracy} target_loss={loss}: two targets; give one of the two")
    return (accuracy, None) if typed == {"target_accuracy"} else (None, loss)


def steps_of(given: Sequence[str], config: Config) -> int | None:
    """``steps``; None where a user has typed ``rounds`` alone, which stands in place of the steps that the dataset has
    by default. An experiment's steps stay: ``check_words`` refuses rounds beside them."""
    typed = {word.key for word in map(Word.read, given)}
    return None if "rounds" in typed and not typed & {"steps", "experiment"} else config.steps


def check_stop(stop: Stop) -> None:
    """Raises UserError for the first value out of range."""
    if stop.accuracy is not None and not 0 < stop.accuracy <= 1:
        raise UserError(f"stop.accuracy={stop.accuracy}: out of range; give a share in (0, 1] such as 0.95")
    for name, right in (("loss", "a loss such as 1.5"), ("bytes", "bytes such as 1e9"), ("seconds", "seconds")):
        value = getattr(stop, name)
        if value is not None and not value > 0:
            raise UserError(f"stop.{name}={value}: must be positive; give {right}")


def check_bounds(c: Config) -> None:
    """Raises UserError for the first value out of range."""
    for key in ("workers", "rounds", "eval_every"):
        if getattr(c, key) < 1:
            raise UserError(f"{key}={getattr(c, key)}: must not be less than 1; give 1 or more")
    if c.islands is not None and c.islands < 1:
        raise UserError(f"islands={c.islands}: must not be less than 1; give a divisor of workers")
    if not 0 < c.participation <= 1:
        raise UserError(
            f"participation={c.participation}: out of range; give the share of workers in a round, in (0, 1]"
        )
    if c.steps is not None and c.steps < 1:
        raise UserError(f"steps={c.steps}: must not be less than 1; give 1 or more, or null for a number of rounds")
    for key, length in (("rounds", c.rounds), ("steps", c.steps)):
        if length is not None and length > LONGEST:
            raise UserError(f"{key}={length}: longer than a run can be; give {LONGEST} or less")
    if c.flatness not in ("none", "valley", "landscape"):
        raise UserError(f"flatness={c.flatness}: unknown; give none, valley or landscape")
    if c.speed.workers not in WAYS:
        raise UserError(f"speed.workers={c.speed.workers}: unknown; give one of {', '.join(WAYS)}")
    if c.speed.compile and c.speed.workers not in ("auto", "loop"):
        raise UserError(f"speed.workers={c.speed.workers}: torch.compile goes worker by worker; give auto or loop")
    if c.speed.accumulate < 1:
        raise UserError(f"speed.accumulate={c.speed.accumulate}: must not be less than 1; 1 is the whole batch at once")
    if c.name is not None and not NAME.fullmatch(c.name):
        raise UserError(f"name={c.name}: no name of a folder; give up to 40 letters, digits and ._-")
    if c.save_every is not None and c.save_every < 1:
        raise UserError(f"save_every={c.save_every}: must not be less than 1; give rounds, or null for every 10 s")
    if c.batch_size is not None and c.batch_size < 1:
        raise UserError(
            f"batch_size={c.batch_size}: must not be less than 1; give 1 or more, or null for the full batch"
        )
    for name in c.track:
        if name not in TRACKERS:
            raise UserError(f"track=[{name}]: unknown; give some of {', '.join(TRACKERS)}")
    if not c.outputs:
        raise UserError("outputs=: empty; give a folder such as outputs")
    if c.seed < 0:
        raise UserError(f"seed={c.seed}: must not be negative; give 0 or more")
    if c.dtype not in DTYPES:
        raise UserError(f"dtype={c.dtype}: unknown; give {' or '.join(DTYPES)}")
    if c.on_nonfinite not in POLICIES:
        raise UserError(f"on_nonfinite={c.on_nonfinite}: unknown; give stop, skip or zero")
    if c.clip is not None and not c.clip > 0:
        raise UserError(f"clip={c.clip}: must be positive; give the largest norm of a gradient, such as 1.0, or null")
    if c.target_accuracy is not None and not 0 < c.target_accuracy <= 1:
        raise UserError(f"target_accuracy={c.target_accuracy}: out of range; give a share in (0, 1] such as 0.95")
    if c.target_loss is not None and not c.target_loss > 0:
        raise UserError(f"target_loss={c.target_loss}: must be positive; give a loss such as 1.5")
    check_stop(c.stop)
    if c.launch.kind not in ("single", "torchrun"):
        raise UserError(f"launch.kind={c.launch.kind}: unknown; give single or torchrun")
    if c.launch.device != "auto":
        check_device(c.launch.device)
    if c.launch.per_worker < 1:
        raise UserError(f"launch.per_worker={c.launch.per_worker}: must not be less than 1; give processes of a worker")
    if c.batch_size is not None and c.batch_size < c.launch.per_worker:
        raise UserError(
            f"launch.per_worker={c.launch.per_worker}: a batch of {c.batch_size} samples cannot be shared out; give "
            f"{c.batch_size} or less"
        )
    if c.launch.nproc < 1:
        raise UserError(f"launch.nproc={c.launch.nproc}: must not be less than 1; give a number of processes")
    if not 0 <= c.launch.port < 65536:
        raise UserError(f"launch.port={c.launch.port}: out of range; give a port below 65536, or 0 for a free one")
    if not c.launch.timeout > 0:
        raise UserError(f"launch.timeout={c.launch.timeout}: must be positive; give seconds")
    if c.launch.max_restarts < 0:
        raise UserError(f"launch.max_restarts={c.launch.max_restarts}: must not be negative; give 0 or more")
    if c.launch.threads is not None and c.launch.threads < 1:
        raise UserError(f"launch.threads={c.launch.threads}: must not be less than 1; give 1 or more, or null")


def check_device(name: str) -> None:
    """Raises UserError for what is no device anywhere; whether it is here, the run will see."""
    try:
        torch.device(name)
    except RuntimeError as error:
        _, colon, index = name.partition(":")
        right = f"launch.device=cuda{colon}{index}" if name.startswith("gpu") else "auto, cpu or cuda"
        raise UserError(f"launch.device={name}: no such device; give {right}") from error
