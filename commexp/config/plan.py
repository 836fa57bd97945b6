"""From a composed config to checked objects; every mistake becomes one ``UserError``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from commexp import __version__
from commexp.algorithms import Algorithm
from commexp.allocations import Allocation
from commexp.comm import AGGREGATIONS, ALL_GATHER, AUTO, SERVER, check_spread
from commexp.compressors import Compressor
from commexp.config.compatibility import check_pairs, check_theory
from commexp.config.components import KINDS, around_codec, build, short, typed, wrap
from commexp.config.identity import digest, sources, what_decides
from commexp.config.messages import UserError, misfit
from commexp.config.overrides import unknown_key
from commexp.config.schema import COMPONENTS, Config, shown, typed_fields
from commexp.config.theory import THEORY, theory_factor
from commexp.config.validation import check_bounds, check_words, one_target, steps_of
from commexp.environment import quiet
from commexp.network import Network, Participation, Straggler
from commexp.problems import Dataset, Model, Partition, Prox
from commexp.problems.own import imported
from commexp.topologies import Gossip, Islands, Topology

T = TypeVar("T")
TOO_MANY = 2**31
HANDED_OVER = "digest:"  # what stands in a config for a function that was handed over from Python begins with it


@dataclass
class Plan:
    """An experiment that has been checked as far as it can be without its data.

    ``config``: the typed config. ``resolved``: the same as plain values, components with all their fields. ``names``:
    of each component, by its group. ``sources``: of components from outside, see identity.py. ``name``: the run
    folder's, ``<algo>-<compress>-<dataset>-<8 hex of what changes the result>``. ``identity``: 64 hex of the same and
    of commexp's version. ``loss``, ``metrics``: the user's own functions, if any.
    ``lr_factor``: the learning rate over the step that theory allows; None where the learning rate is a number.
    ``given``: the overrides that were typed.
    """

    config: Config
    resolved: dict[str, Any]
    names: dict[str, str]
    sources: dict[str, str]
    name: str
    identity: str
    dataset: Dataset
    partition: Partition
    allocation: Allocation
    model: Model
    prox: Prox
    topology: Topology
    gossip: Gossip
    compressor: Compressor
    algorithm: Algorithm
    network: Network
    straggler: Straggler
    loss: Callable[..., Any] | None = None
    metrics: dict[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    lr_factor: float | None = None
    given: Sequence[str] = ()

    @property
    def tolerates_stragglers(self) -> bool:
        """Whether real processes need not wait for each other: a server takes what comes, see server/. They are in
        step where the server keeps sums of what the workers keep: a lost process would take its part along."""
        in_step = bool(self.algorithm.codec_kind)
        return self.algorithm.asynchronous or (self.calls and not in_step and AGGREGATIONS[self.exchange].central)

    @property
    def calls(self) -> bool:
        """Whether a round need not have every worker: a server calls those that are to take part."""
        return self.algorithm.drops_late or not self.participation.of_all

    @property
    def rejoins(self) -> bool:
        """Whether a process that was lost may come back in another round; then it keeps what its workers need."""
        return self.algorithm.rejoins or (not self.participation.of_all and self.tolerates_stragglers)

    @property
    def participation(self) -> Participation:
        """Of a method that needs every worker, everyone's: a config that says otherwise is refused."""
        return Participation(self.config.participation) if self.algorithm.samples_workers else Participation()

    def check_processes(self, processes: int, said: str) -> None:
        """Raises UserError if the workers cannot be spread over so many processes, or if the compressor does not work
        with processes that do not wait for each other. ``said``: the key and value that gave the number."""
        workers, name = self.config.workers, self.names["algo"]
        if self.algorithm.asynchronous and processes != workers + 1:
            raise UserError(
                f"{said}: algo={name} has a server and {workers} workers, each in a process; give {workers + 1}"
            )
        if not self.algorithm.asynchronous:
            try:
                check_spread(workers, self.islands, self.config.launch.per_worker, processes, said)
            except ValueError as error:
                raise UserError(str(error)) from error
        if self.algorithm.coded and self.tolerates_stragglers and processes > 1 and self.compressor.stateful_per_worker:
            raise UserError(
                f"compress={self.compressor.name}: what it keeps of a worker would be lost with its process; give "
                f"compress.error_feedback=false, a codec without memory, or comm.exchange={ALL_GATHER.name}"
            )
        if self.algorithm.drops_late and self.algorithm.codec_kind and processes > 1:
            raise UserError(
                f"algo.quorum={getattr(self.algorithm, 'quorum', None)}: algo={name} keeps the sum of what the workers "
                "keep, and a process that is lost would take its part of it along; give launch=single, or "
                "algo.quorum=null"
            )
        if self.calls and self.tolerates_stragglers and processes > 1 and self.compressor.learns:
            raise UserError(
                f"compress={self.compressor.name}: learns from the aggregate, which the server alone has here; give "
                f"compress=topk, or comm.exchange={ALL_GATHER.name}"
            )

    @property
    def islands(self) -> int | None:
        """How many groups of workers there are that act as one worker each, if any do."""
        grouped = isinstance(self.topology, Islands) and not self.algorithm.decentralised
        return self.config.islands if grouped else None

    @property
    def exchange(self) -> str:
        """``auto`` is a server where rounds need not have every worker."""
        served = self.calls or self.algorithm.asynchronous
        return SERVER.name if served and self.config.comm.exchange == AUTO else self.config.comm.exchange


