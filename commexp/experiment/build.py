"""What the parts of a plan make of its number of workers, or why they cannot."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from commexp.config.components import short
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.topologies import Mixer

if TYPE_CHECKING:
    from commexp.allocations import Assignment


def make_mixer(plan: Plan) -> Mixer:
    """Raises UserError for a graph that does not fit."""
    try:
        return Mixer(plan.topology, plan.gossip, plan.config.workers, plan.config.seed)
    except ValueError as error:
        raise UserError(keyed(str(error), "topology", plan.topology)) from error


def make_held(plan: Plan) -> Assignment:
    """Raises UserError for an allocation that does not fit."""
    try:
        return plan.allocation.allocation(plan.config.workers, plan.config.seed)
    except ValueError as error:
        raise UserError(keyed(str(error), "allocation", plan.allocation)) from error


def keyed(text: str, group: str, part: Any) -> str:
    """A part's complaint, with the key that the user knows where it is about one of the part's own fields."""
    own = text.partition("=")[0] in {f.name for f in fields(part)}
    return f"{group}.{text}" if own else text


def check_gossiped(plan: Plan, dim: int) -> None:
    """Raises UserError for a codec whose messages neighbours cannot use: gossip takes what contracts."""
    codec, name = plan.compressor, short(plan.resolved["compress"]["_target_"])
    if codec.phases > 1 or codec.delta(dim) is None:
        why = "its decoding takes a sum over all workers" if codec.phases > 1 else "it does not contract"
        raise UserError(f"compress={name}: {why}, so it cannot go with gossip; give compress=topk, or sign")
