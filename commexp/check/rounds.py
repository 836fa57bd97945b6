"""Checks over several rounds: randomness, workers, error feedback, resume."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from commexp.check.drive import Factory, Round, assert_same_bytes, exchange, fresh, normal, placed, whole_round
from commexp.compressors import Compressor, ErrorFeedback

DIM = 120


def global_generators(factory: Factory) -> None:
    """Neither torch's nor NumPy's global generator is moved or seeded anew."""
    kept = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(20)
            np.random.seed(20)
            wanted = float(torch.rand(1)), float(np.random.random())
            torch.manual_seed(20)
            np.random.seed(20)
            codec = fresh(factory, DIM)
            for t in range(3):
                whole_round(codec, normal(t, 2, DIM))
            after = float(torch.rand(1)), float(np.random.random())
        finally:
            np.random.set_state(kept)
    for name, one, other in zip(("torch", "numpy"), after, wanted, strict=True):
        assert one == other, f"{name}'s global generator was used: its next number is {one:.6f}, was to be {other:.6f}"


def deterministic(factory: Factory) -> None:
    """Two codecs with the same setup send the same bytes, whatever the global generators say."""

    def rounds(seed: int) -> list[Round]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            codec = fresh(factory, DIM)
            return [whole_round(codec, normal(t, 2, DIM)) for t in range(3)]

    for t, (one, other) in enumerate(zip(rounds(1), rounds(2), strict=True), 1):
        for sent, wanted in zip(one.messages, other.messages, strict=True):
            assert_same_bytes(sent, wanted, (0, 1), f"round {t}")


def workers_apart(factory: Factory) -> None:
    """Workers 2 and 3 send the same bytes whether 0 and 1 sit in this process or in another. Skips codecs of
    several phases."""
    for dim in (1, DIM, 1000):
        whole, part = fresh(factory, dim, (0, 1, 2, 3)), fresh(factory, dim, (2, 3))
        weights = placed(torch.tensor([0.1, 0.2, 0.3, 0.4]))
        for t in range(3):
            x = normal(t, 4, dim)
            done = exchange(whole, x, weights)
            if len(done.messages) > 1:
                return
            sent = part.encode(x[2:])
            assert_same_bytes(sent, done.messages[0], (2, 3), f"J = {dim}, round {t + 1}")
            whole.feedback(done.aggregate, weights)
            part.feedback(done.aggregate, weights[2:])


def error_feedback(factory: Factory) -> None:
    """sum of what was sent + residual == sum of what was given, after each of 6 rounds. Skips codecs around which there
    is no error feedback."""
    if factory().expands:
        return
    for workers, dim in ((1, 1), (3, 40), (2, 1000)):
        codec = ErrorFeedback(fresh(factory, dim))
        given, sent = placed(torch.zeros(2, workers, dim, dtype=torch.float64))
        largest = 1.0
        for t in range(6):
            x = normal(t, workers, dim, torch.float64)
            decoded = whole_round(codec, x).decoded
            assert codec.residual is not None
            given, sent = given + x, sent + decoded
            largest = max(largest, float(decoded.abs().max()), float(codec.residual.abs().max()))
            off = float((sent + codec.residual - given).abs().max())
            assert off <= 1e-10 * largest, f"round {t + 1}: sent + residual is {off:.4g} off the sum (J = {dim})"


def resume(factory: Factory) -> None:
    """A new codec with the state of round 4, saved as safetensors, sends the same bytes in rounds 5 to 8."""
    for workers, dim in ((3, DIM), (1, 1)):
        whole, codec = fresh(factory, dim), fresh(factory, dim)
        wanted = _rounds(whole, workers, dim, range(8))
        _rounds(codec, workers, dim, range(4))
        state = codec.state_dict()
        for name, value in state.items():
            assert isinstance(value, Tensor), f"state {name} is a {type(value).__name__}; must be a tensor"
        content = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
        second = fresh(factory, dim)
        second.load_state_dict({name: placed(value) for name, value in load(content).items()})
        for t, (one, other) in enumerate(zip(_rounds(second, workers, dim, range(4, 8)), wanted[4:], strict=True), 5):
            where = f"round {t} of 8, resumed after 4 (state: {sorted(state) or 'none'})"
            assert len(one.messages) == len(other.messages), f"{where}: {len(one.messages)} messages"
            for sent, right in zip(one.messages, other.messages, strict=True):
                assert_same_bytes(sent, right, range(workers), where)
            differ = int((one.aggregate != other.aggregate).sum())
            assert not differ, f"{where}: {differ} of {dim} entries of the aggregate differ"


def _rounds(codec: Compressor, workers: int, dim: int, rounds: range) -> list[Round]:
    return [whole_round(codec, normal(t, workers, dim)) for t in rounds]
