"""Is C(x) of the size of x: contraction, unbiasedness, or at least the right order of magnitude."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from commexp.check.drive import DTYPES, Factory, decoded, fresh, normal, odd_inputs
from commexp.compressors import Compressor

DRAWS = (400, 1600)  # a failure counts if more draws, independent of the first, confirm it
TOGETHER = 20  # draws in one encoding, as rows of different workers
ERRORS = 5  # standard errors that a mean may lie off
LONG = 10_000  # beyond so many entries a twentieth of the draws do
ROUNDING = 1e-6


def scale(factory: Factory) -> None:
    """What the codec declares holds: E||x - C(x)||^2 <= (1 - delta) ||x||^2; E C(x) = x where ``unbiased``. If it
    declares neither, the best factor c in ||x - c C(x)||^2 lies in [0.1, 10], over all draws or for their mean."""
    codec = factory()
    contracts, together = codec.delta(40) is not None, TOGETHER if _rows_are_independent(factory) else 1
    if contracts:
        _contracts(factory, together)
    if codec.unbiased:
        _unbiased(factory, together)
    if not contracts and not codec.unbiased:
        _right_order(factory, together)


def _rows_are_independent(factory: Factory) -> bool:
    """Whether workers that encode the same vector draw different numbers, so that their rows are as good as rounds."""
    codec = fresh(factory, 1000)
    if codec.phases > 1 or codec.shared_state:
        return False
    one, other = decoded(codec, normal(15, 1, 1000).repeat(2, 1))
    return not torch.equal(one, other)


def _draws(codec: Compressor, x: Tensor, number: int, together: int) -> Tensor:
    """C(x) so many times, [number, W, J]: one encoding after the other, each of ``together`` draws."""
    if number % together or x.shape[1] > LONG:
        together = 1
    rows = x.repeat(together, 1)
    return torch.cat([decoded(codec, rows).view(together, *x.shape) for _ in range(number // together)])


def best_factor(x: Tensor, read: Tensor) -> Tensor:
    """c that minimises ||x - c C(x)||^2 of each row, [W], C(x) being ``read``; 1 where C(x) = 0."""
    x, read = x.double(), read.double()
    top = read.abs().amax(1, keepdim=True)
    unit = read / torch.where(top == 0, 1.0, top)
    c = (x * unit).sum(1) / unit.square().sum(1) / top[:, 0]
    return torch.where(top[:, 0] == 0, 1.0, c)


def _contracts(factory: Factory, together: int) -> None:
    inputs = {**odd_inputs(), **{f"normal, J = {dim}": normal(4, 2, dim) for dim in (9, 255, 1000, 65537)}}
    for label, x in inputs.items():
        dim = x.shape[1]
        codec = fresh(factory, dim)
        if codec.phases > 1:
            x = x[:1]  # several workers share one message's subspace
        delta = codec.delta(dim)
        assert delta is not None, f"{label}: delta({dim}) is None, delta(40) is not"
        assert 0 <= delta <= 1, f"{label}: delta({dim}) = {delta:.4g}; must lie in [0, 1]"
        for draws in DRAWS if codec.stochastic else (1,):
            draws = math.ceil(draws / 20) if dim > LONG else draws
            drawn = _draws(codec, x, draws, together)
            shares = _lost(x, drawn)
            mean = shares.mean(0)
            slack = ERRORS * shares.std(0) / math.sqrt(draws) if draws > 1 else x.new_zeros(len(x))
            if bool((mean <= (1 - delta) * (1 + ROUNDING) + slack + 1e-10).all()):
                break
        else:
            worst = float(mean[(mean - slack).nan_to_num(math.inf).argmax()])
            times = float((1 / best_factor(x, drawn[-1])).abs().max())
            hint = f"; decoded is {times:.1f} times too large" if times > 10 else ""
            raise AssertionError(
                f"{label}: loses {worst:.4g} of ||x||^2, delta = {delta:.4g} allows {1 - delta:.4g}{hint}"
            )


def _lost(x: Tensor, read: Tensor) -> Tensor:
    """||x - C(x)||^2 / ||x||^2 of each row, [..., W]; 0 for 0/0."""
    error, whole = (x.double() - read.double()).square().sum(-1), x.double().square().sum(-1)
    return torch.where((error == 0) & (whole == 0), 0.0, error / whole)


def _unbiased(factory: Factory, together: int) -> None:
    for dtype in DTYPES:
        for x in (normal(5, 2, 1, dtype), normal(6, 2, 20, dtype), -normal(7, 2, 9, dtype).abs() - 1):
            codec = fresh(factory, x.shape[1])
            for draws in DRAWS:
                drawn = _draws(codec, x, draws, together).double()
                off = (drawn.mean(0) - x.double()).abs()
                allowed = ERRORS * drawn.std(0) / math.sqrt(draws) + ROUNDING * x.double().abs().max()
                if bool((off <= allowed).all()):
                    break
            else:
                worst = int((off / allowed).nan_to_num(math.inf).argmax())
                means = f"mean of {draws} draws {float(drawn.mean(0).flatten()[worst]):.4g}"
                error = f"{float((off / allowed).flatten()[worst]) * ERRORS:.1f} standard errors off"
                raise AssertionError(
                    f"unbiased is declared: {means}, x = {float(x.flatten()[worst]):.4g}, {error} (J = {x.shape[1]})"
                )


def _right_order(factory: Factory, together: int) -> None:
    for dim in (9, 40, 1000, 65537):
        for x in (normal(8, 2, dim), -normal(9, 2, dim).abs() - 1):
            codec = fresh(factory, dim)
            draws = (20 if dim > LONG else DRAWS[0]) if codec.stochastic else 1
            drawn = _draws(codec, x, draws, together).double()
            mean = best_factor(x, drawn.mean(0))  # right for much noise around x
            pooled = best_factor(x.repeat(1, draws), torch.cat([*drawn], 1))  # right for a few entries of x
            for c in torch.where((pooled >= 0.1) & (pooled <= 10), pooled, mean).tolist():
                assert math.isfinite(c), f"J = {dim}: decoded is not finite (best factor {c})"
                assert c > 0, f"J = {dim}: decoded points away from x: best factor {c:.4g}"
                assert c >= 0.1, f"J = {dim}: decoded is {1 / c:.1f} times too large"
                assert c <= 10, f"J = {dim}: decoded is {c:.1f} times too small"
