"""A plan with other methods: what Hydra would compose for a few words more, without composing it all again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from commexp.algorithms import Algorithm
from commexp.compressors import Compressor
from commexp.config.components import around_codec, build, wrap
from commexp.config.overrides import parsed
from commexp.config.plan import Plan
from commexp.config.schema import CONF, node_of
from commexp.topologies import Topology

GROUPS = ("topology", "compress", "algo")


def variant(plan: Plan, composed: DictConfig, words: Sequence[str]) -> Plan:
    """The plan of the config ``composed`` with another algorithm, compressor and, where ``words`` name one, topology;
    its ``config``, ``resolved`` and name are those of ``plan``, and pairs are not checked. ``words``: overrides
    ``algo=...``, ``compress=...`` and fields of the two. A preset that chooses other groups, too, wants them named.
    Raises UserError."""
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words if "." not in word.partition("=")[0]}
    nodes = {group: node_of(CONF / group / f"{name}.yaml", group) for group, name in options.items()}
    for node in nodes.values():
        node.pop("defaults", None)
    common = cast(DictConfig, OmegaConf.load(CONF / "config.yaml"))
    whole = OmegaConf.create({"preset": composed.preset, **{g: common.get(g, {}) for g in options}})
    whole = cast(DictConfig, OmegaConf.merge(whole, nodes))
    for word in words:
        override = parsed(word)
        if "." in override.key_or_group:
            OmegaConf.update(whole, override.key_or_group, override.value())
    plain = cast("dict[str, Any]", OmegaConf.to_container(whole, resolve=True))
    around = around_codec(plain["compress"])
    topology = build(plain["topology"], "topology", Topology) if "topology" in plain else None
    return dataclasses.replace(
        plan,
        names={**plan.names, **options},
        algorithm=build(plain["algo"], "algo", Algorithm),
        compressor=wrap(build(plain["compress"], "compress", Compressor), around),
        topology=topology or plan.topology,
    )
