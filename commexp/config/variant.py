"""A plan with other methods: what Hydra would compose for a few words more, without composing it all again."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from commexp.algorithms import Algorithm
from commexp.compressors import Compressor
from commexp.config.components import around_codec, build, wrap
from commexp.config.overrides import parsed
from commexp.config.plan import Plan
from commexp.config.schema import option_of
from commexp.topologies import Topology


def variant(plan: Plan, preset: Mapping[str, Any], words: Sequence[str]) -> Plan:
    """The plan with another algorithm, compressor and, where ``words`` name one, topology; its ``config``, ``resolved``
    and name are those of ``plan``, and pairs are not checked. ``preset``: of its config. ``words``: overrides
    ``algo=...``, ``compress=...`` and fields of the two. A preset that chooses other groups, too, wants them named.
    Raises UserError."""
    choices = [parsed(word) for word in words]
    names = {c.key_or_group: str(c.value()) for c in choices if "." not in c.key_or_group}
    nodes = {group: copy.deepcopy(_node(group, name, json.dumps(dict(preset)))) for group, name in names.items()}
    for choice in choices:
        *path, field = choice.key_or_group.split(".")
        if path:
            node: Any = nodes
            for part in path:
                node = node[part]
            node[field] = choice.value()
    around = around_codec(nodes["compress"])
    return dataclasses.replace(
        plan,
        names={**plan.names, **names},
        algorithm=build(nodes["algo"], "algo", Algorithm),
        compressor=wrap(build(nodes["compress"], "compress", Compressor), around),
        topology=build(nodes["topology"], "topology", Topology) if "topology" in nodes else plan.topology,
    )


@cache
def _node(group: str, name: str, preset: str) -> dict[str, Any]:
    return option_of(group, name, json.loads(preset))
