"""Classification by a torch module, cross-entropy loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from commexp.problems.base import Problem, Ready, Setting
from commexp.problems.data import Data
from commexp.problems.gradients import ModuleGradients
from commexp.problems.sampler import Sampler

EVALUATION_SAMPLES = 8192  # the training loss is taken over at most so many samples, always the same
CHUNK = 2048


class Classification(Problem):
    """f_n(x) = mean cross entropy over worker n's samples; all samples live on the device.

    Metrics: train_loss, test_loss, test_accuracy. Raises ValueError for data without a test set, or full batches.
    """

    def __init__(self, module: nn.Module, data: Data, setting: Setting) -> None:
        if data.test_x is None or data.test_y is None:
            raise ValueError("dataset: has no test set; classification needs one")
        if setting.batch_size is None:
            raise ValueError("batch_size=null: this model trains on mini-batches; give a number such as 16")
        device = setting.device
        self.device, self.dtype = device, setting.dtype
        self.module = module.to(device, setting.dtype)
        self.gradients = ModuleGradients(self.module, setting.deterministic)
        self.layout = self.gradients.layout
        self.dim, self.shapes = self.layout.dim, self.layout.shapes
        self.samples = len(data.train_x)
        self.samples_per_step = setting.batch_size
        self.sampler = Sampler(setting.own, setting.worker_ids, setting.batch_size, setting.seed)
        self.train = data.train_x.to(device), data.train_y.to(device)
        self.test = data.test_x.to(device), data.test_y.to(device)
        pick = torch.linspace(0, self.samples - 1, min(self.samples, EVALUATION_SAMPLES)).long().to(device)
        self.train_sample = (self.train[0][pick], self.train[1][pick]) if len(pick) < self.samples else self.train

    def init(self, generator: torch.Generator) -> Tensor:
        """torch's own initialisation of each layer, drawn from ``generator`` instead of the global one."""
        x = torch.empty(self.dim, dtype=self.dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            for layer in self.module.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()  # type: ignore[operator]
        for name, view in self.layout.views(x).items():
            view.copy_(self.module.get_parameter(name))
        return x.to(self.device)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rows = self.sampler.batch(step).to(self.device)
        return self.train[0][rows], self.train[1][rows]

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        assert isinstance(batch, tuple)
        inputs, targets = batch
        return self.gradients(x, inputs, targets, ready)

    def evaluate(self, x: Tensor) -> dict[str, float]:
        train_loss, _ = self._score(x, *self.train_sample)
        test_loss, accuracy = self._score(x, *self.test)
        return {"train_loss": train_loss, "test_loss": test_loss, "test_accuracy": accuracy}

    @torch.no_grad()
    def _score(self, x: Tensor, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        params, loss, right = self.layout.views(x), 0.0, 0
        for rows, labels in zip(torch.split(inputs, CHUNK), torch.split(targets, CHUNK), strict=True):
            logits = functional_call(self.module, params, (rows,))
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
        return loss / len(targets), right / len(targets)
