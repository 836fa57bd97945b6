"""A decoder for language models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commexp.problems.base import Problem, ProblemContext
from commexp.problems.data import Data
from commexp.problems.items import Items
from commexp.problems.models.base import Model
from commexp.problems.module_problem import ModuleProblem
from commexp.problems.tokens import Tokens
from commexp.problems.trees import tensors

POSITIONS = ("learned", "rotary")


@dataclass
class GPT(Model):
    """A transformer decoder with the norms before attention and feed-forward layers, and no biases:

        h = E[token] + P[position]                  P: learned, [T, width]; rotary: none
        h = h + attention(norm(h));   h = h + feed-forward(norm(h))         ``layers`` times
        logits = norm(h) U^T                        U = E if ``tied``

    Attention is causal, with ``heads`` heads; rotary positions turn queries and keys. A feed-forward layer has 4
    ``width`` GELUs. ``dropout``: the rate after the embedding, in attention and after every layer. The vocabulary and
    the longest window T are the data's. Initial values: N(0, 0.02^2), of the last matrix of every layer
    N(0, 0.02^2 / (2 layers)).

    With a vocabulary of 256 and T = 64 the defaults have 0.12 million parameters. Source: Radford et al., Language
    models are unsupervised multitask learners, 2019, section 2.3; rotary positions: Su et al., arXiv 2104.09864,
    section 3.2. Raises ValueError for a value out of range.
    """

    layers: int = 2
    heads: int = 4
    width: int = 64
    positions: str = "learned"
    dropout: float = 0.0
    tied: bool = True

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive; {getattr(GPT, name)} is the default")
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads}: must divide width={self.width}; give one of its divisors")
        if self.positions not in POSITIONS:
            raise ValueError(f"positions={self.positions}: unknown; give {' or '.join(POSITIONS)}")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(f"heads={self.heads}: rotary positions turn pairs of entries; give heads of an even width")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must lie in [0, 1); 0 is none")

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        x = data.train_x
        if isinstance(x, Tokens):
            vocabulary = max(x.vocabulary, data.test_x.vocabulary if data.test_x is not None else 0)
        elif isinstance(x, Items) and x.tree is not None and x.targets is not None and x.targets.ndim == 2:
            vocabulary = 1 + max(int(t.max()) for i in (x, data.test_x) if i is not None for t in tensors(i.tree))
        else:
            raise ValueError("model=GPT: needs tokens; give dataset=text, or pairs of tokens and targets, [m, T] each")
        return ModuleProblem(lambda: Decoder(self, vocabulary, x.shape[1]), data, context)


class Decoder(nn.Module):
    """Tokens [b, T] -> logits [b, T, vocabulary]. ``longest``: the largest T."""

    def __init__(self, options: GPT, vocabulary: int, longest: int) -> None:
        super().__init__()
        width = options.width
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(longest, width) if options.positions == "learned" else None
        self.dropout = nn.Dropout(options.dropout) if options.dropout else None
        self.blocks = nn.ModuleList(Block(options, longest) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.apply(draw_normal)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.2.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * options.layers))
        if options.tied:
            self.head.weight = self.token_embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h: Tensor = self.token_embedding(tokens)
        if self.position_embedding is not None:
            places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
            h = h + self.position_embedding(places)
        if self.dropout is not None:
            h = self.dropout(h)
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(self.norm(h))
        return logits


class Block(nn.Module):
    def __init__(self, options: GPT, longest: int) -> None:
        super().__init__()
        width = options.width
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.attention = Attention(options, longest)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.dropout(self.attention(self.norm1(h)))
        moved: Tensor = h + self.dropout(self.feed_forward(self.norm2(h)))
        return moved


class Attention(nn.Module):
    """Causal self-attention, h [b, T, width] -> [b, T, width]."""

    def __init__(self, options: GPT, longest: int) -> None:
        super().__init__()
        self.heads, self.rate = options.heads, options.dropout
        self.qkv = nn.Linear(options.width, 3 * options.width, bias=False)
        self.out = nn.Linear(options.width, options.width, bias=False)
        self.rotary = Rotary(options.width // options.heads, longest) if options.positions == "rotary" else None

    def forward(self, h: Tensor) -> Tensor:
        b, length, width = h.shape
        q, k, v = (t.view(b, length, self.heads, -1).transpose(1, 2) for t in self.qkv(h).chunk(3, dim=-1))
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        rate = self.rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(b, length, width))
        return out


class Rotary(nn.Module):
    """x [..., T, d] -> the same, with the pair (x_i, x_{i + d/2}) at position t turned by the angle
    t 10000^(-2 i / d)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, size: int, longest: int) -> None:
        super().__init__()
        speeds = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.arange(longest, dtype=torch.float64)[:, None] * speeds
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        cos, sin = self.cos, self.sin
        if length < cos.shape[0]:
            cos, sin = cos[:length], sin[:length]
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def draw_normal(module: nn.Module) -> Any:
    """Weights of linear layers and embeddings from N(0, 0.02^2)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
