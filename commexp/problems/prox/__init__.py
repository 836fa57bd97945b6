"""The convex term h that is added to F, one file per family."""

from commexp.problems.prox.base import Prox
from commexp.problems.prox.none import NoProx
from commexp.problems.prox.norms import L1, L2, ElasticNet, GroupLasso
from commexp.problems.prox.sets import Box, L1Ball

__all__ = [
    "L1",
    "L2",
    "Box",
    "ElasticNet",
    "GroupLasso",
    "L1Ball",
    "NoProx",
    "Prox",
]
