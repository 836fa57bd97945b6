"""Bundles: one zip archive with all that runs and sweeps have left, which anybody can check, read and repeat.

    manifest.json                   format, commexp's version, what made each run, size and SHA-256 of every file
    runs/<name>/...                 config.yaml, meta.json, tables, summary, log, figures
    sweeps/<name>/...               tables, jobs, figures

The same runs give the same archive, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from commexp import __version__, files
from commexp.run_folder import Run, as_json, write_atomic

FORMAT = 1
MANIFEST = "manifest.json"
NAME = r"\w[\w.,+=-]{0,200}"
FIGURE = r"figures/[\w-]+\.(?:png|pdf)"
KINDS = {  # what a folder leaves; all else stays where it is, such as checkpoints
    "runs": rf"config\.yaml|meta\.json|summary\.(?:json|md)|run\.log|logs/rank-\d+\.log|\w+\.csv|{FIGURE}",
    "sweeps": rf"jobs/\d{{1,9}}\.json|multirun\.yaml|optimization_results\.yaml|\w+\.(?:csv|md|tex)|{FIGURE}",
}
MEMBER = re.compile("|".join(f"{kind}/(?:{NAME})/(?:{inside})" for kind, inside in KINDS.items()))
MADE_BY = ("status", "commexp", "results", "git_commit", "python", "torch", "packages", "machine", "device", "threads")
LARGEST = 2**31  # bytes of an archive
MOST = 100_000  # files
DATE = (1980, 1, 1, 0, 0, 0)  # of every file: the first that a zip can have


def pack(runs: Sequence[Path], sweeps: Sequence[Path], path: Path) -> int:
    """Writes the archive of these folders in one step; returns its bytes. Raises ValueError for what cannot be packed,
    OSError for what cannot be read or written."""
    members = {**_members("runs", runs), **_members("sweeps", sweeps)}
    if len(members) > MOST:
        raise ValueError(f"{len(members)} files are more than the {MOST} of a bundle; give fewer runs")
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    listed = {}
    try:
        with zipfile.ZipFile(hidden, "x", zipfile.ZIP_DEFLATED) as archive:
            for name, file in members.items():
                content = files.read_bytes(file, _limit(name))
                if name.startswith("sweeps/") and "/jobs/" in name:
                    content = as_json({**json.loads(content), "outputs": "../.."}).encode()  # its runs lie beside it
                listed[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)
            manifest = {
                "format": FORMAT,
                "commexp": __version__,
                "runs": {run.name: _made_by(Run(run).meta) for run in runs},
                "sweeps": [sweep.name for sweep in sweeps],
                "files": listed,
            }
            archive.writestr(zipfile.ZipInfo(MANIFEST, DATE), as_json(manifest), zipfile.ZIP_DEFLATED)
        size = hidden.stat().st_size
        os.rename(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    return size


def _made_by(meta: dict[str, Any]) -> dict[str, Any]:
    commit = meta.get("git_commit")
    known = {key: meta[key] for key in MADE_BY if meta.get(key) is not None}
    return {**known, "dirty": commit.endswith("-dirty")} if isinstance(commit, str) else known


def _members(kind: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The files to pack by their name in the archive. Raises ValueError."""
    found: dict[str, Path] = {}
    for folder in folders:
        inside = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        named = {f"{kind}/{folder.name}/{path.relative_to(folder).as_posix()}": path for path in inside}
        named = {name: path for name, path in named.items() if MEMBER.fullmatch(name)}
        if not named:
            raise ValueError(f"{folder}: holds nothing to pack; give a run that has begun")
        if found.keys() & named.keys():
            raise ValueError(f"{folder}: another one has the same name; pack the two apart")
        found |= named
    return found


def _limit(name: str) -> int:
    return files.TABLE if name.endswith((".csv", ".log")) else files.DOCUMENT


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Checks the archive, which may be anybody's, and writes its files into the new ``folder``, in one step; returns
    its manifest. Raises ValueError for what is no sound bundle; then nothing is written. Raises OSError for a file that
    cannot be read or a folder that cannot be written, or is there already."""
    if os.path.lexists(folder):
        raise FileExistsError(17, "is there already", str(folder))
    hidden = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        with files.open_regular(path, LARGEST) as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    manifest = _manifest(archive, path.stat().st_size)
                    for name, content in _contents(archive, manifest["files"]):
                        write_atomic(hidden / name, content)
            except (*files.UNPACKING, NotImplementedError, RuntimeError, RecursionError) as error:
                if isinstance(error, OSError) and error.filename is not None:  # ours, not the archive
                    raise
                raise ValueError(f"a damaged archive ({files.reason(error)})") from error
        os.rename(hidden, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return manifest


def _manifest(archive: zipfile.ZipFile, packed: int) -> dict[str, Any]:
    """The manifest, once the list of the archive's files is as it should be. Raises ValueError."""
    infos = archive.infolist()
    if len(infos) > MOST + 1:
        raise ValueError(f"{len(infos)} files, more than the {MOST} that are read")
    names = [info.orig_filename for info in infos]
    if len({*names}) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.orig_filename != MANIFEST and not MEMBER.fullmatch(info.orig_filename):
            raise ValueError(f"{info.orig_filename[:200]!r} is no file that a run or a sweep has")
        if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
            raise ValueError(f"{info.orig_filename!r} is a link or the like, or has a password")
        if info.file_size > _limit(info.orig_filename):
            raise ValueError(f"{info.orig_filename!r}: {info.file_size} bytes are more than those that are read")
    if sum(info.file_size for info in infos) > files.SLACK + files.RATIO * packed:
        raise ValueError("unpacks to more bytes than so small a file can hold")
    if MANIFEST not in names:
        raise ValueError(f"has no {MANIFEST}")
    read = json.loads(_read(archive, MANIFEST))
    manifest: dict[str, Any] = read if isinstance(read, dict) else {}
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not isinstance(manifest.get("runs"), dict):
        raise ValueError(f"{MANIFEST} lists no files")
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{MANIFEST}: format {manifest.get('format')!r}; this commexp reads format {FORMAT}")
    if other := {*names} - {MANIFEST} ^ listed.keys():
        raise ValueError(f"{min(other)!r} is in the archive or in its {MANIFEST}, but not in both")
    return manifest


def _contents(archive: zipfile.ZipFile, listed: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Every file and its content, once that has been checked. Raises ValueError."""
    for name, said in listed.items():
        content = _read(archive, name)
        if not isinstance(said, dict) or said.get("sha256") != hashlib.sha256(content).hexdigest():
            raise ValueError(f"{name!r} is not what it was when it was packed: its SHA-256 is another")
        yield name, content


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    most = archive.getinfo(name).file_size
    with archive.open(name) as file:
        content = file.read(most + 1)
    if len(content) != most:
        raise ValueError(f"{name!r} has not the size that the archive says")
    return content
