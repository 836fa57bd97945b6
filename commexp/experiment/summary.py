"""What a run writes about itself: the rows of metrics.csv, summary.json, meta.json and the tables of its parts."""

from __future__ import annotations

import datetime
import logging
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from commexp import __version__
from commexp.comm import ALL_REDUCE
from commexp.config.identity import RESULTS
from commexp.experiment.setup import ExperimentSetup
from commexp.network import WallClock

log = logging.getLogger("commexp")
Row = dict[str, Any]
PACKAGES = ("numpy", "scipy", "scikit-learn", "torchvision")  # besides torch, those that make data and numbers


def metrics_row(setup: ExperimentSetup, model: torch.Tensor, diagnostics: dict[str, float]) -> Row:
    """The row of metrics.csv for ``model`` [J], after the rounds that are done."""
    record, problem = setup.record, setup.problem
    drawn = setup.algorithm.samples_done()
    if drawn is None:
        drawn = setup.samples_drawn(record.done)
    samples = round(drawn)
    return {
        "round": record.done,
        "step": record.steps,
        "epoch": samples / problem.samples,
        "samples": samples,
        **({} if problem.tokens_per_sample is None else {"tokens": samples * problem.tokens_per_sample}),
        "wall_seconds": record.wall,
        "sim_seconds": record.sim,
        **problem.evaluate(model),
        **convergence(setup, model),
        **record.ledger.totals(),
        **diagnostics,
    }


def convergence(setup: ExperimentSetup, model: torch.Tensor) -> dict[str, float]:
    """How far ``model`` [J] is from a stationary point, where that is cheap, and what else decentralised methods are
    judged by."""
    record, problem = setup.record, setup.problem
    if not setup.algorithm.decentralised:
        return {"stationarity": problem.stationarity(model)} if problem.tells_gradient else {}
    gradients = record.planned.gradients[record.done] * problem.samples_per_step
    costs = {"samples_per_node": round(gradients), "gossip_rounds": record.ledger.gossip_rounds}
    return {**problem.composite(model), **costs}


def final_summary(setup: ExperimentSetup, nonfinite: int) -> dict[str, Any]:
    """summary.json but for the status. The baseline sends dense messages after every local step; over a server they
    come down as well as go up. ``nonfinite``: gradients of all workers that were not finite."""
    record, directions = setup.record, 2 if setup.choice.exchange.central else 1
    steps = setup.algorithm.steps_done()
    if steps is None:
        steps = setup.plan.participation.count(setup.plan.config.workers) * record.steps
    return {
        **record.summary(directions * steps * setup.dense_payload),
        "exchange": ", ".join(dict.fromkeys(e.exchange for e in record.ledger.entries)),
        **topology_summary(setup),
        **allocation_summary(setup),
        **theory_summary(setup),
        "payload_bytes": setup.payload,
        "parameters": setup.problem.dim,
        "nonfinite_gradients": nonfinite,
    }


def topology_summary(setup: ExperimentSetup) -> dict[str, Any]:
    """Of the graph, where there is one."""
    mixer = setup.comm.mixer
    if mixer is None:
        return {}
    return {
        "links": sum(len(m.edges()[0]) for m in mixer.mixings) / len(mixer.mixings) / 2,
        "second_singular_value": mixer.second_singular_value,
        "spectral_gap": 1 - mixer.second_singular_value,
        "mixings": mixer.rounds,
        "contraction": mixer.contraction,
    }


def theory_summary(setup: ExperimentSetup) -> dict[str, Any]:
    """The learning rate that algo.lr=theory has given, and what it has been computed from."""
    constants, factor = setup.constants, setup.plan.lr_factor
    if constants is None or factor is None:
        return {}
    known = {
        "smoothness": constants.L,
        "smoothness_rms": constants.rms,
        "smoothness_max": constants.largest,
        "strong_convexity": constants.mu,
        "delta": constants.delta,
        "omega": constants.omega,
        "theoretical_probability": setup.algorithm.theoretical_probability(constants),
    }
    return {
        "lr": factor * setup.step,
        "lr_factor": factor,
        "theoretical_step": setup.step,
        **{name: value for name, value in known.items() if value is not None},
    }


def allocation_summary(setup: ExperimentSetup) -> dict[str, Any]:
    """Of the subsets that several workers hold, where there are such."""
    assignment = setup.assignment
    if assignment is None:
        return {}
    return {
        "subsets": assignment.subsets,
        "copies": float(assignment.copies.mean()),
        "largest_load": int(assignment.loads.max()),
        "off_balance": assignment.balance.largest,
        "off_balance_rms": assignment.balance.rms,
    }


def provenance(setup: ExperimentSetup) -> dict[str, Any]:
    """What meta.json says besides name and status: components, seed, sizes, command, machine and versions."""
    config, problem = setup.plan.config, setup.problem
    about: dict[str, Any] = {group: setup.plan.names[group] for group in ("algo", "compress", "dataset")}
    about |= {"seed": config.seed, "workers": config.workers, "processes": setup.links.world_size}
    if isinstance(setup.clock, WallClock):
        about["clock"] = "wall"
    if setup.plan.islands is not None:
        about["islands"] = setup.plan.islands
    if problem.way:
        about["gradients"] = problem.way
    if setup.plan.sources:
        about["sources"] = setup.plan.sources
    program = Path(sys.argv[0]).name
    return {
        **about,
        "parameters": problem.dim,
        "gradient_flops": setup.gradient_flops,
        "coded_bytes": setup.coded_bytes,
        **({"coding": asdict(setup.coding)} if setup.plan.network.compute.coding == "measured" else {}),
        "samples": problem.samples,
        "stretch": setup.bucket,
        "command": shlex.join(["commexp" if program == "__main__.py" else program, *sys.argv[1:]]),
        "overrides": [str(word) for word in setup.plan.given],
        "device": str(setup.device),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": package_versions(),
        "commexp": __version__,
        "results": RESULTS,
        "git_commit": git_commit(),
    }


