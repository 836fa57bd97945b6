"""The loop: rounds, evaluation, checkpoints, status."""

from __future__ import annotations

import logging
import math
import sys
import time
from contextlib import suppress

import torch

from commexp.comm import Links
from commexp.config.plan import Plan
from commexp.experiment.flatness import measure, write_landscape
from commexp.experiment.interrupts import Interrupts
from commexp.experiment.progress import Progress
from commexp.experiment.provenance import now
from commexp.experiment.record import State
from commexp.experiment.setup import ExperimentSetup
from commexp.experiment.summary import about, costs, row, say_what_it_costs
from commexp.experiment.tables import write_inventory
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


class TrainingLoop(ExperimentSetup):
    """A run on its way, in one of its processes."""

    def __init__(self, plan: Plan, device: torch.device, run: Run, links: Links) -> None:
        self.interrupts = Interrupts()
        super().__init__(plan, device, run, links)
        self._saved, self._cost = time.monotonic(), 0.0
        self._named = 0  # losses
        self._loaded = False  # state of a checkpoint
        self.tracking = Trackers(plan.config.track if self.links.rank == 0 else ())

    def run_to_end(self) -> None:
        run, books, first = self.run, self.books, self.links.rank == 0
        resumed = not self.plan.config.rerun and self._resumes()
        if first and not resumed:
            run.clear()
        self.links.tell("")  # from here on others may write into the folder
        with run.logging(log, self.links.rank):
            try:
                if first:
                    run.write_config(self.plan.resolved)
                    write_inventory(self)
                    times = {"started": run.meta.get("started"), "resumed": now()} if resumed else {"started": now()}
                    run.set_meta(name=self.plan.name, status="running", **times, **about(self))
                    say_what_it_costs(self)
                    self.tracking.begin(self.plan.resolved, run.folder)
                why = {}
                try:
                    status = self._loop(resumed)
                except NonFiniteError as error:
                    status, why = "diverged", {"error": f"{error}; on_nonfinite=skip or zero goes on"}
                    log.error(why["error"])
                books.settle(self.comm)
                count = self._count()
                valley = self._valley() if status == "completed" and self.plan.config.flatness != "none" else {}
                if first:
                    if why:
                        print(f"commexp: {why['error']}", file=sys.stderr, flush=True)
                    books.flush()
                    for name, rows in self.algorithm.tables().items():
                        run.write_rows(name, rows)
                    summary = {"status": status, **costs(self, count), **valley}
                    run.write_summary(summary)
                    outside = described(books.rows[-1])
                    run.set_meta(status=status, ended=now(), **why, **({"metrics": outside} if outside else {}))
                    self.links.end()  # nobody writes any more, and all have seen how it ended
                    if status != "interrupted":
                        books.drop_checkpoint()
                    self.tracking.end(summary, status)
                log.info("%s after round %d", status, books.done)
                self.links.tell("")  # nobody leaves before the books are closed
            except Exception as error:
                log.exception("failed")
                if first:
                    with suppress(OSError):  # it may be what has failed
                        books.flush()
                    cause = self.links.explain(error)
                    reason = str(cause) if cause is not error else f"{type(error).__name__}: {error}"
                    with suppress(OSError):
                        run.set_meta(status="failed", ended=now(), error=reason)
                    self.tracking.end({}, "failed")
                    if isinstance(error, FileNotFoundError):
                        run.check_place()  # raises what says so, where the whole folder is gone
                raise
            finally:
                self.links.end()

    def _valley(self) -> dict[str, float]:
        model, workers = self.algorithm.model(), self.algorithm.worker_models()
        if self.links.rank:
            return {}
        last = self.books.rows[-1]
        gap = last.get("train_accuracy", math.nan) - last.get("test_accuracy", math.nan)
        found = measure(self.problem, model, workers)
        if self.plan.config.flatness == "landscape" and workers is not None:
            write_landscape(self.problem, workers.to(model), self.run)
        return {**found, "generalisation_gap": gap}

    def _resumes(self) -> bool:
        """Goes back to the newest checkpoint that fits, if there is one."""
        begun = dict(self.algorithm.state_dict()) if (self.run.folder / "checkpoints").is_dir() else {}
        if self.books.restore(self.comm, self._load):
            return True
        if self._loaded:  # and another process has refused it
            self.algorithm.load_state_dict(begun)
            self.checked.count, self._loaded = 0, False
        return False

    def _load(self, state: State) -> None:
        """Raises what load_checked raises."""
        count = int(state.pop(COUNT))
        state = {name: value.to(self.device) for name, value in state.items()}
        load_checked(self.algorithm, state, self.problem.dim, len(self.comm.worker_ids))
        self.checked.count, self._loaded = count if self.links.rank == 0 else 0, True

    def _loop(self, resumed: bool) -> str:
        books, comm, config = self.books, self.comm, self.plan.config
        ends, every, save_every = books.planned.ends, config.eval_every, config.save_every
        rounds = len(ends) - 1
        clock = ends if config.steps else range(rounds + 1)  # what eval_every counts
        if resumed:
            log.info("resumed after round %d", books.done)
        with self.interrupts, Progress(rounds, books.done, self.links.rank == 0) as progress:
            if not resumed:
                self._evaluate(progress)
            begin = time.perf_counter()
            for t in range(books.done, rounds):
                if self.links.workers_wait:
                    begin = time.perf_counter()
                shown = clock[t] // every < clock[t + 1] // every or t + 1 == rounds
                kept = (t + 1) % (save_every or rounds) == 0
                comm.begin_round(t + 1, shown or kept, self.pause(t + 1))
                self.checked.round = t + 1
                self.algorithm.round(t)
                stop, save, faults = comm.end_round() or (0, 0, 0)
                if faults:
                    raise self._fault()
                end = time.perf_counter()
                books.round_took(end - begin)
                begin = end
                self._name_the_lost()
                if shown and self._evaluate(progress):
                    return "diverged"
                if (stop or save or kept) and books.done < rounds:
                    self._save()
                    if stop:
                        return "interrupted"
        return "completed"

    def _name_the_lost(self) -> None:
        """In meta.json, as soon as it is known, who has died, and who has come back."""
        for loss in self.links.losses[self._named :]:
            text = f"rank {loss.rank} (worker {', '.join(map(str, loss.workers))}) in round {loss.round}"
            key, note = "lost", f"lost {text}; the others go on without it"
            if loss.back:
                key, note = "back", f"{text} is back"
            self._named += 1
            known = self.run.meta.get(key)
            self.run.set_meta(**{key: [*(known if isinstance(known, list) else []), text]})
            log.warning(note)
            print(f"commexp: note: {note}", file=sys.stderr, flush=True)

    def stops(self) -> bool:
        return self.interrupts.seen

    def concerns(self) -> tuple[int, ...]:
        """What all processes must know of this one: is there a wish to stop, is it time for a checkpoint, was a
        gradient not finite?"""
        late = time.monotonic() - self._saved > max(SAVE_SECONDS, SAVE_SHARE * self._cost)
        due = late and self.plan.config.save_every is None and self.links.rank == 0
        return int(self.stops()), int(due), int(self.checked.fault is not None)

    def _fault(self) -> NonFiniteError:
        """The first one, of the first worker that had it; and the books as they were before its round."""
        told = self.links.tell("" if self.checked.fault is None else self.checked.fault.text())
        fault = min((NonFiniteError.read(text) for text in told if text), key=lambda f: (f.round, f.worker))
        self.comm.ledger.drop_from(fault.round)
        self.books.done = fault.round - 1
        return fault

    def _save(self) -> None:
        begin = time.monotonic()
        count = {COUNT: torch.tensor(self._count())}
        self.books.save({**self.algorithm.state_dict(), **count}, self.comm)
        self.links.request_save()
        self._saved, self._cost = time.monotonic(), time.monotonic() - begin

    def _count(self) -> int:
        """Gradients of all workers that were not finite."""
        return int(self.links.agree(torch.tensor([self.checked.count]))[0])

    def _evaluate(self, progress: Progress) -> bool:
        """Adds a row; True if the run has diverged. Processes take part in making the model, the first evaluates it."""
        books = self.books
        books.settle(self.comm)
        model, diagnostics = self.algorithm.model(), self.algorithm.diagnostics()
        diverged = False
        if self.links.rank == 0:
            self.run.check_place()
            found = row(self, model, diagnostics)
            books.rows.append(found)
            self.tracking.row(found)
            line = progress.show(books.done, found)
            if line:
                log.info(line)
            first, loss = books.rows[0]["train_loss"], found["train_loss"]
            diverged = not math.isfinite(loss) or loss > BLOW_UP * max(1.0, first)
        return self.links.first_says(diverged)
