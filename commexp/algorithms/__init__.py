"""Algorithms, one file each."""

from commexp.algorithms.async_ps import AsyncPS
from commexp.algorithms.async_sgd import AsyncSGD
from commexp.algorithms.base import Algorithm, Asynchrony, Context, Redundancy
from commexp.algorithms.choco import Choco
from commexp.algorithms.d2 import D2
from commexp.algorithms.deepstorm import DeepStorm
from commexp.algorithms.diloco import DiLoCo
from commexp.algorithms.dppf import DPPF
from commexp.algorithms.dpsgd import DPSGD
from commexp.algorithms.dsgt import DSGT
from commexp.algorithms.easgd import EASGD
from commexp.algorithms.exact_coding import ExactCoding
from commexp.algorithms.gradient_coding import GradientCoding
from commexp.algorithms.ignore import IgnoreStragglers
from commexp.algorithms.localsgd import LocalSGD
from commexp.algorithms.lsgd import LSGD
from commexp.algorithms.mgrawa import MGRAWA
from commexp.algorithms.postlocal import PostLocalSGD
from commexp.algorithms.proxgt_sa import ProxGTSA
from commexp.algorithms.proxgt_sr_e import ProxGTSRE
from commexp.algorithms.proxgt_sr_o import ProxGTSRO
from commexp.algorithms.qsr import QSR
from commexp.algorithms.schedule import Schedule
from commexp.algorithms.sgd import SGD
from commexp.algorithms.ssp import SSP
from commexp.algorithms.sync_ps import SyncPS

__all__ = [
    "D2",
    "DPPF",
    "DPSGD",
    "DSGT",
    "EASGD",
    "LSGD",
    "MGRAWA",
    "QSR",
    "SGD",
    "SSP",
    "Algorithm",
    "AsyncPS",
    "AsyncSGD",
    "Asynchrony",
    "Choco",
    "Context",
    "DeepStorm",
    "DiLoCo",
    "ExactCoding",
    "GradientCoding",
    "IgnoreStragglers",
    "LocalSGD",
    "PostLocalSGD",
    "ProxGTSA",
    "ProxGTSRE",
    "ProxGTSRO",
    "Redundancy",
    "Schedule",
    "SyncPS",
]
