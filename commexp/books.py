"""What a run has measured so far: evaluations, traffic, the clocks; on disk, in checkpoints, in its summary."""

from __future__ import annotations

import math
import shutil
from typing import Any

import torch

from commexp.checkpoint import load_checkpoint, save_checkpoint
from commexp.comm import Ledger
from commexp.network import Network
from commexp.rundir import Run
from commexp.state import under_prefix, with_prefix

State = dict[str, torch.Tensor]
BEST = {"train_loss": min, "test_loss": min, "test_accuracy": max, "dist_to_opt": min}


class Books:
    """``done``: rounds completed. ``wall``: seconds spent on them here. ``sim``: seconds on the virtual clock."""

    def __init__(self, run: Run, network: Network) -> None:
        self.run, self.network = run, network
        self.ledger = Ledger()
        self.rows: list[dict[str, Any]] = []
        self.done = 0
        self.wall = 0.0
        self.sim = 0.0
        self._timed = 0  # ledger entries already on the virtual clock

    def round_took(self, seconds: float) -> None:
        """Closes a round; the virtual clock takes computing, then the round's exchanges one after the other."""
        self.done += 1
        self.wall += seconds
        self.sim += self.network.compute
        for entry in self.ledger.entries[self._timed :]:
            self.sim += self.network.seconds(entry.exchange, entry.workers, entry.bytes_sent)
        self._timed = len(self.ledger.entries)

    def flush(self) -> None:
        """metrics.csv and traffic.csv as of now."""
        self.run.write_rows("metrics", self.rows)
        self.run.write_rows("traffic", [entry._asdict() for entry in self.ledger.entries])

    def save(self, algorithm: State) -> None:
        """A checkpoint. The tables go first: they may be ahead of it, never behind."""
        self.flush()
        clocks = torch.tensor([self.wall, self.sim], dtype=torch.float64)
        state = {"clocks": clocks, **with_prefix("algorithm", algorithm)}
        save_checkpoint(self.run.folder / "checkpoints", self.done, state)

    def restore(self) -> State | None:
        """Goes back to the folder's checkpoint and returns the algorithm's part of it; None where there is none."""
        found = load_checkpoint(self.run.folder / "checkpoints")
        if found is None or not all((self.run.folder / f"{name}.csv").is_file() for name in ("metrics", "traffic")):
            return None
        self.done, state = found
        self.wall, self.sim = state["clocks"].tolist()
        self.rows = [row for row in self.run.rows("metrics") if row["round"] <= self.done]
        self.ledger.restore([row for row in self.run.rows("traffic") if row["round"] <= self.done])
        self._timed = len(self.ledger.entries)
        return under_prefix("algorithm", state)

    def drop_checkpoint(self) -> None:
        """A run that has come to its end needs none."""
        shutil.rmtree(self.run.folder / "checkpoints", ignore_errors=True)

    def summary(self, dense_per_round: int) -> dict[str, Any]:
        """The last evaluation, the best values, and the costs up to the last round beside those of dense messages."""
        last = self.rows[-1]
        best = {
            f"best_{key}": pick(values)
            for key, pick in BEST.items()
            if key in last and (values := [r[key] for r in self.rows if math.isfinite(r[key])])
        }
        dense = dense_per_round * self.done
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
