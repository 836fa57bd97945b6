"""What a run says of itself: rows of metrics.csv, its summary, where it was made, what it will cost."""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch

from commexp.comm import ALL_REDUCE
from commexp.config.components import short
from commexp.experiment.provenance import describe
from commexp.experiment.setup import ExperimentSetup
from commexp.network import WallClock

log = logging.getLogger("commexp")


def row(trial: ExperimentSetup, model: torch.Tensor, diagnostics: dict[str, float]) -> dict[str, Any]:
    """Of metrics.csv, after the rounds that are done."""
    books, problem = trial.books, trial.problem
    drawn = trial.algorithm.samples_done()
    if drawn is None:
        drawn = books.planned.batches[books.done] * problem.samples_per_step * trial.parts
    samples = round(drawn)
    return {
        "round": books.done,
        "step": books.steps,
        "epoch": samples / problem.samples,
        "samples": samples,
        "wall_seconds": books.wall,
        "sim_seconds": books.sim,
        **problem.evaluate(model),
        **(gossiped(trial, model) if trial.algorithm.decentralised else {}),
        **books.ledger.totals(),
        **diagnostics,
    }


def gossiped(trial: ExperimentSetup, model: torch.Tensor) -> dict[str, float]:
    """What decentralised methods are judged by."""
    books = trial.books
    gradients = books.planned.gradients[books.done] * trial.problem.samples_per_step
    costs = {"samples_per_node": round(gradients), "gossip_rounds": books.ledger.gossip_rounds}
    return {**trial.problem.composite(model), **costs}


def costs(trial: ExperimentSetup, nonfinite: int) -> dict[str, Any]:
    """What summary.json says; the baseline sends dense messages after every local step; over a server they come
    down as well as go up."""
    ways = 2 if trial.choice.exchange.central else 1
    done = trial.algorithm.steps_done()
    steps = trial.plan.config.workers * trial.books.steps if done is None else done
    return {
        **trial.books.summary(ways * steps * trial.dense_payload),
        "exchange": ", ".join(dict.fromkeys(e.exchange for e in trial.books.ledger.entries)),
        **graph(trial),
        **redundancy(trial),
        "payload_bytes": trial.payload,
        "parameters": trial.problem.dim,
        "nonfinite_gradients": nonfinite,
    }


def graph(trial: ExperimentSetup) -> dict[str, Any]:
    """Of the topology, where there is one."""
    mixer = trial.comm.mixer
    if mixer is None:
        return {}
    return {
        "links": sum(len(m.edges()[0]) for m in mixer.mixings) / len(mixer.mixings) / 2,
        "second_singular_value": mixer.second_singular_value,
        "spectral_gap": 1 - mixer.second_singular_value,
        "mixings": mixer.rounds,
        "contraction": mixer.contraction,
    }


def redundancy(trial: ExperimentSetup) -> dict[str, Any]:
    """Of the allocation, where there is one."""
    held = trial.held
    if held is None:
        return {}
    return {
        "subsets": held.subsets,
        "copies": float(held.copies.mean()),
        "largest_load": int(held.loads.max()),
        "off_balance": held.balance.largest,
        "off_balance_rms": held.balance.rms,
    }


def about(trial: ExperimentSetup) -> dict[str, Any]:
    config = trial.plan.config
    where = describe(trial.device)
    sizes: dict[str, Any] = {"clock": "wall"} if isinstance(trial.books.clock, WallClock) else {}
    if trial.problem.way:
        sizes["gradients"] = trial.problem.way
    if trial.plan.sources:
        sizes["sources"] = trial.plan.sources
    sizes |= {"parameters": trial.problem.dim, "samples": trial.problem.samples, "stretch": trial.bucket}
    words = {group: short(trial.plan.resolved[group]["_target_"]) for group in ("algo", "compress", "dataset")}
    processes = trial.links.world_size
    return {**words, "seed": config.seed, "workers": config.workers, "processes": processes, **sizes, **where}


def say_what_it_costs(trial: ExperimentSetup) -> None:
    """Which exchange was chosen where there was a choice, and what is dearer than dense."""
    if trial.algorithm.decentralised:
        return
    choice, workers = trial.choice, trial.plan.config.workers
    if len(choice.costs) > 1:
        log.info("%s", choice)
        if choice.exchange.name != next(iter(choice.costs)):
            print(f"commexp: note: {choice}", file=sys.stderr, flush=True)
    if trial.plan.compressor.variable_size:
        return  # what it will cost is not known before it has been
    dense = ALL_REDUCE.cost(workers, trial.dense_payload, trial.dense_payload)
    if not choice.exchange.central and choice.cost > dense:
        text = (
            f"note: {workers} messages of {trial.payload:,} bytes by {choice.exchange.name} put "
            f"{choice.cost / dense:.3g} times as much on the links as a dense all-reduce"
        )
        log.warning(text)
        print(f"commexp: {text}", file=sys.stderr)
