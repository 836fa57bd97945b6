"""Mixing weights of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from commexp.topologies.mixing import Mixing

if TYPE_CHECKING:
    import networkx as nx


def metropolis(graph: nx.Graph) -> Mixing:
    """Metropolis-Hastings weights: w_nm = 1 / (1 + max(d_n, d_m)) on every link, and the remainder on the diagonal.

    In a directed graph, where an edge (n, m) means that n sends to m: w_mn = 1 / (1 + d). There every worker must send
    to d others and receive from d others. Source: Xiao and Boyd, Fast Linear Iterations for Distributed Averaging,
    Systems & Control Letters 53, 2004. Raises ValueError for nodes other than 0, ..., N-1, and for a directed graph
    that is not regular.
    """
    size, receiver, sender = _arrays(graph)
    inward, outward = np.bincount(receiver, minlength=size), np.bincount(sender, minlength=size)
    if graph.is_directed():
        instead = "an undirected graph, topology=matrix, or weights=column with algo=sgp"
        _check_regular("metropolis", np.append(inward, outward), instead)
    return _assemble(size, receiver, sender, 1 / (1.0 + np.maximum(inward[receiver], inward[sender])))


def uniform(graph: nx.Graph) -> Mixing:
    """w_nm = 1 / (1 + d_n): every worker takes the plain average of its own and its neighbours' vectors. Doubly
    stochastic only on regular graphs. Raises ValueError for other graphs, and for nodes other than 0, ..., N-1."""
    size, receiver, sender = _arrays(graph)
    inward, outward = np.bincount(receiver, minlength=size), np.bincount(sender, minlength=size)
    instead = "topology=matrix" if graph.is_directed() else "metropolis"
    _check_regular("uniform", np.append(inward, outward), instead)
    workers = np.arange(size)
    rows, columns = np.append(receiver, workers), np.append(sender, workers)
    return _from_entries(size, rows, columns, 1 / (1.0 + inward[rows]))


def column(graph: nx.Graph) -> Mixing:
    """p_mn = 1 / (1 + d_n), d_n the number of workers to which n sends: equal shares of a worker's vector stay and go
    to each of those. Columns sum to 1, on every graph; rows need not. Raises ValueError for nodes other than 0, ...,
    N-1. Source: Assran, Loizou, Ballas and Rabbat, arXiv 1811.10792, section 3."""
    size, receiver, sender = _arrays(graph)
    shares = 1 / (1.0 + np.bincount(sender, minlength=size))
    workers = np.arange(size)
    rows, columns = np.append(receiver, workers), np.append(sender, workers)
    return _from_entries(size, rows, columns, shares[columns], push=True)


def _arrays(graph: nx.Graph) -> tuple[int, np.ndarray, np.ndarray]:
    """N, and receiver and sender of every edge; undirected edges appear in both directions."""
    size = len(graph)
    if any(n not in graph for n in range(size)):
        strange = next(n for n in graph if n not in range(size))
        raise ValueError(f"topology: node {strange!r} among {size}; give nodes 0, ..., {size - 1}")
    pairs = np.array(graph.edges(), dtype=np.int64).reshape(-1, 2)
    sender, receiver = pairs[pairs[:, 0] != pairs[:, 1]].T
    if graph.is_directed():
        return size, receiver, sender
    return size, np.append(receiver, sender), np.append(sender, receiver)


def _check_regular(weights: str, degrees: np.ndarray, instead: str) -> None:
    low, high = int(degrees.min()), int(degrees.max())
    if low != high:
        raise ValueError(
            f"weights={weights}: not doubly stochastic on this graph, whose degrees range from {low} to {high}; "
            f"give {instead}"
        )


def _assemble(size: int, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> Mixing:
    """Puts the remainder of each row on the diagonal."""
    workers = np.arange(size)
    rest = 1 - np.bincount(rows, weights, size)
    return _from_entries(size, np.append(rows, workers), np.append(columns, workers), np.append(weights, rest))


def _from_entries(size: int, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, push: bool = False) -> Mixing:
    from scipy.sparse import coo_array

    return Mixing(coo_array((weights, (rows, columns)), shape=(size, size)).tocsr(), push)
