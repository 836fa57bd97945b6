"""Islands of workers: recursions in NumPy in float64, bytes by hand, the flat methods at both ends, the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from registry import interrupted, plan, untimed

from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.experiment.setup import ExperimentSetup
from commexp.network import Compute, Network
from commexp.network.link import Link
from commexp.run_folder import Run
from commexp.seeding import numpy_generator

N, G, J, D, LR = 6, 3, 5, 8, 0.02
M = N // G
Vector = np.ndarray
DATA = ["dataset=linreg", f"dataset.dim={J}", f"dataset.samples={D}", "dtype=float64", "batch_size=null"]
PLAIN = [f"workers={N}", f"algo.lr={LR}", "algo.weight_decay=0", "algo.schedule.kind=constant", "eval_every=1000"]
ISLANDS = ["topology=islands", f"islands={G}"]


def trained(*words: str) -> ExperimentSetup:
    """A run's parts after its last round."""
    setup = ExperimentSetup(plan(*DATA, *PLAIN, *words), torch.device("cpu"), Run(Path("none")))
    for t in range(len(setup.record.planned.ends) - 1):
        setup.comm.begin_round(t + 1)
        setup.algorithm.round(t)
        setup.comm.end_round()
        setup.record.done += 1
    setup.record.settle()
    return setup


def model(setup: ExperimentSetup) -> Vector:
    return np.asarray(setup.algorithm.model().numpy())


class World:
    """f_n(x) = (1/D) ||A_n x - b_n||^2 of worker n."""

    def __init__(self) -> None:
        made = plan(*DATA, *PLAIN)
        data = made.dataset.load(N, 0, torch.float64)
        self.a, self.b = data.train_x.numpy().reshape(N, D, J), data.train_y.numpy().reshape(N, D)
        self.start = ExperimentSetup(made, torch.device("cpu"), Run(Path("none"))).algorithm.model().numpy().copy()

    def gradients(self, x: Vector) -> Vector:
        """At x_n, [N, J]."""
        error = np.einsum("ndj,nj->nd", self.a, x) - self.b
        return np.asarray(2 / D * np.einsum("ndj,nd->nj", self.a, error))


def by_island(rows: Vector) -> Vector:
    """[N, ...] -> means over islands, [G, ...]."""
    return np.asarray(rows.reshape(G, M, *rows.shape[1:]).mean(1))


def test_gradients_are_added_up_inside_and_compressed_between() -> None:
    world, k = World(), 2
    x, residual = world.start.copy(), np.zeros((G, J))
    for _ in range(40):
        a = residual + by_island(world.gradients(np.tile(x, (N, 1))))
        sent = np.zeros_like(a)
        for row, out in zip(a, sent, strict=True):
            top = np.argsort(-np.abs(row))[:k]
            out[top] = row[top]
        residual, x = a - sent, x - LR * sent.mean(0)
    found = model(trained("algo=sgd", "algo.momentum=0", "compress=topk", f"compress.k={k}", "rounds=40", *ISLANDS))
    assert np.abs(found - x).max() < 1e-12


def test_diloco_between_islands_that_share_every_gradient() -> None:
    world, tau = World(), 3
    x, momentum = world.start.copy(), np.zeros(J)
    for _ in range(5):
        own = np.tile(x, (G, 1))
        for _ in range(tau):
            own = own - LR * by_island(world.gradients(np.repeat(own, M, axis=0)))
        outer = x - own.mean(0)
        momentum = 0.9 * momentum + outer
        x = x - 0.7 * (outer + 0.9 * momentum)
    words = ["algo=diloco", "algo.optimizer=sgd", "algo.momentum=0", f"algo.tau={tau}", "rounds=5"]
    assert np.abs(model(trained(*words, *ISLANDS)) - x).max() < 1e-12


