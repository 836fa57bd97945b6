"""SGP on directed graphs: its recursion, what it keeps, its bytes, when a worker waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from algorithms.gossip_world import LR, SEED, J, N, go, workers_of, world
from algorithms.test_gossip_references import Reference
from registry import plan

from commexp.algorithms import SGP, AlgorithmContext, Choco
from commexp.comm import Communicator, Ledger
from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.run_folder import Run
from commexp.topologies import (
    Complete,
    DirectedExponential,
    DirectedGraphFile,
    Gossip,
    Hypercube,
    Ladder,
    MatrixFile,
    Mixer,
    Ring,
    Topology,
)

LONG = 60
#: a cycle of eight, and chords, so that workers send to one to three others and receive from one to four
EDGES = [(n, (n + 1) % N) for n in range(N)] + [(0, 3), (0, 5), (2, 5), (6, 5), (7, 3)]
Vector = np.ndarray


@pytest.fixture
def chords(tmp_path: Path) -> DirectedGraphFile:
    path = tmp_path / "chords.txt"
    path.write_text("# n sends to m\n" + "".join(f"{n} {m}\n" for n, m in EDGES))
    return DirectedGraphFile(path=str(path), weights="column")


def pushed(topology: Topology) -> AlgorithmContext:
    made = world(Complete())
    made.comm = Communicator(N, Ledger(), mixer=Mixer(topology, Gossip(), N, SEED, push=True))
    return made


def column(edges: list[tuple[int, int]]) -> Vector:
    """p_mn = 1 / (1 + d_n) for every edge from n to m, and on the diagonal."""
    P = np.eye(N)
    for n, m in edges:
        P[m, n] = 1
    return P / P.sum(0)


def recursion(matrices: list[Vector], momentum: float, decay: float) -> tuple[Vector, Vector]:
    reference = Reference()
    x, w, u = reference.start, np.ones((N, 1)), np.zeros((N, J))
    for t in range(LONG):
        P, z = matrices[t % len(matrices)], x / w
        u = momentum * u + reference.gradient(z, reference.batch(t)) + decay * z
        x, w = P @ (x - LR * u), P @ w
    return x, w


def test_sixty_rounds_of_the_recursion_on_a_graph_of_unlike_degrees(chords: DirectedGraphFile) -> None:
    method, made = SGP(lr=LR, momentum=0.6, weight_decay=0.01), pushed(chords)
    sums: list[float] = []
    go(method, made, LONG, lambda t: sums.append(float(method.w.sum())))
    x, w = recursion([column(EDGES)], 0.6, 0.01)
    assert w.max() > 2 * w.min(), "w would not matter"
    np.testing.assert_allclose(workers_of(method), x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(method.models.numpy(), x / w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(method.model().numpy(), x.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(sums, N, rtol=1e-13)
    apart = ((x / w - x.mean(0)) ** 2).sum()
    assert method.diagnostics()["consensus"] == pytest.approx(apart, rel=1e-9)


def test_sixty_rounds_with_one_peer_a_round() -> None:
    method = SGP(lr=LR, momentum=0.6)
    go(method, pushed(DirectedExponential()), LONG)
    x, w = recursion([column([(n, (n + hop) % N) for n in range(N)]) for hop in (1, 2, 4)], 0.6, 0)
    np.testing.assert_allclose(workers_of(method), x, rtol=0, atol=1e-12)
    assert np.abs(w - 1).max() < 1e-13


def test_push_sum_finds_the_average_where_gossip_of_the_same_weights_would_not(chords: DirectedGraphFile) -> None:
    comm, x = pushed(chords).comm, np.random.default_rng(0).standard_normal((N, 3))
    rows = torch.from_numpy(np.hstack([x, np.ones((N, 1))]))
    for t in range(150):
        comm.begin_round(t + 1)
        rows = comm.gossip(rows)
    z = (rows[:, :3] / rows[:, 3:]).numpy()
    np.testing.assert_allclose(z, np.tile(x.mean(0), (N, 1)), atol=1e-12)
    assert float((rows[:, 3] - 1).abs().max()) > 0.3
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(column(EDGES))))
    assert comm.mixer is not None
    assert comm.mixer.second_singular_value == pytest.approx(eigenvalues[-2])


def test_on_symmetric_doubly_stochastic_weights_it_is_gossip_sgd_that_mixes_after_the_step() -> None:
    """D-PSGD in that order, which is algo=choco without compression."""
    for topology in (Ladder(), Hypercube(weights="column")):
        push, gossip = SGP(lr=LR, momentum=0.6, weight_decay=0.01), Choco(lr=LR, momentum=0.6, weight_decay=0.01)
        go(push, pushed(topology), LONG)
        go(gossip, world(Hypercube() if isinstance(topology, Hypercube) else topology), LONG)
        np.testing.assert_allclose(workers_of(push), workers_of(gossip), rtol=0, atol=1e-12)


def test_bytes_by_hand(chords: DirectedGraphFile, run: Callable[..., Run]) -> None:
    """Each of 13 edges once, one way: a vector of 5 doubles and w."""
    small = ["dataset=linreg", "dataset.dim=5", "dataset.samples=6", "workers=8", "rounds=4", "algo=sgp"]
    found = run(*small, "topology=directed_file", f"topology.path={chords.path}")
    assert found.metrics["bytes_wire"].iloc[-1] == 4 * 13 * 6 * 8
    assert found.metrics["bytes_sent"].iloc[-1] == 4 * 8 * 6 * 8
    cycling = run(*small, "topology=directed_exponential")
    assert cycling.metrics["bytes_wire"].iloc[-1] == 4 * 8 * 6 * 8


def test_a_replay_waits_for_the_same_workers(run: Callable[..., Run]) -> None:
    words = ["dataset=linreg", "dataset.dim=5", "dataset.samples=6", "workers=6", "rounds=7", "eval_every=1"]
    words += ["algo=sgp", "straggler=fixed", "straggler.workers=[2]", "network.compute.seconds=0.01"]
    words += ["network.compute.kind=lognormal", "network=mobile", "network.up=null"]
    found = run(*words)
    assert Replay(found).seconds(plan(*words).network) == pytest.approx(
        found.metrics["sim_seconds"].tolist(), rel=1e-12
    )


REFUSED = {
    "algo=dpsgd topology=directed_file topology.path={}": "topology.weights=metropolis: not doubly stochastic",
    "algo=dsgt topology=directed_file topology.weights=column topology.path={}": "topology.weights=column: not doubly",
    "algo=extra topology=directed_exponential": "algo=extra: needs plain gossip with symmetric weights",
    "algo=d2 topology=directed_exponential": "algo=d2: needs plain gossip with symmetric weights",
    "algo=sgp topology=directed_file topology.path={} topology.failure=0.1": "topology.failure=0.1: failing links",
    "algo=sgp topology=star topology.weights=uniform": "topology.weights=uniform: not doubly stochastic",
    "algo=sgp compress=fp16": "compress=fp16: algo=sgp exchanges whole models",
    "algo=sgp topology=directed_file topology.path={}.one_way": "topology: not connected: workers 0 and 1 have no path",
    "algo=sgp topology=directed_file topology.path={} workers=9": "workers=9: the graph in",
    "algo=sgd topology.weights=rows": "topology.weights=rows: unknown; give one of metropolis, uniform, column",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_line(
    words: str, chords: DirectedGraphFile, run: Callable[..., Run]
) -> None:
    Path(f"{chords.path}.one_way").write_text("".join(f"{n} {n + 1}\n" for n in range(N - 1)))
    with pytest.raises(UserError) as caught:
        run("dataset=linreg", "dataset.dim=5", "dataset.samples=6", "workers=8", *words.format(chords.path).split())
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(REFUSED[words]), text
    assert "; give " in text


def test_weights_from_a_file_may_be_column_stochastic(tmp_path: Path) -> None:
    path = tmp_path / "weights.txt"
    np.savetxt(path, column(EDGES), fmt="%.17g")
    (mixing,) = MatrixFile(path=str(path), weights="column").mixings(N, 0)
    np.testing.assert_array_equal(mixing.matrix.toarray(), column(EDGES))
    with pytest.raises(ValueError, match="not doubly stochastic; give weights of which every row and every column"):
        MatrixFile(path=str(path)).mixings(N, 0)
    for wrong, text in ((0.9 * np.eye(2), "column 0 sums to 0.9: not column"), (np.eye(2)[::-1], "0 on the diagonal")):
        np.savetxt(path, wrong, fmt="%.17g")
        with pytest.raises(ValueError, match=text):
            MatrixFile(path=str(path), weights="column").mixings(2, 0)


def test_column_weights_are_metropolis_on_a_regular_graph() -> None:
    one, other = (Ring(weights=weights).mixings(N, 0)[0] for weights in ("column", "metropolis"))
    np.testing.assert_allclose(one.matrix.toarray(), other.matrix.toarray(), rtol=1e-15)
