"""What is forecast without training: of every method what its run books and takes; and by hand, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from registry import on_vectors, options, plan, target

from commexp.algorithms import Algorithm
from commexp.cli.report import with_bandwidth
from commexp.config.messages import UserError
from commexp.config.variant import variant
from commexp.experiment.forecast import MOST, Forecast, Workload
from commexp.experiment.settings import SETTINGS, name_of
from commexp.experiment.setup import ExperimentSetup
from commexp.network import Network
from commexp.run_folder import Run

LINREG = ["dataset=linreg", "dataset.dim=40", "dataset.samples=10"]
SMALL = ["workers=4", "rounds=15", "eval_every=50"]
TIMED = ["network=mobile", "network.up=null", "network.compute.seconds=0.02", "network.compute.coding=0.001"]


def waits(method: type[Algorithm]) -> bool:
    """Whether its rounds wait for all workers."""
    return not (method.asynchronous or method.coded)


METHODS = [
    *([f"algo={name}"] for name in options("algo") if waits(target("algo", name))),
    ["algo=streaming_diloco", "algo.tau=8", "algo.fragments=4", "algo.delay=2", "compress=kbit"],
    ["algo=diloco", "algo.tau=6", "algo.delay=6"],
    ["algo=diloco", "algo.tau=4", "algo.delay=1", "compress=fp8", "comm.exchange=quantised_all_reduce"],
    ["algo=desloc", "algo.tau=4", "algo.fragments=2", "algo.mean_every=2", "algo.square_every=3"],
    ["algo=sparta", "algo.outer=nesterov", "algo.tau=3"],
    ["algo=noloco", "algo.tau=2", "compress=topk"],
    ["algo=dpsgd", "topology=star", "gossip.rounds=3"],
    ["algo=qsr", "algo.tau=2"],
    ["compress=sign", "comm.exchange=server"],
    ["compress=kbit", "comm.exchange=quantised_all_reduce"],
    ["compress=powersgd"],
    ["compress=powersgd", "dataset=digits", "model=mlp", "model.hidden=[8]"],
    ["network.overlap=true"],
    *([f"algo={name}", "participation=0.5"] for name in ("ef21", "diana", "dasha", "scaffold")),
]


def problem_of(words: list[str]) -> tuple[Workload, Run]:
    made = ExperimentSetup(plan(*words), torch.device("cpu"), Run("unused"))  # type: ignore[arg-type]
    return Workload.of(made.problem, made.gradient_flops), made.run


@pytest.mark.parametrize("method", METHODS, ids=" ".join)
def test_a_run_books_and_takes_what_was_forecast(method: list[str], run: Callable[..., Run]) -> None:
    """To the byte, and to the last digits of the clock."""
    name = method[0].removeprefix("algo=")
    given = [*(on_vectors(name) if method[0] != name else method[:1]), *method[1:]]
    words = [*(LINREG if "dataset=digits" not in method else []), *SMALL, *TIMED, *given]
    done = run(*words)
    work, _ = problem_of(words)
    forecast = Forecast(plan(*words), work)
    assert forecast.steps == done.metrics["step"].iloc[-1]
    if name in ("lsgd", "mgrawa"):  # one average more, for the model at the end
        assert 0 < done.metrics["bytes_sent"].iloc[-1] - forecast.sent * 4 <= 4 * 8 * 40
    elif not any("as long as it can be" in why for why in forecast.estimates):
        assert forecast.sent * 4 == done.metrics["bytes_sent"].iloc[-1]
        assert forecast.wire * 4 == done.metrics["bytes_wire"].iloc[-1]
        seconds = done.metrics["sim_seconds"].iloc[-1]
        assert forecast.seconds(forecast.network) == pytest.approx(seconds, rel=1e-9)
    else:
        assert forecast.sent * 4 >= done.metrics["bytes_sent"].iloc[-1]
    gradients = sum(row["gradients"] for row in done.rows("rounds"))
    assert forecast.computing() == pytest.approx(0.02 * gradients, rel=1e-12)


# A model of P parameters on eight workers with links of 1 Gbit/s and 0.1 ms; a gradient of B tokens on an H100.

P, B, N, STEPS = 10**9, 2**17, 8, 600
ALPHA, BETA = np.float64(1e-4), np.float64(125e6)  # s, bytes/s
GRADIENT = np.float64(6) * P * B / (np.float64(989.4e12) * np.float64(0.42))


def ring(size: float) -> np.float64:
    """All-reduce of ``size`` bytes: 2 (n-1)/n of them at beta, in 2 (n-1) hops."""
    return 2 * (N - 1) * ALPHA + np.float64(2 * (N - 1)) / N * size / BETA


def gathered(size: float) -> np.float64:
    """Every worker gets n-1 messages, in n-1 hops."""
    return (N - 1) * ALPHA + np.float64(N - 1) * size / BETA


def packed(entries: int, dim: int, bits: int) -> int:
    """Bytes of so many values in fp32, and of their places by the index of wire.pack_indices."""
    from commexp.compressors.wire import index_bytes

    return entries * bits // 8 + index_bytes(entries, dim)


def streaming(tau: int, fragments: int, delay: int) -> np.float64:
    """Fragments of P / fragments entries every tau / fragments steps; each exchange takes the longer of itself and the
    delay; the last one is waited for."""
    rounds, length = STEPS * fragments // tau, tau // fragments
    exchange = ring(4 * P / fragments)
    return length * GRADIENT + (rounds - 1) * (
        max(delay * GRADIENT, exchange) + (length - delay) * GRADIENT
    ) + exchange  # fmt: skip


HAND = [
    (["compress=none"], 4.0 * P, STEPS * (GRADIENT + ring(4 * P))),
    (["compress=fp16"], 2.0 * P, STEPS * (GRADIENT + ring(2 * P))),
    (["compress=topk", "compress.k=0.01"], None, STEPS * (GRADIENT + gathered(packed(P // 100, P, 32)))),
    (["algo=diloco", "algo.tau=30"], 4 * P / 30, STEPS * GRADIENT + STEPS / 30 * ring(4 * P)),
    (
        ["algo=streaming_diloco", "algo.tau=40", "algo.fragments=4", "algo.delay=5"],
        4 * P / 40,
        streaming(40, 4, 5),
    ),
    (
        ["algo=streaming_diloco", "algo.tau=40", "algo.fragments=4", "algo.delay=10"],
        4 * P / 40,
        streaming(40, 4, 10),
    ),
]


def forecast_of(*words: str) -> Forecast:
    made = plan(f"workers={N}", "network=ethernet_1g", "network.compute=h100", *words)
    return Forecast(made, Workload.of_parameters(P, 20e9, B), STEPS)


@pytest.mark.parametrize(("words", "each", "seconds"), HAND, ids=[" ".join(words) for words, *_ in HAND])
def test_a_billion_parameters_by_hand(words: list[str], each: float | None, seconds: np.float64) -> None:
    forecast = forecast_of(*words)
    assert forecast.computing() == pytest.approx(float(STEPS * GRADIENT), rel=1e-12)
    assert forecast.seconds(forecast.network) == pytest.approx(float(seconds), rel=1e-12)
    if each is not None:
        assert forecast.sent / STEPS == pytest.approx(each, rel=1e-12)


def test_the_index_of_a_sparse_message_is_what_its_encoder_makes() -> None:
    codec = plan("compress=topk", "compress.k=0.01").compressor
    message = codec.encode(torch.randn(1, 20_000))
    assert message.nbytes == packed(200, 20_000, 32)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_bandwidth_for_a_utilisation(level: float) -> None:
    """Of an all-reduce in closed form: beta = bytes / (seconds that are left for them)."""
    forecast = forecast_of("compress=fp16")
    left = GRADIENT * (1 / np.float64(level) - 1) - 2 * (N - 1) * ALPHA
    wanted = 2 * P * np.float64(2 * (N - 1)) / N / left * 8 / 1e6
    assert forecast.bandwidth_for(level, at(forecast)) == pytest.approx(float(wanted), rel=1e-6)
    hidden = forecast_of("algo=streaming_diloco", "algo.tau=40", "algo.fragments=4", "algo.delay=5")
    mbit = hidden.bandwidth_for(level, at(hidden))
    assert mbit is not None
    assert hidden.computing() / hidden.seconds(at(hidden)(mbit)) == pytest.approx(level, rel=1e-6)


def at(forecast: Forecast) -> Callable[[float], Network]:
    return lambda mbit: with_bandwidth(forecast.network, mbit)


def test_published_figures_of_streaming_diloco() -> None:
    """docs/plan.md: 441 TB and 109 h against 1.10 TB and 0.88 h at 1 Gbit/s, 0.67 h at infinite bandwidth. Fitted is
    how long a step takes beside its exchange."""
    step = float(np.float64(14) / 8 * 2 * P / BETA) * 0.67 / (109 - 0.67)
    steps = round(0.67 * 3600 / step)
    words = [f"workers={N}", "network=ethernet_1g", "network.latency=0", f"network.compute.seconds={step}"]
    method = ["algo=streaming_diloco", "algo.tau=100", "algo.fragments=8", "algo.delay=1", "compress=fp4"]
    work = Workload.of_parameters(P, 25e9, B)
    parallel = Forecast(plan(*words, "compress=fp16"), work, steps)
    streamed = Forecast(plan(*words, *method, "comm.exchange=quantised_all_reduce"), work, steps)
    assert parallel.wire / streamed.wire == pytest.approx(441 / 1.10, rel=0.02)
    assert parallel.seconds(parallel.network) / 3600 == pytest.approx(109, rel=1e-3)
    assert streamed.seconds(streamed.network) / 3600 == pytest.approx(0.88, rel=0.02)
    assert streamed.seconds(streamed.network) / 3600 == pytest.approx(0.8916, abs=1e-4)


def test_no_bandwidth_makes_up_for_latency() -> None:
    forecast = forecast_of("compress=fp16", "network.latency=1000")
    assert forecast.bandwidth_for(0.9, at(forecast)) is None
    assert forecast.computing() / forecast.seconds(at(forecast)(MOST)) < 0.9
    nothing = Forecast(plan("compress=fp16"), Workload.of_parameters(P, 20e9, B), STEPS)
    assert nothing.bandwidth_for(0.9, at(nothing)) is None, "communication alone"


def test_drawn_computing_is_a_mean() -> None:
    words = ["network.compute.kind=lognormal", "network.compute.seconds=2", "network.compute.spread=0.3"]
    made = Forecast(plan(*words), Workload.of_parameters(1000, 20e9, B), 100)
    assert any("drawn" in why for why in made.estimates)
    longest = np.exp(0.3 * np.random.default_rng(0).standard_normal((20_000, 8)) - 0.045).max(1).mean()
    assert made.seconds(made.network) / 200 == pytest.approx(longest, rel=0.1)
    assert made.computing() / 200 == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("text", {tuple(text.split()[:2]): text for text in SETTINGS}.values())
def test_the_short_way_to_a_setting_is_what_composing_gives(text: str) -> None:
    words, kept = text.split(), ["dataset=text", "dataset.tokens=5000", "model=gpt"]
    composed = plan(*kept, *words)
    short = variant(plan(*kept), plan(*kept).config.preset, words)
    assert short.algorithm == composed.algorithm
    assert vars(short.topology).keys() == vars(composed.topology).keys()
    assert short.topology == composed.topology
    for dim in (1000, 123_457):
        assert short.compressor.payload(dim, 4) == composed.compressor.payload(dim, 4)
    assert type(short.compressor) is type(composed.compressor)
    assert short.compressor.name == composed.compressor.name
    assert short.compressor.splittable == composed.compressor.splittable


def test_names_of_settings() -> None:
    assert [" ".join(filter(None, name_of(text.split()))) for text in SETTINGS[:5:4]] == ["dense", "topk k=0.1"]
    assert name_of(["algo=diloco", "algo.tau=30", "compress=kbit", "workers=4"]) == ("diloco kbit", "tau=30")
    assert name_of(["workers=4"], {"workers"}) == ("dense", "workers=4")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["algo=async_ps"], "algo=async_ps: who comes first"),
        (["algo=diloco", "algo.quorum=2"], "algo=diloco: who comes first"),
        (["network.jitter.kind=uniform"], "network.{trace,outage,jitter}: a plan times each kind of round once"),
        (["network.compute.kind=measured"], "network.compute.kind=measured: a plan runs nothing; give --probe"),
        (["compress=topk", "compress.k=5000"], r"compress.k=5000: more entries than the 1000 parameters"),
        (["comm.exchange=two_phase"], r"comm.exchange=two_phase: messages of NoCompression sum"),
        (["algo=localsgd", "algo.tau=2000", "algo.fragments=2000"], "algo.fragments=2000: the model has 1000"),
        (["network.links={9:{up:1}}"], "there is no worker 9 of 8"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_refusals(words: list[str], wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        Forecast(plan(*words), Workload.of_parameters(1000, 20e9, B), 10).seconds(plan(*words).network)
