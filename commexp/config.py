"""From a composed config to checked objects; every mistake becomes one ``UserError``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from commexp.algorithms import Algorithm
from commexp.allocations import Allocation, Single
from commexp.bounds import check_bounds
from commexp.comm import check_carrier
from commexp.compressors import Compressor, ErrorFeedback, Feedback, Layerwise, NoCompression
from commexp.network import Network, Straggler
from commexp.problems import Dataset, Model, NoProx, Partition, Prox
from commexp.ranks import joins
from commexp.refusals import UserError
from commexp.schema import COMPONENTS, UNHASHED, Config
from commexp.topologies import Complete, Gossip, Topology

T = TypeVar("T")
logging.getLogger("hydra.utils").addHandler(logging.NullHandler())  # else it prints what we say in one line
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


@dataclass
class Plan:
    """An experiment that has been checked as far as it can be without its data.

    ``config``: the typed config. ``resolved``: the same as plain values, components with all their fields.
    ``name``: the run folder's, ``<algo>-<compress>-<dataset>-<8 hex of what changes the result>``.
    """

    config: Config
    resolved: dict[str, Any]
    name: str
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
    def goes_on(self) -> bool:
        """Whether real processes need not wait for each other: a server takes what comes, see comm.Served, comm.Hub."""
        return self.algorithm.asynchronous or (self.algorithm.coded and self.exchange == "server")

    def spread(self, processes: int) -> str:
        """What is wrong with so many processes for the workers; empty where nothing is."""
        workers = self.config.workers
        if self.algorithm.asynchronous:
            name = self.name.split("-")[0]
            right = f"algo={name} has a server and {workers} workers, each in a process; give {workers + 1}"
            return "" if processes == workers + 1 else right
        return f"{workers} workers cannot be spread evenly over it; give a divisor of workers" * (
            workers % processes > 0
        )

    @property
    def exchange(self) -> str:
        """``auto`` is a server where rounds go on without those who are late."""
        served = self.algorithm.coded or self.algorithm.asynchronous
        return "server" if served and self.config.comm.exchange == "auto" else self.config.comm.exchange


def prepare(composed: DictConfig) -> Plan:
    """Checks types and bounds and makes the components. Raises UserError."""
    try:
        config = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), composed)))
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: has no value; give {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {error.msg}") from error
    for key in map(str, composed):
        if key not in Config.__dataclass_fields__:
            raise UserError(f"{key}={composed[key]}: no such key; leave it out, or see commexp --help")
    check_bounds(config)
    nodes: dict[str, dict[str, Any]] = {name: dict(getattr(config, name) or {}) for name in COMPONENTS}
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
        check_carrier(codec, config.comm.exchange)
    except ValueError as error:
        raise UserError(f"comm.{error}") from error
    if around.error_feedback and around.feedback.momentum and getattr(parts["algo"], "momentum", 0):
        raise UserError(
            f"compress.feedback.momentum={around.feedback.momentum}: algo.momentum would add to it; give one of the two"
        )
    _check_pairs(parts, {name: short(node["_target_"]) for name, node in nodes.items()}, config, around, gossip)
    words = [short(nodes[n]["_target_"]) for n in ("algo", "compress", "dataset")]
    return Plan(
        config,
        resolved,
        name="-".join([*words, fingerprint(resolved, parts)]),
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


def typed(key: str, values: dict[str, Any], kind: type[T], refuses: str = "") -> T:
    """A dataclass from plain values, their types enforced. ``refuses``: the key whose values it may refuse, if it is
    not ``key``. Raises UserError."""
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values)))
    except OmegaConfBaseException as error:
        raise UserError(_mistyped(key, values, error) + "; commexp --cfg job shows a value that fits") from error
    except ValueError as error:
        raise UserError(f"{refuses or key}.{error}") from error


def _check_pairs(parts: dict[str, Any], names: dict[str, str], config: Config, around: Around, gossip: Gossip) -> None:
    """What the algorithm cannot do with the others."""
    algo, name = parts["algo"], names["algo"]
    if not algo.compressible and not isinstance(parts["compress"], NoCompression):
        raise UserError(
            f"compress={names['compress']}: algo={name} exchanges whole models, not what they have moved; give "
            f"compress=none, or algo={algo.compressed_by}"
        )
    if not algo.proximal and not isinstance(parts["prox"], NoProx):
        raise UserError(f"prox: algo={name} takes gradient steps alone; give prox=none, or algo=proxgt_sr_e")
    exchange = config.comm.exchange
    if algo.coded and exchange not in ("auto", "server", "all_gather"):
        raise UserError(
            f"comm.exchange={exchange}: needs every worker, and algo={name} goes on without those who are late; give "
            "server or all_gather"
        )
    if config.launch.inject and parts["network"].compute.kind == "measured":
        raise UserError(
            "launch.inject=true: network.compute.kind=measured has no seconds to sleep; give constant, lognormal, ..."
        )
    if config.launch.inject and algo.coded and exchange == "all_gather":
        raise UserError(
            "launch.inject=true: with comm.exchange=all_gather processes wait for each other, late or not; give server"
        )
    if algo.asynchronous and exchange not in ("auto", "server"):
        raise UserError(f"comm.exchange={exchange}: algo={name} exchanges with a server; give auto")
    if not algo.coded and parts["allocation"] != Single():
        raise UserError(
            f"allocation={names['allocation']}: algo={name} has no use for data that several workers hold; give "
            "allocation=single, or algo=gradient_coding"
        )
    if not algo.decentralised:
        if parts["topology"] != Complete() or gossip != Gossip():
            key = "topology" if parts["topology"] != Complete() else "gossip"
            raise UserError(f"{key}: algo={name} exchanges with all workers at once; leave it out, or give algo=dpsgd")
        return
    if around.error_feedback:
        raise UserError(
            f"compress.error_feedback=true: algo={name} keeps what compression leaves out itself; give false"
        )
    if exchange != "auto":
        raise UserError(f"comm.exchange={exchange}: algo={name} exchanges with neighbours; give auto")


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


def _check_finite(key: str, value: Any) -> None:
    """No setting of ours means anything at infinity."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_finite(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_finite(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: not a finite number; give one")


def fingerprint(resolved: dict[str, Any], parts: dict[str, Any]) -> str:
    """8 hex digits over what changes the result: not launch, outputs, ..., nor a field that only says where a file
    lies (metadata ``location``). Where real processes decide whose message comes first, that is another result."""
    kept = {k: v for k, v in resolved.items() if k not in UNHASHED}
    if parts["algo"].asynchronous and (joins() or resolved["launch"]["kind"] == "torchrun"):
        kept["inject"] = resolved["launch"]["inject"]
    for name, part in parts.items():
        if dataclasses.is_dataclass(part):
            where = {f.name for f in dataclasses.fields(part) if "location" in f.metadata}
            kept[name] = {k: v for k, v in kept[name].items() if k not in where}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=4).hexdigest()


def _describe(node: dict[str, Any], part: Any) -> dict[str, Any]:
    """The node with every field of the object made from it, defaults included."""
    return {**node, **dataclasses.asdict(part)} if dataclasses.is_dataclass(part) else node  # type: ignore[arg-type]


def short(target: str) -> str:
    """commexp.compressors.topk.TopK -> topk (its file, as design has one component a file); else the class."""
    module = get_class(target).__module__
    return module.rsplit(".", 1)[-1] if module.startswith("commexp.") else target.rsplit(".", 1)[-1].lower()
