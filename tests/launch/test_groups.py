"""Islands over processes that share them, and workers of several processes: the curves and books of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import PIPE

import warm
from conftest import environment
from launch.processes import free_port, wait_for
from launch.test_splits import ANY_ORDER, DIGITS, EXACT, FEW, LINEAR, WALKER, assert_close, tables
from registry import plan

from commexp.config.plan import Plan
from commexp.launch.launch import launch

TWO = [*LINEAR, "topology=islands", "islands=2"]
ISLANDS = [
    ["algo=sgd", "compress=topk", "compress.k=3", *TWO],
    ["algo=sgd", "compress=topk", "comm.exchange=two_phase", *TWO],
    ["algo=sgd", "compress=powersgd", "topology=islands", "islands=2", *DIGITS],  # two exchanges, one after the other
    ["algo=diloco", "algo.inside=2", "algo.fragments=2", "algo.delay=2", "compress=kbit", *TWO],
    ["algo=localsgd", "compress=fp16", "comm.exchange=server", "algo.delay=1", *TWO],
    ["algo=lsgd", *TWO],  # broadcasts, gathers
]
SHARED = [  # two workers of two processes each
    ["algo=sgd", "compress=topk", "clip=0.5", *DIGITS, *FEW, "workers=2"],
    ["algo=choco", "compress=topk", "topology=complete", *DIGITS, *FEW, "workers=2"],
    ["algo=dppf", "algo.tau=2", *DIGITS, *FEW, "workers=2"],
]


def test_curves_and_books_are_those_of_one_process(tmp_path: Path) -> None:
    islands = [[*case, EXACT] for case in ISLANDS] + [[*ISLANDS[0], ANY_ORDER]]
    shared = [[*case, ANY_ORDER] for case in SHARED]
    cases = islands + shared
    alone = tmp_path / "1"
    plans = {tuple(case): plan(*case, "launch.device=cpu", f"outputs={alone}") for case in cases}
    for made in plans.values():
        launch(made)
    numbers = {case: n for n, case in enumerate(plans)}
    groups = {"2": islands[-1:], "4": islands, "8": islands[3:4], "shared": shared}
    tasks = []
    for name, own in groups.items():
        (tmp_path / name).mkdir()
        about = {"processes": 4 if name == "shared" else int(name), "per_worker": 2 if name == "shared" else 1}
        about |= {"port": free_port(), "folder": str(tmp_path / name), "cases": [numbers[tuple(c)] for c in own]}
        tasks.append(about)
    content = {"configs": [made.resolved for made in plans.values()], "groups": tasks}
    (tmp_path / "tasks.json").write_text(json.dumps(content))
    command = [sys.executable, str(WALKER), str(tmp_path / "tasks.json")]
    walker = warm.Popen(command, cwd=tmp_path, env=environment(), stdout=PIPE, stderr=PIPE, text=True)
    ((status, _, told),) = wait_for([walker], 240)
    assert status == 0, told[-2000:]
    for name, own in groups.items():
        for case in own:
            check(plans[tuple(case)], tmp_path / name, alone, f"{' '.join(case)}, {name}")


def check(made: Plan, found: Path, alone: Path, where: str) -> None:
    pairs = zip(*(tables(place, made.name, "completed") for place in (found, alone)), strict=True)
    for rows, expected in pairs:
        if made.config.comm.deterministic:
            assert rows == expected, where
        else:
            assert_close(rows, expected, where)
