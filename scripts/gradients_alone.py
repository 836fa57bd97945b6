"""For benchmarks: a problem that is there for its gradients, and is never evaluated."""

from __future__ import annotations

from torch import Tensor

from commexp.problems import Problem


class GradientsAlone(Problem):
    """Leaves ``init`` and ``loss_and_grad`` to the benchmark."""

    def batch(self, step: int) -> object:
        return None

    def fresh(self, step: int, size: int) -> object:
        raise NotImplementedError

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        raise NotImplementedError

    def evaluate(self, x: Tensor) -> dict[str, float]:
        return {}
