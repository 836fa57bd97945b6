"""N = 8 workers over 1, 2, 4 and 8 real processes: the same curves, the same books.

Bit for bit with comm.deterministic, else to 1e-6 relative; for every codec, algorithm and exchange. Every case is gone
through once, with two processes or, one in three, with four; one in 16 of the usual ones with eight, too. Every
other one is gone through with sums in any order.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
import warm
from conftest import environment
from launch.processes import free_port, wait_for
from launch.walker import gossiped
from registry import bare, options, plan, target, untimed
from safetensors.torch import load_file

from commexp.comm import AGGREGATIONS, Links
from commexp.config.plan import Plan
from commexp.launch.launch import launch
from commexp.run_folder import Run

WALKER = Path(__file__).with_name("walker.py")
LINEAR = [
    "workers=8",
    "dataset=linreg",
    "dataset.dim=40",
    "dataset.samples=20",
    "model=linear_regression",
    "batch_size=null",
]
LINEAR += ["debug=true", "dtype=float64", "rounds=4", "eval_every=2", "algo.lr=0.01", "algo.schedule.kind=constant"]
DIGITS = ["rounds=4", "eval_every=4", "model.width=8", "batch_size=2", "dtype=float64"]
FEW = ["dataset.test=0.9", "dataset.validation=20"]  # 180 images instead of 1,797: every process evaluates all of them
MUON = ["model=mlp", "model.hidden=[8,7]", "algo.optimizer=muon", "algo.momentum=0.9", "algo.lr=0.01"]
MUON += ["algo.weight_decay_on=matrices", "clip=0.5", *(word for word in DIGITS if "width" not in word), *FEW]
FACTORS = ["dataset=ratings", "dataset.users=60", "dataset.items=40", "rounds=4", "eval_every=2"]


NAN = [*DIGITS, *FEW, "algo.lr=1e6", "rounds=30", "eval_every=30", "dtype=float32"]  # a gradient is NaN before round 30
QUANTISED = ["compress.block=8", "comm.exchange=quantised_all_reduce"]
EXACT, ANY_ORDER = (f"comm.deterministic={exact}" for exact in ("true", "false"))


def usual() -> list[list[str]]:
    every = [[f"compress={codec}", *LINEAR] for codec in options("compress")]
    every.append(["compress=topk", "compress.scope=layer", "compress.whole_below=50", *DIGITS, *FEW])
    every += [[f"compress={codec}", *DIGITS, *FEW] for codec in ("none", "bf16", "powersgd")]
    every += [["model.travels=items", *FACTORS], ["model.travels=all", "partition=blocks", *FACTORS]]
    every += [[*case, *LINEAR] for case in methods()]
    every += [[algo, *MUON] for algo in ("algo=muloco", "algo=ignore")]
    every.append(
        ["compress=kbit", "compress.rounding=stochastic", "compress.error_feedback=false", *QUANTISED, *LINEAR]
    )
    return [[*case, EXACT] for case in every]


@cache
def methods() -> list[list[str]]:
    """Every algorithm that goes in rounds; of those that gossip, two also with messages that are compressed; coded ones
    with workers that are late, residuals that must wait with them, and codes; with a share of the workers those whose
    processes are then in step."""
    compressed, late = ["compress=topk", "compress.k=3"], ["straggler=bernoulli", "straggler.p=0.4"]
    coded = ["algo=gradient_coding", *late]
    more = [coded, [*coded, *compressed, "comm.exchange=all_gather"], ["algo=exact_coding", "allocation=cyclic", *late]]
    more += [["algo=" + n, *compressed] for n in ("choco", "dsgt")]
    times = "network.compute={kind:lognormal,seconds:0.01}"
    more.append(["algo=diloco", "algo.quorum=4", times, *late, *compressed, "comm.exchange=all_gather"])
    every = [["algo=" + name] for name in options("algo") if not target("algo", name).asynchronous and name != "muloco"]
    known = {name: target("algo", name) for name in options("algo")}
    some = [name for name, method in known.items() if method.samples_workers and method.codec_kind]
    return [*every, *more, *(["algo=" + name, "participation=0.4"] for name in some)]


def other_exchanges() -> list[list[str]]:
    every = [[f"compress={codec}", "comm.exchange=server", *LINEAR] for codec in options("compress")]
    for codec in options("compress"):
        if AGGREGATIONS["two_phase"].candidate(bare(codec)):
            every.append([f"compress={codec}", "comm.exchange=two_phase", *LINEAR])
        if bare(codec).requantises:
            every.append([f"compress={codec}", *QUANTISED, *LINEAR])
    every.append(["compress=sign", "compress.vote=true", "compress.error_feedback=false", *LINEAR])
    every.append(["compress=fp16", "comm.exchange=all_gather", *LINEAR])
    every.append(NAN)
    return [[*case, EXACT] for case in every]


def sums_in_any_order() -> list[list[str]]:
    any_order = [case[:-1] for case in usual()]
    gossiping = {algo for algo, *_ in methods() if target(*algo.split("=")).decentralised}
    left_out = gossiping | {"algo=exact_coding"}  # these do not add up over all, this takes whoever comes first
    return [[*case, ANY_ORDER] for case in any_order if case[0] not in left_out][::2]


def label(case: list[str]) -> str:
    return " ".join(word for word in case if word not in LINEAR + DIGITS + FEW + FACTORS + MUON[3:])


def tables(folder: Path, name: str, status: str) -> list[list[dict[str, str]]]:
    assert Run(folder / "runs" / name).status == status, name
    return [untimed(folder / "runs" / name / f"{table}.csv") for table in ("metrics", "traffic")]


def test_curves_and_books_are_those_of_one_process(tmp_path: Path) -> None:
    """What one process made is compared with all the others: hence one test for all of them."""
    everything, exchanges, any_order, alone = usual(), other_exchanges(), sums_in_any_order(), tmp_path / "1"
    once = exchanges + any_order
    cases = everything + once
    plans = {tuple(case): plan(*case, "launch.device=cpu", f"outputs={alone}") for case in cases}
    for case, made in plans.items():
        if case[-1] != ANY_ORDER:
            launch(made)
    tracking = [case for case in everything[::2] if plans[tuple(case)].algorithm.proximal]  # over eight, too
    groups = {
        2: [case for n, case in enumerate(everything) if n % 3] + [case for n, case in enumerate(once) if n % 3],
        4: everything[::3] + once[::3],
        8: [case for case in everything[1::16] if case[1:-1] != DIGITS + FEW] + tracking,
    }
    walk(plans, groups, tmp_path)
    for processes, cases in groups.items():
        for case in cases:
            made, status = plans[tuple(case)], "diverged" if case[:-1] == NAN else "completed"
            where = f"{label(case)}, over {processes} processes"
            exact = plans[(*case[:-1], EXACT)].name  # of one process: sums in any order are close to those in order
            pairs = zip(tables(tmp_path / str(processes), made.name, status), tables(alone, exact, status), strict=True)
            for found, expected in pairs:
                if made.config.comm.deterministic:
                    assert found == expected, where
                else:
                    assert_close(found, expected, where)


def walk(plans: dict[tuple[str, ...], Plan], groups: dict[int, list[list[str]]], folder: Path) -> None:
    """Goes through the cases of each group, by its number of processes, and checks what these have after gossip."""
    number, tasks = {case: n for n, case in enumerate(plans)}, []
    for processes, cases in groups.items():
        own = folder / str(processes)
        own.mkdir()
        numbers = [number[tuple(case)] for case in cases]
        tasks.append({"processes": processes, "port": free_port(), "folder": str(own), "cases": numbers})
    content = {"configs": [made.resolved for made in plans.values()], "groups": tasks}
    (folder / "tasks.json").write_text(json.dumps(content))
    command = [sys.executable, str(WALKER), str(folder / "tasks.json")]
    walker = warm.Popen(command, cwd=folder, env=environment(), stdout=PIPE, stderr=PIPE, text=True)
    ((status, _, told),) = wait_for([walker], 480)
    assert status == 0, told[-2000:]
    for processes in groups:
        parts = [load_file(folder / str(processes) / f"gossip-{rank}.safetensors") for rank in range(processes)]
        for name, expected in gossiped(Links()).items():
            if name.endswith(".books"):
                assert all(torch.equal(part[name], expected) for part in parts), f"{name} over {processes} processes"
            else:
                together = torch.cat([part[name] for part in parts])
                assert torch.equal(together, expected), f"{name} over {processes} processes"


def assert_close(found: list[dict[str, str]], expected: list[dict[str, str]], case: str) -> None:
    assert [row.keys() for row in found] == [row.keys() for row in expected], case
    for one, other in zip(found, expected, strict=True):
        for key, value in one.items():
            if "bytes" in key or key in ("exchange", "direction"):
                assert value == other[key], (case, key)
            else:
                assert float(value) == pytest.approx(float(other[key]), rel=1e-6), (case, key)
