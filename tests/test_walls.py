"""Who may import whom (design): checked on every module's import statements."""

from __future__ import annotations

import ast
from pathlib import Path

import networkx as nx
import pytest

from commexp.comm import EXCHANGES

PACKAGE = Path(__file__).parent.parent / "commexp"
LEAVES: dict[str, set[str]] = {
    "seeding": set(),
    "state": set(),
    "metrics": set(),
    "ranks": set(),
    "files": set(),
    "environment": set(),
    "run_folder": set(),
}  # may be imported by all
ALLOWED = {
    **LEAVES,
    "compressors": set(),
    "topologies": set(),
    "allocations": set(),
    "network": set(),
    "problems": set(),
    "diagnostics": set(),
    "report": set(),
    "comm": {"compressors", "network", "topologies"},
    "algorithms": {"allocations", "comm", "compressors"},
    "integrations": {"comm", "compressors", "report"},
    "config": {"algorithms", "allocations", "comm", "compressors", "network", "problems", "topologies"},
    "server": {"algorithms", "comm", "compressors", "config", "network", "problems"},
    "experiment": {
        "algorithms", "allocations", "comm", "compressors", "config", "diagnostics", "integrations", "network",
        "problems", "server", "topologies",
    },
    "launch": {"comm", "config", "experiment", "report", "server"},
    "api": {"config", "launch", "report"},
    "check": {"api", "comm", "compressors", "config", "report"},
    "cli": {"api", "check", "compressors", "config", "experiment", "launch", "report"},
    "__main__": {"cli"},
    "__init__": set(),
}  # fmt: skip
ROOMS, FILES = 16, 10  # folders and files in commexp/


def named(path: Path) -> str:
    return ".".join(("commexp", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {named(path) for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Modules of ours that a module imports when it runs; what only type checkers read does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    modules = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and n.module:
            inside = {f"{n.module}.{alias.name}" for alias in n.names}
            modules |= (inside & MODULES) or {n.module}
    return modules & MODULES


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_stay_within_the_walls(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in ALLOWED, f"{room} is a new room: say in this test what it may import"
    rooms = {module.split(".")[1] for module in imported(path) if "." in module}
    beyond = rooms - ALLOWED[room] - LEAVES.keys() - {room}
    assert not beyond, f"{path.name} imports {sorted(beyond)}"


def test_no_circle_of_files() -> None:
    graph = nx.DiGraph((named(path), other) for path in PACKAGE.rglob("*.py") for other in imported(path))
    assert [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == []


def test_the_house_has_rooms() -> None:
    inside = [p for p in PACKAGE.iterdir() if p.name not in ("__pycache__", "py.typed")]
    assert sum(p.is_dir() for p in inside) <= ROOMS
    assert sum(p.is_file() for p in inside) <= FILES


def test_no_room_without_a_name() -> None:
    names = {p.stem for p in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "misc"}


def test_the_entry_point_reads_like_a_table_of_contents() -> None:
    assert len((PACKAGE / "cli" / "run.py").read_text(encoding="utf-8").splitlines()) <= 100


def test_every_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_an_exchange_is_named_in_its_own_file_alone() -> None:
    """Apart from a key of the config and the label of an HMAC, no other file knows a kind of exchange by a string."""
    elsewhere = {
        (str(path.relative_to(PACKAGE)), node.value)
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "exchanges"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in EXCHANGES
    }
    assert elsewhere == {
        ("config/compatibility.py", "gossip"),
        ("config/plan.py", "gossip"),
        ("launch/sweep.py", "gossip"),
        ("server/channel.py", "server"),
    }


def test_nobody_asks_what_kind_of_links_there_are() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                kinds = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                assert not kinds & {"Links", "Processes", "ServerEndpoint", "WorkerEndpoint"}, path


def test_nothing_is_pickled() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pickle" not in text, path
        assert "torch.save" not in text, path
        assert "torch.load" not in text, path
