"""What a run has measured so far: evaluations, traffic and clocks, in its tables, checkpoints and summary."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from commexp.comm import Communicator, Entry
from commexp.experiment.checkpoint import UnusableError, load_checkpoint, save_checkpoint
from commexp.files import open_regular
from commexp.metrics import shown
from commexp.network import EventClock, MeasuredRounds, VirtualClock, WallClock
from commexp.run_folder import Run, as_csv, from_cell
from commexp.state import under_prefix, with_prefix

State = dict[str, torch.Tensor]
Clock = VirtualClock | EventClock | WallClock
WORDS = ("exchange", "direction")  # columns that are no numbers


@dataclass
class RoundPlan:
    """What a worker has done before round 0, 1, ... and after the last. ``ends``: local steps; ``batches`` that it has
    drawn; ``gradients`` of a batch that it has computed. ``delays``: for each round, how many gradients of the next one
    it computes while the exchange travels."""

    ends: Sequence[int]
    batches: Sequence[float]
    gradients: Sequence[float]
    delays: Sequence[float] = ()


class Table:
    """One of the run's tables. It only grows: what has been written is neither formatted nor hashed a second time."""

    def __init__(self, name: str, columns: Sequence[str] = ()) -> None:
        self.name, self.columns, self.rows = name, list(columns), 0
        self.content, self._hash = bytearray(), hashlib.sha256()

    def extend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.columns = self.columns or (list(rows[0]) if rows else [])
        self._add(as_csv(rows, self.columns, header=not self.content).encode() if self.columns else b"")
        self.rows += len(rows)

    def _add(self, text: bytes) -> None:
        self.content += text
        self._hash.update(text)

    def mark(self) -> dict[str, Any]:
        """How much there is of it, and its hash."""
        return {"bytes": len(self.content), "sha256": self._hash.hexdigest()}

    def read(self, run: Run, mark: Any) -> list[dict[str, str]]:
        """The rows up to a ``mark`` of the file that holds so many and perhaps more. Raises ValueError where they are
        not those of the mark."""
        size, digest = mark["bytes"], mark["sha256"]
        with open_regular(run.folder / f"{self.name}.csv") as file:
            while len(self.content) < size and (block := file.read(min(2**20, size - len(self.content)))):
                self._add(block)
        if self.mark() != {"bytes": size, "sha256": digest}:
            raise ValueError("has changed")
        read = csv.DictReader(io.StringIO(self.content.decode(), newline=""), strict=True)
        rows = list(read)
        self.columns, self.rows = list(read.fieldnames or ()), len(rows)
        return rows


