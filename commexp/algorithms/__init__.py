"""Algorithms, one file each."""

from commexp.algorithms.base import Algorithm, Context
from commexp.algorithms.diloco import DiLoCo
from commexp.algorithms.dppf import DPPF
from commexp.algorithms.easgd import EASGD
from commexp.algorithms.localsgd import LocalSGD
from commexp.algorithms.lsgd import LSGD
from commexp.algorithms.mgrawa import MGRAWA
from commexp.algorithms.postlocal import PostLocalSGD
from commexp.algorithms.qsr import QSR
from commexp.algorithms.schedule import Schedule
from commexp.algorithms.sgd import SGD

__all__ = [
    "DPPF",
    "EASGD",
    "LSGD",
    "MGRAWA",
    "QSR",
    "SGD",
    "Algorithm",
    "Context",
    "DiLoCo",
    "LocalSGD",
    "PostLocalSGD",
    "Schedule",
]
