"""What a run has measured so far: evaluations, traffic, the clocks; on disk, in checkpoints, in its summary."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from commexp.checkpoint import load_checkpoint, save_checkpoint
from commexp.comm import Communicator, Entry, Ledger
from commexp.network import EventClock, Network, NoStragglers, VirtualClock, WallClock
from commexp.rundir import Run
from commexp.state import under_prefix, with_prefix

State = dict[str, torch.Tensor]
SMALL = (
    "train_loss", "test_loss", "train_rmse", "test_rmse", "excess_loss", "dist_to_opt", "objective", "stationarity",
)  # fmt: skip
BEST = {"test_accuracy": max, **dict.fromkeys(SMALL, min)}


@dataclass
class Planned:
    """Of a worker, before round 0, 1, ... and after the last: ``ends``: local steps; ``batches`` it has drawn;
    ``gradients`` of a batch it has computed."""

    ends: Sequence[int] = (0,)
    batches: Sequence[float] = (0.0,)
    gradients: Sequence[float] = (0.0,)


class Books:
    """``planned``: the run's rounds. ``done``: rounds completed. ``wall``: seconds spent on them here. ``clock``: the
    virtual one. ``here``: how many workers' (of coded methods, subsets') gradients a process computes.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.clock: VirtualClock | EventClock | WallClock = VirtualClock(Network(), NoStragglers(), 1, 0)
        self.ledger = Ledger()
        self.rows: list[dict[str, Any]] = []
        self.planned = Planned()
        self.done = 0
        self.wall = 0.0
        self.here = 1.0
        self._clocked = 0  # rounds that are on the virtual clock

    @property
    def steps(self) -> int:
        """Local steps that each worker has done."""
        return self.planned.ends[self.done]

    def round_took(self, seconds: float) -> None:
        """Closes a round."""
        self.done += 1
        self.wall += seconds

    def settle(self, comm: Communicator) -> None:
        """Brings ledger and virtual clock up to date. All processes call this together."""
        booked: dict[int, list[Entry]] = {}
        for entry in comm.settle():
            booked.setdefault(entry.round, []).append(entry)
        gradients = self.planned.gradients
        for number in range(self._clocked + 1, self.done + 1):
            own = booked.get(number, [])
            self.clock.round(
                number, gradients[number] - gradients[number - 1], own, sum(busy(entry) / self.here for entry in own)
            )
        self._clocked = self.done

    @property
    def sim(self) -> float:
        """Seconds on the virtual clock."""
        return self.clock.now

    def flush(self) -> None:
        """metrics.csv and traffic.csv as they were settled last."""
        self.run.write_rows("metrics", self.rows)
        self.run.write_rows("traffic", [entry._asdict() for entry in self.ledger.entries])

    def save(self, algorithm: State, comm: Communicator) -> None:
        """A checkpoint. The tables go first: they may be ahead of it, never behind."""
        self.settle(comm)
        if comm.links.rank == 0:
            self.flush()
        clocks = {"wall": torch.tensor(self.wall, dtype=torch.float64), "virtual": torch.from_numpy(self.clock.times)}
        state = {**with_prefix("clocks", clocks), **with_prefix("algorithm", algorithm)}
        save_checkpoint(self.run.folder / "checkpoints", self.done, state, comm.worker_ids, comm.links)

    def restore(self, comm: Communicator) -> State | None:
        """Goes back to the folder's checkpoint and returns the algorithm's part of it; None where there is none."""
        tables = all((self.run.folder / f"{name}.csv").is_file() for name in ("metrics", "traffic"))
        if not comm.links.first_says(tables):
            return None
        found = load_checkpoint(self.run.folder / "checkpoints", comm.worker_ids, comm.links)
        if found is None:
            return None
        self.done, state = found
        self.wall, self.clock.times = float(state["clocks.wall"]), state["clocks.virtual"].numpy()
        self._clocked = self.done
        if comm.links.rank == 0:  # who alone writes them
            self.rows = [row for row in self.run.rows("metrics") if row["round"] <= self.done]
            self.ledger.restore([row for row in self.run.rows("traffic") if row["round"] <= self.done])
        return under_prefix("algorithm", state)

    def drop_checkpoint(self) -> None:
        """A run that has come to its end needs none."""
        shutil.rmtree(self.run.folder / "checkpoints", ignore_errors=True)

    def summary(self, dense: int) -> dict[str, Any]:
        """The last evaluation, the best values, and the costs up to the last round beside those of ``dense`` bytes."""
        last = self.rows[-1]
        best = {
            f"best_{key}": pick(values)
            for key, pick in BEST.items()
            if key in last and (values := [r[key] for r in self.rows if math.isfinite(r[key])])
        }
        return {
            **last,
            "round": self.done,
            "evaluated_round": last["round"],
            "wall_seconds": self.wall,
            "sim_seconds": self.sim,
            **self.ledger.totals(),
            **best,
            "dense_bytes": dense,
            "sent_over_info": self.ledger.bytes_sent / self.ledger.bytes_info if self.ledger.bytes_info else 1.0,
            "bytes_against_dense": self.ledger.bytes_sent / dense if dense else 1.0,
        }


def busy(entry: Entry) -> float:
    """Seconds in which a process computed, encoded and decoded."""
    return entry.compute_seconds + entry.encode_seconds + entry.decode_seconds
