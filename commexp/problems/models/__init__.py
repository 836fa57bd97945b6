"""Models, one file a family."""

from commexp.problems.models.base import ImageModel, Model
from commexp.problems.models.linear import LinearRegression, LogisticRegression
from commexp.problems.models.resnet_small import ResNetSmall

__all__ = ["ImageModel", "LinearRegression", "LogisticRegression", "Model", "ResNetSmall"]
