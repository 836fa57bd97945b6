"""The optimisers of gradient methods, on stacked flat vectors: SGD with momentum, AdamW, Muon, sign SGD."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from commexp.compressors import adjoined, places_of
from commexp.state import Stateful

OPTIMIZERS = ("sgd", "adamw", "muon", "sign")
DECAYED = ("all", "matrices")
#: tensors with two dimensions that are no hidden matrices: embeddings, positions, the output layer
NOT_HIDDEN = ("*embed*", "*token*", "*position*", "*wte*", "*wpe*", "*head.weight", "*classifier*", "fc.weight")
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
EPSILON = 1e-8  # of AdamW
PIECE = 2**18  # entries of which the cache of a CPU holds a part for each core, with their gradient and state

Shape = Sequence[int]


class Optimizer(Stateful):
    """SGD with momentum, AdamW, Muon or sign SGD acting in place on x, [J] or [W, J].

        sgd     u <- momentum u + g + weight_decay x;   x <- x - lr u     (nesterov: x <- x - lr (g' + momentum u))
        adamw   x <- (1 - lr weight_decay) x - lr mhat / (sqrt(vhat) + 1e-8)
        muon    of every hidden matrix X [r, c] with gradient G and momentum M:

                M <- momentum M + G
                X <- (1 - lr weight_decay) X - lr sqrt(max(1, r/c)) NS(G + momentum M)      NS: see ``orthogonal``

                of all other tensors adamw, with lr ``adam_ratio`` as their learning rate
        sign    x <- (1 - lr weight_decay) x - lr sign(g)     (arXiv 1802.04434)

    The operations are those of torch.optim.SGD and torch.optim.AdamW in the same order, so the bits are theirs. They
    are applied to one piece of the vectors after the other: intermediate results take little memory, and a piece stays
    in the cache.

    ``shapes``: names and shapes, in order, of the tensors that make up x. Hidden matrices are the tensors with exactly
    two dimensions whose names match none of the patterns ``muon_except`` (``*`` stands for any text). The matrices of
    each worker are orthogonalised on their own, so that the bits do not depend on W. ``weight_decay_on``: all, or
    matrices: only the tensors with two or more dimensions, embeddings among them, have weight decay.

    ``buffers``: the optimiser's state by name, each of the shape of x; empty before the first step. Muon keeps
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
        places = places_of(shapes)
        hidden = _hidden(shapes, muon_except) if kind == "muon" else []
        self.hidden: dict[tuple[int, ...], list[slice]] = {}  # by shape
        for name in hidden:
            self.hidden.setdefault(tuple(shapes[name]), []).append(places[name])
        others = [name for name in shapes if name not in hidden]
        #: what sgd and adamw step on: x as one, or all but the hidden matrices
        self.others = adjoined(places[name] for name in others) if hidden else [slice(None)]
        #: the parts of it that alone have weight decay; None: all
        self.decayed: list[slice] | None = None
        if weight_decay_on == "matrices":
            self.decayed = adjoined(places[name] for name in others if len(shapes[name]) >= 2)

    @property
    def counts_steps(self) -> bool:
        """Whether the number of an update changes it."""
        return self.kind in ("adamw", "muon")

    def step(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        """Update number ``step`` = 0, 1, ... with learning rate ``lr``; AdamW uses the number for its bias
        correction."""
        if self.kind == "sgd":
            self._sgd(x, gradient, lr)
        elif self.kind == "sign":
            self._sign(x, gradient, lr)
        else:
            self._adamw(x, gradient, lr * self.adam_ratio, step)
        if self.hidden:
            for row in zip(*map(torch.atleast_2d, (x, gradient, self.buffers["mean"])), strict=True):
                self._muon(row[0], row[1], row[2], lr)

    def _sgd(self, x: Tensor, gradient: Tensor, lr: float) -> None:
        decay, momentum, first = self.weight_decay, self.momentum, not self.buffers
        if self.decayed is not None:
            gradient, decay = gradient.clone(), 0.0
            for place in self.decayed:
                gradient[..., place].add_(x[..., place], alpha=self.weight_decay)
        if momentum and first:
            self.buffers = {"velocity": torch.empty_like(x)}
        for part, g, *velocity in pieces(x, gradient, *self.buffers.values()):
            if decay:
                g = g.add(part, alpha=decay)
            if momentum:
                (u,) = velocity
                u = u.copy_(g) if first else u.mul_(momentum).add_(g)
                g = g.add(u, alpha=momentum) if self.nesterov else u
            part.add_(g, alpha=-lr)

    def _sign(self, x: Tensor, gradient: Tensor, lr: float) -> None:
        for place in ([slice(None)] if self.decayed is None else self.decayed) if self.weight_decay else ():
            x[..., place].mul_(1 - lr * self.weight_decay)
        for part, g in pieces(x, gradient):
            part.add_(g.sign(), alpha=-lr)

    def _adamw(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        if not self.buffers:
            self.buffers = {"mean": torch.zeros_like(x), "square": torch.zeros_like(x)}
        decay = 1 - lr * self.weight_decay
        for place in self.decayed or ():
            x[..., place].mul_(decay)
        vectors = x, gradient, self.buffers["mean"], self.buffers["square"]
        first, second = self.betas
        corrected, root = lr / (1 - first ** (step + 1)), (1 - second ** (step + 1)) ** 0.5
        for place in self.others:
            for part, g, mean, square in pieces(*(v[..., place] for v in vectors)):
                if self.decayed is None and self.weight_decay:
                    part.mul_(decay)
                mean.lerp_(g, 1 - first)
                square.mul_(second).addcmul_(g, g, value=1 - second)
                part.addcdiv_(mean, square.sqrt().div_(root).add_(EPSILON), value=-corrected)

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


def pieces(*vectors: Tensor) -> Iterable[Sequence[Tensor]]:
    """The same entries of all vectors, PIECE for each thread at a time; all of them where the vectors are on a GPU or
    are not contiguous."""
    size = PIECE * torch.get_num_threads()
    if vectors[0].numel() <= size or vectors[0].is_cuda or not all(v.is_contiguous() for v in vectors):
        return [vectors]
    return zip(*(torch.split(v.view(-1), size) for v in vectors), strict=True)


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
