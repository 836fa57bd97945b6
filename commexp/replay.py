"""A run that has ended, priced anew on another network from its books, without running it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from commexp.books import busy
from commexp.comm import Entry
from commexp.config import build
from commexp.network import Network, Straggler, VirtualClock
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
        self.evaluated = [int(row["round"]) for row in run.rows("metrics")]
        self.gradients = {int(row["round"]): float(row["gradients"]) for row in run.rows("rounds")}
        self.bookings: dict[int, list[Booking]] = defaultdict(list)
        self.busy: dict[int, float] = defaultdict(float)  # seconds of one worker
        here = run.meta["workers"] // run.meta["processes"]
        columns = list(Booking.__dataclass_fields__)
        for row in run.rows("traffic"):
            self.bookings[row["round"]].append(Booking(**{name: row[name] for name in columns}))
            self.busy[row["round"]] += busy(Entry(**row)) / here
        rows = run.rows("topology") if (run.folder / "topology.csv").is_file() else []
        self.links = ([r["worker"] for r in rows], [r["neighbour"] for r in rows]) if rows else None

    def seconds(self, network: Network) -> list[float]:
        """The virtual clock at each evaluation, exactly as a run on this network would have it."""
        node: dict[str, Any] = dict(self.config["straggler"])
        straggler = build(node, "straggler", Straggler)
        clock = VirtualClock(network, straggler, self.config["workers"], self.config["seed"], self.links)
        found, last = [], 0
        for number in self.evaluated:
            for t in range(last + 1, number + 1):
                clock.round(t, self.gradients[t], self.bookings[t], self.busy[t])
            last = number
            found.append(clock.now)
        return found
