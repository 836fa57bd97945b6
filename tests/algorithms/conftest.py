"""Topologies of eight workers, for the tests of what runs on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
from algorithms.gossip_world import metropolis_dense
from hydra.utils import get_class
from omegaconf import OmegaConf
from registry import options

from commexp.refusals import CONF
from commexp.topologies import Topology


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, type[Topology] | Callable[..., Topology]]:
    """Every topology of conf/topology, to be called with the fields that all have."""
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "file.txt").write_text("".join(f"0 {n}\n{n} {n % 7 + 1}\n" for n in range(1, 8)))
    np.savetxt(folder / "matrix.txt", metropolis_dense(nx.cycle_graph(8)), fmt="%.17g")
    made: dict[str, Any] = {}
    for name in options("topology"):
        node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "topology" / f"{name}.yaml"))
        if node.get("path") == "???":
            node["path"] = str(folder / f"{name}.txt")
        cls = get_class(node.pop("_target_"))
        made[name] = lambda cls=cls, node=node, **fields: cls(**node, **fields)
    return made
