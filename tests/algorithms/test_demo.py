"""DeMo against its rule in NumPy, and what it is at its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from algorithms.test_sgd import J, N, context, go, problem
from registry import plan
from scipy.fft import dct, idct
from torch import Tensor

from commexp.algorithms import DeMo
from commexp.compressors import DCT, QSGD, Chunked, ErrorFeedback, NoCompression, TopK
from commexp.config.messages import UserError
from commexp.problems.least_squares import LeastSquares

LR, DECAY = 0.01, 0.1


def gradients(objective: LeastSquares, x: np.ndarray) -> np.ndarray:
    """[J] -> [N, J]."""
    found: Tensor = objective.loss_and_grad(torch.from_numpy(x).expand(N, -1), None)[1]
    return found.numpy().copy()


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_the_rule_line_by_line(beta: float) -> None:
    """arXiv 2411.19870, algorithm 1, on runs of 8 entries (8, 8 and 4 of 20), the 3 largest coefficients of each."""
    codec = DCT(Chunked(k=3, chunk=8, tiles=False), chunk=8, tiles=False)
    ours = go(DeMo(lr=LR, beta=beta, weight_decay=DECAY), context(codec=codec))
    objective, x, m = problem(), np.linspace(-1, 1, J), np.zeros((N, J))
    for _ in range(40):
        m = beta * m + LR * gradients(objective, x)
        q = np.zeros_like(m)
        for start in range(0, J, 8):
            run = slice(start, min(J, start + 8))
            spectrum = dct(m[:, run], norm="ortho")
            for row in spectrum:
                row[np.argsort(-np.abs(row), kind="stable")[3:]] = 0
            q[:, run] = spectrum
            m[:, run] -= idct(spectrum, norm="ortho")
        mean = np.concatenate([idct(q[:, s : s + 8].mean(0), norm="ortho") for s in range(0, J, 8)])
        x = (1 - LR * DECAY) * x - LR * np.sign(mean)
    np.testing.assert_allclose(ours.numpy(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("codec", [NoCompression, lambda: TopK(k=1.0), lambda: DCT(Chunked(k=1.0), chunk=8)])
def test_with_every_entry_it_is_sign_sgd(codec: type[NoCompression]) -> None:
    ours = go(DeMo(lr=LR, beta=0.0), context(codec=codec()))
    objective, x = problem(), np.linspace(-1, 1, J)
    for _ in range(40):
        x = x - LR * np.sign(gradients(objective, x).mean(0))
    np.testing.assert_allclose(ours.numpy(), x, rtol=0, atol=1e-12)


def test_the_momenta_are_each_workers_own_and_saved() -> None:
    algorithm, world = DeMo(lr=LR, beta=0.5), context(codec=TopK(k=3))
    go(algorithm, world, 5)
    kept = algorithm.state_dict()["compressor.workers.residual"]
    assert kept.shape == (N, J)
    assert float((kept[0] - kept[1]).norm()) > 0
    assert isinstance(algorithm.codec, ErrorFeedback)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^optimizer=sgd: DeMo takes the sign of the mean; give sign$"):
        DeMo(lr=LR, optimizer="sgd")
    with pytest.raises(ValueError, match=r"^beta=1.0: must lie in \[0, 1\); 0.999 is usual$"):
        DeMo(lr=LR, beta=1.0)
    with pytest.raises(ValueError, match=r"^momentum=0.9: optimizer=sign has none; give momentum=0$"):
        DeMo(lr=LR, momentum=0.9)
    with pytest.raises(ValueError, match=r"^algo.beta=0.999: QSGD is unbiased .*; give algo.beta=0, or another "):
        DeMo(lr=LR).setup(context(codec=QSGD()))
    with pytest.raises(UserError, match=r"^compress.error_feedback=true: algo=demo keeps what compression leaves out"):
        plan("algo=demo", "compress.error_feedback=true")


def test_the_preset_is_the_papers() -> None:
    made = plan("algo=demo")
    assert isinstance(made.compressor, DCT)
    assert isinstance(made.compressor.codec, Chunked)
    assert (made.compressor.codec.k, made.compressor.codec.chunk, made.compressor.chunk) == (32, 4096, 64)
    assert made.algorithm.beta == 0.999  # type: ignore[attr-defined]
    assert plan("algo=demo", "compress=topk").resolved["compress"]["error_feedback"] is False
