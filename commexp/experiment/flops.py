"""How many floating-point operations a gradient takes."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from commexp.problems import ModuleProblem, PerWorkerProblem, Problem
from commexp.problems.gradients import Scored
from commexp.problems.trees import Tree, tree_map
from commexp.seeding import derive, global_draws

aten = torch.ops.aten
FUSED = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")


def gradient_flops(problem: Problem) -> float:
    """Floating-point operations of one worker's gradient of one batch: two for each multiplication and addition in a
    product of matrices, a convolution or attention, forward and backward. What works entry by entry (activations,
    norms, optimisers) is left out, as in the literature's 6 J per token. A function of the model and the size of a
    batch: it depends neither on the device nor on how the gradients of several workers are computed.

    A loss that is a mean over samples is counted on two samples, any other on a whole batch, or the piece of one that
    ``speed.accumulate`` computes at once.
    Raises ValueError where there is no such product, or the problem does not know.
    """
    if isinstance(problem, PerWorkerProblem):
        problem = problem.problems[0]
    if not isinstance(problem, ModuleProblem):
        return problem.gradient_flops
    batch, pieces = int(problem.samples_per_step), problem.gradients.speed.accumulate
    size = min(2, batch) if problem.task.foldable else max(1, batch // pieces)
    places = torch.arange(size, device=problem.device) % 2
    try:
        count = _counted(problem, tree_map(lambda t: t[places], problem.feed.example())) * batch / size
    except Exception as error:  # whatever a module raises that is called in a way it was not written for
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if not count:
        raise ValueError("torch counts no product of matrices in its gradient")
    return count


def _counted(problem: ModuleProblem, tree: Tree) -> int:
    """Of the gradient of the task's mean loss on the samples of ``tree`` [b, ...]."""
    trained, buffers = problem.layout.shapes, problem.module.named_buffers()
    values = {name: p.detach().requires_grad_(name in trained) for name, p in problem.module.named_parameters()}
    values.update({name: buffer.clone() for name, buffer in buffers})
    counter = Counter()
    with global_draws(derive(problem.seed, "operations"), problem.device), torch.enable_grad(), counter:
        losses = Scored(problem.module, problem.task.losses).at(values, tree)
        torch.autograd.grad(losses.mean(), [values[name] for name in trained], allow_unused=True)
    return counter.total


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of what is computed within it, by the formulas of torch's FlopCounterMode; that one itself
    imports torch's compiler, which takes longer than a short run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        log = logging.getLogger("torch.utils.flop_counter")
        log.setLevel(logging.ERROR)  # it warns where there is no triton, which nothing here uses
        from torch.utils.flop_counter import flop_registry

        self.formulas, self.total = {**flop_registry, **ATTENTION}, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Asked by torch, which would import its compiler to turn it off."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := self.formulas.get(func._overloadpacket):
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Of Q K^T and its product with V, each [b, h, t, d]; a mask leaves nothing out."""
    (*outer, queries, width), keys, out = query.shape, key.shape[-2], value.shape[-1]
    return 2 * torch.Size(outer).numel() * queries * keys * (width + out)


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    """Two products for each of the forward pass; none for what a fused kernel computes anew."""
    return 2 * _attention(query, key, value)


#: fused attention, of which torch does not count the CPU's, and counts the recomputation of others
ATTENTION = {getattr(aten, f"_scaled_dot_product_{name}"): _attention for name in FUSED} | {
    getattr(aten, f"_scaled_dot_product_{name}_backward"): _attention_backward for name in FUSED
}
