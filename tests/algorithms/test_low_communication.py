"""Fragments, delays, outer optimisers, DES-LOC, SPARTA and NoLoCo against recursions in NumPy, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from registry import plan

from commexp.algorithms.local.fragments import equal_parts, fragments_of
from commexp.compressors.randk import draw
from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.experiment.setup import ExperimentSetup
from commexp.network import Compute, Network, NoStragglers, VirtualClock
from commexp.run_folder import Run
from commexp.seeding import derive

N, J, D, LR = 4, 6, 9, 0.02
Vector = np.ndarray
SGD = ["algo.optimizer=sgd", "algo.momentum=0"]
PLAIN = ["algo.weight_decay=0", "algo.schedule.kind=constant", "algo.schedule.warmup=0", f"algo.lr={LR}"]
DATA = ["dataset=linreg", f"dataset.dim={J}", f"dataset.samples={D}", "dtype=float64", "eval_every=1000"]


def trained(*words: str, workers: int = N) -> ExperimentSetup:
    """A run's parts after its last round."""
    made = plan(*DATA, *PLAIN, f"workers={workers}", *words)
    setup = ExperimentSetup(made, torch.device("cpu"), Run(Path("none")))
    for t in range(len(setup.record.planned.ends) - 1):
        setup.comm.begin_round(t + 1)
        setup.algorithm.round(t)
        setup.comm.end_round()
    return setup


def model(setup: ExperimentSetup) -> Vector:
    return np.asarray(setup.algorithm.model().numpy())


class World:
    """f_n(x) = (1/D) ||A_n x - b_n||^2 of worker n, and the workers' x [N, J]."""

    def __init__(self, *words: str, workers: int = N) -> None:
        made = plan(*DATA, *PLAIN, f"workers={workers}", "steps=1", *words)
        data = made.dataset.load(workers, made.config.seed, torch.float64)
        self.a, self.b = data.train_x.numpy().reshape(workers, D, J), data.train_y.numpy().reshape(workers, D)
        start = ExperimentSetup(made, torch.device("cpu"), Run(Path("none"))).algorithm.model().numpy().copy()
        self.start, self.x = start, np.tile(start, (workers, 1))
        self.m, self.v, self.steps = np.zeros_like(self.x), np.zeros_like(self.x), 0

    def gradients(self) -> Vector:
        error = np.einsum("ndj,nj->nd", self.a, self.x) - self.b
        return np.asarray(2 / D * np.einsum("ndj,nd->nj", self.a, error))

    def sgd(self) -> None:
        self.x = self.x - LR * self.gradients()

    def adam(self) -> None:
        g, self.steps = self.gradients(), self.steps + 1
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g * g
        mean, square = self.m / (1 - 0.9**self.steps), self.v / (1 - 0.999**self.steps)
        self.x = self.x - LR * mean / (np.sqrt(square) + 1e-8)


