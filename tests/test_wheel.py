"""The wheel holds everything a user needs, and works from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import environment

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_an_installed_wheel_runs_from_another_folder(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"commexp/conf/{path.relative_to(ROOT / 'conf')}" in names
    for path in (ROOT / "commexp").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    for path in (ROOT / "commexp" / "report" / "templates").iterdir():
        assert str(path.relative_to(ROOT)) in names
    assert {"commexp/py.typed", "commexp/check/claims.yaml"} <= names
    assert not [n for n in names if n.startswith(("tests/", "outputs/", "scripts/"))]

    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {**environment(), "PYTHONPATH": str(site)}
    where = subprocess.run(
        [sys.executable, "-c", "import commexp; print(commexp.__file__)"],
        cwd=elsewhere, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site)), "the wheel's own package must be the one that runs"
    done = subprocess.run(
        [sys.executable, "-m", "commexp", "algo=regtopk", "rounds=2", "model.width=8"],
        cwd=elsewhere, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "outputs" / "runs").is_dir()
