"""The graphs of several runs, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commexp.files import TABLE, read_bytes
from commexp.report.topology import draw_topology, read_weights
from commexp.run_folder import Run

MOST = 6  # graphs that are drawn; a sweep over seeds may have a random one for each


@dataclass(frozen=True)
class Graph:
    """``methods``: whose it is; ``run``: one that has it in its folder."""

    name: str
    run: Run
    methods: list[str] = field(default_factory=list)


def distinct_graphs(groups: Mapping[str, Sequence[Run]]) -> tuple[list[Graph], int]:
    """The first few graphs that differ, of those that can be drawn; and how many more there are."""
    graphs: dict[bytes, Graph] = {}
    more: set[bytes] = set()
    for name, runs in groups.items():
        for run in runs:
            source = run.folder / "topology.csv"
            content = read_bytes(source, TABLE) if source.is_file() else b""
            if content not in graphs:
                if not content or content in more or read_weights(run) is None:
                    continue
                if len(graphs) == MOST:
                    more.add(content)
                    continue
            graph = graphs.setdefault(content, Graph(_call(run), run))
            if name not in graph.methods:
                graph.methods.append(name)
    return list(graphs.values()), len(more)


def draw_graphs(groups: Mapping[str, Sequence[Run]], path: Path) -> list[Path]:
    """``path``.png and .pdf, from the second graph on with a number."""
    graphs = enumerate(distinct_graphs(groups)[0], start=1)
    return [p for n, g in graphs for p in draw_topology(g.run, path if n == 1 else path.with_name(f"{path.name}-{n}"))]


def _call(run: Run) -> str:
    topology = run.config.get("topology")
    kind = str(topology.get("_target_", "")).rpartition(".")[2] if isinstance(topology, dict) else ""
    return f"{kind or 'graph'}, {run.config.get('workers', '?')} workers"
