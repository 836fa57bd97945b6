"""Datasets, one file a family; partition.py splits them over workers."""

from commexp.problems.datasets.digits import Digits
from commexp.problems.datasets.fashion_mnist import FashionMNIST
from commexp.problems.datasets.linreg import LinReg
from commexp.problems.datasets.partition import ByClass, Dirichlet, Iid, Natural, Partition, RandomShares
from commexp.problems.datasets.toy import Toy

__all__ = [
    "ByClass",
    "Digits",
    "Dirichlet",
    "FashionMNIST",
    "Iid",
    "LinReg",
    "Natural",
    "Partition",
    "RandomShares",
    "Toy",
]
