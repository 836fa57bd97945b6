"""Who may import whom (design): checked on every module's import statements."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "commexp"
LEAVES: dict[str, set[str]] = {
    "seeding": set(),
    "state": set(),
    "units": set(),
    "ranks": set(),
    "listing": {"files"},
    "files": set(),
    "locks": set(),
    "streams": set(),
}  # may be imported by all
ALLOWED = {
    **LEAVES,
    "algorithms": {"allocations", "comm", "compressors"},
    "comm": {"compressors", "topologies"},
    "compressors": set(),
    "problems": set(),
    "topologies": set(),
    "diagnostics": set(),
    "flatness": {"diagnostics", "problems", "rundir"},
    "network": set(),
    "allocations": set(),
    "report": {"rundir"},
    "integrations": {"comm", "compressors", "rundir"},
    "batch": {"api", "rundir"},
    "check": {"api", "batch", "comm", "components", "compressors", "config", "refusals", "report", "rundir"},
    "rundir": set(),
    "books": {"checkpoint", "comm", "network", "rundir"},
    "checkpoint": {"comm", "rundir"},
    "interrupts": set(),
    "progress": set(),
    "environment": set(),
    "identity": {"refusals"},
    "provenance": {"identity"},
    "schema": set(),
    "refusals": {"schema"},
    "overrides": {"refusals", "schema"},
    "bounds": {"problems", "refusals", "schema"},
    "components": {"algorithms", "allocations", "compressors", "network", "problems", "refusals", "topologies"},
    "pairs": {"allocations", "components", "compressors", "problems", "refusals", "schema", "topologies"},
    "config": {
        "algorithms", "allocations", "bounds", "comm", "components", "compressors", "host", "identity", "network",
        "pairs", "problems", "refusals", "schema", "topologies",
    },
    "host": {"environment"},
    "parts": {"components", "config", "refusals", "topologies"},
    "trial": {
        "algorithms", "asynchrony", "books", "comm", "compressors", "config", "network", "parts", "problems",
        "refusals", "rundir",
    },
    "accounts": {"comm", "network", "provenance", "trial"},
    "asynchrony": {"algorithms", "checkpoint", "comm", "compressors", "config", "network", "problems", "rundir"},
    "following": {"asynchrony", "comm", "interrupts", "trial"},
    "inventory": {"trial"},
    "running": {
        "accounts", "books", "comm", "config", "flatness", "integrations", "interrupts", "inventory", "problems",
        "progress", "provenance", "rundir", "trial",
    },
    "runner": {"comm", "config", "following", "refusals", "rundir", "running"},
    "compare": {"api", "config", "network", "refusals", "replay", "report", "rundir"},
    "replay": {"algorithms", "allocations", "books", "comm", "components", "network", "refusals", "rundir"},
    "launch": {"comm", "config", "environment", "refusals", "rundir", "runner"},
    "sweep": {"config", "progress", "refusals", "report", "rundir", "runner", "schema", "trial"},
    "api": {"config", "host", "launch", "overrides", "refusals", "report", "rundir", "sweep"},
    "cli": {"config", "launch", "overrides", "refusals", "report", "rundir", "sweep"},
    "__main__": {"cli"},
    "__init__": {"api", "rundir"},
}  # fmt: skip


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports when it runs; what only type checkers read does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
    return {name.split(".")[1] for name in names if name.startswith("commexp.")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_stay_within_the_walls(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in ALLOWED, f"{room} is a new room: say in this test what it may import"
    beyond = imported_rooms(path) - ALLOWED[room] - LEAVES.keys() - {room}
    assert not beyond, f"{path.name} imports {sorted(beyond)}"


def test_no_room_without_a_name() -> None:
    names = {p.stem for p in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "misc"}


def test_the_entry_point_reads_like_a_table_of_contents() -> None:
    assert len((PACKAGE / "cli.py").read_text(encoding="utf-8").splitlines()) <= 100


def test_nothing_is_pickled() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pickle" not in text, path
        assert "torch.save" not in text, path
        assert "torch.load" not in text, path
