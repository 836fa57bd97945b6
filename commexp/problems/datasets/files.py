"""Published files: found, checked, fetched, unpacked."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from commexp.files import open_regular, reading, reason, text_lines

PUBLISHED = 2**31  # bytes: the largest published file here, imagenette2.tgz, has 1.6 GB


def place(root: str | None, path: str = "") -> Path:
    """Where ``path`` lies, counted from ``root``; ``~`` is the home folder in either."""
    return Path(os.path.expanduser(root or ""), os.path.expanduser(path))


def check_there(key: str, path: Path, remedy: str) -> None:
    """Raises FileNotFoundError ('``key``: ...; ``remedy``') for what is no regular file, or cannot be opened."""
    try:
        open_regular(path).close()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{key}: {path} is missing; {remedy}") from error
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{key}: {path} cannot be read ({reason(error)}); {remedy}") from error


def content_sum(paths: Iterable[Path], longest: int) -> str:
    """The first 16 hex digits of blake2b over the files' blake2b sums; nothing where one cannot be read, or there is
    none, or one begins like no text with lines of at most ``longest`` bytes, which will be refused when it is read."""
    whole, none = hashlib.blake2b(), True
    for path in paths:
        one, none = hashlib.blake2b(), False
        try:
            with reading(path) as text:
                next(text_lines(text, longest), None)
            with open_regular(path) as file:
                while block := file.read(2**20):
                    one.update(block)
        except (OSError, ValueError):
            return ""
        whole.update(one.digest())
    return "" if none else whole.hexdigest()[:16]


def is_sound(path: Path, md5: str) -> bool:
    """Whether the file has that MD5 sum. Raises OSError where it cannot be read, or has more than PUBLISHED bytes."""
    digest = hashlib.md5(usedforsecurity=False)
    with open_regular(path, PUBLISHED) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest() == md5


def check(root: str, path: Path, md5: str) -> None:
    """Raises ValueError for a file that cannot be read, or whose MD5 sum is another."""
    try:
        sound = is_sound(path, md5)
    except OSError as error:
        raise ValueError(f"dataset.root={root}: {path} cannot be read ({reason(error)}); get it anew") from error
    if not sound:
        raise ValueError(f"dataset.root={root}: {path} is damaged (its MD5 sum is not {md5}); get it anew")


def fetch(urls: Sequence[str], folder: Path, name: str, md5: str) -> None:
    """Puts the file behind the first of ``urls`` that can be had into ``folder``, whole or not at all.

    Raises FileNotFoundError where none can be had with that MD5 sum, or ``folder`` cannot be written.
    """
    from torchvision.datasets.utils import download_url

    reason = ""
    for url in urls:
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as aside:
                download_url(url, aside, name, md5)
                os.replace(Path(aside) / name, folder / name)
            return
        except (OSError, HTTPException, RuntimeError) as error:  # the last is how torchvision refuses a wrong sum
            reason = " ".join(str(error).split())
    raise FileNotFoundError(f"dataset.download=true: {urls[-1]} cannot be fetched ({reason}); put {name} into {folder}")


def unpack(root: str, archive: Path, folder: Path) -> None:
    """Unpacks a .tar.gz into ``folder``; a top folder that was not there appears whole or not at all.

    Raises ValueError, before anything is written, for a member that is no plain file or folder or would lie outside,
    and FileNotFoundError where ``folder`` cannot be written.
    """
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
            if not inside or not (member.isreg() or member.isdir()):
                raise ValueError(
                    f"dataset.root={root}: {archive} would write outside its folder ({member.name}); get it anew"
                )
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.10 before .12 has none
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=f".{archive.name}.") as aside:
                tar.extractall(aside)
                for top in Path(aside).iterdir():
                    _move(top, folder / top.name)
        except OSError as error:
            raise FileNotFoundError(f"dataset.root={root}: {archive} cannot be unpacked there ({error})") from error


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for inner in source.iterdir():
            _move(inner, target / inner.name)
    else:
        os.replace(source, target)


def from_archive(
    key: str, root: str, url: str, md5: str, page: str, download: bool, missing: Callable[[], Path | None]
) -> None:
    """Sees to it that nothing is missing from ``root``: unpacks the archive, which is fetched if it is not there and
    ``download`` says so. ``missing``: the first file or folder that is. Processes that ask at once wait for each other.

    Raises FileNotFoundError that says what is missing and what to do, ValueError for a damaged archive.
    """
    folder, name = place(root), url.rsplit("/", 1)[-1]
    archive = folder / name
    lack = missing()
    if lack is None:
        return
    if not os.path.isfile(archive) and not download:
        raise FileNotFoundError(
            f"{key}: {lack} is missing, and {name} is not in {folder}; give dataset.download=true, or put {name} from "
            f"{page} there"
        )
    with locked(root, name):
        if missing() is not None:
            if not os.path.isfile(archive):
                fetch([url], folder, name, md5)
            check(root, archive, md5)
            unpack(root, archive, folder)
    lack = missing()
    if lack is not None:
        raise ValueError(f"dataset.root={root}: {archive} does not hold {lack.name}; get it anew")


@contextmanager
def locked(root: str, name: str) -> Iterator[None]:
    """One process at a time fetches or unpacks ``name``. Raises FileNotFoundError where nothing can be written."""
    try:
        place(root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(place(root) / f".{name}.lock")
        lock.acquire()
    except OSError as error:
        raise FileNotFoundError(
            f"dataset.root={root}: cannot be written ({error}); give a folder that can, or one that holds the data"
        ) from error
    try:
        yield
    finally:
        lock.release()
