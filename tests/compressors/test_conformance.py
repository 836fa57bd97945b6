"""What every registered compressor must do, whatever it is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import bare, compressor, options
from torch import Tensor

CODECS = options("compress")


def vectors(seed: int, workers: int, dim: int) -> Tensor:
    return torch.randn(workers, dim, generator=torch.Generator().manual_seed(seed))


ODD = {
    "zero": torch.zeros(2, 17),
    "all negative": -vectors(0, 2, 17).abs() - 1,
    "all equal": torch.full((2, 17), 0.25),
    "one element": torch.tensor([[3.0], [-2.0]]),
    "huge": vectors(1, 2, 33) * 1e30,
    "tiny": vectors(2, 2, 33) * 1e-30,
    "one spike": torch.eye(2, 40),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("odd", ODD)
def test_shape_dtype_and_contraction_on_odd_inputs(name: str, odd: str) -> None:
    a = ODD[odd]
    codec = bare(name)
    before = a.clone()
    decoded = codec.decode(codec.encode(a))
    assert torch.equal(a, before), "encode changed its input"
    assert decoded.shape == a.shape
    assert decoded.dtype == a.dtype
    delta = codec.delta(a.shape[1])
    if delta is not None:
        error, whole = (a - decoded).double().square().sum(1), a.double().square().sum(1)
        assert bool((error <= (1 - delta) * whole * (1 + 1e-6)).all())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dim", [1, 7, 8, 256, 257, 32768, 32769])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_declared_size_is_the_size_sent(name: str, dim: int, dtype: torch.dtype) -> None:
    codec = bare(name)
    a = vectors(3, 2, dim).to(dtype)
    for _ in range(3):
        message = codec.encode(a)
        codec.feedback(codec.reduce(message, torch.tensor([0.5, 0.5], dtype=dtype)))
        assert message.nbytes == codec.payload(dim, a.element_size())
        assert 2 * message.nbytes == sum(b.numel() * b.element_size() for b in message.buffers.values())
        assert message.info_bits <= 8 * message.nbytes + 1e-9
        assert torch.int64 not in {b.dtype for b in message.buffers.values()}


@pytest.mark.parametrize("name", CODECS)
def test_reduce_is_the_weighted_sum_of_what_was_decoded(name: str) -> None:
    codec, weights = bare(name), torch.tensor([0.2, 0.5, 0.3])
    message = codec.encode(vectors(4, 3, 1000))
    torch.testing.assert_close(codec.reduce(message, weights), weights @ codec.decode(message))


@pytest.mark.parametrize("name", CODECS)
def test_deterministic_and_blind_to_the_global_generator(name: str) -> None:
    def three_rounds() -> list[Tensor]:
        codec, out = compressor(name), []
        for t in range(3):
            message = codec.encode(vectors(t, 4, 300))
            out.append(codec.reduce(message, torch.full((4,), 0.25)))
            codec.feedback(out[-1])
        return out

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = three_rounds()
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, three_rounds(), strict=True))


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), workers=st.integers(1, 4), dim=st.integers(1, 200), rounds=st.integers(1, 6))
def test_error_feedback_telescopes(name: str, seed: int, workers: int, dim: int, rounds: int) -> None:
    """sum of what was sent + residual == sum of the gradients."""
    codec = compressor(name, "compress.error_feedback=true")
    sent, given_in = torch.zeros(workers, dim, dtype=torch.float64), torch.zeros(workers, dim, dtype=torch.float64)
    for t in range(rounds):
        gradient = vectors(seed + t, workers, dim).double()
        message = codec.encode(gradient)
        sent += codec.decode(message)
        given_in += gradient
        codec.feedback(codec.reduce(message, torch.full((workers,), 1.0 / workers, dtype=torch.float64)))
    torch.testing.assert_close(sent + codec.residual, given_in, rtol=1e-12, atol=1e-12)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CODECS)
def test_state_resumes_bit_for_bit(name: str) -> None:
    def go(codec: object, rounds: range) -> list[Tensor]:
        out = []
        for t in rounds:
            message = codec.encode(vectors(t, 3, 120))  # type: ignore[attr-defined]
            out.append(codec.reduce(message, torch.full((3,), 1 / 3)))  # type: ignore[attr-defined]
            codec.feedback(out[-1])  # type: ignore[attr-defined]
        return out

    whole = go(compressor(name), range(8))
    first = compressor(name)
    go(first, range(4))
    second = compressor(name)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], go(second, range(4, 8)), strict=True))


@pytest.mark.parametrize("name", [name for name in CODECS if bare(name).unbiased])
def test_unbiased_where_it_says_so(name: str) -> None:
    codec = bare(name)
    a = vectors(5, 1, 50).double()
    draws = torch.stack([codec.decode(codec.encode(a))[0] for _ in range(400)])
    error = draws.mean(0) - a[0]
    bound = 5 * draws.std(0) / math.sqrt(400) + 1e-12
    assert bool((error.abs() <= bound).all())
