"""Methods that compress differences: against their rules in NumPy, what they are at their limits, bytes by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from algorithms.test_coding import go as go_setup
from algorithms.test_coding import gradients, set_up, starts
from algorithms.test_sgd import J, N, context, go, problem
from registry import assert_one_line, interrupted, plan, untimed

from commexp.algorithms import DASHA, DIANA, EF21, EF21SGDM, MARINA, SGD, Algorithm, DifferenceMethod
from commexp.compressors import Message, NoCompression, RandK, TopK
from commexp.compressors.sparse import Sparse
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.run_folder import Run
from commexp.seeding import numpy_generator

LR, ROUNDS, K = 0.05, 60, 4
OMEGA = J / K - 1
SETS = np.argsort(np.random.default_rng(3).random((ROUNDS + 1, N, J)))[..., :K]  # drawn here, and fed to both
METHODS = {"ef21": EF21, "ef21_sgdm": EF21SGDM, "diana": DIANA, "marina": MARINA, "dasha": DASHA}


@dataclass
class GivenK(Sparse):
    """Rand-k times J/k on the sets SETS[i] in its i-th encoding."""

    k: int = K
    unbiased = True
    count: int = field(default=0, init=False)

    def encode(self, a: torch.Tensor) -> Message:
        message = self.pack(a * (J / K), torch.from_numpy(SETS[self.count]))
        self.count += 1
        return message

    def omega(self, dim: int) -> float:
        return dim / K - 1


class Reference:
    """The world of ``context`` in NumPy."""

    def __init__(self) -> None:
        made = problem()
        self.gram, self.cross = made.gram.numpy(), made.cross.numpy()
        self.x, self.encoded = np.linspace(-1, 1, J), 0

    def gradients(self) -> np.ndarray:
        return np.asarray(np.einsum("nij,j->ni", self.gram, self.x) - self.cross)

    def top(self, a: np.ndarray) -> np.ndarray:
        sent = np.zeros_like(a)
        for row, out in zip(a, sent, strict=True):
            kept = np.argsort(-np.abs(row), kind="stable")[:K]
            out[kept] = row[kept]
        return sent

    def rand(self, a: np.ndarray) -> np.ndarray:
        sent = np.zeros_like(a)
        for row, out, kept in zip(a, sent, SETS[self.encoded], strict=True):
            out[kept] = row[kept] * J / K
        self.encoded += 1
        return sent


def ef21(r: Reference, rounds: int, eta: float = 1.0) -> None:
    g_n, v = np.zeros((N, J)), r.gradients()
    for _ in range(rounds):
        v = (1 - eta) * v + eta * r.gradients()
        g_n = g_n + r.top(v - g_n)
        r.x = r.x - LR * g_n.mean(0)


def diana(r: Reference, rounds: int, alpha: float = 1 / (1 + OMEGA)) -> None:
    h_n = np.zeros((N, J))
    for _ in range(rounds):
        m = r.rand(r.gradients() - h_n)
        r.x, h_n = r.x - LR * (h_n + m).mean(0), h_n + alpha * m


def marina(r: Reference, rounds: int, p: float) -> None:
    g, before = np.zeros(J), np.zeros((N, J))
    for t in range(rounds):
        now = r.gradients()
        whole = t == 0 or numpy_generator(0, "MARINA's coin", t).random() < p
        g = now.mean(0) if whole else g + r.rand(now - before).mean(0)
        before, r.x = now, r.x - LR * g


def dasha(r: Reference, rounds: int, a: float = 1 / (2 * OMEGA + 1)) -> None:
    before = g_n = r.gradients()
    for t in range(rounds):
        if t:
            now = r.gradients()
            g_n = g_n + r.rand(now - before - a * (g_n - before))
            before = now
        r.x = r.x - LR * g_n.mean(0)


@pytest.mark.parametrize(
    ("algorithm", "rule", "fields"),
    [
        (EF21(lr=LR), ef21, {}),
        (EF21SGDM(lr=LR, eta=0.3), ef21, {"eta": 0.3}),
        (DIANA(lr=LR), diana, {}),
        (DIANA(lr=LR, alpha=0.05), diana, {"alpha": 0.05}),
        (MARINA(lr=LR, p=0.25), marina, {"p": 0.25}),
        (DASHA(lr=LR), dasha, {}),
        (DASHA(lr=LR, a=0.3), dasha, {"a": 0.3}),
    ],
)
def test_the_rule_line_by_line(algorithm: DifferenceMethod, rule: Any, fields: dict[str, float]) -> None:
    contractive = algorithm.codec_kind == "contractive"
    ours = go(algorithm, context(ROUNDS, codec=TopK(k=K) if contractive else GivenK()), ROUNDS)
    reference = Reference()
    rule(reference, ROUNDS, **fields)
    np.testing.assert_allclose(ours.numpy(), reference.x, rtol=0, atol=1e-12)
    assert float((ours - torch.linspace(-1, 1, J)).abs().max()) > 0.1, "it has moved"


@pytest.mark.parametrize(
    "algorithm", [EF21(lr=LR), EF21SGDM(lr=LR, eta=1.0), DIANA(lr=LR), MARINA(lr=LR), DASHA(lr=LR)]
)
def test_without_compression_they_are_gradient_descent(algorithm: DifferenceMethod) -> None:
    """C = identity has delta = 1 and omega = 0, and a message as large as a vector, so that p = 1."""
    ours, descent = go(algorithm, context(ROUNDS), ROUNDS), go(SGD(lr=LR), context(ROUNDS), ROUNDS)
    torch.testing.assert_close(ours, descent, rtol=0, atol=1e-15)


def test_marina_with_p_1_is_gradient_descent_bit_for_bit() -> None:
    ours = go(MARINA(lr=LR, p=1.0), context(ROUNDS, codec=RandK(k=K, rescale=True)), ROUNDS)
    assert torch.equal(ours, go(SGD(lr=LR), context(ROUNDS), ROUNDS))


@pytest.mark.parametrize("algorithm", [EF21(lr=0.1), DIANA(lr=0.1), MARINA(lr=0.1), DASHA(lr=0.1)])
def test_they_reach_the_optimum(algorithm: DifferenceMethod) -> None:
    """Which SGD with Top-k and no error feedback does not: the workers' gradients there are not zero."""
    codec = TopK(k=K) if algorithm.codec_kind == "contractive" else RandK(k=J // 2, rescale=True)
    x, best = go(algorithm, context(400, codec=codec), 400), problem()
    assert best.evaluate(x)["excess_loss"] <= 1e-24
    assert float((x - best.optimum()).abs().max()) <= 1e-12
    plain = go(SGD(lr=0.1), context(400, codec=TopK(k=K)), 400)
    assert float((plain - best.optimum()).abs().max()) > 1e-2


def test_the_mean_is_that_of_the_workers() -> None:
    ef, diana = EF21(lr=LR), DIANA(lr=LR)
    go(ef, context(codec=TopK(k=K)))
    go(diana, context(codec=GivenK()))
    torch.testing.assert_close(ef.g, ef.g_n.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(diana.h, diana.h_n.mean(0), rtol=0, atol=1e-12)


def booked(algorithm: Algorithm, exchange: str, rounds: int = 20) -> tuple[int, int]:
    """bytes_sent and bytes_wire of float64 vectors."""
    world = context(rounds, codec=RandK(k=K, rescale=True), exchange=exchange)
    algorithm.setup(world)
    for t in range(rounds):
        world.comm.begin_round(t + 1)
        algorithm.round(t)
        world.comm.end_round()
    entries = world.comm.settle()
    return sum(e.bytes_sent for e in entries), sum(e.bytes_wire for e in entries)


def test_bytes_by_hand() -> None:
    """Rand-k with common sets sends k = 4 values of 8 bytes; a vector has 20. N = 5; a ring carries 2 (N-1)/N of what
    is sent, a server gets the messages of four others and sends four sums back."""
    message, vector = 8 * K, 8 * J
    coins = [t == 0 or numpy_generator(0, "MARINA's coin", t).random() < 0.4 for t in range(20)]
    whole = sum(coins)
    assert 3 <= whole <= 14
    ring, star = 2 * (N - 1), 2 * (N - 1)
    for algorithm, dense in ((DIANA(lr=LR), 0), (DASHA(lr=LR), 1), (MARINA(lr=LR, p=0.4), whole)):
        each = dense * vector + (20 - dense) * message
        assert booked(algorithm, "auto") == (N * each, ring * each)
        assert booked(algorithm, "server") == (2 * N * each, star * each)


def test_p_is_the_share_of_a_message() -> None:
    algorithm = MARINA(lr=LR)
    algorithm.setup(context(codec=RandK(k=K, rescale=True)))
    assert algorithm.probability(8 * K / (8 * J)) == K / J
    drawn = [algorithm.sends_whole(t) for t in range(1, 2001)]
    assert np.mean(drawn) == pytest.approx(K / J, abs=0.03)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("algo=ef21 compress=qsgd", "compress=qsgd: does not contract, and algo=ef21 needs that; give "
         "compress.bucket=98, compress=topk, or sign, or algo=diana"),
        ("algo=ef21 compress=fp16", "compress=fp16: does not contract, and algo=ef21 needs that; give compress=topk, "
         "or sign"),
        ("algo=diana compress=topk", "compress=topk: is biased, and algo=diana needs an unbiased one; give "
         "compress=qsgd, natural, or randk with compress.rescale=true, or algo=ef21"),
        ("algo=marina compress.rescale=false", "compress=randk: is biased, and algo=marina needs an unbiased one"),
        ("algo=dasha compress=sign", "compress=sign: is biased, and algo=dasha needs"),
        ("algo=ef21 compress=powersgd", "compress=powersgd: the aggregate is not the mean of what the workers have "
         "sent, on which algo=ef21 builds; give compress=topk, or qsgd"),
        ("algo=ef21 compress=sign compress.vote=true", "compress=sign: the aggregate is not the mean of what"),
        ("algo=ef21 compress=chunked compress.combine=senders", "compress=chunked: the aggregate is not the mean of"),
        ("algo=ef21 compress=regtopk", "compress=regtopk: does not contract"),
        ("algo=ef21 compress.error_feedback=true", "compress.error_feedback=true: algo=ef21 keeps what compression "
         "leaves out itself; give false"),
        ("algo=diana compress.error_feedback=true", "compress.error_feedback=true: algo=diana keeps what compression "),
        ("algo=ef21 compress=fp8 comm.exchange=quantised_all_reduce", "comm.exchange=quantised_all_reduce: compresses "
         "the sum, too, which algo=ef21 would not notice; give auto"),
        ("algo=ef21 algo.lr=0", "algo.lr=0.0: must be positive; give a step size such as 0.1"),
        ("algo=ef21_sgdm algo.eta=0", "algo.eta=0.0: out of range; give the weight of a new gradient in (0, 1]"),
        ("algo=diana algo.alpha=2", "algo.alpha=2.0: out of range; give a number in (0, 1], or null for"),
        ("algo=marina algo.p=0", "algo.p=0.0: out of range; give a probability in (0, 1], or null"),
        ("algo=dasha algo.a=0", "algo.a=0.0: out of range; give a number in (0, 1], or null for 1 / (2 omega + 1)"),
    ],
)  # fmt: skip
def test_refusals(words: str, wrong: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(*words.split())
    assert str(refused.value).startswith(wrong)


@pytest.mark.parametrize("name", METHODS)
def test_presets(name: str) -> None:
    made = plan(f"algo={name}")
    assert type(made.algorithm) is METHODS[name]
    assert made.config.batch_size == (16 if name == "ef21_sgdm" else None)
    codec = made.compressor
    if METHODS[name].codec_kind == "contractive":
        assert isinstance(codec, TopK)
        for other in ("randk", "sign", "natural", "int8", "none", "chunked", "dct_chunked", "fp8"):
            plan(f"algo={name}", f"compress={other}")
    else:
        assert isinstance(codec, RandK)
        assert codec.rescale
        assert not codec.shared
        for other in ("qsgd", "natural", "onebit", "terngrad", "none"):
            plan(f"algo={name}", f"compress={other}")
        plan(f"algo={name}", "compress=kbit", "compress.rounding=stochastic", "compress.error_feedback=false")


def test_randk_without_these_methods_is_as_it_was() -> None:
    codec = plan("compress=randk").resolved["compress"]
    assert (codec["shared"], codec["rescale"]) == (True, False)


def shared(name: str, *words: str) -> ExperimentSetup:
    """Six workers with 8 parameters, of whom three take part in a round."""
    world = ("dataset=linreg", "dataset.dim=8", "dataset.samples=10", "seed=3", "workers=6", "participation=0.5")
    return set_up(*world, f"algo={name}", f"algo.lr={LR}", "compress.k=2", *words)


def encoder(made: ExperimentSetup) -> Callable[[int, int, np.ndarray], np.ndarray]:
    """C of worker n in round t: a codec of the worker's own."""
    codec = copy.deepcopy(made.plan.compressor)

    def sent(n: int, t: int, a: np.ndarray) -> np.ndarray:
        codec.setup(replace(made.codec_context, worker_ids=[int(n)]))
        codec.set_round(t)
        return np.asarray(codec.decode(codec.encode(torch.from_numpy(a)[None]))[0].numpy())

    return sent


def ef21_pp(made: ExperimentSetup, x: np.ndarray) -> np.ndarray:
    sent, g_n = encoder(made), np.zeros((6, 8))
    for t in range(ROUNDS):
        for n in np.flatnonzero(made.taking(t)):
            g_n[n] += sent(n, t, gradients(made, x)[n] - g_n[n])
        x = x - LR * g_n.mean(0)
    return x


def diana_pp(made: ExperimentSetup, x: np.ndarray) -> np.ndarray:
    """alpha = 1 / (1 + omega) = k/J."""
    sent, h_n = encoder(made), np.zeros((6, 8))
    for t in range(ROUNDS):
        taking = np.flatnonzero(made.taking(t))
        m = {n: sent(n, t, gradients(made, x)[n] - h_n[n]) for n in taking}
        x = x - LR * (h_n.mean(0) + sum(m.values()) / 3)
        for n in taking:
            h_n[n] += m[n] / 4
    return x


def dasha_pp(made: ExperimentSetup, x: np.ndarray) -> np.ndarray:
    """As in the paper: a = p / (2 omega + 1), p = 1/2, omega = 3, and b = p / (2 - p)."""
    sent, g_n, h_n, previous = encoder(made), np.zeros((6, 8)), np.zeros((6, 8)), x
    p, a, b = 1 / 2, 1 / 14, 1 / 3
    for t in range(ROUNDS):
        now, before = gradients(made, x), gradients(made, previous)
        for n in np.flatnonzero(made.taking(t)):
            k = now[n] - before[n] - b * (h_n[n] - before[n])
            m = sent(n, t, k / p - a / p * (g_n[n] - h_n[n]))
            h_n[n] += k / p
            g_n[n] += m
        previous, x = x, x - LR * g_n.mean(0)
    return x


@pytest.mark.parametrize(
    ("name", "rule", "told"), [("ef21", ef21_pp, 1), ("diana", diana_pp, 1), ("dasha", dasha_pp, 2)]
)
def test_with_a_share_of_the_workers(name: str, rule: Any, told: int) -> None:
    """Who rests computes, sends and receives nothing and keeps what it has; bytes by hand. ``told``: vectors that come
    down."""
    made = shared(name)
    start = starts(made).copy()
    x = rule(made, start)
    np.testing.assert_allclose(go_setup(made, ROUNDS), x, rtol=1e-12, atol=1e-12)
    assert np.abs(x - start).max() > 0.1, "it has moved"
    made.comm.settle()
    booked = []
    for t in range(ROUNDS):
        links = int(made.taking(t)[1:].sum())  # worker 0 lives with the server
        down, up = told * 64, 18  # a bitmap, or two offsets of a byte with a header
        booked += [(t + 1, "down", 3 * down, down * links), (t + 1, "up", 3 * up, up * links)]
    found = made.record.ledger.entries
    assert [(e.round, e.direction, e.bytes_sent, e.bytes_wire) for e in found] == booked
    each = made.record.planned.gradients
    assert each[-1] == (len(each) - 1) * told, "gradients of a worker"


@pytest.mark.parametrize(("name", "rounds"), [("ef21", 300), ("diana", 900), ("dasha", 900)])
def test_with_a_share_it_reaches_the_optimum_and_resumes(name: str, rounds: int, run: Callable[..., Run]) -> None:
    words = ("dataset=linreg", "dataset.dim=8", "dataset.samples=20", "workers=10", "participation=0.5")
    words += (f"algo={name}", "compress.k=4", "algo.lr=0.2", f"rounds={rounds}", "eval_every=150")
    whole = run(*words)
    assert whole.metrics["dist_to_opt"].iloc[-1] <= 1e-12
    before = untimed(whole.folder / "metrics.csv")
    with interrupted(after=151):
        assert run(*words, "rerun=true").status == "interrupted"
    assert untimed(run(*words).folder / "metrics.csv") == before


def test_a_tenth_of_the_workers_books_a_tenth(run: Callable[..., Run]) -> None:
    words = ("dataset=linreg", "dataset.dim=30", "dataset.samples=4", "workers=100", "rounds=10", "algo=ef21")
    words += ("compress.k=3", "comm.exchange=server", "eval_every=10")
    few, many = (run(*words, f"participation={share}").metrics.iloc[-1] for share in ("0.1", "0.2"))
    each = 30 * 8 + 3 * 8 + 4  # x comes down; three values go up, and three offsets of a byte with a header
    assert few["bytes_sent"] == 10 * 10 * each == many["bytes_sent"] / 2
    assert few["samples"] == 10 * 10 * 4 == many["samples"] / 2


@pytest.mark.parametrize("name", ["ef21_sgdm", "marina"])
def test_shares_are_refused(name: str) -> None:
    with pytest.raises(UserError) as refused:
        shared(name)
    assert_one_line(refused.value, f"participation=0.5: algo={name} needs every worker in every round")


def test_gradients_over_all_samples_are_counted() -> None:
    algorithm = DASHA(lr=LR)
    algorithm.context = context()
    assert algorithm.gradients_of([1, 1]) == [1.0, 1.0]
    assert isinstance(algorithm.context.compressor, NoCompression)
    algorithm.context.problem.samples_per_step = 10.0  # of the 30 that a worker has
    assert algorithm.batches_of([1, 1]) == algorithm.gradients_of([1, 1]) == [3.0, 3.0]
    ef = EF21(lr=LR)
    ef.context = algorithm.context
    assert ef.gradients_of([1, 1]) == [1.0, 1.0]
