"""AD-PSGD: gossip in which nobody waits for a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.algorithms.base import WorkItem
from commexp.algorithms.gradient.base import row_norms
from commexp.seeding import numpy_generator


@dataclass
class ADPSGD(Asynchronous):
    """Worker n, for ever: the gradient g of a batch at x_n as it was when it began; then with a neighbour m on the
    graph, drawn evenly by (seed, n, the worker's number of messages so far),

        x_m <- (x_n + x_m)/2;    x_n <- (x_n + x_m)/2 - lr_c g         both x of before; lr_c = lr / (1 + decay c/N)

    after c averagings of all. Others may have averaged with x_n meanwhile: g is stale, but all of its neighbours'
    averagings count. Nobody waits for another's gradient. A round is one averaging on the virtual clock (PeerClock),
    which ends when both vectors have been exchanged; the graph must be undirected and the same in all rounds. The model
    that is evaluated is the mean of the x_n.

    Two averagings never share a worker at the same time, and there is no deadlock, on any graph: who asks for one has
    both locks at once or stands in line. The paper's program splits a bipartite graph into workers that ask and workers
    that answer; this is not needed here. Between real processes the x_n are with the first process, which averages them
    one pair after the other, in the order in which messages come; the process of worker n has the x_n that it was sent,
    sends -lr_c g and is sent x_n. So each averaging moves two vectors, as many as between two peers, which is what the
    ledger counts; but all pass through one machine's link. When n is lost, its x_n stays where it is and is averaged no
    more until it comes back.

    Diagnostics: ``calls``, averagings; ``staleness``, its mean: averagings of all workers while a gradient is computed;
    ``disagreement``: max_n ||x_n - mean||; ``consensus``: sum_n ||x_n - mean||^2. ``iterations``, ``solver``,
    ``slice`` and ``shares`` have no meaning here. Source: Lian, Zhang, Zhang and Liu, arXiv 1710.06952, algorithm 1.
    Raises ValueError for values out of range; at set-up for a graph that is directed, changes, or whose gossip mixes
    more than once.
    """

    decentralised = True
    compressible = False
    compressible_alternative = "choco"
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations != 1 or self.slice is not None:
            raise ValueError(f"iterations={self.iterations}: one gradient comes before each averaging; give 1")
        if self.solver != "sgd":
            raise ValueError(f"solver={self.solver}: averaging follows a single gradient; give sgd")
        if self.shares != "equal":
            raise ValueError(f"shares={self.shares}: all workers' models count alike in averages; give equal")

    def begin(self) -> None:
        self.models = self.sent.clone()
        mixer = self.context.comm.mixer
        assert mixer is not None
        if not (mixer.constant and mixer.symmetric and mixer.rounds == 1 and mixer.eta == 0):
            raise ValueError(
                "algo=adpsgd: a worker averages with one neighbour at a time; give an undirected topology that stays "
                "the same, with gossip.rounds=1"
            )
        matrix = mixer.mixings[0].matrix
        ends = [np.sort(matrix.indices[a:b]) for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)]
        self.neighbours: list[list[int]] = [[m for m in each.tolist() if m != n] for n, each in enumerate(ends)]

    def neighbour(self, n: int) -> int | None:
        """With whom worker n averages next; None where it has no neighbour that is there."""
        there = [m for m in self.neighbours[n] if m not in self.away]
        if not there:
            return None
        drawn = numpy_generator(self.context.codec_context.seed, "neighbour", n, self.calls[n])
        return there[int(drawn.integers(len(there)))]

    def round(self, t: int) -> None:
        watch = self.context.comm.watch
        watch.to("wait")
        came = self.workers.arrivals()
        watch.to("compute")
        for n in came:
            update = self.workers.update(n)
            self.done[n] = update.local_steps
            self.stale[sum(self.calls) - self.messages_received[n]] += 1
            self.receive(n, update.message.codec.decode(update.message)[0])
            self.calls[n] += 1
        self.version += 1
        for n in came:
            self.serve(n)

    def receive(self, n: int, sent: Tensor) -> None:
        x = self.models[n]
        m = self.neighbour(n)
        if m is not None:
            size = x.numel() * x.element_size()
            self.context.comm.count_pair(size)
            self.workers.meet(n, m, size)
            x = (x + self.models[m]) / 2
            self.models[m] = x
        self.models[n] = x + sent

    def item(self, n: int) -> WorkItem:
        return super().item(n)._replace(body=self.models[n].clone())

    def serve(self, n: int) -> None:
        """Worker n goes on from x_n as it is now, which it has from its averaging."""
        item = self.item(n)
        self.take(n, item)
        self.workers.serve(n, item, 1.0, 0)

    def joined(self, n: int) -> None:
        """One that comes back, or goes on in another process, is sent its x_n."""
        if self.version:
            self.context.comm.from_server(self.models[n])
        super().joined(n)

    def model(self) -> Tensor:
        return self.models.mean(0)

    def worker_models(self) -> Tensor:
        return self.models.cpu()

    def disagreement(self) -> float:
        return float(row_norms(self.models - self.model()).max())

    def diagnostics(self) -> dict[str, float]:
        apart = row_norms(self.models - self.model()).double()
        return {**super().diagnostics(), "consensus": float(apart.square().sum())}

    def rows(self) -> dict[str, Tensor]:
        return {"models": self.models}

    def load_rows(self, rows: Mapping[str, Tensor]) -> None:
        self.models = rows["models"]