class RunRecord:
    """``clock``: the one that gives ``sim_seconds``. ``planned``: the run's rounds. ``hosted``: how many workers' (of
    coded methods, subsets') gradients a process computes. ``identity``: of the plan; checkpoints of another one are not
    taken. ``done``: rounds completed. ``wall``: seconds spent on them here.
    """

    def __init__(
        self, run: Run, comm: Communicator, clock: Clock, planned: RoundPlan, hosted: float, identity: str
    ) -> None:
        self.run, self.comm, self.clock, self.planned = run, comm, clock, planned
        self.hosted, self.identity = hosted, identity
        self.ledger = comm.ledger
        self.rows: list[dict[str, Any]] = []
        self._metrics, self._traffic = Table("metrics"), Table("traffic", Entry._fields)
        self.done = 0
        self.wall = 0.0
        self._clocked = 0  # rounds that are on the clock
        self._measured = self._measuring()

    def _measuring(self) -> MeasuredRounds:
        return MeasuredRounds([after - before for before, after in pairwise(self.planned.gradients)])

    @property
    def steps(self) -> int:
        """Local steps that each worker has done."""
        return self.planned.ends[self.done]

    def settle(self) -> None:
        """Brings ledger and clock up to date. All processes call this together."""
        rounds, gradients = by_round(self.comm.settle()), self.planned.gradients
        for number in range(self._clocked + 1, self.done + 1):
            entries = rounds.get(number, [])
            measured = self._measured.seconds(number, *busy(entries, self.hosted))
            self.clock.round(number, gradients[number] - gradients[number - 1], entries, measured)
        self._clocked = self.done

    @property
    def sim(self) -> float:
        """Seconds on the virtual clock."""
        return self.clock.now

    def flush(self) -> None:
        """metrics.csv and traffic.csv as they were settled last."""
        self._metrics.extend(self.rows[self._metrics.rows :])
        self._traffic.extend([entry._asdict() for entry in self.ledger.entries[self._traffic.rows :]])
        for table in (self._metrics, self._traffic):
            self.run.write(f"{table.name}.csv", table.content)

    def save(self, algorithm: State) -> None:
        """Writes a checkpoint with the ``algorithm``'s state. The tables go first: they may be ahead of it, never
        behind."""
        self.settle()
        comm, tables = self.comm, {}
        if comm.links.rank == 0:
            self.flush()
            tables = {table.name: table.mark() for table in (self._metrics, self._traffic)}
        clocks = {"wall": torch.tensor(self.wall, dtype=torch.float64), "virtual": torch.from_numpy(self.clock.times)}
        state = {**with_prefix("clocks", clocks), **with_prefix("algorithm", algorithm)}
        folder = self.run.folder / "checkpoints"
        own = comm.worker_ids if comm.members.leads else ()
        save_checkpoint(folder, self.done, state, own, comm.links, self.identity, tables)

    def restore(self, load: Callable[[State], None]) -> bool:
        """Goes back to the folder's newest checkpoint that fits; False where there is none. ``load``: takes the
        algorithm's part, and raises ValueError or the like where it does not fit."""
        comm = self.comm
        server, versions = comm.links.server, dict[int, int]()
        first = comm.links.rank == 0  # who alone writes the tables
        read: list[tuple[Table, Table, list[Any], list[Any]]] = []

        def accept(about: dict[str, Any], state: State) -> None:
            done = about["completed"]
            # a server that waits for nobody keeps what its own workers need, all others what all of them do
            own, apart = comm.worker_ids[-1] + 1, server is not None and server.rejoins
            if about["parts"][-1]["end"] not in (own, own if apart else comm.size):
                raise ValueError(f"of {about['parts'][-1]['end']} workers")
            if not 0 < done < len(self.planned.ends) - 1:
                raise ValueError(f"after {done} rounds")
            self._check_clocks(state)
            read[:] = [self._read_tables(about["tables"], done)] if first else []
            load(under_prefix("algorithm", state))
            versions.clear()
            versions.update({int(rank): version for rank, version in about.get("versions", {}).items()})

        folder = self.run.folder / "checkpoints"
        checkpoint = load_checkpoint(folder, comm.worker_ids, comm.links, self.identity, accept)
        if checkpoint is None:
            return False
        self.done, state = checkpoint
        if server is not None:
            server.counted.update(versions)
        self.wall, self.clock.times = float(state["clocks.wall"]), state["clocks.virtual"].numpy()
        self._clocked = self.done
        for self._metrics, self._traffic, self.rows, entries in read:
            self.ledger.restore(entries)
        self._measured, rounds = self._measuring(), by_round(self.ledger.entries)
        for number in range(1, self.done + 1):
            self._measured.seconds(number, *busy(rounds.get(number, []), self.hosted))
        return True

    def _check_clocks(self, state: State) -> None:
        """Raises ValueError."""
        wall, times, known = state["clocks.wall"], state["clocks.virtual"], self.clock.times
        kept = 4 * len(getattr(self.clock, "spans", ()))  # the rest is as long in every round
        more = times.numel() - (len(known) - kept)
        if wall.shape != () or times.ndim != 1 or {wall.dtype, times.dtype} != {torch.float64} or more < 0:
            raise ValueError("its clocks are others")
        if more and (more % 4 or isinstance(self.clock, VirtualClock)):
            raise ValueError("its clocks are others")

    def _read_tables(self, marks: Mapping[str, Any], done: int) -> tuple[Table, Table, list[Any], list[Any]]:
        """metrics.csv and traffic.csv, and their rows, up to a checkpoint. Raises UnusableError."""
        tables, rows = (Table("metrics"), Table("traffic", Entry._fields)), []
        for table in tables:
            try:
                texts = table.read(self.run, marks[table.name])
                rows.append([_numbers(row, strict=table.columns == list(Entry._fields)) for row in texts])
                if any(row["round"] > done for row in rows[-1]):
                    raise ValueError("goes beyond")
            except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
                why = f"does not fit {table.name}.csv ({error.strerror if isinstance(error, OSError) else error})"
                raise UnusableError(f"state-{done}.json", why) from error
        metrics, traffic = rows
        if not metrics or "train_loss" not in metrics[0] or tables[1].columns != list(Entry._fields):
            raise UnusableError(f"state-{done}.json", "does not fit its tables")
        return *tables, metrics, traffic

    def drop_checkpoint(self) -> None:
        """A run that has come to its end needs none."""
        shutil.rmtree(self.run.folder / "checkpoints", ignore_errors=True)

    def summary(self, dense: int) -> dict[str, Any]:
        """The last evaluation, the best values, and the costs up to the last round beside those of ``dense`` bytes."""
        last = self.rows[-1]
        best = {
            m.best: m.pick(values)
            for m in shown("best")
            if m.name in last and (values := [row[m.name] for row in self.rows if math.isfinite(row[m.name])])
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


def _numbers(row: Mapping[str, str], strict: bool) -> dict[str, Any]:
    """A row as it was before it was written. Raises ValueError for one that was not written so; ``strict``: also where
    anything but the WORDS is no number."""
    if None in row or None in row.values():
        raise ValueError("a line of another length")
    values = {key: text if key in WORDS else from_cell(text) for key, text in row.items()}
    if strict and any(isinstance(value, str) for key, value in values.items() if key not in WORDS):
        raise ValueError("a word in place of a number")
    return values


def by_round(entries: Iterable[Entry]) -> dict[int, list[Entry]]:
    rounds: dict[int, list[Entry]] = {}
    for entry in entries:
        rounds.setdefault(entry.round, []).append(entry)
    return rounds


def busy(entries: Sequence[Entry], hosted: float) -> tuple[float, float, bool]:
    """Of a round's ``entries``, in a process that computes the gradients of ``hosted`` workers: seconds of one worker
    in which it computed, and in which it encoded and decoded; and whether there are any, which hold the seconds."""
    compute = sum(entry.compute_seconds for entry in entries)
    coding = sum(entry.encode_seconds + entry.decode_seconds for entry in entries)
    return compute / hosted, coding / hosted, bool(entries)
