"""Which components go together."""

from __future__ import annotations

from typing import Any

from commexp.algorithms import Algorithm
from commexp.allocations import Single
from commexp.comm import AGGREGATIONS, AUTO, SERVER, check_serves
from commexp.comm.exchanges import Aggregation
from commexp.compressors import Compressor, NoCompression
from commexp.compressors.base import MANY
from commexp.config.components import CodecWrapping
from commexp.config.messages import UserError
from commexp.config.schema import Config
from commexp.network import NoStragglers
from commexp.problems import NoProx
from commexp.topologies import Complete, Gossip, Islands


def check_pairs(
    parts: dict[str, Any], names: dict[str, str], config: Config, around: CodecWrapping, gossip: Gossip
) -> None:
    """Raises UserError for the first of ``parts`` that does not go with another. ``names``: of each, as one chooses it.
    ``around``: what stands around the codec."""
    algo, name = parts["algo"], names["algo"]
    try:
        check_serves(parts["compress"], config.comm.exchange)
    except ValueError as error:
        raise UserError(f"comm.{error}") from error
    if around.error_feedback and around.feedback.momentum and getattr(algo, "momentum", 0):
        raise UserError(
            f"compress.feedback.momentum={around.feedback.momentum}: algo.momentum would add to it; give one of the two"
        )
    if not algo.compressible and not isinstance(parts["compress"], NoCompression):
        raise UserError(
            f"compress={names['compress']}: algo={name} exchanges whole models, not what they have moved; give "
            f"compress=none, or algo={algo.compressible_alternative}"
        )
    if not algo.feeds_back and parts["compress"].learns:
        raise UserError(
            f"compress={names['compress']}: learns from the aggregate of all workers, which nobody has with "
            f"algo={name}; give compress=topk"
        )
    if not algo.proximal and not isinstance(parts["prox"], NoProx):
        raise UserError(f"prox: algo={name} takes gradient steps alone; give prox=none, or algo=proxgt_sr_e")
    exchange = config.comm.exchange
    named = AGGREGATIONS.get(exchange)  # None: auto
    if algo.drops_late and named is not None and not named.tolerates_stragglers:
        able = " or ".join(e.name for e in AGGREGATIONS.values() if e.tolerates_stragglers)
        raise UserError(
            f"comm.exchange={exchange}: needs every worker, and algo={name} goes on without those who are late; give "
            f"{able}"
        )
    if config.participation < 1:
        check_participation(algo, name, names["compress"], parts["compress"], config)
    if config.launch.inject and parts["network"].compute.kind == "measured":
        raise UserError(
            "launch.inject=true: network.compute.kind=measured has no seconds to sleep; give constant, lognormal, ..."
        )
    if config.launch.inject and algo.drops_late and named is not None and not named.central:
        raise UserError(
            f"launch.inject=true: with comm.exchange={exchange} processes wait for each other, late or not; give "
            f"{SERVER.name}"
        )
    by_seconds = algo.drops_late and not algo.coded  # not by who the straggler model says is late
    if by_seconds and parts["straggler"] != NoStragglers() and parts["network"].compute.is_instant:
        raise UserError(
            f"network.compute.seconds={parts['network'].compute.seconds}: all workers compute in no time, late ones "
            "too, so that they are ready together; give 0.01 or the like, or straggler=none"
        )
    central = algo.asynchronous or algo.drops_late or config.participation < 1 or exchange == SERVER.name
    alone = config.workers == 1 and not (central or algo.decentralised)
    if config.stop.seconds is not None and alone and parts["network"].compute.is_instant:
        raise UserError(
            f"stop.seconds={config.stop.seconds}: one worker sends nothing and computes in no time, so that its clock "
            "does not move; give network.compute.seconds=0.01 or the like"
        )
    if algo.asynchronous and named is not None and not named.central:
        raise UserError(f"comm.exchange={exchange}: algo={name} exchanges with a server; give auto")
    if not algo.coded and parts["allocation"] != Single():
        raise UserError(
            f"allocation={names['allocation']}: algo={name} has no use for data that several workers hold; give "
            "allocation=single, or algo=gradient_coding"
        )
    if around.error_feedback and algo.keeps_residual:
        raise UserError(
            f"compress.error_feedback=true: algo={name} keeps what compression leaves out itself; give false"
        )
    check_kind(parts, names, named)
    check_groups(parts, name, config)
    if not algo.decentralised:
        grouped = isinstance(parts["topology"], Islands)
        if (parts["topology"] != Complete() and not grouped) or gossip != Gossip():
            key = "topology" if parts["topology"] != Complete() else "gossip"
            raise UserError(f"{key}: algo={name} exchanges with all workers at once; leave it out, or give algo=dpsgd")
        return
    if named is not None:
        raise UserError(f"comm.exchange={exchange}: algo={name} exchanges with neighbours; give auto")


