"""What may be configured: the typed part of the config, and, read from conf/, every group, option and key.

Imports no torch, so that ``commexp --help`` is quick.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Optional, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, ListConfig, OmegaConf

CONF = next(p for p in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf") if p.is_dir())
#: groups whose choice is a component: a node with ``_target_`` and that class's fields
COMPONENTS = (
    "dataset", "partition", "allocation", "model", "prox", "topology", "compress", "algo", "network", "straggler",
)  # fmt: skip


@dataclass
class Comm:
    """``exchange``: auto, or the name of one in comm/exchanges. ``deterministic``: sums in worker order and gradients
    worker by worker, so that any split of N over processes gives the same bits."""

    exchange: str = "auto"
    deterministic: bool = False


@dataclass
class Speed:
    """How gradients are computed. ``workers``: of several workers in one process: fold, vmap or loop; auto: of a
    model of at most 2^20 parameters the first of these that it allows, of a larger one loop. ``amp``: forward and
    backward pass in bfloat16 where torch's autocast does so. ``channels_last``: images with the channels innermost.
    ``compile``: by torch.compile, worker by worker. ``accumulate``: a batch's gradient is computed in so many pieces,
    one after the other, which saves memory."""

    workers: str = "auto"
    amp: bool = False
    channels_last: bool = False
    compile: bool = False
    accumulate: int = field(default=1, metadata={"added": True})


@dataclass
class Launch:
    """``kind``: single (one process) or torchrun (several on this host; of asynchronous methods a server and N
    workers). ``nproc``: processes, with N / nproc workers in each. ``per_worker``: D processes for each worker,
    nproc = N D in all, each of which computes the gradient of a D-th of the worker's batch.
    ``device``: auto, cpu, cuda or cuda:0, ...; auto takes a GPU where there is one. ``threads``: of torch, null leaves
    torch's choice, shared out among the processes. ``port``: where the server of methods that do not wait listens, 0
    for any free one. ``timeout``: seconds that they wait for each other. ``max_restarts``: how often they are started
    anew when one dies. ``inject``: every process sleeps in each round as long as network.compute and the straggler
    model say that its workers compute."""

    kind: str = "single"
    device: str = "auto"
    threads: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    nproc: int = 2
    per_worker: int = 1
    port: int = 0
    timeout: float = 300.0
    max_restarts: int = 0
    inject: bool = False


@dataclass
class Stop:
    """What ends a run before its full length; whichever comes first. ``accuracy``: a test accuracy of so much or more,
    at an evaluation. ``loss``: a test loss of so much or less, or a train loss where there is no test loss; at an
    evaluation. ``bytes``: so many bytes or more, sent by all workers, after a round. ``seconds``: so many or more on
    the virtual clock (of asynchronous methods over processes: real ones), after a round.

    The schedules of a method refer to the full length all the same."""

    accuracy: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045
    loss: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045
    bytes: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045
    seconds: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045


@dataclass
class Config:
    """The whole config. What does not change a result (``UNHASHED``) is left out of the run folder's name.

    ``preset``: values that a dataset or an experiment gives for fields of whichever component is chosen, and for
    ``clip``: conf/algo/* and conf/compress/* look there first. So an experiment may say k and still be run with a
    compressor without k.
    ``workers``: N. ``seed``: of everything that is drawn. ``batch_size``: samples of a worker in a step; null: all that
    it has. ``dtype``: float32 or float64. ``outputs``: the folder of runs and sweeps. ``rerun``: whether a finished run
    is run again.
    ``islands``: into how many groups topology=islands divides the workers. ``participation``: the share of the workers
    that take part in a round, drawn anew for each; those alone compute, receive and send, by way of a server.
    ``rounds``: the run's length in communications; ``steps``: in local steps of a worker instead, which makes methods
    with different numbers of local steps comparable. ``eval_every``: how many of them lie between two evaluations;
    counts whichever of the two is given. ``stop``: what ends the run before that.
    ``loss``, ``metrics``: full names of a user's own functions of a module and a batch, see problems/tasks.py.
    ``name``: what the run's folder is called in place of the dataset.
    ``flatness``: what is measured of the valley in which the models lie at the end: none, valley (its width, and
    sharpness) or landscape (also the loss on a line and a plane through the workers).
    ``on_nonfinite``: what NaN or Inf in a worker's gradient does: stop ends the run, skip makes that gradient zero for
    the round, zero only its bad entries. ``clip``: the largest norm of a worker's gradient on a batch; a longer one is
    scaled down before anything uses it; null: any. ``prox``: the convex term h beside the loss. ``allocation``: which
    subsets of the data the workers of coded methods hold. ``topology``, ``gossip``: who is whose neighbour, and how
    often decentralised methods mix. ``debug``: assert in every round what must hold in theory, such as equal means.
    ``save_every``: rounds between checkpoints; null: one every ten seconds. ``target_accuracy``, ``target_loss``: the
    test accuracy or, instead, the test loss for which tables say what reaching it cost. ``track``: who else is told the
    rows: tensorboard, mlflow, wandb, see integrations/tracking.py.
    """

    workers: int = 8
    islands: Optional[int] = field(default=None, metadata={"added": True})  # noqa: UP045
    participation: float = field(default=1.0, metadata={"added": True})
    seed: int = 0
    rounds: int = 500
    steps: Optional[int] = None  # noqa: UP045
    batch_size: Optional[int] = 16  # noqa: UP045
    eval_every: int = 10
    save_every: Optional[int] = None  # noqa: UP045
    dtype: str = "float32"
    on_nonfinite: str = "stop"
    clip: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045
    stop: Stop = field(default_factory=Stop)
    flatness: str = "none"
    debug: bool = False
    dataset: Any = None
    partition: Any = None
    allocation: Any = None
    model: Any = None
    loss: Optional[str] = field(default=None, metadata={"added": True})  # noqa: UP045
    metrics: dict[str, str] = field(default_factory=dict, metadata={"added": True})
    name: Optional[str] = field(default=None, metadata={"added": True})  # noqa: UP045
    prox: Any = None
    topology: Any = None
    gossip: dict[str, Any] = field(default_factory=dict)
    compress: Any = None
    algo: Any = None
    network: Any = None
    straggler: Any = None
    comm: Comm = field(default_factory=Comm)
    speed: Speed = field(default_factory=Speed)
    launch: Launch = field(default_factory=Launch)
    preset: dict[str, Any] = field(default_factory=dict)
    target_accuracy: Optional[float] = None  # noqa: UP045
    target_loss: Optional[float] = None  # noqa: UP045
    track: list[str] = field(default_factory=list)
    outputs: str = "outputs"
    rerun: bool = False


UNHASHED = ("preset", "save_every", "debug", "launch", "target_accuracy", "target_loss", "track", "outputs", "rerun")
TRACKERS = ("tensorboard", "mlflow", "wandb")  # modules of commexp.integrations, and extras of the package


def register() -> None:
    """Makes the schema known to Hydra as ``commexp_schema``, the first entry of conf/config.yaml's defaults."""
    ConfigStore.instance().store(name="commexp_schema", node=typed_fields(Config))


@cache
def typed_fields(cls: type[Any]) -> DictConfig:
    """A dataclass's fields, their types and defaults, as OmegaConf has them; to be copied, as merging does: reading
    them from the class takes longer."""
    fields = OmegaConf.structured(cls)
    assert isinstance(fields, DictConfig)
    return fields


@cache
def groups() -> tuple[str, ...]:
    """The folders of conf/: what a choice of components or an experiment is made from."""
    return tuple(sorted(p.name for p in CONF.iterdir() if p.is_dir()))


@cache
def added_groups() -> tuple[str, ...]:
    """Those of which nothing is chosen by default."""
    return tuple(group for group in groups() if default_option(group) == "?")


@cache
def _base() -> DictConfig:
    """conf/config.yaml; to be looked at only."""
    base = OmegaConf.load(CONF / "config.yaml")
    assert isinstance(base, DictConfig)
    return base


def default_option(group: str) -> str:
    """What conf/config.yaml chooses for a group."""
    defaults = _base().defaults
    return next((str(entry[group]) for entry in defaults if isinstance(entry, DictConfig) and group in entry), "?")


@cache
def top_keys() -> tuple[str, ...]:
    """The ``known_keys`` without a dot, for which only one file of conf/ is read."""
    keys = {*_flatten(typed_fields(Config)), *_flatten(_base()), *groups()}
    return tuple(sorted(key for key in keys if "." not in key))


@cache
def known_keys() -> tuple[str, ...]:
    """Every key and group that an override may name."""
    keys = {*_flatten(typed_fields(Config)), *_flatten(_base())}
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        keys |= {group, *_flatten(node_of(path, group), group + ".")}
    return tuple(sorted(keys))


def keys_meant(key: str) -> list[str]:
    """The keys that ``key`` may stand for: itself, or those that end with it, the shortest of each group."""
    if key in known_keys():
        return [key]
    ends = sorted((k for k in known_keys() if k.endswith(f".{key}")), key=lambda k: k.count("."))
    shortest: dict[str, str] = {}
    for name in ends:
        shortest.setdefault(name.partition(".")[0], name)
    return list(shortest.values())


def choices() -> str:
    """A paragraph per config group: its options. A group that fits on the last line of the one before shares it."""
    listed = {group: ", ".join(sorted(f.stem for f in (CONF / group).glob("*.yaml"))) for group in groups()}
    paragraphs: list[str] = []
    for name, text in listed.items():
        wide = textwrap.fill(f"{name}: {text}", 119, initial_indent="  ", subsequent_indent=" " * (len(name) + 4))
        if paragraphs and len(paragraphs[-1].rpartition("\n")[2]) + len(wide) <= 119:
            paragraphs[-1] += wide
        else:
            paragraphs.append(wide)
    return "\n".join(paragraphs)


def node_of(path: Path, group: str) -> DictConfig:
    """The part of a group's file that ends up under the group's own name, with what it has from files beside it."""
    node = OmegaConf.create()
    node.merge_with(*_layers(path, group))
    return node


def option_of(group: str, name: str, preset: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a group's option, on top of what conf/config.yaml says for every option, as plain values.
    ``preset``: what fields may look into first."""
    whole = OmegaConf.create({"preset": dict(preset), group: _base().get(group) or {}})
    whole[group].merge_with(*_layers(CONF / group / f"{name}.yaml", group))
    whole[group].pop("defaults", None)
    return cast("dict[str, Any]", OmegaConf.to_container(whole[group], resolve=True))


def _layers(path: Path, group: str) -> Iterator[DictConfig]:
    """What a file, and before it those that it has as defaults, say for the group; to be looked at only."""
    loaded, whole = _file(path)
    for entry in loaded.get("defaults", []):
        if isinstance(entry, str) and (beside := path.with_name(f"{entry.split('@')[0]}.yaml")).is_file():
            yield from _layers(beside, group)
    yield (loaded.get(group) or OmegaConf.create()) if whole else loaded


@cache
def _file(path: Path) -> tuple[DictConfig, bool]:
    """A file of conf/, to be looked at only, and whether it speaks of the whole config."""
    text = path.read_text(encoding="utf-8")
    loaded = OmegaConf.create(text)
    assert isinstance(loaded, DictConfig)
    return loaded, "@package _global_" in text


def _has(path: Path, group: str, leaf: str) -> bool:
    return leaf in _flatten(node_of(path, group))


def _flatten(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        if key in ("defaults", "_target_", "hydra"):
            continue
        yield f"{prefix}{key}"
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _flatten(value, f"{prefix}{key}.")


def options_of(group: str, target: str) -> list[str]:
    """The options of a config group that stand for this class."""
    return [p.stem for p in sorted((CONF / group).glob("*.yaml")) if node_of(p, group).get("_target_") == target]


def holders(group: str, leaf: str) -> list[str]:
    """The options of a config group that have this key."""
    return [p.stem for p in sorted((CONF / group).glob("*.yaml")) if _has(p, group, leaf)] if leaf else []


def example(key: str) -> str:
    """``key=value`` with the value that it has by default, or in the first option that has one."""
    if key in groups():
        return f"{key}={default_option(key)}"
    value: Any = OmegaConf.select(typed_fields(Config), key, throw_on_missing=False)
    group, _, leaf = key.partition(".")
    if value is None and leaf:
        value = _plain(_base(), key)
    for path in sorted((CONF / group).glob("*.yaml")) if leaf else ():
        if value is None and (node := node_of(path, group)) is not None:
            value = _plain(node, leaf)
    if isinstance(value, DictConfig) or value is None:
        return f"{key}.<field>=..." if isinstance(value, DictConfig) else f"{key}=..."
    return f"{key}={shown(value)}".replace(" ", "")


def _plain(node: DictConfig, leaf: str) -> Any:
    """A field's value; of one that looks into the presets first, what it finds where there is none."""
    *path, name = leaf.split(".")
    for part in path:
        inner = node._get_node(part) if part in node else None
        if not isinstance(inner, DictConfig):
            return None
        node = inner
    value = node._get_node(name) if name in node else None
    raw = getattr(value, "_value", lambda: None)()
    preset = re.fullmatch(r"\$\{oc\.select:[\w.]+,(.*)\}", raw) if isinstance(raw, str) else None
    if preset:
        return preset[1]
    return None if isinstance(raw, str) and ("${" in raw or raw == "???") else value if isinstance(raw, dict) else raw


def shown(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, dict | DictConfig):
        return "{" + ",".join(str(key) + ":" + shown(each) for key, each in value.items()) + "}"
    if isinstance(value, list | tuple | ListConfig):
        return f"[{','.join(map(shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
