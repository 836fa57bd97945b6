"""Every topology that conf/ registers, and what each one refuses."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf
from scipy.io import mmwrite
from scipy.sparse import csr_array

from commexp import topologies
from commexp.config.schema import CONF
from commexp.topologies import (
    Complete,
    ErdosRenyi,
    Exponential,
    Geometric,
    GraphFile,
    Grid,
    Hypercube,
    Ladder,
    MatrixFile,
    OnePeer,
    RandomRegular,
    Ring,
    Star,
    Topology,
    Torus,
    second_singular_value,
)

REGISTERED = sorted(p.stem for p in (CONF / "topology").glob("*.yaml"))
DIRECTED = ("directed_exponential", "directed_file", "exponential", "one_peer")

PERIODS = {"one_peer": 3, "directed_exponential": 3, "random_pairs": 64}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "graph.txt").write_text(
        "# a wheel\n" + "".join(f"0 {n}  # spoke\n{n},{n % 7 + 1}\n\n" for n in range(1, 8))
    )
    np.savetxt(folder / "weights.txt", Ring().mixings(8, 0)[0].matrix.toarray(), fmt="%.17g", delimiter=", ")
    (folder / "cycle.txt").write_text("".join(f"{n} {(n + 1) % 8}\n" for n in range(8)))
    return {
        "file": folder / "graph.txt",
        "matrix": folder / "weights.txt",
        "directed_file": folder / "cycle.txt",
    }


def registered(name: str, files: dict[str, Path], **fields: Any) -> Topology:
    """As conf/topology/<name>.yaml describes it, built the way that commexp.config.plan does."""
    node: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "topology" / f"{name}.yaml"), resolve=False)  # type: ignore[assignment]
    cls = get_class(node.pop("_target_"))
    path = {"path": str(files[name])} if name in files else {"islands": 2} if name == "islands" else {}
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), node, path, fields))
    assert isinstance(made, Topology)
    return made


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("name", REGISTERED)
def test_every_topology(name: str, lazy: bool, files: dict[str, Path]) -> None:
    topology = registered(name, files, lazy=lazy)
    mixings, graphs = topology.mixings(8, seed=3), topology.graphs(8, seed=3)
    assert len(mixings) == len(graphs) == PERIODS.get(name, 1)
    union = np.zeros((8, 8))
    for W, graph in zip(mixings, graphs, strict=True):
        dense = W.matrix.toarray()
        union += dense
        for axis in (0, 1):
            assert dense.sum(axis) == pytest.approx(np.ones(8), abs=1e-12)
        assert dense.min() >= 0
        assert W.symmetric == (name not in DIRECTED or (dense == dense.T).all())  # one peer over N/2 is its own
        assert graph.is_directed() == (name in DIRECTED)
        assert sorted(graph) == list(range(8))
        sends = nx.to_numpy_array(graph, nodelist=range(8))
        off = dense * (1 - np.eye(8))
        assert ((off > 0) == (sends.T > 0)).all()
        assert W.degrees.tolist() == sends.sum(1).tolist()
        assert W.matrix.has_canonical_format
    assert (np.linalg.matrix_power(union, 8) > 0).all()
    assert second_singular_value(mixings) < 1 - 1e-3
    again = registered(name, files, lazy=lazy).mixings(8, seed=3)
    assert all((a.matrix != b.matrix).nnz == 0 for a, b in zip(mixings, again, strict=True))


@pytest.mark.parametrize("name", REGISTERED)
def test_uniform_weights_where_the_graph_is_regular(name: str, files: dict[str, Path]) -> None:
    (graph, *_) = registered(name, files).graphs(8, 0)
    if name == "matrix":
        with pytest.raises(ValueError, match=r"^weights=uniform: the file gives the weights"):
            registered(name, files, weights="uniform")
    elif len({d for _, d in graph.degree()}) == 1:
        assert registered(name, files, weights="uniform").mixings(8, 0)
    else:
        with pytest.raises(ValueError, match="weights=uniform: not doubly stochastic"):
            registered(name, files, weights="uniform").mixings(8, 0)


@pytest.mark.parametrize("topology", [ErdosRenyi(0.4), RandomRegular(3), Geometric(0.4)])
def test_the_seed_gives_the_graph(topology: Topology) -> None:
    drawn = [sorted(map(sorted, topology.graphs(12, seed)[0].edges())) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_shapes() -> None:
    def links(topology: Topology, workers: int) -> set[tuple[int, int]]:
        return {(min(e), max(e)) for e in topology.graphs(workers, 0)[0].edges()}

    assert links(Ring(), 4) == {(0, 1), (1, 2), (2, 3), (0, 3)}
    assert links(Ring(), 2) == {(0, 1)}
    assert links(Ladder(), 6) == {(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)}
    assert links(Grid(), 6) == links(Ladder(), 6)
    assert links(Torus(), 6) == links(Grid(), 6) | {(0, 2), (3, 5)}
    assert links(Torus(rows=1), 5) == links(Ring(), 5)
    assert links(Grid(rows=3), 6) == {(0, 1), (2, 3), (4, 5), (0, 2), (2, 4), (1, 3), (3, 5)}
    assert links(Hypercube(), 4) == {(0, 1), (0, 2), (1, 3), (2, 3)}
    assert sorted(Exponential().graphs(6, 0)[0].successors(1)) == [2, 3, 5]
    assert [sorted(g.predecessors(1)) for g in OnePeer().graphs(6, 0)] == [[2], [3], [5]]


@pytest.mark.parametrize(
    ("topology", "workers", "says"),
    [
        (Ladder(), 7, "workers=7: .*give 6 or 8"),
        (Hypercube(), 6, "workers=6: not a power of two; give 4 or 8"),
        (Grid(rows=3), 8, "workers=8: not a multiple of rows=3; give 6 or 9"),
        (Torus(rows=3), 2, "workers=2: not a multiple of rows=3; give 3"),
        (Grid(), 7, "workers=7: .*give 6 or 8, or rows=1"),
        (Torus(), 1, "workers=1: .*give 4, or rows=1"),
        (RandomRegular(3), 7, "workers=7: times degree=3 is odd.*give 8"),
        (RandomRegular(4), 4, "workers=4: too few for degree=4; give 5"),
        (RandomRegular(1), 8, "degree=1: none of 100 graphs drawn for 8 workers"),
        (ErdosRenyi(0.001), 8, "p=0.001: none of 100 graphs .*give 0.52 or more"),
        (Geometric(0.01), 8, "radius=0.01: none of 100 graphs .*give 0.41 or more"),
        (Ring(), 1, "workers=1: a ring has 2 or more"),
        (Star(), 1, "workers=1: a star has 2 or more"),
        (OnePeer(), 1, "workers=1: "),
        (Complete(), 2001, "workers=2001: .*2,001,000 links; give at most 2000"),
        (Exponential(failure=0.1), 8, "failure=0.1: failing links of a directed graph .*give 0, or an undirected"),
    ],
)
def test_what_does_not_fit_is_refused(topology: Topology, workers: int, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        topology.mixings(workers, 0)


@pytest.mark.parametrize(
    ("cls", "fields", "says"),
    [
        (Ring, {"weights": "even"}, "weights=even: unknown; give one of metropolis, uniform, column"),
        (Ring, {"failure": 1.0}, "failure=1.0: out of range"),
        (Ring, {"failure": float("nan")}, "failure=nan: out of range"),
        (Grid, {"rows": 0}, "rows=0: "),
        (ErdosRenyi, {"p": 0.0}, "p=0.0: "),
        (RandomRegular, {"degree": 0}, "degree=0: "),
        (Geometric, {"radius": 0.0}, "radius=0.0: "),
        (GraphFile, {"path": "/nowhere/graph.txt"}, "path=/nowhere/graph.txt: No such file or directory; give"),
        (MatrixFile, {"path": "/"}, "path=/: a folder, not a file; give"),
    ],
)
def test_fields_are_checked(cls: type[Topology], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        cls(**fields)


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1\n1 2\n2 a\n", "path=.*: line 3 is '2 a'; give two numbers"),
        ("0 1\n1\n", "path=.*: line 2 is '1'; give"),
        ("0 1 0.5\n", "path=.*: line 1 is '0 1 0.5'; give"),
        ("# one\n0 1\n-1 0\n", "path=.*: line 3 is '-1 0'; give"),
        ("0 1\n1 1\n", "path=.*: line 2 links worker 1 to itself; give"),
        ("1 2\n2 3\n", "path=.*: no worker 0 among its 3; give workers 0, 1, 2"),
        ("0 1\n1 2\n", "workers=8: the graph in .* has 3; give workers=3"),
        ("# nothing\n", "path=.*: empty; give"),
        ("0 1\n1 2\n3 4\n5 6\n6 7\n", "topology: not connected: workers 0 and 3 have no path between them; give"),
    ],
)
def test_edge_lists_that_are_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        GraphFile(written(tmp_path, "graph.txt", text)).mixings(8, 0)


def test_graphs_that_networkx_wrote(tmp_path: Path) -> None:
    graph = nx.Graph([(3, 0), (0, 1), (1, 2), (3, 1)])
    nx.write_graphml(graph, tmp_path / "g.graphml")
    nx.write_gml(graph, tmp_path / "g.gml")
    nx.write_adjlist(graph, tmp_path / "g.adjlist")
    nx.write_edgelist(graph, tmp_path / "g.txt", data=False)
    for name in ("g.graphml", "g.gml", "g.adjlist", "g.txt"):
        (read,) = GraphFile(str(tmp_path / name)).graphs(4, 0)
        assert {frozenset(e) for e in read.edges()} == {frozenset(e) for e in graph.edges()}, name
    unlabelled = "graph [ node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 ] ]"
    assert GraphFile(written(tmp_path, "u.gml", unlabelled)).mixings(2, 0)[0].size == 2
    nx.write_graphml(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), tmp_path / "d.graphml")
    (W,) = GraphFile(str(tmp_path / "d.graphml")).mixings(3, 0)
    assert W.matrix[1, 0] == 0.5
    assert W.matrix[0, 1] == 0
    nx.write_graphml(nx.Graph([("a", "b")]), tmp_path / "n.graphml")
    with pytest.raises(ValueError, match=r"^path=.*: node 'a' is not a worker's number; give"):
        GraphFile(str(tmp_path / "n.graphml")).graphs(2, 0)
    for name in ("x.graphml", "x.gml"):
        with pytest.raises(ValueError, match=r"^path=.*: cannot be read as .*; give"):
            GraphFile(written(tmp_path, name, "0 1\n<")).graphs(2, 0)
    (tmp_path / "b.txt").write_bytes(b"0 1\n\xff\xfe")
    with pytest.raises(ValueError, match=r"^path=.*: not UTF-8 text; give"):
        GraphFile(str(tmp_path / "b.txt")).graphs(2, 0)


def test_a_one_way_road_is_no_connection(tmp_path: Path) -> None:
    weights = "1 0 0\n0 .5 .5\n0 .5 .5\n"
    with pytest.raises(ValueError, match="workers 0 and 1 have no path between them"):
        MatrixFile(written(tmp_path, "w.txt", weights)).mixings(3, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (".5 .5\n.5 .6\n", r"path=.*: row 1 sums to 1.1: not doubly stochastic; give"),
        (".5 .5\n1 0\n", r"path=.*: column 0 sums to 1.5: "),
        (".5 .5\n.5\n", r"path=.*: line 2 has 1 numbers, those before it 2; give"),
        (".5 .5\n.5 half\n", r"path=.*: line 2 is '.5 half'; give"),
        (".5 .5\n.5 nan\n", r"path=.*: row 1 has an entry that is not a finite number; give"),
        (".5 .5\n", r"path=.*: 1 rows and 2 columns: not square; give"),
        ("1\n", r"workers=2: the graph in .* has 1; give workers=1"),
        ("0 1\n1 0\n", r"path=.*: the second singular value is 1, .*topology.lazy=true"),
        ("# nothing\n", r"path=.*: empty; give"),
    ],
)
def test_matrices_that_are_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        MatrixFile(written(tmp_path, "w.txt", text)).mixings(2, 0)


def test_matrices_as_they_are_given(tmp_path: Path) -> None:
    W = Exponential().mixings(8, 0)[0].matrix
    np.savetxt(tmp_path / "w.csv", W.toarray(), delimiter=",", fmt="%.17g")
    mmwrite(tmp_path / "sparse.mtx", W)
    mmwrite(tmp_path / "dense.mtx", W.toarray())
    for name in ("w.csv", "sparse.mtx", "dense.mtx"):
        (read,) = MatrixFile(str(tmp_path / name)).mixings(8, 0)
        assert read.matrix.toarray() == pytest.approx(W.toarray(), abs=1e-15), name
        assert not read.symmetric
        (graph,) = MatrixFile(str(tmp_path / name)).graphs(8, 0)
        assert set(graph.edges()) == set(Exponential().graphs(8, 0)[0].edges())
    swap = written(tmp_path, "swap.txt", "0 1\n1 0\n")
    assert MatrixFile(swap, lazy=True).mixings(2, 0)[0].matrix.toarray().tolist() == [[0.5, 0.5], [0.5, 0.5]]
    nearly = written(tmp_path, "nearly.txt", "0.6 0.4\n0.4000000000001 0.5999999999999\n")
    assert MatrixFile(nearly, failure=0.1).mixings(2, 0)[0].symmetric
    mmwrite(tmp_path / "complex.mtx", csr_array(np.eye(2) * 1j))
    for path in (str(tmp_path / "complex.mtx"), written(tmp_path, "x.mtx", "1 0\n0 1\n")):
        with pytest.raises(ValueError, match=r"^path=.*: cannot be read as Matrix Market .*; give"):
            MatrixFile(path).mixings(2, 0)


def test_a_changed_file_is_another_experiment(tmp_path: Path) -> None:
    path = written(tmp_path, "graph.txt", "0 1\n1 2\n")
    made = GraphFile(path)
    assert len(made.digest) == 16
    assert GraphFile(path, digest=made.digest) == made
    (tmp_path / "elsewhere.txt").write_bytes((tmp_path / "graph.txt").read_bytes())
    assert GraphFile(str(tmp_path / "elsewhere.txt")).digest == made.digest
    (tmp_path / "graph.txt").write_text("0 1\n0 2\n")
    for build in (lambda: GraphFile(path, digest=made.digest), lambda: made.graphs(3, 0)):
        with pytest.raises(ValueError, match=rf"^digest={made.digest}: the file has changed since; leave it out"):
            build()
    assert GraphFile(path).digest != made.digest


@pytest.mark.parametrize("path", sorted(Path(topologies.__file__).parent.glob("*.py")), ids=lambda p: p.stem)
def test_slow_packages_are_imported_when_needed(path: Path) -> None:
    """networkx and scipy take a third of a second."""
    imports = [
        n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, (ast.Import, ast.ImportFrom))
    ]
    assert not {"networkx", "scipy"} & {word for n in imports for word in ast.unparse(n).replace(".", " ").split()}
