"""A run that has ended, priced anew on another network from its books, without running it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from commexp.algorithms import Algorithm
from commexp.allocations import Held
from commexp.books import busy
from commexp.comm import Entry, stretch_ends
from commexp.components import build
from commexp.network import Closing, Network, Straggler, VirtualClock
from commexp.refusals import UserError
from commexp.rundir import Run

NEEDED = ("config.yaml", "meta.json", "metrics.csv", "traffic.csv", "rounds.csv")


@dataclass(frozen=True)
class Booking:
    """An exchange as traffic.csv has it, for the clock."""

    exchange: str
    direction: str
    workers: int
    repeats: int
    bytes_wire: int


class Replay:
    """What a run has left of its rounds, for any number of networks. Raises UserError for a folder without it."""

    def __init__(self, run: Run) -> None:
        missing = [name for name in NEEDED if not (run.folder / name).is_file()]
        if missing:
            raise UserError(f"RUN={run.folder}: has no {missing[0]}; give the folder of a run that has ended")
        self.run, self.config = run, run.config
        self.algorithm = build(dict(self.config["algo"]), "algo", Algorithm)
        if self.algorithm.asynchronous:
            raise UserError(
                f"RUN={run.folder}: whose message came first depends on the network; run it on the other one"
            )
        self.evaluated = [int(row["round"]) for row in run.rows("metrics")]
        self.gradients = {int(row["round"]): float(row["gradients"]) for row in run.rows("rounds")}
        self.bookings: dict[int, list[Booking]] = defaultdict(list)
        self.busy: dict[int, float] = defaultdict(float)  # seconds of one worker
        meta = run.meta
        workers, processes = meta["workers"], meta["processes"]
        self.stretches = stretch_ends(meta["parameters"], meta["stretch"]) if "stretch" in meta else None
        self.held = None
        if (run.folder / "allocation.csv").is_file():
            pairs = run.rows("allocation")
            held = np.zeros((workers, 1 + max(row["subset"] for row in pairs)), dtype=bool)
            held[[row["worker"] for row in pairs], [row["subset"] for row in pairs]] = True
            self.held = Held(held)
        here = workers // processes if self.held is None else self.held.computed(processes)
        columns = list(Booking.__dataclass_fields__)
        for row in run.rows("traffic"):
            self.bookings[row["round"]].append(Booking(**{name: row[name] for name in columns}))
            self.busy[row["round"]] += busy(Entry(**row)) / here
        rows = run.rows("topology") if (run.folder / "topology.csv").is_file() else []
        self.links = ([r["worker"] for r in rows], [r["neighbour"] for r in rows]) if rows else None

    def _coded(self, network: Network) -> tuple[np.ndarray | None, Closing | None]:
        """Loads, and when rounds are closed. Raises UserError where others would have answered on this network."""
        if self.held is None:
            return None, None
        closes = self.algorithm.closes(self.held)
        own = build(dict(self.config["network"]), "network", Network)
        if closes not in (None, (None, None)) and network.compute != own.compute:
            raise UserError(
                f"RUN={self.run.folder}: who answered first depends on network.compute, and this one has another; run "
                "it there"
            )
        return self.held.loads, None if closes is None else Closing(*closes)

    def seconds(self, network: Network) -> list[float]:
        """The virtual clock at each evaluation, exactly as a run on this network would have it. Raises UserError for a
        network that does not fit the run's workers."""
        node: dict[str, Any] = dict(self.config["straggler"])
        straggler = build(node, "straggler", Straggler)
        workers, seed = self.config["workers"], self.config["seed"]
        if network.overlap and self.stretches is None:
            raise UserError(f"RUN={self.run.folder}: does not say what may overlap; run it again, with rerun=true")
        loads, closing = self._coded(network)
        try:
            clock = VirtualClock(
                network, straggler, workers, seed, self.links, loads, closing, self.stretches or (1.0,)
            )
        except ValueError as error:
            raise UserError(f"RUN={self.run.folder}: {error}") from error
        found, last = [], 0
        for number in self.evaluated:
            for t in range(last + 1, number + 1):
                clock.round(t, self.gradients[t], self.bookings[t], self.busy[t])
            last = number
            found.append(clock.now)
        return found