def streamed(tau: int, parts: int, delay: int, mix: float, steps: int, push: float | None = None) -> Vector:
    """Streaming DiLoCo (Nesterov 0.9, rate 0.7) or, with a ``push``, DPPF in fragments with pull 0.3: the model."""
    world = World()
    places = np.array_split(np.arange(J), parts)
    known, momentum, averages = world.start.copy(), np.zeros(J), world.start.copy()
    under_way: tuple[int, Vector, Vector, int] | None = None  # fragment, the workers' x there, known there, due
    cuts = [(i + 1) * tau // parts + k * tau for k in range(steps // tau) for i in range(parts)]

    def arrive(p: int, sent: Vector) -> None:
        here, average = places[p], sent.mean(0)
        averages[here] = average
        if push is None:
            outer = known[here] - average
            momentum[here] = 0.9 * momentum[here] + outer
            known[here] = known[here] - 0.7 * (outer + 0.9 * momentum[here])
            new = np.tile(known[here], (N, 1))
        else:
            away = sent - average
            unit = away / np.linalg.norm(away, axis=1, keepdims=True)
            new = sent - 0.3 * away + push * unit
        world.x[:, here] = mix * world.x[:, here] + (1 - mix) * new

    for step in range(1, steps + 1):
        if under_way is not None and step - 1 == under_way[3]:
            arrive(under_way[0], under_way[1])
            under_way = None
        world.sgd()
        if step in cuts:
            if under_way is not None:
                arrive(under_way[0], under_way[1])
            p = cuts.index(step) % parts
            under_way = p, world.x[:, places[p]].copy(), known, step + delay
            if not delay or step == steps:
                arrive(p, under_way[1])
                under_way = None
    return known if push is None else averages


@pytest.mark.parametrize(
    ("tau", "parts", "delay", "mix"), [(6, 3, 1, 0.5), (6, 3, 2, 0.0), (5, 2, 2, 0.3), (4, 1, 3, 0.5), (6, 3, 0, 0.2)]
)
def test_streaming_diloco_against_numpy(tau: int, parts: int, delay: int, mix: float) -> None:
    fields = [f"algo.tau={tau}", f"algo.fragments={parts}", f"algo.delay={delay}", f"algo.mix={mix}"]
    found = model(trained("algo=streaming_diloco", *fields, *SGD, f"steps={4 * tau}"))
    assert np.abs(found - streamed(tau, parts, delay, mix, 4 * tau)).max() < 1e-12


def test_any_local_method_goes_in_fragments_and_delayed() -> None:
    fields = ["algo.tau=6", "algo.fragments=3", "algo.delay=1", "algo.mix=0.25", "algo.pull=0.3", "algo.push=0.1"]
    found = model(trained("algo=dppf", *fields, "algo.push_schedule=constant", *SGD, "steps=24"))
    assert np.abs(found - streamed(6, 3, 1, 0.25, 24, push=0.1)).max() < 1e-12


def test_one_fragment_without_delay_is_diloco_bit_for_bit() -> None:
    streaming = ["algo=streaming_diloco", "algo.fragments=1", "algo.delay=0", "algo.mix=0"]
    assert np.array_equal(model(trained(*streaming, "steps=16")), model(trained("algo=diloco", "steps=16")))


def test_fragments_send_the_same_bytes_in_a_period() -> None:
    sent = []
    for parts, delay in ((1, 0), (2, 1), (3, 0), (3, 2)):
        setup = trained(
            "algo=streaming_diloco", "algo.tau=6", f"algo.fragments={parts}", f"algo.delay={delay}", "steps=24"
        )
        setup.record.done = 4 * parts
        setup.record.settle()
        sent.append(setup.record.ledger.bytes_sent)
        assert len(setup.record.ledger.entries) == 4 * parts
    assert sent == [4 * N * J * 8] * 4


def test_the_outer_gradient_is_old_minus_new() -> None:
    """With rate 1 and no momentum x becomes the average of the workers; with a smaller rate it goes part of the way."""
    whole = trained("algo=diloco", "algo.outer_lr=1", "algo.outer_momentum=0", *SGD, "steps=4")
    part = trained("algo=diloco", "algo.outer_lr=0.25", "algo.outer_momentum=0", *SGD, "steps=4")
    world = World()
    for _ in range(4):
        world.sgd()
    average = world.x.mean(0)
    assert np.abs(model(whole) - average).max() < 1e-12
    assert np.abs(model(part) - (world.start + 0.25 * (average - world.start))).max() < 1e-12


@pytest.mark.parametrize("outer", ["heavy_ball", "adam"])
def test_other_outer_optimisers(outer: str) -> None:
    found = model(
        trained("algo=diloco", f"algo.outer={outer}", "algo.outer_lr=0.3", "algo.outer_momentum=0.8", *SGD, "steps=12")
    )
    world = World()
    x, m, v = world.start.copy(), np.zeros(J), np.zeros(J)
    for t in range(1, 4):
        world.x = np.tile(x, (N, 1))
        for _ in range(4):
            world.sgd()
        d = x - world.x.mean(0)
        if outer == "heavy_ball":
            m = 0.8 * m + d
            x = x - 0.3 * m
        else:
            m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d * d
            x = x - 0.3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    assert np.abs(found - x).max() < 1e-12


@pytest.mark.parametrize(("every_mean", "every_square"), [(1, 1), (1, 2), (2, 3)])
def test_desloc_averages_each_state_at_its_own_period(every_mean: int, every_square: int) -> None:
    """Equal periods: everything is averaged together, which is local Adam."""
    name = "local_adam" if every_mean == every_square == 1 else "desloc"
    fields = [] if name == "local_adam" else [f"algo.mean_every={every_mean}", f"algo.square_every={every_square}"]
    found = trained(f"algo={name}", "algo.tau=2", *fields, "steps=14")
    world = World()
    for t in range(1, 8):
        for _ in range(2):
            world.adam()
        world.x = np.tile(world.x.mean(0), (N, 1))
        if t % every_mean == 0:
            world.m = np.tile(world.m.mean(0), (N, 1))
        if t % every_square == 0:
            world.v = np.tile(world.v.mean(0), (N, 1))
    assert np.abs(model(found) - world.x[0]).max() < 1e-12
    vectors = 7 + 7 // every_mean + 7 // every_square
    found.record.done = 7
    found.record.settle()
    assert found.record.ledger.bytes_sent == vectors * N * J * 8


def test_sparta_averages_a_random_share() -> None:
    found = model(trained("algo=sparta", "algo.share=0.34", *SGD, "steps=10"))
    world = World()
    for t in range(10):
        world.sgd()
        chosen = draw([derive(0, "sparta", t)], 2, J)[0].numpy()
        world.x[:, chosen] = world.x[:, chosen].mean(0)
    assert np.abs(found - world.x.mean(0)).max() < 1e-12


def test_sparta_of_all_entries_averages_in_every_step() -> None:
    found = trained("algo=sparta", "algo.share=1", "steps=10")
    assert (
        np.abs(model(found) - model(trained("algo=localsgd", "algo.tau=1", "algo.optimizer=adamw", "steps=10"))).max()
        < 1e-12
    )
    assert float(found.algorithm.diagnostics()["valley_width"]) < 1e-14


def test_sparta_with_diloco() -> None:
    found = model(trained("algo=sparta", "algo.share=0.5", "algo.outer=nesterov", "algo.tau=5", *SGD, "steps=10"))
    world = World()
    x, u = world.start.copy(), np.zeros(J)
    for t in range(10):
        world.sgd()
        chosen = draw([derive(0, "sparta", t)], 3, J)[0].numpy()
        world.x[:, chosen] = world.x[:, chosen].mean(0)
        if t % 5 == 4:
            d = x - world.x.mean(0)
            u = 0.9 * u + d
            x = x - 0.7 * (d + 0.9 * u)
            world.x = np.tile(x, (N, 1))
    assert np.abs(found - x).max() < 1e-12


def test_noloco_of_two_workers_is_diloco_with_heavy_ball() -> None:
    outer = ["algo.outer_lr=0.7", "algo.outer_momentum=0.5", "steps=16"]
    pair = trained("algo=noloco", *outer, workers=2)
    diloco = trained("algo=diloco", "algo.outer=heavy_ball", *outer, workers=2)
    assert np.abs(model(pair) - model(diloco)).max() < 1e-12


def test_noloco_takes_codecs_that_do_not_contract() -> None:
    outer = ["steps=16", "algo.outer_lr=0.7", "algo.outer_momentum=0.5"]
    whole, narrow = (model(trained("algo=noloco", f"compress={c}", *outer)) for c in ("none", "fp16"))
    assert 0 < np.abs(whole - narrow).max() < 1e-3


@pytest.mark.parametrize("parts", [1, 2])
def test_noloco_against_numpy(parts: int) -> None:
    workers, rounds = 5, 6
    found = trained("algo=noloco", f"algo.fragments={parts}", *SGD, f"rounds={rounds}", workers=workers)
    world = World(workers=workers)
    x, m = world.x.copy(), np.zeros_like(world.x)
    for t in range(rounds):
        for _ in range(equal_parts(4, parts)[t % parts]):
            world.sgd()
        w = found.comm.mixer.mixings[t].matrix.toarray()
        assert sorted(np.count_nonzero(w, axis=1)) == [1, 2, 2, 2, 2]
        here = np.array_split(np.arange(J), parts)[t % parts]
        d = x[:, here] - world.x[:, here]
        m[:, here] = 0.5 * m[:, here] - 0.7 * w @ d + 0.7 * (w @ x[:, here] - x[:, here])
        x[:, here] += m[:, here]
        world.x[:, here] = x[:, here]
    assert np.abs(model(found) - x.mean(0)).max() < 1e-12
    assert found.record.ledger is found.comm.ledger


def test_fragments_are_whole_blocks() -> None:
    shapes = {"token.weight": [8, 2], **{f"blocks.{b}.{w}": [2] for b in range(5) for w in "uv"}, "head.weight": [3]}
    strided, sequential = (fragments_of(shapes, 39, 2, order) for order in ("strided", "sequential"))
    numbers = [sorted({name.split(".")[1] for name in part.shapes if name.startswith("blocks")}) for part in strided]
    assert numbers == [["0", "2", "4"], ["1", "3"]]
    numbers = [sorted({name.split(".")[1] for name in part.shapes if name.startswith("blocks")}) for part in sequential]
    assert numbers == [["0", "1", "2"], ["3", "4"]]
    assert "token.weight" in strided[0].shapes
    assert "head.weight" in strided[0].shapes  # with the last block
    assert "head.weight" in sequential[1].shapes
    for parts in (strided, sequential, fragments_of({"a": [39]}, 39, 4, "strided")):
        x = torch.zeros(2, 39)
        for number, part in enumerate(parts, 1):
            assert part.take(x).shape == (2, part.dim)
            part.put(torch.full((2, part.dim), float(number)), x)
        assert bool((x > 0).all())
        assert sum(part.dim for part in parts) == 39


class Sent:
    """Traffic that takes ``seconds`` on any network."""

    bucketed = among_neighbours = inside = False
    path = "ring"
    workers, repeats, bytes_wire = 2, 1, 0

    def __init__(self, seconds: float, direction: str = "peers") -> None:
        self.kind, self._seconds, self.direction = self, seconds, direction

    def seconds(self, transfer: object) -> float:
        return self._seconds


def test_the_clock_counts_the_longer_of_exchange_and_steps() -> None:
    """Two workers, a gradient in 1 and in 2 seconds; rounds of 4 gradients, of which 2 may run during an exchange."""
    network = Network(compute=Compute(seconds=1.0, slow=[1.0, 2.0]))

    def times(*exchanges: list[Sent]) -> list[float]:
        clock = VirtualClock(network, NoStragglers(), 2, 0, delays=[2.0, 2.0, 0.0])
        found = []
        for number, traffic in enumerate(exchanges, 1):
            clock.round(number, 4.0, traffic)
            found.append(clock.now)
        return found

    assert times([Sent(3.0)], [Sent(3.0)], [Sent(3.0)]) == [8.0, 16.0, 27.0]  # hidden, but for the last
    # from 8 to 18: worker 0 stands still from 6 to 18, worker 1 from 12 to 18; then 2 and 4 seconds
    assert times([Sent(10.0)], [Sent(1.0)], [Sent(1.0)]) == [8.0, 22.0, 31.0]
    assert times([Sent(4.0)], [Sent(6.0, "down"), Sent(1.0)], [Sent(0.0, "down"), Sent(1.0)]) == [8.0, 22.0, 31.0]


@pytest.mark.parametrize("exchange", ["all_reduce", "server"])
def test_a_delayed_run_is_priced_anew(run: Callable[..., Run], exchange: str) -> None:
    words = ["algo=streaming_diloco", "steps=12", "network.compute.seconds=0.01", "network=ethernet_100m"]
    found = run(*DATA, *words, f"comm.exchange={exchange}", "workers=4", "eval_every=3")
    assert Replay(found).seconds(plan(*words).network) == found.metrics["sim_seconds"].tolist()


def test_delay_shortens_a_run_by_what_the_clock_says(run: Callable[..., Run]) -> None:
    words = [*DATA, "workers=4", "steps=16", "network.compute.seconds=0.01", "network.bandwidth=1", "network.latency=0"]
    fragments = ["algo=streaming_diloco", "algo.tau=4", "algo.fragments=1"]
    now, later = (run(*words, *fragments, f"algo.delay={d}").summary["sim_seconds"] for d in (0, 2))
    exchange = 2 * 3 / 4 * J * 8 / (1e6 / 8)  # seconds on a ring of 1 Mbit/s
    assert now == pytest.approx(16 * 0.01 + 4 * exchange, rel=1e-6)
    assert later == pytest.approx(16 * 0.01 + exchange, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("algo=diloco algo.fragments=0", "algo.fragments=0"),
        ("algo=diloco algo.fragments=5", "algo.fragments=5"),
        ("algo=diloco algo.fragments=2 algo.delay=3", "algo.delay=3"),
        ("algo=diloco algo.mix=1", "algo.mix=1"),
        ("algo=diloco algo.fragment_order=best", "algo.fragment_order=best"),
        ("algo=diloco algo.outer=lion", "algo.outer=lion"),
        ("algo=diloco algo.outer_betas=[1]", "algo.outer_betas=[1.0]"),
        ("algo=lsgd algo.delay=1", "algo.delay=1"),
        ("algo=noloco algo.delay=1", "algo.delay=1"),
        ("algo=noloco topology=random_pairs topology.period=0", "topology.period=0"),
        ("algo=sparta algo.share=0", "algo.share=0"),
        ("algo=sparta algo.fragments=2", "algo.fragments=2"),
        ("algo=sparta compress=topk", "compress.error_feedback=true"),
        ("algo=desloc algo.mean_every=0", "algo.mean_every=0"),
        ("algo=diloco algo.delay=2 compress=powersgd", "algo.delay=2"),
        ("algo=diloco algo.tau=8 algo.fragments=7", "algo.fragments=7"),
    ],
)
def test_refusals(words: str, told: str) -> None:
    with pytest.raises(UserError, match="give") as error:
        ExperimentSetup(plan(*DATA, *words.split()), torch.device("cpu"), Run(Path("none")))
    assert str(error.value).startswith(told)


