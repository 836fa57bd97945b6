"""Graphs and mixing matrices from a file."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from commexp.files import Listing, number, text_lines
from commexp.topologies.base import Topology
from commexp.topologies.mixing import TOLERANCE, Mixing
from commexp.topologies.spectrum import ROUNDING

if TYPE_CHECKING:
    import networkx as nx
    from scipy.sparse import csr_array

NUMPY = b"\x93NUMPY"
STRUCTURED = 2**24  # bytes of GraphML or GML, about 250,000 links
COUNT = re.compile("[0-9]{1,9}")
SIZE = re.compile("[0-9]{1,18}")
MARKET = re.compile(
    r"%%MatrixMarket\s+matrix\s+(coordinate|array)\s+(real|integer|pattern|complex)\s+\S+\s*", re.IGNORECASE | re.ASCII
)


@dataclass
class FileTopology(Listing, Topology):
    """A graph from a file. Raises ValueError if the file cannot be read or does not have the ``digest``."""

    def __post_init__(self) -> None:
        Topology.__post_init__(self)
        self.content()

    def check_size(self, workers: int, size: int) -> None:
        if workers != size:
            raise ValueError(f"workers={workers}: the graph in {self.path} has {size}; give workers={size}")


@dataclass
class GraphFile(FileTopology):
    """An undirected graph: a link "n m" per line, or in .adjlist files "n m1 m2 ..."; # starts a comment. Or .graphml
    or .gml as networkx reads them, which may be directed; weights in the file are ignored. The nodes must be 0, ...,
    N-1; in GML the label counts, or the id if there are no labels."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        kind = self.suffix
        graph = self._structured(kind) if kind in (".graphml", ".gml") else self._listed(kind == ".adjlist")
        missing = next((n for n in range(len(graph)) if n not in graph), None)
        if missing is not None:
            raise self.bad(f"no worker {missing} among its {len(graph)}", "workers 0, 1, 2, ..., without gaps")
        self.check_size(workers, len(graph))
        return [graph]

    def _empty(self) -> nx.Graph | nx.DiGraph:
        """The graph to which a list's links are added."""
        import networkx as nx

        return nx.Graph()

    def _listed(self, several: bool) -> nx.Graph | nx.DiGraph:
        right = 'two numbers "n m" per line' if not several else 'numbers "n m1 m2 ..." per line'
        graph = self._empty()
        for line, words in self.lines():
            if not all(map(COUNT.fullmatch, words)) or not (several or len(words) == 2):
                raise self.bad(f"line {line} is {' '.join(words)[:40]!r}", right)
            n, *others = map(int, words)
            if n in others:
                raise self.bad(f"line {line} links worker {n} to itself", "links between two workers")
            graph.add_node(n)
            graph.add_edges_from((n, m) for m in others)
        if not graph:
            raise self.bad("empty", right)
        return graph

    def _structured(self, kind: str) -> nx.Graph | nx.DiGraph:
        import networkx as nx

        content = self.content()
        if len(content) > STRUCTURED:
            raise self.bad(f"holds more than {STRUCTURED} bytes", 'a list of links "n m"')
        if kind == ".graphml" and (b"<!" in content.replace(b"<!--", b"") or b"\0" in content):
            raise self.bad("declares entities, or is not UTF-8", "a file that networkx wrote")  # entities may expand

        def gml(label: str) -> Any:
            return nx.read_gml(io.BytesIO(content), label=label)

        try:
            if kind == ".graphml":
                read = nx.read_graphml(io.BytesIO(content))
            else:
                read = gml("label") if any("label" in d for _, d in gml("id").nodes(data=True)) else gml("id")
        except Exception as error:  # networkx does not catch the errors of its parsers
            reason = " ".join(str(error).split()) or type(error).__name__
            raise self.bad(f"cannot be read as {kind[1:]} ({reason})", "a file that networkx wrote") from error
        strange = next((n for n in read if not COUNT.fullmatch(str(n))), None)
        if strange is not None:
            raise self.bad(f"node {strange!r} is not a worker's number", "nodes 0, 1, 2, ...")
        graph = nx.DiGraph() if read.is_directed() else nx.Graph()
        graph.add_nodes_from(int(n) for n in read)
        graph.add_edges_from((int(n), int(m)) for n, m in read.edges())
        if len(graph) != len(read):
            raise self.bad("a worker has two nodes", "nodes 0, 1, 2, ...")
        if loop := next(nx.selfloop_edges(graph), None):
            raise self.bad(f"links worker {loop[0]} to itself", "links between two workers")
        if not graph:
            raise self.bad("no nodes", "nodes 0, 1, 2, ...")
        return graph


@dataclass
class DirectedGraphFile(GraphFile):
    """A directed graph, for push-sum with ``weights`` column: "n m" per line means that n sends to m, and in .adjlist
    files "n m1 m2 ..." that n sends to m1, m2, ...; else as in GraphFile."""

    def _empty(self) -> nx.DiGraph:
        import networkx as nx

        return nx.DiGraph()


