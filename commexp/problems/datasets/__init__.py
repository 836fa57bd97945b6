"""Datasets, one file per family; partition.py splits them over workers."""

from commexp.problems.datasets.a9a import A9A
from commexp.problems.datasets.breast_cancer import BreastCancer
from commexp.problems.datasets.cifar10 import CIFAR10
from commexp.problems.datasets.cifar100 import CIFAR100
from commexp.problems.datasets.digits import Digits
from commexp.problems.datasets.fashion_mnist import FashionMNIST
from commexp.problems.datasets.folder import Folder
from commexp.problems.datasets.imagenet import ImageNet
from commexp.problems.datasets.imagenette import Imagenette
from commexp.problems.datasets.images import ImageSet
from commexp.problems.datasets.libsvm import LibSVM
from commexp.problems.datasets.linreg import LinReg
from commexp.problems.datasets.logreg import LogReg
from commexp.problems.datasets.mnist import MNIST
from commexp.problems.datasets.module import OwnDataset
from commexp.problems.datasets.partition import ByClass, BySource, Dirichlet, Iid, Partition, RandomShares
from commexp.problems.datasets.partition import NaturalPartition as Natural
from commexp.problems.datasets.photos import Photos
from commexp.problems.datasets.text import Text
from commexp.problems.datasets.toy import Toy
from commexp.problems.ratings.movielens import MovieLens
from commexp.problems.ratings.netflix import Netflix
from commexp.problems.ratings.partition import Blocks, ByUser
from commexp.problems.ratings.ratings import LowRank

__all__ = [
    "A9A",
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "Blocks",
    "BreastCancer",
    "ByClass",
    "BySource",
    "ByUser",
    "Digits",
    "Dirichlet",
    "FashionMNIST",
    "Folder",
    "Iid",
    "ImageNet",
    "ImageSet",
    "Imagenette",
    "LibSVM",
    "LinReg",
    "LogReg",
    "LowRank",
    "MovieLens",
    "Natural",
    "Netflix",
    "OwnDataset",
    "Partition",
    "Photos",
    "RandomShares",
    "Text",
    "Toy",
]
