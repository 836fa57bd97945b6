"""Matrix factorisation: ratings as inner products of the factors of users and of items."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from commexp.problems.base import Problem, ProblemContext, Ready
from commexp.problems.data import Data
from commexp.problems.feeds.base import Sampler, with_replacement
from commexp.problems.ratings.data import Ratings
from commexp.seeding import generator

CHUNK = 2**18  # ratings per step of a computation, to limit its memory


@dataclass
class WeightedBatch:
    """The samples over which each of W gradients is taken. ``samples[w]``: their indices, on the CPU; each has weight
    ``weights[w]`` in f_n."""

    samples: Sequence[Tensor]
    weights: Sequence[float]

    def __len__(self) -> int:
        return len(self.samples)

    def flat(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """All samples concatenated: the index w [k] of their gradient, the sample [k], its weight [k]."""
        sizes = torch.tensor([len(each) for each in self.samples])
        worker = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        weights = torch.tensor(list(self.weights), dtype=torch.float64)[worker]
        return worker.to(device), torch.cat(list(self.samples)), weights.to(device)


class Factorisation(Problem):
    """With m training ratings r_ui, their mean mu, factors u_u and v_i of ``rank`` entries and biases c_u and b_i,

        F = (1/m) [ sum_(u,i) (r_ui - mu - c_u - b_i - <u_u, v_i>)^2 + lam (|U|^2 + |V|^2 + |c|^2 + |b|^2) ]

    F is the mean over the N workers of f_n, which is N/m times the contribution of worker n's ratings to the bracket.
    So F is a mean per rating that does not depend on the split. F excludes users and items without training ratings;
    their factors and biases count as zero. ``bias``: whether there are b and c. A row is (u_u, c_u) or (v_i, b_i), with
    ``rank`` + ``bias`` entries. Factors are initialised from a normal distribution with standard deviation ``start``,
    biases with zero. Metrics: train_loss = the mean squared error; objective = F if lam > 0; train_rmse and test_rmse
    in the unit of the ratings, with predictions that are not clipped. Source: Koren, Bell and Volinsky, Matrix
    factorization techniques for recommender systems, Computer 42(8), 2009.
    """

    tables: dict[str, Tensor]  # the tables of x by name, in order: the number of training ratings of each row

    def __init__(self, data: Data, context: ProblemContext, rank: int, lam: float, bias: bool, start: float) -> None:
        if context.weights is not None:
            raise ValueError("algo.shares=samples: F already gives all ratings equal weights; give equal")
        train: Ratings = data.train_x
        self.rank, self.lam, self.bias, self.start = rank, lam, bias, start
        self.context, self.device, self.dtype = context, context.device, context.dtype
        self.width, self.penalised = rank + bias, lam > 0
        self.count, self.workers = len(train), len(context.shards)
        self.mean = float(data.train_y.double().mean())
        self.train = self._here(train), (data.train_y.double() - self.mean).to(self.device, self.dtype)
        self.test: tuple[Ratings, Tensor] | None = None
        if data.test_x is not None and data.test_y is not None and len(data.test_x):
            self.test = self._here(data.test_x), (data.test_y.double() - self.mean).to(self.device, self.dtype)
        self.user_counts = torch.bincount(train.users, minlength=train.n_users)
        self.item_counts = torch.bincount(train.items, minlength=train.n_items)
        self.pools, self.all_samples = self.make_pools(train)
        self.samples = len(self.all_samples)
        self.local_sizes = [len(pool) for pool in self.pools]
        size = context.batch_size
        self.samples_per_step = float(size or self.samples / self.workers)
        self.sampler = Sampler(self.pools, context.worker_ids, size, context.seed) if size is not None else None
        self.whole_batches = self.sampler is None
        self.tables = self.make_tables()
        self.shapes = {name: (len(counts), self.width) for name, counts in self.tables.items()}
        self.dim = sum(rows * width for rows, width in self.shapes.values())
        self.rated = torch.cat(list(self.tables.values())).to(self.device) > 0

    @abstractmethod
    def make_pools(self, train: Ratings) -> tuple[list[Tensor], Tensor]:
        """The samples of each local worker, and of all workers together."""

    @abstractmethod
    def make_tables(self) -> dict[str, Tensor]:
        """See ``tables``."""

    @abstractmethod
    def gradients(self, rows: Tensor, batch: WeightedBatch) -> tuple[Tensor, Tensor]:
        """rows [W, R, width] -> the weighted losses of the batch [W] and their gradients [W, R, width]."""

    @abstractmethod
    def factors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of one model [R, width] -> the rows of all users and of all items."""

    def _here(self, ratings: Ratings) -> Ratings:
        return Ratings(ratings.users.to(self.device), ratings.items.to(self.device), ratings.n_users, ratings.n_items)

    def for_workers(self, rows: Sequence[int]) -> Factorisation:
        some = copy.copy(self)
        some.context = replace(self.context, worker_ids=[self.context.worker_ids[row] for row in rows])
        some.pools, some.local_sizes = [self.pools[row] for row in rows], [self.local_sizes[row] for row in rows]
        some.sampler = self.sampler and self.sampler.for_workers(rows)
        return some

    def init(self, generator: torch.Generator) -> Tensor:
        rows = self.start * torch.randn(len(self.rated), self.width, generator=generator, dtype=self.dtype)
        rows[:, self.rank :] = 0
        return (rows.to(self.device) * self.rated[:, None]).flatten()

    def batch(self, step: int) -> WeightedBatch:
        return self._own() if self.sampler is None else self._drawn(list(self.sampler.batch(step)))

    def fresh(self, step: int, size: int) -> WeightedBatch:
        return self._drawn(list(with_replacement(self.pools, self.context.worker_ids, size, self.context.seed, step)))

    def _own(self) -> WeightedBatch:
        return WeightedBatch(self.pools, [self.workers / self.count] * len(self.pools))

    def _drawn(self, samples: list[Tensor]) -> WeightedBatch:
        """A batch with weights such that its expected loss is f_n."""
        sizes = [len(pool) / len(drawn) for pool, drawn in zip(self.pools, samples, strict=True)]
        return WeightedBatch(samples, [self.workers / self.count * size for size in sizes])

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        assert isinstance(batch, WeightedBatch)
        rows = x.reshape(len(x), -1, self.width)
        if self.context.deterministic and len(x) > 1:
            single = [WeightedBatch([own], [weight]) for own, weight in zip(batch.samples, batch.weights, strict=True)]
            each = [self.gradients(row[None], one) for row, one in zip(rows, single, strict=True)]
            return torch.cat([loss for loss, _ in each]), torch.cat([grad for _, grad in each]).flatten(1)
        losses, grads = self.gradients(rows, batch)
        return losses, grads.flatten(1)

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss_and_grad(x, self._own())

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        samples, weight = self.all_samples, 1 / self.count
        if self.context.batch_size is not None:
            g = generator(self.context.seed, "common", step)
            drawn = torch.randint(self.samples, (self.context.batch_size,), generator=g)
            samples, weight = samples[drawn], self.samples / (len(drawn) * self.count)
        return self.loss_and_grad(x, WeightedBatch([samples] * len(x), [weight] * len(x)))

    def common_samples(self) -> float:
        return float(self.context.batch_size or self.samples)

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        losses, grads = self.loss_and_grad(x[None], WeightedBatch([self.all_samples], [1 / self.count]))
        return float(losses[0]), grads[0]

    def training_loss(self, x: Tensor) -> float:
        return sum(self._terms(*self._all_factors(x)))

    def inner(self, users: Tensor, items: Tensor) -> Tensor:
        """Rows [n, width] of users and items -> the predictions minus the mean, [n]."""
        factors = (users[:, : self.rank] * items[:, : self.rank]).sum(1)
        return factors + users[:, self.rank] + items[:, self.rank] if self.bias else factors

    def evaluate(self, x: Tensor) -> dict[str, float]:
        users, items = self._all_factors(x)
        loss, penalty = self._terms(users, items)
        metrics = {"train_loss": loss, **self.objective(loss + penalty, x), "train_rmse": loss**0.5}
        if self.test is not None:
            metrics["test_rmse"] = (self._squares(users, items, *self.test) / len(self.test[1])) ** 0.5
        return metrics

    def _all_factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``factors`` of x [J], with zeros for rows without training ratings."""
        return self.factors(x.reshape(-1, self.width) * self.rated[:, None])

    def _terms(self, users: Tensor, items: Tensor) -> tuple[float, float]:
        """The two terms of F: mean squared error and regulariser."""
        squares = float(users.double().square().sum() + items.double().square().sum())
        return self._squares(users, items, *self.train) / self.count, self.lam * squares / self.count

    def _squares(self, users: Tensor, items: Tensor, ratings: Ratings, targets: Tensor) -> float:
        """The sum of squared errors."""
        total = 0.0
        for u, i, y in zip(
            *(torch.split(each, CHUNK) for each in (ratings.users, ratings.items, targets)), strict=True
        ):
            total += float((y - self.inner(users[u], items[i])).double().square().sum())
        return total


def gather_rows(rows: Tensor, worker: Tensor, index: Tensor) -> Tensor:
    """rows[worker, index] of rows [W, R, width]; faster if all workers share the same rows."""
    if len(rows) == 1 or rows.stride(0) == 0:
        return rows[0][index]
    return rows.reshape(-1, rows.shape[2])[worker * rows.shape[1] + index]


def add_rows(into: Tensor, index: Tensor, rows: Tensor) -> None:
    """into[index[k]] += rows[k], of tensors [n, ...]; deterministic, also on a GPU."""
    if into.is_cuda:
        into.index_put_((index,), rows, accumulate=True)
    else:
        into.index_add_(0, index, rows)
