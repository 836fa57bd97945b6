"""A run that has ended, priced anew on another network from its tables, without running it."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from typing import Any

import numpy as np

from commexp.algorithms import Algorithm
from commexp.allocations import Assignment
from commexp.comm import ClosingRule, Entry, bucket_ends, exchange_named
from commexp.config.components import build, outside
from commexp.config.messages import UserError
from commexp.config.theory import theory_factor
from commexp.experiment.coding import kept_coding
from commexp.experiment.record import busy
from commexp.network import (
    NO_CODING,
    Closing,
    Coding,
    Compute,
    MeasuredRounds,
    Network,
    Participation,
    Straggler,
    VirtualClock,
)
from commexp.run_folder import Run

NEEDED = ("config.yaml", "meta.json", "metrics.csv", "traffic.csv", "rounds.csv")
MOST = 10**8  # numbers that a round of the tables may stand for; a run's own have some thousand
LONGEST = 10**5  # mixings of a round, and buckets of a gradient


class Replay:
    """What a run has left of its rounds, for any number of networks. The folder may be anybody's: of the components
    that its config names, only commexp's own algorithm and straggler are made, and no file that it names is read.
    ``outside``: the components that are not commexp's own. Raises UserError for a folder without such tables."""

    def __init__(self, run: Run) -> None:
        missing = [name for name in NEEDED if not (run.folder / name).is_file()]
        if missing:
            raise UserError(f"RUN={run.folder}: has no {missing[0]}; give the folder of a run that has ended")
        self.run = run
        try:
            self._read(run)
        except UserError as error:
            raise UserError(f"RUN={run.folder}: {error}") from error
        except Exception as error:  # whatever a stranger's file makes of our reading it
            why = " ".join(str(error).split())
            raise UserError(f"RUN={run.folder}: its tables cannot be read ({type(error).__name__}: {why})") from error

    def _read(self, run: Run) -> None:
        self.config = run.config
        self.outside = outside(self.config)
        node = dict(self.config["algo"])
        theory_factor(node)
        self.algorithm = build(node, "algo", Algorithm, foreign=True)
        self.straggler: Straggler = build(self.config["straggler"], "straggler", Straggler, foreign=True)
        if self.algorithm.asynchronous:
            raise UserError("whose message came first depends on the network; run it on the other one")
        self.evaluated = [_count(row["round"]) for row in run.rows("metrics")]
        if not self.evaluated:
            raise UserError("has not evaluated yet; give the folder of a run that has ended")
        rounds = run.rows("rounds")
        self.gradients = {_count(row["round"]): _amount(row["gradients"]) for row in rounds}
        self.delays = [_amount(row.get("delay", 0.0)) for row in rounds]
        self.traffic: dict[int, list[Entry]] = defaultdict(list)
        meta = run.meta
        self.coding, coded = kept_coding(meta), meta.get("coded_bytes")
        self.coded_bytes = None if coded is None else _amount(coded)
        flops = meta.get("gradient_flops")
        self.gradient_flops = None if flops is None else _amount(flops)
        workers, processes = _count(meta["workers"]), _count(meta["processes"])
        self.workers, self.seed = _count(self.config["workers"]), _count(self.config["seed"])
        self.share = _amount(self.config.get("participation", 1.0))
        if not 0 < self.share <= 1:
            raise ValueError(f"participation={self.share}")
        self.islands = _count(meta["islands"]) if "islands" in meta else None
        if self.islands is not None and (not self.islands or self.workers % self.islands):
            raise ValueError(f"{self.workers} workers in {self.islands} islands")
        self.bucket_ends = None
        if "stretch" in meta:
            dim, bucket = _count(meta["parameters"]), _count(meta["stretch"] or 0)
            _check_size("buckets", dim / bucket if bucket else 1, LONGEST)
            self.bucket_ends = bucket_ends(dim, bucket)
        self.assignment = None
        if (run.folder / "allocation.csv").is_file():
            pairs = [(_count(row["worker"]), _count(row["subset"])) for row in run.rows("allocation")]
            _check_size("workers and subsets", workers * (1 + max(subset for _, subset in pairs)), MOST)
            holds = np.zeros((workers, 1 + max(subset for _, subset in pairs)), dtype=bool)
            holds[tuple(zip(*pairs, strict=True))] = True
            self.assignment = Assignment(holds)
        load = 1 if self.assignment is None else self.assignment.loads.max()
        _check_size("gradients of a round", load * self.workers * (1 + max(self.gradients.values(), default=0)), MOST)
        self.hosted = (
            max(1, workers // processes) if self.assignment is None else self.assignment.subsets_per_process(processes)
        )
        if self.share < 1:
            self.hosted = Participation(self.share).count(workers) / processes
        for row in run.rows("traffic"):
            entry = Entry(**row)
            exchange_named(entry.exchange)
            _check_size("mixings of a round", _count(entry.repeats), LONGEST)
            _check_size("bytes of an exchange", _count(entry.bytes_wire), 10**18)
            _amount(entry.compute_seconds), _amount(entry.encode_seconds), _amount(entry.decode_seconds)
            self.traffic[_count(entry.round)].append(entry)
        rows = run.rows("topology") if (run.folder / "topology.csv").is_file() else []
        self.edges = ([_count(r["worker"]) for r in rows], [_count(r["neighbour"]) for r in rows]) if rows else None
        if rows and max(map(max, self.edges or ())) >= self.workers:
            raise ValueError(f"topology.csv: there is no worker {max(map(max, self.edges or ()))} of {self.workers}")

    def _rounds_without_late(self, network: Network) -> tuple[np.ndarray | None, Closing | None]:
        """Of methods that drop late workers, the loads of the workers and when a round ends. Raises UserError where
        other workers would have answered on this network."""
        if not (self.algorithm.drops_late or self.share < 1):
            return None, None
        closing_rule = self.algorithm.closing_rule(self.assignment)
        own = {**dataclasses.asdict(Compute()), **self.config["network"]["compute"]}  # as written: it may name a file
        here = {**dataclasses.asdict(network.compute), "coding": own["coding"]}  # after which nobody is waited for
        if closing_rule not in (None, ClosingRule()) and here != own:
            raise UserError(
                f"RUN={self.run.folder}: who answered first depends on network.compute, and this one has another; run "
                "it there"
            )
        loads = None if self.assignment is None else self.assignment.loads
        return loads, None if closing_rule is None else Closing(*closing_rule)

    def _priced(self, network: Network) -> Network:
        """With the seconds of a gradient in place of a device. Raises UserError for a run that does not say how many
        operations a gradient takes."""
        compute = network.compute
        if compute.flops is None:
            return network
        if self.gradient_flops is None:
            why = "does not say how many operations a gradient takes; run it again, with rerun=true"
            raise UserError(f"RUN={self.run.folder}: {why}")
        return network.with_compute(compute.for_gradient(self.gradient_flops))

    def _coding(self, wanted: Any) -> Coding:
        """What the network's compute.coding means here. Raises UserError for a run that does not say."""
        if wanted is None:
            return NO_CODING
        if wanted == "measured" and self.coding is not None:
            return self.coding
        if wanted != "measured" and self.coded_bytes is not None:
            return Coding.at_rate(wanted, self.coded_bytes)
        raise UserError(
            f"RUN={self.run.folder}: does not say what encoding takes; run it again, with rerun=true and "
            f"network.compute.coding={wanted}"
        )

    def seconds(self, network: Network) -> list[float]:
        """The virtual clock at each evaluation, exactly as a run on this network would have it. Raises UserError for a
        network that does not fit the run's workers."""
        if network.overlap and self.bucket_ends is None:
            raise UserError(f"RUN={self.run.folder}: does not say what may overlap; run it again, with rerun=true")
        try:
            loads, closing = self._rounds_without_late(network)
            coding = self._coding(network.compute.coding)
            network = self._priced(network)
            buckets = self.bucket_ends or (1.0,)
            clock = VirtualClock(
                network,
                self.straggler,
                self.workers,
                self.seed,
                self.edges,
                loads,
                closing,
                buckets,
                self.delays,
                self.islands,
                coding,
                Participation(self.share),
            )
            measured = MeasuredRounds(list(self.gradients.values()))
            evaluations, last = [], 0
            for number in self.evaluated:
                for t in range(last + 1, number + 1):
                    seconds = measured.seconds(t, *busy(self.traffic[t], self.hosted))
                    clock.round(t, self.gradients[t], self.traffic[t], seconds)
                last = number
                evaluations.append(clock.now)
        except ValueError as error:
            raise UserError(f"RUN={self.run.folder}: {error}") from error
        except UserError:
            raise
        except Exception as error:  # as above
            why = f"{type(error).__name__}: {error}"
            raise UserError(f"RUN={self.run.folder}: its tables do not hold what a run's do ({why})") from error
        return evaluations


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _amount(value: Any) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no amount")
    return float(value)


def _check_size(what: str, size: float, most: int) -> None:
    """What would take the machine's memory, or days, is in no run's tables."""
    if not size <= most:
        raise ValueError(f"{what}: {size:.3g}, more than {most}")