@pytest.mark.parametrize("inside", [2, 3])
def test_members_average_models_and_moments_every_so_many_steps(inside: int) -> None:
    world, tau = World(), 5
    x, step = world.start.copy(), 0
    mean, square = np.zeros((G, J)), np.zeros((G, J))
    for _ in range(4):
        own = np.tile(x, (G, 1))
        for first in range(0, tau, inside):
            apart, m, v = (np.repeat(rows, M, axis=0) for rows in (own, mean, square))
            for _ in range(min(inside, tau - first)):
                g, step = world.gradients(apart), step + 1
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                apart = apart - LR * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            own, mean, square = by_island(apart), by_island(m), by_island(v)
        x = own.mean(0)
    words = ["algo=localsgd", "algo.optimizer=adamw", "algo.betas=[0.9,0.999]", f"algo.tau={tau}", "rounds=4"]
    found = trained(*words, f"algo.inside={inside}", *ISLANDS)
    assert np.abs(model(found) - x).max() < 1e-12
    sums = [e for e in found.comm.ledger.entries if e.exchange == "inside_all_reduce"]
    assert [e.repeats for e in sums] == [-(-tau // inside)] * 4
    each = 8 * (3 * J + 1)  # x, two moments and the loss
    assert {e.bytes_wire for e in sums} - {G * 2 * (M - 1) * each * e.repeats for e in sums} <= {
        G * 2 * (M - 1) * 8 * ((J + 1) + (3 * J + 1) * (e.repeats - 1)) for e in sums
    }


FLAT = [
    ["algo=sgd"],
    ["algo=sgd", "compress=topk", "compress.k=2"],
    ["algo=sgd", "compress=qsgd"],
    ["algo=sgd", "compress=topk", "comm.exchange=server"],
    ["algo=diloco", "algo.tau=4", "algo.fragments=2", "algo.delay=1", "compress=kbit"],
    ["algo=dppf", "algo.tau=3"],
    ["algo=desloc", "algo.tau=2"],
    ["algo=lsgd", "algo.tau=2"],
    ["algo=demo"],
]


@pytest.mark.parametrize("islands", [1, N])
@pytest.mark.parametrize("words", FLAT, ids=" ".join)
def test_one_island_and_as_many_as_workers_are_the_flat_method(words: list[str], islands: int) -> None:
    words = [*words, "rounds=5", "network.compute={kind:lognormal,seconds:0.01}"]
    flat, found = trained(*words), trained(*words, "topology=islands", f"islands={islands}")
    assert torch.equal(flat.algorithm.model(), found.algorithm.model())
    columns = slice(0, 8)  # the seconds are measured
    entries = [[e[columns] for e in setup.comm.ledger.entries] for setup in (flat, found)]
    assert entries[0] == entries[1]
    assert flat.record.sim == found.record.sim


def test_bytes_on_each_class_of_links() -> None:
    setup = trained("algo=sgd", "compress=topk", "compress.k=2", "rounds=2", *ISLANDS)
    dense, sparse = 8 * J, 2 * (8 + 1)  # an index of 5 entries takes a byte
    rows = [(e.exchange, e.direction, e.workers, e.bytes_sent, e.bytes_wire) for e in setup.comm.ledger.entries[:3]]
    assert rows == [
        ("inside_all_reduce", "peers", M, N * (dense + 8), G * 2 * (M - 1) * (dense + 8)),  # the loss goes with it
        ("all_gather", "peers", G, G * sparse, G * (G - 1) * sparse),
        ("inside_broadcast", "down", M, G * dense, G * (M - 1) * dense),
    ]
    totals = setup.comm.ledger.totals()
    assert totals["bytes_between"] == 2 * G * (G - 1) * sparse
    assert totals["bytes_wire"] == 2 * sum(row[4] for row in rows)


def test_seconds_of_both_classes_of_links() -> None:
    """The members of an island wait for each other in every step, the islands in every round."""
    tau, rounds, slow, fast = 3, 4, 10.0, 1000.0
    compute = "network.compute={kind:lognormal,seconds:0.02,spread:0.7}"
    network = ["network.bandwidth=10", "network.latency=20", "network.inside={bandwidth:1000,latency:1}", compute]
    words = ["algo=localsgd", f"algo.tau={tau}", f"rounds={rounds}", *network, *ISLANDS]
    found = trained(*words)
    law, seconds = Compute("lognormal", 0.02, spread=0.7), 0.0
    for number in range(1, rounds + 1):
        each = law.draw(numpy_generator(0, "compute", number), N, tau).reshape(G, M, tau)
        inside = 2 * (M - 1) * (1e-3 + 8 * (J + 1) / M / (fast * 1e6 / 8))
        seconds += (each.max(1) + inside).sum(1).max()
        seconds += 2 * (G - 1) * (20e-3 + 8 * J / G / (slow * 1e6 / 8))  # between
        seconds += 1e-3 + 8 * J / (fast * 1e6 / 8)  # and back to the members: one hop of a tree of two
    assert found.record.sim == pytest.approx(seconds, rel=1e-12)


def test_a_replay_has_the_same_digits(run: Callable[..., Run]) -> None:
    words = ["algo=diloco", "algo.tau=4", "algo.fragments=2", "algo.delay=1", "rounds=8", "eval_every=4"]
    words += ["network.compute={kind:pareto,seconds:0.01}", "network.inside={bandwidth:500}", "algo.lr=0.01"]
    done = run(*DATA, f"workers={N}", *words, *ISLANDS)
    times = [row["sim_seconds"] for row in done.rows("metrics")]
    network = Network(compute=Compute("pareto", 0.01), inside=Link(bandwidth=500.0))
    assert Replay(done).seconds(network) == times
    slower = Network(compute=Compute("pareto", 0.01), inside=Link(bandwidth=0.05))
    assert Replay(done).seconds(slower)[-1] > times[-1]
    assert done.summary["bytes_between"] < done.summary["bytes_wire"]


def test_a_run_goes_on_as_if_it_had_not_stopped(run: Callable[..., Run]) -> None:
    words = [*DATA, f"workers={N}", *ISLANDS, "algo=diloco", "algo.tau=4", "algo.inside=2", "algo.fragments=2"]
    words += ["algo.delay=2", "compress=topk", "compress.k=2", "rounds=9", "eval_every=3", "algo.lr=0.01"]
    with interrupted(after=5):
        assert run(*words).status == "interrupted"
    found = [
        [untimed(one.folder / f"{name}.csv") for name in ("metrics", "traffic")]
        for one in (run(*words), run(*words, "rerun=true"))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["topology=islands"], "topology.islands=null: how many are there"),
        (["topology=islands", "islands=4"], "islands=4: 6 workers cannot be shared out evenly"),
        (["topology=islands", "islands=0"], "islands=0: must not be less than 1"),
        (["islands=3"], "islands=3: needs topology=islands"),
        (["algo=localsgd", "algo.inside=2"], "algo.inside=2: no islands act as one worker here"),
        (["algo=noloco", "algo.inside=2", *ISLANDS], "algo.inside=2: no islands act as one worker here; give 1"),
        (["algo=localsgd", "algo.inside=0", *ISLANDS], "algo.inside=0: must not be less than 1"),
        (["algo=localsgd", "algo.inside=2", "algo.delay=1", *ISLANDS], "algo.delay=1: the members"),
        (["algo=async_sgd", *ISLANDS], "topology=islands: with algo=async_sgd every worker's message"),
        (["algo=localsgd", "algo.quorum=2", *ISLANDS], "topology=islands: with algo=localsgd every"),
        (["network.inside.bandwidth=0"], "network.inside={bandwidth:0.0}: bandwidth must be positive"),
        (["launch.per_worker=0"], "launch.per_worker=0: must not be less than 1"),
        (["launch.per_worker=2", "batch_size=1"], "launch.per_worker=2: a batch of 1 samples"),
        (["launch.per_worker=2", *ISLANDS, "batch_size=4"], "launch.per_worker=2: the members of an island share"),
        (
            ["launch.per_worker=2", "algo=async_sgd", "batch_size=4"],
            "launch.per_worker=2: with algo=async_sgd a worker is one",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused(words: list[str], text: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(*DATA, f"workers={N}", *words)
    assert str(refused.value).startswith(text)


def test_processes_share_islands_evenly() -> None:
    made = plan(*DATA, *PLAIN, *ISLANDS)
    for fits in (1, 3, 6):
        made.check_processes(fits, f"launch.nproc={fits}")
    with pytest.raises(UserError, match=r"launch\.nproc=2: would share 3 islands unevenly"):
        made.check_processes(2, "launch.nproc=2")
    with pytest.raises(UserError, match=r"launch\.per_worker=2: 6 workers take 12 processes, not 6"):
        plan(*DATA, *PLAIN, "batch_size=4", "launch.per_worker=2").check_processes(6, "launch.nproc=6")


def test_a_link_inside_has_what_it_does_not_say_from_the_network() -> None:
    network = Network(bandwidth=100, latency=3, up=50, inside=Link(bandwidth=1000))
    assert astuple(network.inside) == (1000, None, None)
    assert network.inside_pace()[:2] == (3, 500 * 1e6 / 8)
