"""The checks of one compressor, by name, and those that look at a single round."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from commexp.check.drive import (
    DTYPES,
    SIZES,
    Factory,
    exchange,
    fresh,
    normal,
    odd_inputs,
    placed,
    whole_round,
)
from commexp.check.fuzz import corrupt_frames, corrupt_messages
from commexp.check.rounds import deterministic, error_feedback, global_generators, resume, workers_apart
from commexp.check.scale import scale
from commexp.check.sizes import information, integer_width, size
from commexp.compressors import Compressor

FRAMES = 200  # each of two workers; the tests of frames read more


def shape(factory: Factory) -> None:
    """decode(encode(x)) has the shape and type of x, for every size and number of workers."""
    for dim in SIZES:
        for workers in (1, 3):
            for dtype in DTYPES:
                x = normal(0, workers, dim, dtype)
                done = exchange(fresh(factory, dim), x)
                for name, got, wanted in (("decoded", done.decoded, x), ("the aggregate", done.aggregate, x[0])):
                    is_, must = f"{list(got.shape)} of {got.dtype}", f"{list(wanted.shape)} of {dtype}"
                    assert got.shape == wanted.shape, f"{name} is {is_}; must be {must}"
                    assert got.dtype == dtype, f"{name} is {is_}; must be {must}"


def input_unchanged(factory: Factory) -> None:
    """A round leaves its input as it was."""
    for dim in SIZES:
        codec = fresh(factory, dim)
        for t in range(3):
            x = normal(t, 2, dim)
            before = x.clone()
            whole_round(codec, x)
            changed = int((x != before).sum())
            assert not changed, f"{changed} of {x.numel()} entries of the input were overwritten (J = {dim})"


def odd(factory: Factory) -> None:
    """Odd inputs decode to finite numbers of the right shape."""
    for label, x in odd_inputs().items():
        for dtype in DTYPES:
            decoded = exchange(fresh(factory, x.shape[1]), x.to(dtype)).decoded
            assert decoded.shape == x.shape, f"{label}: decoded is {list(decoded.shape)}; must be {list(x.shape)}"
            broken = int((~decoded.isfinite()).sum())
            assert not broken, f"{label}: {broken} of {decoded.numel()} decoded entries are not finite ({dtype})"


def negation(factory: Factory) -> None:
    """C(-x) = -C(x) for x > 0: magnitudes count, not values. Of codecs that contract and draw no numbers."""
    codec = factory()
    if codec.stochastic or codec.delta(40) is None:
        return
    for dim in (9, 33, 1000):
        x = normal(11, 2, dim).abs() + 0.1
        plus, minus = (exchange(fresh(factory, dim), y).decoded for y in (x, -x))
        differ = int(((plus + minus).abs() > 1e-5 * x.max()).sum())
        kept = f"C(x) has {int((plus != 0).sum())} non-zeros, C(-x) {int((minus != 0).sum())}"
        assert not differ, f"x > 0: C(-x) differs from -C(x) at {differ} of {x.numel()} entries; {kept} (J = {dim})"


def not_finite(factory: Factory) -> None:
    """NaN or infinity in x raises ValueError, or shows in C(x). One such entry; all of a random choice of entries."""
    for value in (math.nan, math.inf, -math.inf):
        for dim in (1, 40, 1000):
            codec = fresh(factory, dim)
            x = normal(12, 1, dim)
            x[0, slice(None) if codec.sparse and codec.stochastic else 0] = value
            try:
                decoded = exchange(codec, x).decoded
            except ValueError:
                continue
            finite = int(decoded.isfinite().sum())
            assert finite < dim, f"an entry {value} is hidden: all {finite} decoded entries are finite (J = {dim})"


def self_contained(factory: Factory) -> None:
    """Another codec with the same setup decodes the message to the same vector. Skips ``shared_state`` and codecs
    of several phases."""
    if factory().shared_state:
        return
    for dim in (1, 40, 1000):
        codec = fresh(factory, dim)
        for t in range(3):
            done = whole_round(codec, normal(t, 2, dim))
            if len(done.messages) > 1:
                return
            second = fresh(factory, dim)
            where = f"round {t + 1}, J = {dim}"
            try:
                again = second.decode(replace(done.messages[0], codec=second))
            except Exception as error:
                raise AssertionError(f"{where}: a second codec cannot decode it: {one_line(error)}") from error
            differ = int((again != done.decoded).sum())
            assert not differ, f"{where}: a second codec decodes {differ} of {again.numel()} entries otherwise"


def reduce(factory: Factory) -> None:
    """reduce == sum_n w_n decode(message_n), unless ``finalize`` makes another aggregate of the sum."""
    if _finalizes(factory()):
        return
    for dim in SIZES:
        weights = placed(torch.tensor([0.2, 0.5, 0.3]))
        x = normal(13, 3, dim)
        done = exchange(fresh(factory, dim), x, weights)
        codec = fresh(factory, dim)
        types = [b.dtype for b in done.messages[-1].buffers.values() if codec.sums]  # whose sum is a message, too
        coarseness = max((torch.finfo(t).eps for t in types), default=0.0)
        for name, total in (("add_up", done.aggregate), ("reduce", codec.reduce(codec.encode(x), weights))):
            off = _furthest(total, weights @ done.decoded)
            allowed = max(1e-5, coarseness) * float(done.decoded.abs().max())
            assert off <= allowed, f"{name} is {off:.4g} off the weighted sum of what was decoded (J = {dim})"


def _finalizes(codec: Compressor) -> bool:
    message = codec.encode(normal(13, 1, 8))
    if not message.last:
        return True
    total = codec.total(message, placed(torch.ones(1)))
    return codec.finalize(message, total) is not total


def _furthest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def distinct_entries(factory: Factory) -> None:
    """A codec that names places names none twice."""
    for dim in (9, 256, 1000):
        codec = fresh(factory, dim)
        if not hasattr(codec, "places"):
            return
        for t in range(5):
            message = codec.encode(normal(t, 2, dim))
            rows = [p for p, _ in codec.rows(message)] if message.lengths else codec.places(message)  # type: ignore[attr-defined]
            for row in rows:
                different = len(row.unique())
                assert different == len(row), f"{different} of {len(row)} indices are different (J = {dim})"


def corrupt(factory: Factory) -> None:
    """Messages, and frames of bytes, that no encoder made are refused, or read as numbers of the right shape."""
    corrupt_messages(factory)
    corrupt_frames(factory, frames=FRAMES)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


CHECKS: dict[str, Callable[[Factory], None]] = {
    "shape": shape,
    "input unchanged": input_unchanged,
    "scale": scale,
    "size": size,
    "information": information,
    "integer width": integer_width,
    "odd inputs": odd,
    "negation": negation,
    "NaN and infinity": not_finite,
    "global generators": global_generators,
    "deterministic": deterministic,
    "workers apart": workers_apart,
    "self-contained": self_contained,
    "reduce": reduce,
    "distinct entries": distinct_entries,
    "error feedback": error_feedback,
    "resume": resume,
    "corrupt messages": corrupt,
}


@dataclass(frozen=True)
class Result:
    """``reason``: why the check failed, in one line; None if it passed."""

    check: str
    reason: str | None


def run_checks(factory: Factory) -> list[Result]:
    """Every check on the codecs that ``factory`` makes; whatever a codec raises is a failure of its check."""
    results = []
    for name, check in CHECKS.items():
        try:
            with torch.no_grad():
                check(factory)
            reason = None
        except AssertionError as error:
            reason = " ".join(str(error).split()) or "an assertion of the codec failed"
        except Exception as error:
            reason = f"raised {one_line(error)}"
        results.append(Result(name, reason))
    return results
