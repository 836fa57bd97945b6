"""AD-PSGD: against a simulation of its own, its clock and its bytes by hand, lost workers, what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from registry import interrupted, plan, untimed

from commexp.algorithms import ADPSGD
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.network import NO_CODING, Compute, Link, Network, NoStragglers, Outage, PeerClock, Regions
from commexp.problems import PerWorkerProblem
from commexp.run_folder import Run
from commexp.seeding import numpy_generator

WORDS = ["algo=adpsgd", "dataset=breast_cancer", "model=logistic_regression", "model.l2=0.01", "partition=iid"]
WORDS += ["dtype=float64", "batch_size=8"]
WORDS += ["workers=5", "rounds=60", "algo.lr=0.05", "topology=star", "network.latency=1"]
UNEVEN = ["network.compute.slow=[1,2.13,4.37,3.31,1.271]", "network.compute.seconds=0.01"]


def set_up(*words: str) -> tuple[ADPSGD, Any, PerWorkerProblem]:
    made = ExperimentSetup(plan(*WORDS, *words), torch.device("cpu"), Run(Path("none")))
    assert isinstance(made.algorithm, ADPSGD)
    assert isinstance(made.problem, PerWorkerProblem)
    return made.algorithm, made.record.clock, made.problem


def test_sixty_averagings_of_a_simulation_of_its_own() -> None:
    """Events, locks, models and ages of gradients, written out; gradients of batches and peers are fed in."""
    algorithm, clock, problem = set_up(*UNEVEN, "algo.decay=0.1")
    neighbours = {0: [1, 2, 3, 4], **{n: [0] for n in range(1, 5)}}  # a star
    each = 0.01 * np.array([1, 2.13, 4.37, 3.31, 1.271])
    one_way = 0.001 + problem.dim * 8 / (1e9 / 8)
    x = np.tile(algorithm.context.start.numpy(), (5, 1))
    read, age, rate = x.copy(), np.zeros(5, int), np.full(5, 0.05)
    ready, free, count = each.copy(), np.zeros(5), np.zeros(5, int)
    ages, now = [], 0.0
    for t in range(60):
        n = int(ready.argmin())
        problem.select_worker(n)
        batch = problem.batch(int(count[n]))
        gradient = problem.loss_and_grad(torch.from_numpy(read[n : n + 1].copy()), batch)[1][0].numpy().copy()
        drawn = numpy_generator(0, "neighbour", n, int(count[n])).integers(len(neighbours[n]))
        m = neighbours[n][int(drawn)]
        x[n] = x[m] = (x[n] + x[m]) / 2
        x[n] -= rate[n] * gradient
        ages.append(t - age[n])
        free[n] = free[m] = max(ready[n], free[n], free[m]) + 2 * one_way
        now = max(now, free[n])
        count[n] += 1
        read[n], age[n], ready[n] = x[n], t + 1, free[n] + each[n]
        rate[n] = 0.05 / (1 + 0.1 * (t + 1) / 5)
        algorithm.round(t)
        np.testing.assert_allclose(algorithm.models.numpy(), x, rtol=0, atol=1e-12)
        assert clock.now == pytest.approx(now, rel=1e-12)
    found = algorithm.diagnostics()
    assert algorithm.calls == count.tolist()
    assert found["staleness"] == pytest.approx(np.mean(ages))
    assert found["calls"] == 60
    assert found["consensus"] == pytest.approx(((x - x.mean(0)) ** 2).sum())
    assert found["disagreement"] == pytest.approx(np.sqrt(((x - x.mean(0)) ** 2).sum(1)).max())
    np.testing.assert_allclose(algorithm.model().numpy(), x.mean(0), rtol=1e-12)


def test_two_equal_workers_alternate() -> None:
    """Both have a gradient at the same time; worker 1 stands in line, and from then on comes second."""
    algorithm, clock, _ = set_up("workers=2", "topology=ring", "network.compute.seconds=0.01")
    came = []
    for t in range(12):
        before = list(algorithm.calls)
        algorithm.round(t)
        came.append([after - b for after, b in zip(algorithm.calls, before, strict=True)].index(1))
    assert came == [0, 1] * 6
    assert algorithm.stale == {0: 1, 1: 11}
    assert clock.busy.tolist() == pytest.approx([0.07, 0.07])


def peers(**fields: Any) -> PeerClock:
    network = Network(**{"bandwidth": 8.0, "latency": 0.0, "compute": Compute(seconds=1.0), **fields})  # 1 MB/s
    return PeerClock(network, NoStragglers(), 4, 0, NO_CODING)


def test_the_clock_by_hand() -> None:
    """Meetings of 0.25 s each way. 0 and 1 meet at once; 1, who is ready as well, stands in line; 2 and 3 do not."""
    clock = peers()
    for n in range(4):
        clock.serve(n, 1, 0, 0)
    for n, m, over in ((0, 1, 1.5), (1, 2, 2.0), (2, 3, 2.5), (3, 0, 3.0)):
        assert clock.arrivals() == [n]
        clock.meet(n, m, 250_000)
        clock.serve(n, 1, 0, 0)
        assert clock.now == over
        assert clock.ready[n] == over + 1
    assert clock.idle.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert clock.arrivals() == [0]
    clock.meet(0, 2, 500_000)
    assert clock.now == 4.0, "the meeting of 3 and 0 was over at 3, that of 2 and 3 at 2.5, and 0 ready at 2.5"


def test_two_pairs_meet_at_the_same_time_and_one_alone_goes_on() -> None:
    clock = peers()
    for n in range(4):
        clock.serve(n, 1, 0, 0)
    for n, m in ((0, 1), (2, 3)):
        while clock.arrivals() != [n]:
            pass
        clock.meet(n, m, 1_000_000)
        assert clock.free[[n, m]].tolist() == [3.0, 3.0]
    clock.serve(1, 1, 0, 0)
    assert clock.ready[1] == 2.0, "it has met nobody itself"


def test_slow_links_and_regions_take_what_is_between_the_two() -> None:
    slow = peers(links={1: Link(bandwidth=4.0, up=2.0, latency=100.0)})
    apart = peers(
        regions=Regions(latency={"a": [0, 50], "b": [50, 0]}, bandwidth={"a": [800, 4], "b": [2, 800]}), latency=1.0
    )
    for clock, over in ((slow, 1 + 0.1 + 2 + 0.1 + 4), (apart, 1 + 0.05 + 2 + 0.05 + 4)):
        for n in range(4):
            clock.serve(n, 1, 0, 0)
        clock.arrivals()
        clock.meet(0, 1 if clock is slow else 2, 1_000_000)
        assert clock.now == pytest.approx(over)


def test_a_changing_network_delays_a_meeting() -> None:
    clock = peers(outage=Outage(every=1.1, lasts=0.5))  # nothing moves from 1.1 to 1.6
    clock.serve(0, 1, 0, 0)
    assert clock.arrivals() == [0]
    clock.meet(0, 1, 100_000)
    assert clock.now == pytest.approx(1.7)


def test_each_averaging_books_two_vectors_and_a_run_goes_on_bit_for_bit(run: Callable[..., Run]) -> None:
    words = [*WORDS, *UNEVEN, "network.compute.kind=lognormal", "rounds=20", "eval_every=5"]
    whole = run(*words)
    traffic = whole.traffic
    assert (traffic[["bytes_info", "bytes_sent", "bytes_wire"]] == 2 * whole.meta["parameters"] * 8).all(axis=None)
    assert (len(traffic), set(traffic["direction"]), set(traffic["exchange"])) == (20, {"peers"}, {"gossip"})
    assert whole.metrics["gossip_rounds"].iloc[-1] == 20
    names = ("metrics", "traffic", "staleness", "workers", "gantt")
    tables = [untimed(whole.folder / f"{name}.csv") for name in names]
    with interrupted(after=11):
        assert run(*words, "rerun=true").status == "interrupted"
    resumed = run(*words)
    assert "resumed after round 11" in (resumed.folder / "run.log").read_text()
    assert [untimed(resumed.folder / f"{name}.csv") for name in names] == tables


def test_the_mean_comes_near_the_minimum() -> None:
    """By the gradient of F there."""
    algorithm, _, problem = set_up(*UNEVEN, "topology=ring", "batch_size=null", "algo.lr=0.2")

    def norm(x: torch.Tensor) -> float:
        each = [p.local_gradient(x[None])[1][0].clone() for p in problem.problems]
        return float(torch.stack(each).mean(0).norm())

    for t in range(800):
        algorithm.round(t)
    assert norm(algorithm.model()) < 0.03 * norm(algorithm.context.start)


def test_the_others_go_on_without_a_lost_one_which_may_come_back() -> None:
    """On a star whose centre is lost everybody is alone."""
    algorithm, clock, _ = set_up(*UNEVEN)
    for t in range(10):
        algorithm.round(t)
    clock.ready[0] = math.inf
    algorithm.lost(0)
    kept, entries = algorithm.models[0].clone(), len(algorithm.context.comm.ledger._pending)
    for t in range(10, 20):
        algorithm.round(t)
    assert torch.equal(algorithm.models[0], kept)
    assert len(algorithm.context.comm.ledger._pending) == entries
    algorithm.joined(0)
    assert torch.equal(algorithm.sent[0], kept)
    assert algorithm.context.comm.ledger._pending[-1][1:3] == ("server", "down")
    for t in range(20, 30):
        algorithm.round(t)
    assert not torch.equal(algorithm.models[0], kept)


REFUSED = {
    "compress=topk": "compress=topk: algo=adpsgd exchanges whole models",
    "topology=one_peer": "algo=adpsgd: a worker averages with one neighbour at a time",
    "gossip.rounds=2": "algo=adpsgd: a worker averages with one neighbour at a time",
    "+algo.iterations=2": "algo.iterations=2: one gradient comes before each averaging",
    "+algo.solver=svrg": "algo.solver=svrg: averaging follows a single gradient",
    "+algo.shares=samples": "algo.shares=samples: all workers' models count alike",
    "network.compute.seconds=0": "network.compute.seconds=0: algo=adpsgd on the virtual clock needs to know",
    "prox=l1": "prox: algo=adpsgd takes gradient steps alone",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_line(word: str, run: Callable[..., Run]) -> None:
    with pytest.raises(UserError) as caught:
        run(*WORDS, word)
    text = str(caught.value)
    assert text.startswith(REFUSED[word]), text
    assert "; give " in text
    assert "\n" not in text