@quiet()
def prepare(composed: DictConfig, given: Sequence[str] = (), foreign: bool = False) -> Plan:
    """Checks types and bounds and makes the components; ``given``: the overrides by which the config was composed;
    ``foreign``: see ``build``, and ``foreign_plan`` for what else is to be checked. Raises UserError."""
    is_typed = OmegaConf.get_type(composed) is Config  # as Hydra composes it from our schema
    try:
        whole = composed if is_typed else OmegaConf.merge(typed_fields(Config), composed)
        config = cast(Config, OmegaConf.to_object(whole))
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: has no value; give {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        value = OmegaConf.to_container(composed)  # as it was given, interpolations too
        for part in str(error.full_key).split("[")[0].split("."):
            value = value.get(part) if isinstance(value, dict) else None
        raise UserError(misfit(error, f"{error.full_key}={shown(value)}")) from error
    for key in map(str, composed):
        if key not in Config.__dataclass_fields__:
            raise UserError(unknown_key(key, [f"{key}={shown(composed[key])}"]))
    config.target_accuracy, config.target_loss = one_target(given, config)
    config.steps = steps_of(given, config)
    check_bounds(config)
    nodes: dict[str, dict[str, Any]] = {name: dict(getattr(config, name) or {}) for name in COMPONENTS}
    check_words(given, config, nodes)
    around, lr_factor = around_codec(nodes["compress"]), theory_factor(nodes["algo"])
    gossip = typed("gossip", config.gossip, Gossip)
    parts: dict[str, Any] = {name: build(nodes[name], name, kind, foreign) for name, kind in KINDS.items()}
    parts["algo"].run_seed = config.seed
    functions, loss, metrics = own_functions(config, parts)
    names = {name: short(node["_target_"]) for name, node in nodes.items()}
    names["dataset"] = parts["dataset"].called or names["dataset"]
    resolved = dataclasses.asdict(config)
    resolved.update({name: _describe(nodes[name], part) for name, part in parts.items()})
    resolved["compress"].update(dataclasses.asdict(around))
    if lr_factor is not None:
        resolved["algo"].update(lr=THEORY, lr_factor=lr_factor)
    resolved["gossip"] = dataclasses.asdict(gossip)
    _check_finite("", resolved)
    check_pairs(parts, names, config, around, gossip)
    if lr_factor is not None:
        check_theory(parts, names)
    outside = sources(resolved, functions)
    decisive = what_decides(resolved, parts, outside)
    return Plan(
        config,
        resolved,
        names,
        outside,
        name="-".join([names["algo"], names["compress"], config.name or names["dataset"], digest(decisive, 4)]),
        identity=digest({**decisive, "commexp": __version__}, 32),
        dataset=parts["dataset"],
        partition=parts["partition"],
        allocation=parts["allocation"],
        model=parts["model"],
        prox=parts["prox"],
        topology=parts["topology"],
        gossip=gossip,
        compressor=wrap(parts["compress"], around),
        algorithm=parts["algo"],
        network=parts["network"],
        straggler=parts["straggler"],
        loss=loss,
        metrics=metrics,
        lr_factor=lr_factor,
        given=tuple(given),
    )


def own_functions(
    config: Config, parts: dict[str, Any]
) -> tuple[list[str], Callable[..., Any] | None, dict[str, Callable[..., Any]]]:
    """Imports the user's own functions that a config names: the full names of all, the loss, and the metrics. Raises
    UserError for one that is not there, or fails."""
    factories = [part.factory for part in (parts["model"], parts["dataset"]) if getattr(part, "factory", "")]
    try:
        for part in (parts["model"], parts["dataset"]):
            part.resolve()
        handed_over = (config.loss or "").startswith(HANDED_OVER)
        loss = None if config.loss is None or handed_over else imported("loss", config.loss)
        named = {key: name for key, name in config.metrics.items() if not name.startswith(HANDED_OVER)}
        metrics = {key: imported(f"metrics.{key}", name) for key, name in named.items()}
    except ValueError as error:
        raise UserError(str(error)) from error
    losses = [] if loss is None else [str(config.loss)]
    return [*factories, *losses, *named.values()], loss, metrics


def _check_finite(key: str, value: Any) -> None:
    """No setting of ours means anything at infinity, and no count of ours is of another billion things."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_finite(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_finite(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: not a finite number; give one")
    elif isinstance(value, int) and abs(value) >= TOO_MANY and key != "seed":
        raise UserError(f"{key}={value}: too large; give less than {TOO_MANY}")


def _describe(node: dict[str, Any], part: Any) -> dict[str, Any]:
    """The node with every field of the object made from it, defaults included; so, too, of components within it."""
    if not dataclasses.is_dataclass(part):
        return node
    within = {
        name: _describe(value, getattr(part, name))
        for name, value in node.items()
        if isinstance(value, dict) and "_target_" in value
    }
    return {**node, **dataclasses.asdict(part), **within}  # type: ignore[arg-type]
