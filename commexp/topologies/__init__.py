"""Topologies: which workers exchange vectors, and with which weights. Usable without the rest of commexp:

(W,) = Ring().mixings(16, seed=0)
W.second_singular_value, W.edges()
x = W.matrix @ x                              # one round of gossip: [N, J]
"""

from commexp.topologies.base import Topology
from commexp.topologies.deterministic import Complete, Hypercube, Line, Ring, Star
from commexp.topologies.exponential import DirectedExponential, Exponential, OnePeer
from commexp.topologies.from_file import DirectedGraphFile, GraphFile, MatrixFile
from commexp.topologies.gossip import Gossip, Mixer
from commexp.topologies.islands import Islands
from commexp.topologies.lattice import Grid, Ladder, Torus
from commexp.topologies.mixing import Mixing, second_singular_value
from commexp.topologies.random import ErdosRenyi, Geometric, RandomPairs, RandomRegular
from commexp.topologies.weights import column, metropolis, uniform

__all__ = [
    "Complete",
    "DirectedExponential",
    "DirectedGraphFile",
    "ErdosRenyi",
    "Exponential",
    "Geometric",
    "Gossip",
    "GraphFile",
    "Grid",
    "Hypercube",
    "Islands",
    "Ladder",
    "Line",
    "MatrixFile",
    "Mixer",
    "Mixing",
    "OnePeer",
    "RandomPairs",
    "RandomRegular",
    "Ring",
    "Star",
    "Topology",
    "Torus",
    "column",
    "metropolis",
    "second_singular_value",
    "uniform",
]
