"""Models, one file per family."""

from commexp.problems.models.base import ImageModel, Model
from commexp.problems.models.cnn import CNN
from commexp.problems.models.gpt import GPT
from commexp.problems.models.linear import LinearRegression, LogisticRegression
from commexp.problems.models.matrix_factorisation import MatrixFactorisation
from commexp.problems.models.mlp import MLP
from commexp.problems.models.module import OwnModule
from commexp.problems.models.pretrained import Pretrained
from commexp.problems.models.pyramidnet import PyramidNet
from commexp.problems.models.resnet import ResNet
from commexp.problems.models.resnet_cifar import ResNetCifar
from commexp.problems.models.resnet_small import ResNetSmall
from commexp.problems.models.vit import ViT
from commexp.problems.models.wide_resnet import WideResNet

__all__ = [
    "CNN",
    "GPT",
    "MLP",
    "ImageModel",
    "LinearRegression",
    "LogisticRegression",
    "MatrixFactorisation",
    "Model",
    "OwnModule",
    "Pretrained",
    "PyramidNet",
    "ResNet",
    "ResNetCifar",
    "ResNetSmall",
    "ViT",
    "WideResNet",
]
