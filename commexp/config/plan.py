"""From a composed config to checked objects; every mistake becomes one ``UserError``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from commexp import __version__
from commexp.algorithms import Algorithm
from commexp.allocations import Allocation
from commexp.comm import AGGREGATIONS, ALL_GATHER, AUTO, SERVER, check_serves
from commexp.compressors import Compressor
from commexp.config.compatibility import check_pairs
from commexp.config.components import KINDS, around_codec, build, check_added, short, typed, wrap
from commexp.config.identity import RESULTS, sources
from commexp.config.messages import UserError, misfit, shown, unknown_key
from commexp.config.schema import COMPONENTS, UNHASHED, Config
from commexp.config.validation import check_bounds, check_length
from commexp.environment import quiet
from commexp.network import Network, Straggler
from commexp.problems import Dataset, Model, Partition, Prox
from commexp.ranks import joins
from commexp.topologies import Gossip, Topology

T = TypeVar("T")
TOO_MANY = 2**31


@dataclass
class Plan:
    """An experiment that has been checked as far as it can be without its data.

    ``config``: the typed config. ``resolved``: the same as plain values, components with all their fields.
    ``name``: the run folder's, ``<algo>-<compress>-<dataset>-<8 hex of what changes the result>``. ``identity``: 64
    hex of the same and of commexp's version. ``sources``: of components from outside, see identity.py.
    """

    config: Config
    resolved: dict[str, Any]
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

    @property
    def tolerates_stragglers(self) -> bool:
        """Whether real processes need not wait for each other: a server takes what comes, see server/."""
        return self.algorithm.asynchronous or (self.algorithm.coded and AGGREGATIONS[self.exchange].central)

    def check_processes(self, processes: int, said: str) -> None:
        """Raises UserError for a number of processes, ``said`` to be so many, over which workers cannot be spread, and
        for a compressor that cannot go with processes that nobody waits for."""
        workers, name = self.config.workers, self.name.split("-")[0]
        if self.algorithm.asynchronous and processes != workers + 1:
            raise UserError(
                f"{said}: algo={name} has a server and {workers} workers, each in a process; give {workers + 1}"
            )
        if not self.algorithm.asynchronous and workers % processes:
            raise UserError(f"{said}: {workers} workers cannot be spread evenly over it; give a divisor of workers")
        if self.algorithm.coded and self.tolerates_stragglers and processes > 1 and self.compressor.stateful_per_worker:
            raise UserError(
                f"compress={self.compressor.name}: what it keeps of a worker would be lost with its process; give "
                "compress.error_feedback=false, a codec without memory, or "
                f"comm.exchange={ALL_GATHER.name}"
            )

    @property
    def exchange(self) -> str:
        """``auto`` is a server where rounds go on without those who are late."""
        served = self.algorithm.coded or self.algorithm.asynchronous
        return SERVER.name if served and self.config.comm.exchange == AUTO else self.config.comm.exchange


@quiet()
def prepare(composed: DictConfig, given: Sequence[str] = ()) -> Plan:
    """Checks types and bounds and makes the components; ``given``: the overrides by which the config was composed.
    Raises UserError."""
    try:
        config = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), composed)))
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: has no value; give {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        found = OmegaConf.to_container(composed)  # as it was given, interpolations too
        for part in str(error.full_key).split("[")[0].split("."):
            found = found.get(part) if isinstance(found, dict) else None
        raise UserError(misfit(error, f"{error.full_key}={shown(found)}")) from error
    for key in map(str, composed):
        if key not in Config.__dataclass_fields__:
            raise UserError(unknown_key(key, [f"{key}={shown(composed[key])}"]))
    check_bounds(config)
    check_length(given, config.steps)
    nodes: dict[str, dict[str, Any]] = {name: dict(getattr(config, name) or {}) for name in COMPONENTS}
    check_added(given, nodes)
    around = around_codec(nodes["compress"])
    gossip = typed("gossip", config.gossip, Gossip)
    parts: dict[str, Any] = {name: build(nodes[name], name, kind) for name, kind in KINDS.items()}
    resolved = dataclasses.asdict(config)
    resolved.update({name: _describe(nodes[name], part) for name, part in parts.items()})
    resolved["compress"].update(dataclasses.asdict(around))
    resolved["gossip"] = dataclasses.asdict(gossip)
    _check_finite("", resolved)
    codec = parts["compress"]
    try:
        check_serves(codec, config.comm.exchange)
    except ValueError as error:
        raise UserError(f"comm.{error}") from error
    if around.error_feedback and around.feedback.momentum and getattr(parts["algo"], "momentum", 0):
        raise UserError(
            f"compress.feedback.momentum={around.feedback.momentum}: algo.momentum would add to it; give one of the two"
        )
    check_pairs(parts, {name: short(node["_target_"]) for name, node in nodes.items()}, config, around, gossip)
    outside = sources(resolved)
    words = [short(nodes[n]["_target_"]) for n in ("algo", "compress", "dataset")]
    return Plan(
        config,
        resolved,
        outside,
        name="-".join([*words, fingerprint(resolved, parts, outside)]),
        identity=fingerprint({**resolved, "commexp": __version__}, parts, outside, 32),
        dataset=parts["dataset"],
        partition=parts["partition"],
        allocation=parts["allocation"],
        model=parts["model"],
        prox=parts["prox"],
        topology=parts["topology"],
        gossip=gossip,
        compressor=wrap(codec, around),
        algorithm=parts["algo"],
        network=parts["network"],
        straggler=parts["straggler"],
    )


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


def fingerprint(resolved: dict[str, Any], parts: dict[str, Any], outside: dict[str, str], size: int = 4) -> str:
    """``size`` bytes, as hex digits, over what changes the result: not launch, outputs, ..., nor a field that only says
    where a file lies (metadata ``location``), whose content the field ``digest`` beside it stands for; but the source
    of components from ``outside``, and RESULTS. Where real processes decide whose message comes first, that is another
    result."""
    kept = {k: v for k, v in resolved.items() if k not in UNHASHED}
    kept.update({name: _without_locations(kept[name], part) for name, part in parts.items()})
    if parts["algo"].asynchronous and (joins() or resolved["launch"]["kind"] == "torchrun"):
        kept["inject"] = resolved["launch"]["inject"]
    kept.update(results=RESULTS, outside=outside)
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=size).hexdigest()


def _without_locations(described: Any, part: Any) -> Any:
    if not (dataclasses.is_dataclass(part) and isinstance(described, dict)):
        return described
    fields = {f.name: f for f in dataclasses.fields(part)}
    return {
        name: _without_locations(value, getattr(part, name)) if name in fields else value
        for name, value in described.items()
        if name not in fields or "location" not in fields[name].metadata
    }


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
