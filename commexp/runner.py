"""The loop: rounds, evaluation, the clock, status; what was interrupted goes on, what is finished is not run again."""

from __future__ import annotations

import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from commexp.algorithms import Context
from commexp.checkpoint import load_checkpoint, save_checkpoint
from commexp.comm import Communicator, Ledger, peer_wire_bytes
from commexp.config import Plan
from commexp.interrupts import Interrupts
from commexp.problems import build_problem
from commexp.progress import Progress
from commexp.provenance import describe, now
from commexp.refusals import UserError
from commexp.rundir import Run, write_json
from commexp.seeding import generator

log = logging.getLogger("commexp")

FLUSH_SECONDS = 10.0  # metrics.csv and traffic.csv on disk are at most so old
BLOW_UP = 1e4  # a training loss of so many times the first (or 1) has diverged


def execute(plan: Plan, device: torch.device) -> Run:
    """Runs the plan to its end, or shows that it has been run. Raises UserError before anything is written."""
    run = Run(Path(plan.config.outputs) / "runs" / plan.name)
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


class Trial:
    """One run in the making."""

    def __init__(self, plan: Plan, device: torch.device, run: Run) -> None:
        self.plan, self.run, config = plan, run, plan.config
        self.ledger = Ledger()
        self.device = device
        try:
            self.comm = Communicator(config.workers, self.ledger, config.comm.exchange, config.comm.deterministic)
            self.problem = build_problem(
                plan.dataset,
                plan.partition,
                plan.model,
                config.workers,
                self.comm.worker_ids,
                config.batch_size,
                config.seed,
                device,
                getattr(torch, config.dtype),
                config.comm.deterministic,
            )
            start = self.problem.init(generator(config.seed, "start"))
            self.dense_payload = self.problem.dim * start.element_size()
            self.payload = plan.compressor.payload(self.problem.dim, start.element_size())
            self.exchange = self.comm.carries(plan.compressor)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(f"{_prefix(str(error))}{error}") from error
        self.algorithm = plan.algorithm
        self.algorithm.setup(Context(self.problem, self.comm, plan.compressor, config.rounds, start))
        self.rows: list[dict[str, Any]] = []
        self.wall = 0.0
        self.sim = 0.0
        self.booked = 0  # ledger entries already on the virtual clock

    def run_to_end(self) -> None:
        run, config = self.run, self.plan.config
        resumable = run.status == "interrupted" and not config.rerun
        checkpoint = load_checkpoint(run.folder / "checkpoints") if resumable else None
        if checkpoint is None:
            run.clear()
        handler = logging.FileHandler(run.folder / "run.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            run.write_config(self.plan.resolved)
            run.set_meta(
                **describe(device=self.device, dim=self.problem.dim, samples=self.problem.samples),
                name=self.plan.name,
                seed=config.seed,
                workers=config.workers,
                processes=1,
                status="running",
            )
            self._warn_if_dearer_than_dense()
            status = self._loop(self._restore(checkpoint) if checkpoint else 0)
            self._flush()
            write_json(run.folder / "summary.json", self.summary(status))
            run.set_meta(status=status, ended=now())
            log.info("%s after round %d", status, self.rows[-1]["round"])
        except Exception as error:
            log.exception("failed")
            self._flush()
            run.set_meta(status="failed", ended=now(), error=f"{type(error).__name__}: {error}")
            raise
        finally:
            log.removeHandler(handler)
            handler.close()

    def _loop(self, first: int) -> str:
        config, last_flush = self.plan.config, time.monotonic()
        with Interrupts() as interrupts, Progress(config.rounds, first, self.run.name) as progress:
            if first == 0:
                self._evaluate(0, progress)
            for t in range(first, config.rounds):
                self.ledger.round = t + 1
                begin = time.perf_counter()
                self.algorithm.round(t)
                self.wall += time.perf_counter() - begin
                self._tick()
                done = t + 1
                if (done % config.eval_every == 0 or done == config.rounds) and self._evaluate(done, progress):
                    return "diverged"
                if interrupts.seen and done < config.rounds:
                    save_checkpoint(self.run.folder / "checkpoints", done, self._state())
                    return "interrupted"
                if time.monotonic() - last_flush > FLUSH_SECONDS:
                    self._flush()
                    last_flush = time.monotonic()
        return "completed"

    def _evaluate(self, done: int, progress: Progress) -> bool:
        """Adds a row; True if the run has diverged."""
        steps = done * self.algorithm.steps_per_round()
        samples = round(steps * self.problem.samples_per_step * self.comm.size)
        row = {
            "round": done,
            "step": steps,
            "epoch": samples / self.problem.samples,
            "samples": samples,
            "wall_seconds": self.wall,
            "sim_seconds": self.sim,
            **self.problem.evaluate(self.algorithm.model()),
            **self.ledger.totals(),
            **self.algorithm.diagnostics(),
        }
        self.rows.append(row)
        line = progress.show(done, row)
        if line:
            log.info(line)
        first, loss = self.rows[0]["train_loss"], row["train_loss"]
        return not math.isfinite(loss) or loss > BLOW_UP * max(1.0, first)

    def _tick(self) -> None:
        """Moves the virtual clock: computing, then this round's exchanges one after the other."""
        self.sim += self.plan.network.compute
        for entry in self.ledger.entries[self.booked :]:
            self.sim += self.plan.network.seconds(entry.exchange, entry.workers, entry.bytes_sent)
        self.booked = len(self.ledger.entries)

    def _flush(self) -> None:
        self.run.write_rows("metrics", self.rows)
        self.run.write_rows("traffic", [entry._asdict() for entry in self.ledger.entries])

    def _state(self) -> dict[str, torch.Tensor]:
        clocks = torch.tensor([self.wall, self.sim], dtype=torch.float64)
        return {"clocks": clocks, **{f"algorithm.{k}": v for k, v in self.algorithm.state_dict().items()}}

    def _restore(self, checkpoint: tuple[int, dict[str, torch.Tensor]]) -> int:
        completed, state = checkpoint
        self.wall, self.sim = state.pop("clocks").tolist()
        prefix = "algorithm."
        self.algorithm.load_state_dict({k.removeprefix(prefix): v.to(self.device) for k, v in state.items()})
        self.rows = [row for row in self.run.rows("metrics") if row["round"] <= completed]
        self.ledger.restore([row for row in self.run.rows("traffic") if row["round"] <= completed])
        self.booked = len(self.ledger.entries)
        log.info("resumed after round %d", completed)
        return completed

    def _warn_if_dearer_than_dense(self) -> None:
        n, dense = self.comm.size, peer_wire_bytes("all_reduce", self.comm.size, self.comm.size * self.dense_payload)
        wire = peer_wire_bytes(self.exchange, n, n * self.payload)
        if self.exchange != "server" and wire > dense:
            text = (
                f"note: {n} messages of {self.payload:,} bytes by {self.exchange} put {wire / dense:.1f} times as much "
                f"on the links as a dense all-reduce"
            )
            log.warning(text)
            print(f"commexp: {text}", file=sys.stderr)

    def summary(self, status: str) -> dict[str, Any]:
        """Final and best values, bytes, and what dense messages would have been in as many rounds."""
        rows, last = self.rows, self.rows[-1]
        best = {
            f"best_{key}": pick(values)
            for key, pick in (("train_loss", min), ("test_loss", min), ("test_accuracy", max), ("dist_to_opt", min))
            if key in last and (values := [r[key] for r in rows if math.isfinite(r[key])])
        }
        dense = self.comm.size * self.dense_payload * last["round"]
        return {
            "status": status,
            **{k: v for k, v in last.items()},
            **best,
            "dense_bytes": dense,
            "bytes_against_dense": self.ledger.bytes_sent / dense if dense else 0.0,
            "exchange": self.exchange,
            "payload_bytes": self.payload,
            "parameters": self.problem.dim,
        }


def _prefix(message: str) -> str:
    """Components name their own field first; what has no key of the config in front gets the compressor's."""
    return "compress." if message.startswith("k=") else "comm." if message.startswith("exchange=") else ""
