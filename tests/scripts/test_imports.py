"""What the scripts import of commexp is there: most of them run on no machine of a test."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_what_a_script_imports_is_there(script: str) -> None:
    for node in ast.walk(ast.parse((SCRIPTS / script).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("commexp"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
