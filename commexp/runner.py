"""The loop: rounds, evaluation, status; what was interrupted goes on, what is finished is not run again."""

from __future__ import annotations

import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from commexp.algorithms import Context
from commexp.books import Books, State
from commexp.comm import Communicator, carrier, peer_wire_bytes
from commexp.compressors import Setup
from commexp.config import Plan
from commexp.interrupts import Interrupts
from commexp.problems import Finite, NonFiniteError, build_problem
from commexp.progress import Progress
from commexp.provenance import describe, now
from commexp.refusals import UserError
from commexp.rundir import Run, write_json
from commexp.seeding import generator

log = logging.getLogger("commexp")

SAVE_SECONDS = 10.0  # a run that is killed loses about so much of its work ...
SAVE_SHARE = 50  # ... or, where saving is slow, so many times what a save takes
BLOW_UP = 1e4  # a training loss of so many times the first (or 1) has diverged
COUNT = "nonfinite_gradients"  # in the summary and, so that a resumed run goes on counting, in checkpoints


def execute(plan: Plan, device: torch.device) -> Run:
    """Runs the plan to its end, or shows that it has been run. Raises UserError before anything is written."""
    run = folder_of(plan)
    if run.finished and not plan.config.rerun:
        return run
    trial = Trial(plan, device, run)
    try:
        run.make_folder()
    except OSError as error:
        raise UserError(
            f"outputs={plan.config.outputs}: cannot be written ({error.strerror}); give a folder that can"
        ) from error
    with run.locked():
        if not run.finished or plan.config.rerun:
            trial.run_to_end()
    return run


def folder_of(plan: Plan) -> Run:
    return Run(Path(plan.config.outputs) / "runs" / plan.name)


class Trial:
    """One run in the making. Raises UserError where the plan's parts do not fit together."""

    def __init__(self, plan: Plan, device: torch.device, run: Run) -> None:
        self.plan, self.run, self.device, config = plan, run, device, plan.config
        self.books = Books(run, plan.network)
        comm = Communicator(config.workers, self.books.ledger, config.comm.exchange, config.comm.deterministic)
        try:
            self.problem = build_problem(
                plan.dataset,
                plan.partition,
                plan.model,
                config.workers,
                comm.worker_ids,
                config.batch_size,
                config.seed,
                device,
                getattr(torch, config.dtype),
                config.comm.deterministic,
            )
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        plan.compressor.setup(Setup(config.seed, comm.worker_ids, self.problem.shapes))
        start = self.problem.init(generator(config.seed, "start"))
        try:
            self.payload = plan.compressor.payload(self.problem.dim, start.element_size())
        except ValueError as error:
            raise UserError(f"compress.{error}") from error
        self.dense_payload = self.problem.dim * start.element_size()
        self.exchange = carrier(plan.compressor, config.comm.exchange)
        self.checked = Finite(self.problem, comm.worker_ids, config.on_nonfinite)
        self.algorithm = plan.algorithm
        self.algorithm.setup(Context(self.checked, comm, plan.compressor, config.rounds, start))

    def run_to_end(self) -> None:
        run, books = self.run, self.books
        state = None if self.plan.config.rerun else books.restore()
        begun = {"started": now()} if state is None else {"started": run.meta.get("started"), "resumed": now()}
        if state is None:
            run.clear()
        handler = logging.FileHandler(run.folder / "run.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            run.write_config(self.plan.resolved)
            run.set_meta(name=self.plan.name, status="running", **begun, **self._about())
            self._warn_if_dearer_than_dense()
            why = {}
            try:
                status = self._loop(state)
            except NonFiniteError as error:
                status, why = "diverged", {"error": f"{error}; on_nonfinite=skip or zero goes on"}
                log.error(why["error"])
                print(f"commexp: {why['error']}", file=sys.stderr, flush=True)
            books.flush()
            write_json(run.folder / "summary.json", {"status": status, **self._costs()})
            run.set_meta(status=status, ended=now(), **why)
            if status != "interrupted":
                books.drop_checkpoint()
            log.info("%s after round %d", status, books.done)
        except Exception as error:
            log.exception("failed")
            books.flush()
            run.set_meta(status="failed", ended=now(), error=f"{type(error).__name__}: {error}")
            raise
        finally:
            log.removeHandler(handler)
            handler.close()

    def _loop(self, state: State | None) -> str:
        books, rounds, every = self.books, self.plan.config.rounds, self.plan.config.eval_every
        if state is not None:
            self.checked.count = int(state.pop(COUNT))
            self.algorithm.load_state_dict({name: value.to(self.device) for name, value in state.items()})
            log.info("resumed after round %d", books.done)
        saved, cost = time.monotonic(), 0.0
        with Interrupts() as interrupts, Progress(rounds, books.done) as progress:
            if not books.rows:
                self._evaluate(progress)
            for t in range(books.done, rounds):
                books.ledger.round = t + 1
                begin = time.perf_counter()
                self.algorithm.round(t)
                books.round_took(time.perf_counter() - begin)
                if (books.done % every == 0 or books.done == rounds) and self._evaluate(progress):
                    return "diverged"
                stop = interrupts.seen and books.done < rounds
                if stop or time.monotonic() - saved > max(SAVE_SECONDS, SAVE_SHARE * cost):
                    begin = time.monotonic()
                    books.save({**self.algorithm.state_dict(), COUNT: torch.tensor(self.checked.count)})
                    saved, cost = time.monotonic(), time.monotonic() - begin
                if stop:
                    return "interrupted"
        return "completed"

    def _evaluate(self, progress: Progress) -> bool:
        """Adds a row; True if the run has diverged."""
        books = self.books
        steps = books.done * self.algorithm.steps_per_round()
        samples = round(steps * self.problem.samples_per_step * self.plan.config.workers)
        row = {
            "round": books.done,
            "step": steps,
            "epoch": samples / self.problem.samples,
            "samples": samples,
            "wall_seconds": books.wall,
            "sim_seconds": books.sim,
            **self.problem.evaluate(self.algorithm.model()),
            **books.ledger.totals(),
            **self.algorithm.diagnostics(),
        }
        books.rows.append(row)
        line = progress.show(books.done, row)
        if line:
            log.info(line)
        first, loss = books.rows[0]["train_loss"], row["train_loss"]
        return not math.isfinite(loss) or loss > BLOW_UP * max(1.0, first)

    def _costs(self) -> dict[str, Any]:
        """What summary.json says; dense messages over a server come down as well as go up."""
        ways = 2 if self.exchange == "server" else 1
        return {
            **self.books.summary(ways * self.plan.config.workers * self.dense_payload),
            "exchange": self.exchange,
            "payload_bytes": self.payload,
            "parameters": self.problem.dim,
            COUNT: self.checked.count,
        }

    def _about(self) -> dict[str, Any]:
        config = self.plan.config
        where = describe(self.device)
        sizes = {"parameters": self.problem.dim, "samples": self.problem.samples}
        return {"seed": config.seed, "workers": config.workers, "processes": 1, **sizes, **where}

    def _warn_if_dearer_than_dense(self) -> None:
        if self.plan.compressor.varies:
            return  # what it will cost is not known before it has been
        n = self.plan.config.workers
        dense = peer_wire_bytes("all_reduce", n, n * self.dense_payload)
        wire = peer_wire_bytes(self.exchange, n, n * self.payload)
        if self.exchange != "server" and wire > dense:
            text = (
                f"note: {n} messages of {self.payload:,} bytes by {self.exchange} put {wire / dense:.3g} times as much "
                f"on the links as a dense all-reduce"
            )
            log.warning(text)
            print(f"commexp: {text}", file=sys.stderr)
