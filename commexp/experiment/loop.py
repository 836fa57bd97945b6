"""The loop: rounds, evaluation, checkpoints, status."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from commexp.comm import Links
from commexp.config.plan import Plan
from commexp.experiment.flatness import valley_summary
from commexp.experiment.interrupts import Interrupts
from commexp.experiment.progress import Progress
from commexp.experiment.record import State
from commexp.experiment.setup import ExperimentSetup
from commexp.experiment.stopping import has_budget, reached
from commexp.experiment.summary import (
    announce_clock,
    announce_costs,
    final_summary,
    metrics_row,
    now,
    provenance,
    write_tables,
)
from commexp.integrations.tracking import Trackers
from commexp.metrics import described
from commexp.problems import NonFiniteError
from commexp.run_folder import Run
from commexp.state import load_checked

log = logging.getLogger("commexp")

SAVE_SECONDS = 10.0  # a run that is killed loses about so much of its work ...
SAVE_SHARE = 50  # ... or, where saving is slow, so many times what a save takes
BLOW_UP = 1e4  # a training loss of so many times the first (or 1) has diverged
COUNT = "nonfinite_gradients"  # in the summary and, so that a resumed run goes on counting, in checkpoints


class TrainingLoop:
    """Carries out a run in one of its processes. ``setup``: its parts."""

    def __init__(self, plan: Plan, device: torch.device, run: Run, links: Links) -> None:
        self.interrupts = Interrupts()
        self.setup = ExperimentSetup(plan, device, run, links, self.announcements, self.stops)
        self.plan, self.run, self.links = plan, run, links
        self.algorithm, self.guard, self.record = self.setup.algorithm, self.setup.guard, self.setup.record
        self.first = links.rank == 0  # which writes the run folder
        self.tracking = Trackers(plan.config.track if self.first else ())
        self._saved, self._save_seconds = time.monotonic(), 0.0
        self._losses = 0  # of processes, that meta.json tells
        self._loaded = False  # whether the algorithm has a checkpoint's state
        self._stopped_by = ""  # what has ended the run before its full length; in the first process

    def run_to_end(self) -> None:
        """Runs from the newest checkpoint, or from the start, and leaves the run's folder complete. Raises what ends
        the run early, once the folder says so."""
        resumed = not self.plan.config.rerun and self._resume()
        if self.first and not resumed:
            self.run.clear()
        self.links.tell("")  # from here on others may write into the folder
        with self.run.logging(log, self.links.rank):
            try:
                if self.first:
                    self._write_beginning(resumed)
                status, reason = self._status_of_rounds(resumed)
                self._finish(status, reason)
            except Exception as error:
                log.exception("failed")
                if self.first:
                    self._write_failure(error)
                raise
            finally:
                self.links.end()

    # -- before the first round

    def _resume(self) -> bool:
        """Goes back to the newest checkpoint that fits, if there is one."""
        begun = dict(self.algorithm.state_dict()) if (self.run.folder / "checkpoints").is_dir() else {}
        if self.record.restore(self._load):
            return True
        if self._loaded:  # and another process has refused it
            self.algorithm.load_state_dict(begun)
            self.guard.count, self._loaded = 0, False
        return False

    def _load(self, state: State) -> None:
        """Raises what load_checked raises."""
        count = int(state.pop(COUNT))
        state = {name: value.to(self.setup.device) for name, value in state.items()}
        workers = len(self.setup.comm.worker_ids)
        load_checked(self.algorithm, state, self.setup.problem.dim, workers, self.algorithm.fragment_dims)
        self.guard.count, self._loaded = count if self.first else 0, True

    def _write_beginning(self, resumed: bool) -> None:
        run = self.run
        run.write_config(self.plan.resolved)
        write_tables(self.setup)
        times = {"started": run.meta.get("started"), "resumed": now()} if resumed else {"started": now()}
        run.set_meta(name=self.plan.name, status="running", **times, **provenance(self.setup))
        announce_costs(self.setup)
        announce_clock(self.setup)
        self.tracking.begin(self.plan.resolved, run)

    # -- the rounds

    def _status_of_rounds(self, resumed: bool) -> tuple[str, str]:
        """Runs the rounds; how they ended, and why where a gradient was not finite."""
        try:
            return self._rounds(resumed), ""
        except NonFiniteError as error:
            reason = f"{error}; on_nonfinite=skip or zero goes on"
            log.error(reason)
            return "diverged", reason

    def _rounds(self, resumed: bool) -> str:
        setup, record, comm, config = self.setup, self.record, self.setup.comm, self.plan.config
        ends, every, save_every = record.planned.ends, config.eval_every, config.save_every
        rounds = len(ends) - 1
        budget = has_budget(config.stop)  # then every round may be the last one
        counted = ends if config.steps else range(rounds + 1)  # what eval_every counts
        if resumed:
            log.info("resumed after round %d", record.done)
        with self.interrupts, Progress(self.run.name, rounds, record.done, self.first) as progress:
            if not resumed:
                self._evaluate(progress)
                if self._is_good_enough():
                    return "completed"
            begin = time.perf_counter()
            for t in range(record.done, rounds):
                if self.links.workers_wait:
                    begin = time.perf_counter()
                evaluates = counted[t] // every < counted[t + 1] // every or t + 1 == rounds
                saves = (t + 1) % (save_every or rounds) == 0
                pause = setup.pause(t + 1) if config.launch.inject else 0.0
                comm.begin_round(t + 1, evaluates or saves or budget, pause)
                self.guard.round = t + 1
                self.algorithm.round(t)
                stop, save, faults = comm.end_round() or (0, 0, 0)
                if faults:
                    raise self._first_fault()
                end = time.perf_counter()
                record.done += 1
                record.wall += end - begin
                begin = end
                if len(self.links.losses) > self._losses:
                    self._note_losses()
                spent = budget and self._has_spent()
                if (evaluates or spent) and self._evaluate(progress):
                    return "diverged"
                if spent or (evaluates and self._is_good_enough()):
                    return "completed"
                if (stop or save or saves) and record.done < rounds:
                    self._save()
                    if stop:
                        return "interrupted"
        return "completed"

    def stops(self) -> bool:
        """Whether the user wants this process to stop."""
        return self.interrupts.seen

    def announcements(self) -> tuple[int, ...]:
        """What this process tells the others at the end of a round: whether the user wants to stop, whether a
        checkpoint is due, whether a gradient was not finite."""
        late = time.monotonic() - self._saved > max(SAVE_SECONDS, SAVE_SHARE * self._save_seconds)
        due = late and self.plan.config.save_every is None and self.first
        return int(self.interrupts.seen), int(due), int(self.guard.fault is not None)

    def _evaluate(self, progress: Progress) -> bool:
        """Adds a row; True if the run has diverged. Processes take part in making the model, the first evaluates it."""
        record = self.record
        record.settle()
        model, diagnostics = self.algorithm.model(), self.algorithm.diagnostics()
        diverged = False
        if self.first:
            self.run.check_place()
            row = metrics_row(self.setup, model, diagnostics)
            record.rows.append(row)
            self.tracking.row(row)
            line = progress.show(record.done, row)
            if line:
                log.info(line)
            start, loss = record.rows[0]["train_loss"], row["train_loss"]
            diverged = not math.isfinite(loss) or loss > BLOW_UP * max(1.0, start)
        return self.links.first_says(diverged)

    def _has_spent(self) -> bool:
        """Whether a budget of bytes or seconds is spent. All processes call this together."""
        record = self.record
        record.settle()
        costs = {"round": record.done, "sim_seconds": record.sim, **record.ledger.totals()}
        return self._stops_at(costs)

    def _is_good_enough(self) -> bool:
        """Whether the last evaluation has reached the accuracy or the loss that ends the run. All processes call this
        together."""
        stop = self.plan.config.stop
        if stop.accuracy is None and stop.loss is None:
            return False
        return self._stops_at(self.record.rows[-1] if self.first else {})

    def _stops_at(self, row: Mapping[str, Any]) -> bool:
        """What the first process finds in its ``row`` counts for all."""
        self._stopped_by = reached(self.plan.config.stop, row) if self.first else ""
        return self.links.first_says(bool(self._stopped_by))

    def _save(self) -> None:
        begin = time.monotonic()
        count = {COUNT: torch.tensor(self._count_nonfinite())}
        self.record.save({**self.algorithm.state_dict(), **count})
        self.links.request_save()
        self._saved, self._save_seconds = time.monotonic(), time.monotonic() - begin

    def _count_nonfinite(self) -> int:
        """Gradients of all workers that were not finite."""
        own = self.guard.count if self.setup.comm.members.part[0] == 0 else 0  # what a worker's processes all have
        return int(self.links.agree(torch.tensor([own]))[0])

    def _first_fault(self) -> NonFiniteError:
        """The first gradient that was not finite, of the first worker that had one. The record goes back to the end of
        the round before."""
        texts = self.links.tell("" if self.guard.fault is None else self.guard.fault.text())
        fault = min((NonFiniteError.read(text) for text in texts if text), key=lambda f: (f.round, f.worker))
        self.record.ledger.drop_from(fault.round)
        self.record.done = fault.round - 1
        return fault

    def _note_losses(self) -> None:
        """Names in meta.json, as soon as it is known, which process has died and which has come back."""
        for loss in self.links.losses[self._losses :]:
            text = f"rank {loss.rank} (worker {', '.join(map(str, loss.workers))}) in round {loss.round}"
            key, note = "lost", f"lost {text}; the others go on without it"
            if loss.back:
                key, note = "back", f"{text} is back"
            self._losses += 1
            known = self.run.meta.get(key)
            self.run.set_meta(**{key: [*(known if isinstance(known, list) else []), text]})
            log.warning(note)
            print(f"commexp: note: {note}", file=sys.stderr, flush=True)

    # -- after the last round

    def _finish(self, status: str, reason: str) -> None:
        """Writes tables, summary and status. All processes call this together."""
        run, record = self.run, self.record
        record.settle()
        count = self._count_nonfinite()
        measures_valley = status == "completed" and self.plan.config.flatness != "none"
        valley = valley_summary(self.setup) if measures_valley else {}
        stopped = {"stopped_by": self._stopped_by} if status == "completed" and self._stopped_by else {}
        if self.first:
            if reason:
                print(f"commexp: {reason}", file=sys.stderr, flush=True)
            record.flush()
            for name, rows in self.algorithm.tables().items():
                run.write_rows(name, rows)
            summary = {"status": status, **stopped, **final_summary(self.setup, count), **valley}
            run.write_summary(summary)
            more = {"error": reason, "metrics": described(record.rows[-1])}
            run.set_meta(status=status, ended=now(), **{key: value for key, value in more.items() if value})
            self.links.end()  # no process writes any more, and all have seen the end
            if status != "interrupted":
                record.drop_checkpoint()
            self.tracking.end(summary, status)
        log.info("%s after round %d%s", status, record.done, "".join(f", by {text}" for text in stopped.values()))
        self.links.tell("")  # no process leaves before the folder is complete

    def _write_failure(self, error: Exception) -> None:
        """Keeps what the run had. Raises FileNotFoundError where its whole folder is gone."""
        with suppress(OSError):  # it may be what has failed
            self.record.flush()
        cause = self.links.explain(error)
        reason = str(cause) if cause is not error else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            self.run.set_meta(status="failed", ended=now(), error=reason)
        self.tracking.end({}, "failed")
        if isinstance(error, FileNotFoundError):
            self.run.check_place()
