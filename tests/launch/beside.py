"""Scenes between real processes: they wait more than they compute, so they are played side by side, each in a thread.

A test marked ``@beside`` gets what starts its commands and a folder of its own. All that were collected are played when
the first of them is due, no more than ``AT_ONCE`` at a time; each test then tells how its scene has ended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import warm
from conftest import environment

AT_ONCE = 4
Start = Callable[..., "subprocess.Popen[str]"]
Scene = Callable[[Start, Path], None]
Played = dict[Scene, "Future[None]"]


def beside(scene: Scene) -> Callable[[Played], None]:
    def test(played: Played) -> None:
        played[scene].result()

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    test.scene = scene  # type: ignore[attr-defined]
    return test


def scene_of(item: Any) -> Scene | None:
    """What this test of pytest's plays, if anything."""
    return getattr(getattr(item, "function", None), "scene", None)


def play(scenes: Iterable[Scene], new_folder: Callable[[str], Path]) -> Played:
    """``new_folder``: made for a name. Returns when all have come to an end, as futures that hold it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {scene: pool.submit(play_one, scene, new_folder(scene.__name__)) for scene in scenes}


def play_one(scene: Scene, folder: Path) -> None:
    """``commexp ARGS`` is a process of its own; killed at the end if it still runs."""
    processes = []

    def start(*args: str, **env: str) -> subprocess.Popen[str]:
        process = warm.Popen(
            [sys.executable, "-m", "commexp", *args], cwd=folder, env=environment() | env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        return process

    try:
        scene(start, folder)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