@dataclass
class MatrixFile(FileTopology):
    """Graph and weights: N rows of N numbers separated by commas or blanks, # starts a comment; or a Matrix Market
    (.mtx) or NumPy (.npy) file, recognised by its first bytes. Row n holds the weights with which worker n averages. W
    must be doubly stochastic, or with ``weights`` column, for push-sum, have columns that sum to 1; it counts as
    symmetric if it is so within 1e-9. Sizes in a header are checked before memory of that size is allocated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in ("metropolis", "column"):
            raise ValueError(f"weights={self.weights}: the file gives the weights; leave it out")

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        import networkx as nx

        (mixing,) = self.weighted(workers, seed)
        graph = nx.Graph() if mixing.symmetric else nx.DiGraph()
        graph.add_nodes_from(range(workers))
        rows, columns, _ = mixing.edges()
        graph.add_edges_from(zip(columns.tolist(), rows.tolist(), strict=True))
        return [graph]

    def mixings(self, workers: int, seed: int) -> list[Mixing]:
        """As for every topology. Also raises ValueError if the workers do not converge to their average under a
        symmetric W."""
        (made,) = super().mixings(workers, seed)
        if made.symmetric and made.second_singular_value > 1 - ROUNDING:
            raise self.bad(
                f"the second singular value is {made.second_singular_value:.6g}, so that the workers do not converge",
                "a matrix with one below 1, or topology.lazy=true",
            )
        return [made]

    def weighted(self, workers: int, seed: int) -> list[Mixing]:
        content = self.content()
        if content.startswith(NUMPY):
            matrix = self._numpy(content, workers)
        elif content.startswith(b"%%MatrixMarket") or self.suffix == ".mtx":
            matrix = self._market(content, workers)
        else:
            matrix = self._rows()
        if matrix.shape[0] == matrix.shape[1]:
            self.check_size(workers, matrix.shape[0])
            if abs(matrix - matrix.T).max() <= TOLERANCE:
                matrix = (matrix + matrix.T) / 2
        try:
            return [Mixing(matrix, push=self.weights == "column")]
        except ValueError as error:
            raise ValueError(f"path={self.path}: {error}") from error

    def _rows(self) -> csr_array:
        from scipy.sparse import csr_array

        columns, values, ends, width = [], [], [0], 0
        for line, words in self.lines():
            width = width or len(words)
            if len(words) != width:
                raise self.bad(f"line {line} has {len(words)} numbers, those before it {width}", "N rows of N")
            values_of_line = [number(word) for word in words]
            if None in values_of_line:
                raise self.bad(f"line {line} is {' '.join(words)[:40]!r}", "N rows of N numbers")
            row = np.array(values_of_line, dtype=np.float64)
            columns.append(np.flatnonzero(row))
            values.append(row[columns[-1]])
            ends.append(ends[-1] + len(columns[-1]))
        if not width:
            raise self.bad("empty", "N rows of N numbers")
        return csr_array((np.concatenate(values), np.concatenate(columns), ends), shape=(len(columns), width))

    def _check_sizes(self, workers: int, rows: int, columns: int) -> None:
        """Checks the sizes in a header before memory is allocated."""
        if rows != columns:
            raise self.bad(f"{rows} rows and {columns} columns: not square", "a row for every worker")
        self.check_size(workers, rows)

    def _numpy(self, content: bytes, workers: int) -> csr_array:
        from scipy.sparse import csr_array

        file = io.BytesIO(content)
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, dtype = header(file)
        except (ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise self.bad(f"cannot be read as .npy ({said[:200]})", "a matrix that numpy.save wrote") from error
        if len(shape) != 2 or dtype.kind not in "fiu":
            raise self.bad(f"holds {dtype} of shape {shape}", "a matrix of real numbers")
        self._check_sizes(workers, *shape)
        body = content[file.tell() :]
        if len(body) != shape[0] * shape[1] * dtype.itemsize:
            raise self.bad(f"has {len(body)} bytes after its header, which do not match {shape}", "the whole file")
        return csr_array(
            np.frombuffer(body, dtype).reshape(shape, order="F" if columns_first else "C").astype(np.float64)
        )

    def _market(self, content: bytes, workers: int) -> csr_array:
        from scipy.io import mmread
        from scipy.sparse import csr_array

        right = "a real matrix that scipy wrote"
        try:
            lines = (text for _, text in text_lines(io.BytesIO(content)))
            head = next(lines, b"").decode("latin-1")
            sizes = next((line for line in lines if not line.startswith(b"%")), b"").decode("latin-1").split()
        except ValueError as error:
            raise self.bad(f"cannot be read as Matrix Market ({error})", right) from error
        kind = MARKET.fullmatch(head)
        if kind is None or kind[2].lower() == "complex":
            raise self.bad(f"cannot be read as Matrix Market (line 1 is {head[:60]!r})", right)
        sparse = kind[1].lower() == "coordinate"
        if len(sizes) != 2 + sparse or not all(map(SIZE.fullmatch, sizes)):
            raise self.bad(f"cannot be read as Matrix Market (its sizes are {' '.join(sizes)[:40]!r})", right)
        rows, columns, *entries = map(int, sizes)
        self._check_sizes(workers, rows, columns)
        if (entries[0] if sparse else rows) > len(content):  # each entry takes several bytes
            raise self.bad(f"cannot be read as Matrix Market (it is shorter than its sizes, {' '.join(sizes)})", right)
        try:
            return csr_array(mmread(io.BytesIO(content))).astype(np.float64, casting="same_kind")
        except Exception as error:  # scipy does not catch the errors of its parser
            reason = " ".join(str(error).split()) or type(error).__name__
            raise self.bad(f"cannot be read as Matrix Market ({reason})", "a real matrix that scipy wrote") from error