def package_versions() -> dict[str, str]:
    """Of the PACKAGES that are installed."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@cache
def git_commit() -> str | None:
    """The commit of commexp's own source tree, '-dirty' if changed; None where it is installed from a wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def write_tables(setup: ExperimentSetup) -> None:
    """Writes partition.csv, allocation.csv, topology.csv and topology_rounds.csv, each where there is such a thing, and
    rounds.csv."""
    tables = {
        "partition": partition_rows(setup),
        "allocation": allocation_rows(setup),
        "topology": topology_rows(setup),
        "topology_rounds": topology_round_rows(setup),
        "rounds": round_rows(setup),
    }
    for name, rows in tables.items():
        if rows:
            setup.run.write_rows(name, rows)


def partition_rows(setup: ExperimentSetup) -> list[Row]:
    """How many samples of each class every worker has; of each source, where whole sources are assigned."""
    counts, assignment = setup.problem.classes_per_worker(), setup.assignment
    if setup.sources and assignment is None:
        return _as_rows(("worker", "source", "samples"), setup.sources)
    if counts is None:
        return []
    if assignment is not None:
        counts = torch.tensor(assignment.held).to(counts) @ counts
    cells = [(n, c, m) for n, row in enumerate(counts.tolist()) for c, m in enumerate(row)]
    return _as_rows(("worker", "class", "samples"), cells)


def allocation_rows(setup: ExperimentSetup) -> list[Row]:
    """Which worker holds which subset, of coded methods."""
    if setup.assignment is None:
        return []
    workers, subsets = setup.assignment.held.nonzero()
    return _as_rows(("worker", "subset"), zip(workers.tolist(), subsets.tolist(), strict=True))


def topology_rows(setup: ExperimentSetup) -> list[Row]:
    """The weights off the diagonal, if they are not too many to be looked at; of a graph that changes, their mean over
    a period."""
    mixer = setup.comm.mixer
    if mixer is None or not mixer.is_small:
        return []
    return _as_rows(("worker", "neighbour", "weight"), zip(*mixer.mean_links, strict=True))


def topology_round_rows(setup: ExperimentSetup) -> list[Row]:
    """Who receives from whom in each round of the period, for push-sum on a graph that changes."""
    mixer = setup.comm.mixer
    graphs = [] if mixer is None else mixer.graphs
    cells = [(number, n, m) for number, ends in enumerate(graphs, 1) for n, m in zip(*ends, strict=True)]
    return _as_rows(("round", "worker", "neighbour"), cells)


def round_rows(setup: ExperimentSetup) -> list[Row]:
    """What each round takes of a worker; of coded methods, for each subset that it holds."""
    planned = setup.record.planned
    steps, batches, gradients = (
        [after - before for before, after in pairwise(total)]
        for total in (planned.ends, planned.batches, planned.gradients)
    )
    columns = {"round": range(1, len(planned.ends)), "steps": steps, "batches": batches, "gradients": gradients}
    if any(planned.delays):
        columns["delay"] = planned.delays  # gradients of the next round during this one's exchange
    return _as_rows(tuple(columns), zip(*columns.values(), strict=True))


def _as_rows(columns: Sequence[str], cells: Iterable[tuple[Any, ...]]) -> list[Row]:
    return [dict(zip(columns, row, strict=True)) for row in cells]


@cache
def tell(note: str) -> None:
    """Once in this process, for a sweep's runs have their notes in common."""
    print(f"commexp: {note}", file=sys.stderr, flush=True)


def announce_clock(setup: ExperimentSetup) -> None:
    """Tells the user what takes no time on the virtual clock."""
    if note := setup.run.note_on_clock(setup.plan.resolved):
        log.info(note)
        tell(note)


def announce_costs(setup: ExperimentSetup) -> None:
    """Tells the user which exchange was chosen where there was a choice, and which messages cost more than dense."""
    if setup.algorithm.decentralised:
        return
    choice, workers = setup.choice, setup.comm.size
    if len(choice.costs) > 1:
        log.info("%s", choice)
        if choice.exchange.name != next(iter(choice.costs)):
            print(f"commexp: note: {choice}", file=sys.stderr, flush=True)
    if setup.plan.compressor.variable_size:
        return  # what it costs is known once it is sent
    dense = ALL_REDUCE.cost(workers, setup.dense_message, setup.dense_message)
    if not choice.exchange.central and choice.cost > dense:
        text = (
            f"note: {workers} messages of {setup.payload:,} bytes by {choice.exchange.name} put "
            f"{choice.cost / dense:.3g} times as much on the links as a dense all-reduce"
        )
        log.warning(text)
        print(f"commexp: {text}", file=sys.stderr)
