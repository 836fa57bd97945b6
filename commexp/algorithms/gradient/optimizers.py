"""The optimisers of gradient methods, on stacked flat vectors: SGD with momentum, AdamW, Muon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from commexp.state import Stateful

OPTIMIZERS = ("sgd", "adamw", "muon")
DECAYED = ("all", "matrices")
#: tensors with two dimensions that are no hidden matrices: embeddings, positions, the output layer
NOT_HIDDEN = ("*embed*", "*token*", "*position*", "*wte*", "*wpe*", "*head.weight", "*classifier*", "fc.weight")
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)

Shape = Sequence[int]


class Optimizer(Stateful):
    """SGD with momentum, AdamW or Muon acting in place on x, [J] or [W, J].

        sgd     u <- momentum u + g + weight_decay x;   x <- x - lr u     (nesterov: x <- x - lr (g' + momentum u))
        adamw   x <- (1 - lr weight_decay) x - lr mhat / (sqrt(vhat) + 1e-8)
        muon    of every hidden matrix X [r, c] with gradient G and momentum M:

                M <- momentum M + G
                X <- (1 - lr weight_decay) X - lr sqrt(max(1, r/c)) NS(G + momentum M)      NS: see ``orthogonal``

                of all other tensors adamw, with lr ``adam_ratio`` as their learning rate

    ``shapes``: names and shapes, in order, of the tensors that make up x. Hidden matrices are the tensors with exactly
    two dimensions whose names match none of the patterns ``muon_except`` (``*`` stands for any text). The matrices of
    each worker are orthogonalised on their own, so that the bits do not depend on W. ``weight_decay_on``: all, or
    matrices: only the tensors with two or more dimensions, embeddings among them, have weight decay.

    It calls the functional forms of torch.optim, because the classes import torch's compiler, which takes more than a
    second. ``buffers``: the optimiser's state by name, each of the shape of x; empty before the first step. Muon keeps
    M in ``mean``, in the place of AdamW's. Source of Muon: Jordan et al., https://kellerjordan.github.io/posts/muon;
    torch.optim.Muon has the same rule in bfloat16. Raises ValueError if Muon finds no hidden matrix, or a pattern that
    is not among the default ones no tensor.
    """

    state = "**buffers"

    def __init__(
        self,
        kind: str,
        momentum: float,
        weight_decay: float,
        nesterov: bool,
        betas: tuple[float, float],
        *,
        shapes: Mapping[str, Shape] | None = None,
        weight_decay_on: str = "all",
        muon_except: Sequence[str] = NOT_HIDDEN,
        adam_ratio: float = 1.0,
    ) -> None:
        self.kind, self.momentum, self.weight_decay, self.nesterov, self.betas, self.adam_ratio = (
            kind, momentum, weight_decay, nesterov, betas, adam_ratio,
        )  # fmt: skip
        self.buffers: dict[str, Tensor] = {}
        shapes = shapes or {}
        places = _places(shapes)
        hidden = _hidden(shapes, muon_except) if kind == "muon" else []
        self.hidden: dict[tuple[int, ...], list[slice]] = {}  # by shape
        for name in hidden:
            self.hidden.setdefault(tuple(shapes[name]), []).append(places[name])
        others = [name for name in shapes if name not in hidden]
        #: what sgd and adamw step on: x as one, or all but the hidden matrices
        self.others = [places[name] for name in others] if hidden else [slice(None)]
        #: the parts of it that alone have weight decay; None: all
        self.decayed: list[slice] | None = None
        if weight_decay_on == "matrices":
            self.decayed = [places[name] for name in others if len(shapes[name]) >= 2]

    def step(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        """Update number ``step`` = 0, 1, ... with learning rate ``lr``; AdamW uses the number for its bias
        correction."""
        if self.kind == "sgd":
            self._sgd(x, gradient, lr)
        else:
            self._adamw(x, gradient, lr * self.adam_ratio, step)
        if self.hidden:
            for row in zip(*map(torch.atleast_2d, (x, gradient, self.buffers["mean"])), strict=True):
                self._muon(row[0], row[1], row[2], lr)

    def _sgd(self, x: Tensor, gradient: Tensor, lr: float) -> None:
        kept = [self.buffers.get("velocity")]
        if self.decayed is not None:
            gradient = gradient.clone()
            for place in self.decayed:
                gradient[..., place].add_(x[..., place], alpha=self.weight_decay)
        sgd(
            [x],
            [gradient],
            kept,
            foreach=False,
            lr=lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay if self.decayed is None else 0.0,
            nesterov=self.nesterov,
            dampening=0.0,
            maximize=False,
        )
        if kept[0] is not None:
            self.buffers["velocity"] = kept[0]

    def _adamw(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        if not self.buffers:
            self.buffers = {"mean": torch.zeros_like(x), "square": torch.zeros_like(x)}
        for place in self.decayed or ():
            x[..., place].mul_(1 - lr * self.weight_decay)
        mean, square = self.buffers["mean"], self.buffers["square"]
        adamw(
            [x[..., place] for place in self.others],
            [gradient[..., place] for place in self.others],
            [mean[..., place] for place in self.others],
            [square[..., place] for place in self.others],
            [],
            [torch.tensor(float(step)) for _ in self.others],  # adamw increments it
            foreach=False,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay if self.decayed is None else 0.0,
            eps=1e-8,
            maximize=False,
        )

    def _muon(self, x: Tensor, gradient: Tensor, momentum: Tensor, lr: float) -> None:
        """The step of one worker's hidden matrices; x, gradient, momentum [J]. Equal shapes go together."""
        for (rows, columns), places in self.hidden.items():
            ahead = []
            for place in places:
                momentum[place].mul_(self.momentum).add_(gradient[place])
                ahead.append(gradient[place].add(momentum[place], alpha=self.momentum).view(rows, columns))
            scale = math.sqrt(max(1.0, rows / columns))
            for place, direction in zip(places, orthogonal(torch.stack(ahead)), strict=True):
                x[place].mul_(1 - lr * self.weight_decay).sub_(direction.flatten(), alpha=lr * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """G [k, r, c] -> approximately U V^T of each G = U S V^T, by five steps of Newton and Schulz in G's own precision:

        O <- G / ||G||_F;    five times  O <- a O + (b A + c A^2) O,  A = O O^T        of G^T where r > c

    (a, b, c) = NEWTON_SCHULZ: they raise small singular values fast and leave all between about 0.7 and 1.2.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    o = matrices.mT if tall else matrices
    o = o / torch.linalg.vector_norm(o, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = o @ o.mT
        o = torch.baddbmm(o, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), o, beta=a)
    return o.mT if tall else o


def _places(shapes: Mapping[str, Shape]) -> dict[str, slice]:
    """Where in the flat vector each tensor is."""
    ends = pairwise(accumulate(map(math.prod, shapes.values()), initial=0))
    return {name: slice(start, end) for name, (start, end) in zip(shapes, ends, strict=True)}


def _hidden(shapes: Mapping[str, Shape], patterns: Sequence[str]) -> list[str]:
    """The names of the hidden matrices; raises ValueError where there are none, and for a pattern of the user's own
    that no name matches."""
    for pattern in patterns:
        if pattern not in NOT_HIDDEN and not any(fnmatchcase(name, pattern) for name in shapes):
            raise ValueError(
                f"algo.muon_except=[{pattern}]: no tensor of the model has such a name; its names are like "
                f"{', '.join(list(shapes)[-4:])}"
            )
    flat = [name for name, shape in shapes.items() if len(shape) == 2]
    hidden = [name for name in flat if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not hidden:
        raise ValueError("algo.optimizer=muon: this model has no hidden matrices; give adamw")
    return hidden
