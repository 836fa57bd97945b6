"""The world of workers that wait for nobody: a clock of events, and a problem and a compressor for each."""

from __future__ import annotations

from copy import deepcopy

from commexp.algorithms import Asynchrony
from commexp.compressors import Setup
from commexp.config import Plan
from commexp.network import EventClock
from commexp.problems import Alternating


def independent(plan: Plan, problem: Alternating) -> tuple[EventClock, Asynchrony]:
    """Raises ValueError for a network or a compressor that does not fit."""
    config, compute = plan.config, plan.network.compute
    if compute.kind == "measured":
        raise ValueError(
            "network.compute.kind=measured: whose message comes first would not be the same twice; give constant, "
            "lognormal, ..."
        )
    if not compute.seconds and compute.kind != "trace":
        raise ValueError(
            f"network.compute.seconds={compute.seconds:g}: algo={plan.name.split('-')[0]} runs on the virtual clock; "
            "give seconds that a gradient takes, such as 0.01"
        )
    if plan.compressor.phases > 1:
        raise ValueError(f"compress: {plan.compressor.name} takes a sum over all workers; give none, topk, qsgd, ...")
    clock = EventClock(plan.network, plan.straggler, config.workers, config.seed)
    codecs = []
    for n in range(config.workers):
        codecs.append(deepcopy(plan.compressor))
        codecs[n].setup(Setup(config.seed, [n], problem.shapes))
    samples = problem.own_samples

    def fit(n: int, seconds: float) -> int:
        return max(1, int(seconds / (compute.seconds * clock.factors[n])))

    def batches(n: int) -> float:
        return samples[n] / problem.problems[n].samples_per_step

    return clock, Asynchrony(clock, problem.turn, codecs, samples, batches, fit)