def check_kind(parts: dict[str, Any], names: dict[str, str], named: Aggregation | None) -> None:
    """Raises UserError for a codec that is not of the kind that an algorithm asks for, or whose messages, or those of
    the exchange ``named``, do not tell what the workers have sent."""
    algo, codec = parts["algo"], parts["compress"]
    said, name = f"compress={names['compress']}", f"algo={names['algo']}"
    if not algo.codec_kind:
        return
    if codec.phases > 1 or not codec.linear:
        raise UserError(
            f"{said}: the aggregate is not the mean of what the workers have sent, on which {name} builds; give "
            "compress=topk, or qsgd"
        )
    if algo.codec_kind == "contractive" and codec.delta(MANY) is None:
        own = f"compress.{codec.contracting}, " if codec.contracting else ""
        others = ", or algo=diana" if codec.unbiased else ""
        raise UserError(f"{said}: does not contract, and {name} needs that; give {own}compress=topk, or sign{others}")
    if algo.codec_kind == "unbiased" and codec.omega(MANY) is None:
        raise UserError(
            f"{said}: is biased, and {name} needs an unbiased one; give compress=qsgd, natural, or randk with "
            "compress.rescale=true, or algo=ef21"
        )
    if named is not None and not named.exact:
        raise UserError(
            f"comm.exchange={named.name}: compresses the sum, too, which {name} would not notice; give auto"
        )


def check_theory(parts: dict[str, Any], names: dict[str, str]) -> None:
    """Raises UserError for algo.lr=theory with a method of which no step is known, in islands, or with a prox."""
    if not parts["algo"].has_theory:
        raise UserError(
            f"algo.lr=theory: no step is known for algo={names['algo']}; give a number, or algo=ef21, diana, ..."
        )
    if isinstance(parts["topology"], Islands) and not parts["algo"].decentralised:
        raise UserError("algo.lr=theory: no step is known for workers in islands; give a number, or no islands")
    if not isinstance(parts["prox"], NoProx):
        raise UserError("algo.lr=theory: no step is known with a proximal term; give a number, or prox=none")


def check_participation(algo: Algorithm, name: str, codec_name: str, codec: Compressor, config: Config) -> None:
    """Raises UserError where a share of the workers cannot take part in a round; ``name``, ``codec_name``: as one
    chooses them."""
    share, exchange = config.participation, config.comm.exchange
    if not algo.samples_workers:
        raise UserError(
            f"participation={share}: algo={name} needs every worker in every round; give 1, or algo=localsgd, "
            "diloco, ... without algo.fragments, delay and mix"
        )
    if exchange not in (AUTO, SERVER.name):
        raise UserError(
            f"comm.exchange={exchange}: with participation={share} a server calls those that take part; give {AUTO} or "
            f"{SERVER.name}"
        )
    if codec.learns:
        raise UserError(
            f"compress={codec_name}: learns from the aggregate of all workers, which nobody but the server has with "
            f"participation={share}; give compress=topk"
        )
    if codec.phases > 1:
        raise UserError(
            f"compress={codec_name}: takes a sum over all workers before it sends, and with participation={share} some "
            "have no part in it; give compress=topk"
        )


def check_groups(parts: dict[str, Any], name: str, config: Config) -> None:
    """Raises UserError for islands, or workers of several processes, that an algorithm cannot have; ``name``: its."""
    algo, topology = parts["algo"], parts["topology"]
    if not isinstance(topology, Islands):
        if config.islands is not None:
            raise UserError(f"islands={config.islands}: needs topology=islands; give both, or leave it out")
    else:
        try:
            topology.members(config.workers)
        except ValueError as error:
            raise UserError(str(error)) from error
        if config.launch.per_worker > 1 and not algo.decentralised:
            raise UserError(
                f"launch.per_worker={config.launch.per_worker}: the members of an island share gradients already; give "
                "1, and more workers"
            )
    if getattr(algo, "inside", 1) > 1 and (algo.decentralised or not isinstance(topology, Islands)):
        right = "1" if algo.decentralised else "topology=islands islands=..., or 1"
        raise UserError(f"algo.inside={algo.inside}: no islands act as one worker here; give {right}")
    alone = algo.asynchronous or algo.coded or algo.drops_late or config.participation < 1
    if config.participation < 1:
        name = f"{name} participation={config.participation}"
    if alone and isinstance(topology, Islands):
        raise UserError(
            f"topology=islands: with algo={name} every worker's message counts by itself; give algo=sgd, diloco, ..."
        )
    if alone and config.launch.per_worker > 1:
        raise UserError(
            f"launch.per_worker={config.launch.per_worker}: with algo={name} a worker is one process; give 1"
        )
