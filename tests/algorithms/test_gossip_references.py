"""Decentralised methods against the papers' recursions, written out with dense matrices in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from algorithms.gossip_world import (
    GAMMA,
    L2,
    LR,
    NONCONVEX,
    PARTS,
    ROUNDS,
    SEED,
    WEIGHT,
    B,
    J,
    N,
    Vector,
    X,
    Y,
    class_of,
    go,
    metropolis_dense,
    workers_of,
    world,
)
from registry import options
from torch import Tensor

from commexp.algorithms import (
    D2,
    DPSGD,
    DSGT,
    KGT,
    NIDS,
    SGP,
    Algorithm,
    Choco,
    DeepStorm,
    Extra,
    ProxGTSA,
    ProxGTSRE,
    ProxGTSRO,
)
from commexp.algorithms.decentralised.base import DecentralisedMethod
from commexp.compressors import TopK
from commexp.problems.feeds.base import Sampler, with_replacement
from commexp.problems.logistic import Logistic
from commexp.topologies import Gossip, Ladder

# --- the reference: nothing below, down to the next line of dashes, uses what commexp computes, but for the indices of
# --- batches


def second_eigenvalue(W: Vector) -> float:
    return float(np.abs(np.linalg.eigvalsh(W - 1 / len(W))).max())


def top(x: Vector, k: int) -> Vector:
    """The k largest entries of each row."""
    out = np.zeros_like(x)
    for n, row in enumerate(x):
        kept = sorted(range(len(row)), key=lambda j, row=row: -abs(row[j]))[:k]
        out[n, kept] = row[kept]
    return out


def soft(z: Vector, by: float) -> Vector:
    return np.sign(z) * np.maximum(np.abs(z) - by, 0)


@dataclass
class Reference:
    """``lazy``, ``rounds``, ``chebyshev``: of the gossip. ``k``, ``gamma``: of compressed gossip; k = 0: none."""

    lazy: bool = False
    rounds: int = 1
    chebyshev: bool = False
    k: int = 0
    gamma: float = GAMMA
    weight: float = WEIGHT
    same_point: bool = False  # the fault of taking both of SARAH's gradients at one point ...
    other_samples: bool = False  # ... or on other samples
    hats: dict[str, Vector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        W = metropolis_dense(nx.ladder_graph(N // 2))
        self.W = (np.eye(N) + W) / 2 if self.lazy else W
        root = math.sqrt(1 - second_eigenvalue(self.W) ** 2)
        self.eta = (1 - root) / (1 + root) if self.chebyshev else 0.0
        self.start = np.tile(np.linspace(-0.5, 0.5, J), (N, 1))

    def mix(self, name: str, x: Vector) -> Vector:
        if self.k:
            known = self.hats.get(name, self.start if name == "x" else np.zeros((N, J)))
            known = self.hats[name] = known + top(x - known, self.k)
            return x + self.gamma * (self.W @ known - known)
        u, before = x, x
        for _ in range(self.rounds):
            u, before = (1 + self.eta) * self.W @ u - self.eta * before, u
        return u

    def batch(self, t: int) -> list[Vector]:
        return list(Sampler([torch.from_numpy(p) for p in PARTS], range(N), B, SEED).batch(t).numpy())

    def fresh(self, t: int, size: int) -> list[Vector]:
        return list(with_replacement([torch.from_numpy(p) for p in PARTS], range(N), size, SEED, t).numpy())

    def gradient(self, x: Vector, rows: list[Vector]) -> Vector:
        out = L2 * x + NONCONVEX * 2 * x / (1 + x**2) ** 2
        for n, own in enumerate(rows):
            margins = Y[own] * (X[own] @ x[n])
            out[n] += -(Y[own] / (1 + np.exp(margins))) @ X[own] / len(own)
        return out

    def dpsgd(self, momentum: float, decay: float) -> Vector:
        x, u = self.start, np.zeros((N, J))
        for t in range(ROUNDS):
            u = momentum * u + self.gradient(x, self.batch(t)) + decay * x
            x = self.mix("x", x) - LR * u
        return x

    def choco(self) -> Vector:
        x = self.start
        for t in range(ROUNDS):
            x = self.mix("x", x - LR * self.gradient(x, self.batch(t)))
        return x

    def d2(self) -> Vector:
        """As printed: x_{t+1} = W (2 x_t - x_{t-1} - lr g_t + lr g_{t-1})."""
        before, old = self.start, self.gradient(self.start, self.batch(0))
        x = self.mix("x", before - LR * old)
        for t in range(1, ROUNDS):
            g = self.gradient(x, self.batch(t))
            x, before, old = self.mix("x", 2 * x - before - LR * g + LR * old), x, g
        return x

    def extra(self, rounds: int = ROUNDS) -> Vector:
        """As printed: x_{k+2} = (I + W) x_{k+1} - (I + W)/2 x_k - lr (g_{k+1} - g_k)."""
        before, old = self.start, self.gradient(self.start, self.batch(0))
        x = self.mix("x", before) - LR * old
        for t in range(1, rounds):
            g = self.gradient(x, self.batch(t))
            x, before, old = (
                x + self.mix("x", x) - (before + self.mix("x", before)) / 2 - LR * (g - old), x, g,
            )  # fmt: skip
        return x

    def nids(self, rounds: int = ROUNDS) -> Vector:
        """As printed: z_{k+1} = z_k - x_k + (I + W)/2 (2 x_k - x_{k-1} - lr (g_k - g_{k-1}))."""
        before, old = self.start, self.gradient(self.start, self.batch(0))
        z = before - LR * old
        x = soft(z, LR * self.weight)
        for t in range(1, rounds):
            g = self.gradient(x, self.batch(t))
            u = 2 * x - before - LR * (g - old)
            z = z - x + (u + self.mix("x", u)) / 2
            x, before, old = soft(z, LR * self.weight), x, g
        return x

    def kgt(self, tau: int, lr: float, outer: float, rounds: int = ROUNDS) -> Vector:
        """As printed, with c_0 = 0."""
        x, c = self.start, np.zeros((N, J))
        for t in range(rounds):
            y = x
            for k in range(tau):
                y = y - lr * (self.gradient(y, self.batch(tau * t + k)) + c)
            z = (x - y) / (tau * lr)
            c = c - z + self.mix("z", z)
            x = self.mix("x", x - tau * lr * outer * z)
        return x

    def sgp(self, momentum: float, decay: float, rounds: int = ROUNDS) -> Vector:
        x, w, u = self.start, np.ones((N, 1)), np.zeros((N, J))
        for t in range(rounds):
            z = x / w
            u = momentum * u + self.gradient(z, self.batch(t)) + decay * z
            x, w = self.mix("x", x - LR * u), self.mix("w", w)
        return x

    def tracking(self, estimate: Callable[[int, Vector, Vector, Vector], Vector], late: bool = False) -> Vector:
        x = before = self.start
        y, v = np.zeros((N, J)), np.zeros((N, J))
        for t in range(ROUNDS):
            new = estimate(t, x, before, v)
            y = self.mix("y", y) + new - v if late else self.mix("y", y + new - v)
            x, before, v = self.mix("x", soft(x - LR * y, LR * self.weight)), x, new
        return x

    def dsgt(self) -> Vector:
        return self.tracking(lambda t, x, before, v: self.gradient(x, self.batch(t)), late=True)

    def proxgt_sa(self) -> Vector:
        return self.tracking(lambda t, x, before, v: self.gradient(x, self.batch(t)))

    def pair(self, t: int, x: Vector, before: Vector) -> tuple[Vector, Vector]:
        there = x if self.same_point else before
        rows = self.batch(t)
        return self.gradient(x, rows), self.gradient(there, self.batch(t + 1) if self.other_samples else rows)

    def recursive(self, q: int, large: Callable[[int, Vector], Vector]) -> Vector:
        def estimate(t: int, x: Vector, before: Vector, v: Vector) -> Vector:
            if t % q == 0:
                return large(t, x)
            here, there = self.pair(t, x, before)
            return v + here - there

        return self.tracking(estimate)

    def proxgt_sr_o(self, q: int = 5, size: int = 25) -> Vector:
        return self.recursive(q, lambda t, x: self.gradient(x, self.fresh(t, size)))

    def proxgt_sr_e(self, q: int = 7) -> Vector:
        return self.recursive(q, lambda t, x: self.gradient(x, PARTS))

    def deepstorm(self, beta: float = 0.15, size: int = 25) -> Vector:
        def estimate(t: int, x: Vector, before: Vector, v: Vector) -> Vector:
            if t == 0:
                return self.gradient(x, self.fresh(0, size))
            here, there = self.pair(t, x, before)
            return here + (1 - beta) * (v - there)

        return self.tracking(estimate)


# ------------------------------------------------------------------------------------------------------------------

METHODS: dict[str, tuple[Callable[[], Algorithm], Callable[[Reference], Vector]]] = {
    "dpsgd": (
        lambda: DPSGD(lr=LR, momentum=0.6, weight_decay=0.01),
        lambda r: r.dpsgd(0.6, 0.01),
    ),
    "choco": (lambda: Choco(lr=LR, gamma=GAMMA), Reference.choco),
    "d2": (lambda: D2(lr=LR), Reference.d2),
    "extra": (lambda: Extra(lr=LR), Reference.extra),
    "nids": (lambda: NIDS(lr=LR), Reference.nids),
    "kgt": (lambda: KGT(lr=LR, tau=1, outer_lr=0.7, gamma=GAMMA), lambda r: r.kgt(1, LR, 0.7)),
    "sgp": (lambda: SGP(lr=LR, momentum=0.6, weight_decay=0.01), lambda r: r.sgp(0.6, 0.01)),
    "dsgt": (lambda: DSGT(lr=LR, gamma=GAMMA), Reference.dsgt),
    "proxgt_sa": (lambda: ProxGTSA(lr=LR, gamma=GAMMA), Reference.proxgt_sa),
    "proxgt_sr_o": (lambda: ProxGTSRO(lr=LR, gamma=GAMMA, q=5, large_batch=25), Reference.proxgt_sr_o),
    "proxgt_sr_e": (lambda: ProxGTSRE(lr=LR, gamma=GAMMA, q=7), Reference.proxgt_sr_e),
    "deepstorm": (lambda: DeepStorm(lr=LR, gamma=GAMMA, beta=0.15, initial_batch=25), Reference.deepstorm),
}
GOSSIPS = {"once": Gossip(), "five": Gossip(rounds=5), "chebyshev": Gossip(rounds=5, chebyshev=True)}


def assert_agree(algorithm: Algorithm, expected: Vector) -> None:
    assert 0.2 < np.abs(expected).max() < 20
    assert np.abs(expected - expected.mean(0)).max() > 1e-6, "the workers stand apart, or W would not matter"
    np.testing.assert_allclose(workers_of(algorithm), expected, rtol=0, atol=1e-9)


def test_every_decentralised_method_has_a_reference() -> None:
    assert set(METHODS) == {n for n in options("algo") if issubclass(class_of(n), DecentralisedMethod)}


@pytest.mark.parametrize("gossip", GOSSIPS)
@pytest.mark.parametrize("name", METHODS)
def test_against_the_papers_recursion(name: str, gossip: str) -> None:
    given, (method, reference) = GOSSIPS[gossip], METHODS[name]
    lazy = name == "d2"
    if (
        name in ("d2", "extra", "nids") and given.chebyshev
    ):  # its polynomial has negative values, of which they know no W
        with pytest.raises(ValueError, match=f"algo={name}: needs plain gossip"):
            method().setup(world(Ladder(lazy=lazy), given))
        return
    algorithm = method()
    go(algorithm, world(Ladder(lazy=lazy), given))
    assert_agree(algorithm, reference(Reference(lazy, given.rounds, given.chebyshev)))


@pytest.mark.parametrize("name", ["choco", "dsgt", "kgt", "proxgt_sa", "proxgt_sr_o", "proxgt_sr_e", "deepstorm"])
def test_with_top_k_against_the_papers_recursion(name: str) -> None:
    method, reference = METHODS[name]
    algorithm = method()
    go(algorithm, world(Ladder(), codec=TopK(k=5)))
    expected = reference(Reference(k=5))
    assert_agree(algorithm, expected)
    assert np.abs(expected - reference(Reference())).max() > 1e-3, "compression would not matter"


@pytest.mark.parametrize("name", ["proxgt_sr_o", "proxgt_sr_e", "deepstorm"])
@pytest.mark.parametrize("fault", ["same_point", "other_samples"])
def test_the_recursions_pair_of_gradients(name: str, fault: str) -> None:
    """Were both of its gradients taken at one point, or each on other samples, the library would not agree."""
    algorithm = METHODS[name][0]()
    go(algorithm, world(Ladder()))
    faulty = METHODS[name][1](Reference(**{fault: True}))
    assert np.abs(workers_of(algorithm) - faulty).max() > 1e-3


def test_the_recursive_methods_ask_for_each_batch_once() -> None:
    """The very same batch at both points."""

    class Watched(Logistic):
        asked: list[tuple[int, Any]]

        def batch(self, step: int) -> Any:
            found = super().batch(step)
            self.asked.append((step, found))
            return found

    for method in (ProxGTSRO(lr=LR, q=5, large_batch=9), ProxGTSRE(lr=LR, q=5), DeepStorm(lr=LR, initial_batch=9)):
        made = world(Ladder())
        assert isinstance(made.problem, Logistic)
        made.problem.__class__, made.problem.asked = Watched, []  # type: ignore[attr-defined]
        used: list[tuple[Tensor, Any]] = []
        inner = made.problem.loss_and_grad

        def noted(x: Tensor, batch: Any, ready: Any = None, used: Any = used, inner: Any = inner) -> Any:
            used.append((x.clone(), batch))
            return inner(x, batch, ready)

        made.problem.loss_and_grad = noted  # type: ignore[method-assign]
        points: list[Tensor] = []

        def after(t: int, method: Any = method, used: Any = used, points: Any = points) -> None:
            if points and t % 5:
                (x, one), (before, other) = used
                assert one is other
                assert torch.equal(x, points[-1])
                assert torch.equal(before, points[-2])
                assert not torch.equal(x, before)
            used.clear()
            points.append(method.x.clone())

        points.append(made.start.repeat(N, 1))
        go(method, made, 12, after)
        asked = [step for step, _ in made.problem.asked]  # type: ignore[attr-defined]
        restarts = range(1) if isinstance(method, DeepStorm) else range(0, 12, 5)
        assert asked == [t for t in range(12) if t not in restarts]
