"""Algorithms: one file per method, in a folder per family."""

from commexp.algorithms.asynchronous.async_ps import AsyncPS
from commexp.algorithms.asynchronous.async_sgd import AsyncSGD
from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.algorithms.asynchronous.ssp import SSP
from commexp.algorithms.asynchronous.sync_ps import SyncPS
from commexp.algorithms.base import Algorithm, AlgorithmContext, AsyncWorkers, Redundancy
from commexp.algorithms.coded.exact_coding import ExactCoding
from commexp.algorithms.coded.gradient_coding import GradientCoding
from commexp.algorithms.coded.ignore import IgnoreStragglers
from commexp.algorithms.decentralised.choco import Choco
from commexp.algorithms.decentralised.d2 import D2
from commexp.algorithms.decentralised.deepstorm import DeepStorm
from commexp.algorithms.decentralised.dpsgd import DPSGD
from commexp.algorithms.decentralised.dsgt import DSGT
from commexp.algorithms.decentralised.proxgt_sa import ProxGTSA
from commexp.algorithms.decentralised.proxgt_sr_e import ProxGTSRE
from commexp.algorithms.decentralised.proxgt_sr_o import ProxGTSRO
from commexp.algorithms.differences.base import DifferenceMethod
from commexp.algorithms.differences.dasha import DASHA
from commexp.algorithms.differences.diana import DIANA
from commexp.algorithms.differences.ef21 import EF21
from commexp.algorithms.differences.ef21_sgdm import EF21SGDM
from commexp.algorithms.differences.marina import MARINA
from commexp.algorithms.gradient.base import GradientMethod, Schedule
from commexp.algorithms.gradient.demo import DeMo
from commexp.algorithms.gradient.sgd import SGD
from commexp.algorithms.local.base import LocalMethod
from commexp.algorithms.local.desloc import DESLOC
from commexp.algorithms.local.diloco import DiLoCo
from commexp.algorithms.local.dppf import DPPF
from commexp.algorithms.local.easgd import EASGD
from commexp.algorithms.local.localsgd import LocalSGD
from commexp.algorithms.local.lsgd import LSGD
from commexp.algorithms.local.mgrawa import MGRAWA
from commexp.algorithms.local.noloco import NoLoCo
from commexp.algorithms.local.postlocal import PostLocalSGD
from commexp.algorithms.local.qsr import QSR
from commexp.algorithms.local.soft_consensus import SoftConsensus
from commexp.algorithms.local.sparta import SPARTA
from commexp.algorithms.theory import Constants

__all__ = [
    "D2",
    "DASHA",
    "DESLOC",
    "DIANA",
    "DPPF",
    "DPSGD",
    "DSGT",
    "EASGD",
    "EF21",
    "EF21SGDM",
    "LSGD",
    "MARINA",
    "MGRAWA",
    "QSR",
    "SGD",
    "SPARTA",
    "SSP",
    "Algorithm",
    "AlgorithmContext",
    "AsyncPS",
    "AsyncSGD",
    "AsyncWorkers",
    "Asynchronous",
    "Choco",
    "Constants",
    "DeMo",
    "DeepStorm",
    "DiLoCo",
    "DifferenceMethod",
    "ExactCoding",
    "GradientCoding",
    "GradientMethod",
    "IgnoreStragglers",
    "LocalMethod",
    "LocalSGD",
    "NoLoCo",
    "PostLocalSGD",
    "ProxGTSA",
    "ProxGTSRE",
    "ProxGTSRO",
    "Redundancy",
    "Schedule",
    "SoftConsensus",
    "SyncPS",
]