def test_sparseloco_that_sends_everything_is_local_sgd_with_its_outer_rate() -> None:
    whole = ["compress=chunked", "compress.k=1.0", "compress.combine=senders", "compress.tiles=false"]
    found = model(trained("algo=sparseloco", *whole, "algo.outer_lr=0.6", *SGD, "steps=12"))
    world = World()
    x = world.start.copy()
    for _ in range(3):
        world.x = np.tile(x, (N, 1))
        for _ in range(4):
            world.sgd()
        x = x - 0.6 * (x - world.x.mean(0))
    assert np.abs(found - x).max() < 1e-12


def test_sparseloco_against_numpy() -> None:
    """Two of every three entries, in full width; each is divided by the number of workers that sent it."""
    part = [
        "compress=chunked",
        "compress.k=2",
        "compress.chunk=3",
        "compress.combine=senders",
        "compress.tiles=false",
    ]
    found = model(trained("algo=sparseloco", *part, *SGD, "steps=24"))
    world = World()
    x, e = world.start.copy(), np.zeros((N, J))
    for _ in range(6):
        world.x = np.tile(x, (N, 1))
        for _ in range(4):
            world.sgd()
        e = 0.95 * e + (x - world.x)
        least = np.abs(e).reshape(N, 2, 3).argmin(2) + np.array([0, 3])
        sent = np.ones((N, J), dtype=bool)
        np.put_along_axis(sent, least, False, axis=1)
        message = np.where(sent, e, 0)
        e = e - message
        senders = sent.sum(0)
        x = x - np.where(senders, message.sum(0) / np.maximum(senders, 1), 0)
    assert np.abs(found - x).max() < 1e-12
