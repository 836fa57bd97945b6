"""Mixing matrices: by hand, against closed forms, and with links lost."""

from __future__ import annotations

import time

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array

from commexp.topologies import (
    Complete,
    Exponential,
    Grid,
    Hypercube,
    Line,
    Mixing,
    OnePeer,
    Ring,
    Star,
    Topology,
    Torus,
    metropolis,
    second_singular_value,
    uniform,
)


def of(topology: Topology, workers: int) -> Mixing:
    (made,) = topology.mixings(workers, seed=0)
    return made


def check_sums(W: Mixing) -> None:
    for axis in (0, 1):
        assert np.asarray(W.matrix.sum(axis=axis)).ravel() == pytest.approx(np.ones(W.size), abs=1e-12)


def test_metropolis_by_hand() -> None:
    star = [[1 / 4, 1 / 4, 1 / 4, 1 / 4], [1 / 4, 3 / 4, 0, 0], [1 / 4, 0, 3 / 4, 0], [1 / 4, 0, 0, 3 / 4]]
    assert of(Star(), 4).matrix.toarray() == pytest.approx(np.array(star))
    line = [[2 / 3, 1 / 3, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 1 / 3, 1 / 3, 1 / 3], [0, 0, 1 / 3, 2 / 3]]
    W = of(Line(), 4)
    assert W.matrix.toarray() == pytest.approx(np.array(line))
    assert list(W.degrees) == [1, 2, 2, 1]
    rows, columns, weights = W.edges()
    assert list(zip(rows, columns, strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]
    assert weights == pytest.approx(np.full(6, 1 / 3))
    assert list(zip(*W.links()[:2], strict=True)) == [(0, 1), (1, 2), (2, 3)]
    assert list(of(Star(), 4).degrees) == [3, 1, 1, 1]


def test_uniform_weights() -> None:
    W = of(Complete(weights="uniform"), 8)
    assert W.matrix.toarray() == pytest.approx(np.full((8, 8), 1 / 8), abs=1e-16)
    ring = of(Ring(), 8).matrix.toarray()
    assert of(Ring(weights="uniform"), 8).matrix.toarray() == pytest.approx(ring, abs=1e-15)
    with pytest.raises(ValueError, match=r"^weights=uniform: .*degrees range from 1 to 3; give metropolis"):
        Star(weights="uniform").mixings(4, 0)


def test_in_a_directed_graph_the_receiver_has_the_row() -> None:
    W = metropolis(nx.DiGraph([(0, 1), (1, 2), (2, 0)]))
    assert W.matrix.toarray() == pytest.approx(np.array([[0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]]))
    assert not W.symmetric
    for weights in (metropolis, uniform):
        with pytest.raises(ValueError, match="degrees range from 0 to 2"):
            weights(nx.DiGraph([(0, 1), (0, 2)]))
    with pytest.raises(ValueError, match="node 'a'"):
        metropolis(nx.Graph([(0, "a")]))


@pytest.mark.parametrize("n", [3, 4, 5, 8, 9, 50])
def test_closed_forms(n: int) -> None:
    assert of(Ring(), n).second_singular_value == pytest.approx(1 / 3 + 2 / 3 * np.cos(2 * np.pi / n), abs=1e-12)
    assert of(Line(), n).second_singular_value == pytest.approx(1 / 3 + 2 / 3 * np.cos(np.pi / n), abs=1e-12)
    assert of(Star(), n).second_singular_value == pytest.approx(1 - 1 / n, abs=1e-12)
    assert of(Complete(), n).second_singular_value == pytest.approx(0, abs=1e-12)
    torus = (3 + 2 * np.cos(2 * np.pi / n)) / 5
    assert of(Torus(rows=3), 3 * n).second_singular_value == pytest.approx(torus, abs=1e-12)
    assert of(Torus(rows=3), 3 * n).spectral_gap == pytest.approx(1 - torus, abs=1e-12)
    digits = min(n, 6)
    cube = of(Hypercube(), 2**digits)
    assert cube.second_singular_value == pytest.approx((digits - 1) / (digits + 1), abs=1e-12)
    assert cube.smallest_eigenvalue == pytest.approx(-(digits - 1) / (digits + 1), abs=1e-12)
    digits = (2 * n - 1).bit_length()
    assert of(Exponential(), 2 * n).second_singular_value == pytest.approx((digits - 1) / (digits + 1), abs=1e-12)


def test_one_worker() -> None:
    W = of(Complete(), 1)
    assert W.matrix.toarray() == [[1]]
    assert (W.second_singular_value, W.smallest_eigenvalue, W.spectral_gap) == (0, 1, 1)
    assert W.symmetric
    assert W.connected
    assert list(W.degrees) == [0]
    assert W.without(np.zeros(0, dtype=bool)).matrix.toarray() == [[1]]


def test_laziness_halves_the_eigenvalues_distance_to_one() -> None:
    W, lazy = of(Ring(), 8), of(Ring(lazy=True), 8)
    assert lazy.matrix.toarray() == pytest.approx((np.eye(8) + W.matrix.toarray()) / 2)
    assert lazy.smallest_eigenvalue == pytest.approx((1 + W.smallest_eigenvalue) / 2)
    assert lazy.smallest_eigenvalue > 0


def test_a_period_is_measured_by_its_product() -> None:
    for n in (4, 8, 16):
        assert second_singular_value(OnePeer().mixings(n, 0)) == 0
    mixings = OnePeer().mixings(6, 0)
    product = mixings[2].matrix @ mixings[1].matrix @ mixings[0].matrix
    norm = np.linalg.norm(product.toarray() - 1 / 6, 2)
    assert second_singular_value(mixings) == pytest.approx(norm ** (1 / 3))
    assert 0 < norm < 1
    ring = of(Ring(), 8)
    assert second_singular_value([ring]) == ring.second_singular_value


def test_a_lost_link_moves_its_weight_to_both_ends() -> None:
    W = of(Line(), 4)
    gone = W.without(np.array([False, True, False]))
    by_hand = [[2 / 3, 1 / 3, 0, 0], [1 / 3, 2 / 3, 0, 0], [0, 0, 2 / 3, 1 / 3], [0, 0, 1 / 3, 2 / 3]]
    assert gone.matrix.toarray() == pytest.approx(np.array(by_hand))
    assert gone.matrix.nnz == 8, "a lost link leaves no entry"
    assert not gone.connected
    assert (W.without(np.zeros(3, dtype=bool)).matrix != W.matrix).nnz == 0
    assert W.without(np.ones(3, dtype=bool)).matrix.toarray() == pytest.approx(np.eye(4))


@pytest.mark.parametrize("topology", [Complete(), Ring(), Star(), Grid(), Torus(lazy=True)])
def test_losses_keep_sums_and_symmetry(topology: Topology) -> None:
    W = of(topology, 12)
    n, m, weights = W.links()
    rng = np.random.default_rng(0)
    for _ in range(20):
        lost = rng.random(len(n)) < 0.3
        left = W.without(lost)
        dense = W.matrix.toarray()
        for i, j, w in zip(n[lost], m[lost], weights[lost], strict=True):
            dense[i, j] = dense[j, i] = 0
            dense[i, i] += w
            dense[j, j] += w
        assert left.matrix.toarray() == pytest.approx(dense, abs=1e-15)
        check_sums(left)
        checked = Mixing(left.matrix)
        assert checked.symmetric
        assert left.symmetric
        assert checked.matrix.indices.tolist() == left.matrix.indices.tolist(), "not in canonical form"
        assert checked.matrix.indptr.tolist() == left.matrix.indptr.tolist()


def test_a_link_with_a_zero_diagonal_can_be_lost() -> None:
    W = Mixing(csr_array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]))
    left = W.without(np.array([True, False, False])).matrix
    assert left.toarray().tolist() == [[0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 0]]
    assert left.nnz == 6
    with pytest.raises(ValueError, match="not symmetric"):
        of(Exponential(), 8).without(np.zeros(24, dtype=bool))


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[0.5, 0.5], [0.4, 0.5]], r"^row 1 sums to 0.9: not doubly stochastic; give .*sums to 1"),
        ([[0.5, 0.5], [0.7, 0.3]], r"^column 0 sums to 1.2: "),
        ([[1.0, 0.0]], "1 rows and 2 columns: not square"),
        ([[1.0, 0.0], [0.0, np.nan]], "row 1 has an entry that is not a finite number"),
        (np.zeros((0, 0)), "not square"),
    ],
)
def test_what_is_no_mixing_matrix_is_refused(matrix: list[list[float]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Mixing(csr_array(np.array(matrix)))


def test_the_matrix_is_brought_into_canonical_form() -> None:
    given = csr_array((np.array([0.5, 0.5, 0.0, 0.25, 0.75]), np.array([1, 0, 0, 0, 1]), np.array([0, 2, 5])), (2, 2))
    given.data[:] = [0.5, 0.5, 0.25, 0.25, 0.5]
    W = Mixing(given)
    assert W.matrix.indices.tolist() == [0, 1, 0, 1]
    assert W.matrix.data.tolist() == [0.5, 0.5, 0.5, 0.5]
    assert given.nnz == 5, "the argument is left as it was"
    assert Mixing(csr_array(np.array([[1.5, -0.5], [-0.5, 1.5]]))).symmetric, "negative weights are allowed"


def test_ten_thousand_in_a_ring() -> None:
    started = time.perf_counter()
    W = of(Ring(), 10_000)
    assert time.perf_counter() - started < 1
    started = time.perf_counter()
    gap = W.spectral_gap
    assert time.perf_counter() - started < 5
    assert gap == pytest.approx(4 / 3 * np.sin(np.pi / 10_000) ** 2, rel=1e-8)
    assert W.smallest_eigenvalue == pytest.approx(-1 / 3, abs=1e-6)
    started = time.perf_counter()
    W.without(np.random.default_rng(0).random(10_000) < 0.1)
    assert time.perf_counter() - started < 0.5


def test_large_graphs_against_closed_forms() -> None:
    torus = of(Torus(), 2500)
    assert torus.spectral_gap == pytest.approx(4 / 5 * np.sin(np.pi / 50) ** 2, rel=1e-8)
    line = of(Line(), 2500)
    assert line.spectral_gap == pytest.approx(4 / 3 * np.sin(np.pi / 5000) ** 2, rel=1e-8)
    cube = of(Hypercube(), 4096)
    assert cube.second_singular_value == pytest.approx(11 / 13, rel=1e-10)
    assert of(Exponential(), 2500).second_singular_value == pytest.approx(11 / 13, rel=1e-10)
    assert second_singular_value(OnePeer().mixings(2048, 0)) == pytest.approx(1, abs=1e-3)
    apart = metropolis(nx.disjoint_union(nx.cycle_graph(1500), nx.cycle_graph(1500)))
    assert not apart.connected
    assert apart.second_singular_value == pytest.approx(1, abs=1e-12)


def test_a_large_matrix_that_swaps_does_not_average() -> None:
    """Without weight on the diagonal, on a bipartite ring: the eigenvalue -1."""
    n = np.arange(3000)
    rows, columns = np.append(n, n), np.append((n + 1) % 3000, (n - 1) % 3000)
    swap = Mixing(csr_array((np.full(6000, 0.5), (rows, columns)), shape=(3000, 3000)))
    assert swap.second_singular_value == pytest.approx(1, abs=1e-9)
    assert swap.smallest_eigenvalue == pytest.approx(-1, abs=1e-6)
