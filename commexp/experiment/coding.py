"""What encoding and decoding take on this machine."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from commexp.compressors import CodecContext, Compressor
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.network import NO_CODING, Coding
from commexp.problems import Problem
from commexp.seeding import generator

REPEATS = 5  # of which the median is taken, after one that is left out
ENOUGH = 2.0  # seconds after which fewer will do


def measured_coding(codec: Compressor, problem: Problem, dtype: torch.dtype, device: torch.device, seed: int) -> Coding:
    """Medians over a few messages of one worker, of a vector of J normal numbers. A codec of several phases sends a
    message in each; the seconds are those of one of them. ``codec`` is left as it is."""
    codec, weights = copy.deepcopy(codec), torch.ones(1, dtype=dtype, device=device)
    codec.setup(CodecContext(seed, [0], problem.shapes))
    vector = torch.randn(1, problem.dim, generator=generator(seed, "coding"), dtype=dtype).to(device)
    begun, each = time.perf_counter(), list[tuple[float, float]]()
    for t in range(REPEATS + 1):
        codec.set_round(t)
        each.append(_once(codec, vector, weights))
        if t and time.perf_counter() - begun > ENOUGH:
            break
    encode, decode = (median(seconds) / codec.phases for seconds in zip(*each[1:], strict=True))
    return Coding(encode, decode)


def coding_of(plan: Plan, problem: Problem | None, exchanged: int, device: torch.device) -> Coding:
    """What network.compute.coding says of messages of ``exchanged`` entries. A codec of several phases makes several
    messages of them, which share in it. Raises UserError where it is to be measured and there is no problem."""
    wanted, codec, dtype = plan.network.compute.coding, plan.compressor, getattr(torch, plan.config.dtype)
    if wanted is None:
        return NO_CODING
    if wanted != "measured":
        return Coding.at_rate(wanted, exchanged * dtype.itemsize / codec.phases)
    if problem is None:
        raise UserError(
            "network.compute.coding=measured: there is no model to measure it on; give a rate in GB/s such as 10, or a "
            "model and a dataset"
        )
    measured = measured_coding(codec, problem, dtype, device, plan.config.seed)
    share = exchanged / problem.dim  # of the model, that is exchanged at once
    return Coding(share * measured.encode, share * measured.decode)


def kept_coding(meta: Mapping[str, Any]) -> Coding | None:
    """What a run's meta.json says of it; None where it does not."""
    kept = meta.get("coding")
    if not isinstance(kept, dict):
        return None
    seconds = [each for name in ("encode", "decode") if isinstance(each := kept.get(name), int | float)]
    return Coding(*seconds) if len(seconds) == 2 and all(0 <= each < math.inf for each in seconds) else None


def _once(codec: Compressor, vector: torch.Tensor, weights: torch.Tensor) -> tuple[float, float]:
    """Seconds of encoding, later phases included, and of decoding up to what the codec learns from the aggregate."""
    moments = [_now(vector)]
    message = codec.encode(vector)
    moments.append(_now(vector))
    while True:
        total = codec.total(message, weights)
        moments.append(_now(vector))
        following = codec.next_phase(message, total)
        moments.append(_now(vector))
        if following is None:
            break
        message = following
    codec.feedback(codec.finalize(message, total), weights)
    moments.append(_now(vector))
    spans = [after - before for before, after in pairwise(moments)]
    return sum(spans[::2]), sum(spans[1::2])


def _now(vector: torch.Tensor) -> float:
    if vector.is_cuda:
        torch.cuda.synchronize(vector.device)
    return time.perf_counter()
