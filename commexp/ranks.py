"""What a launcher tells its processes through the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

LAUNCHER = "COMMEXP_LAUNCHER"  # the process id of the launcher
ERROR_FILE = "COMMEXP_ERROR_FILE"  # where a process says how it failed
REVIVED = "COMMEXP_REVIVED"  # set where a process takes the place of one that has died
MEETING = "COMMEXP_MEETING"  # the folder in which processes meet that are started on this host
SWEEP = "COMMEXP_SWEEP"  # what a sweep tells its jobs, see Sweep
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


_runs = 0  # that this process has begun as one of several


def begin_run() -> None:
    """Counts a run; all processes begin the same runs in the same order."""
    global _runs
    _runs += 1


def run_number() -> int:
    """1 for the first run that this process takes part in, ...: under it the processes of a run find each other, where
    a script carries out several one after the other."""
    return _runs


def joins() -> bool:
    """Whether this process has been started as one of several: by torchrun, srun, or by hand."""
    return all(name in os.environ for name in NEEDED)


def rank() -> int:
    """Of this process; 0 where it is alone."""
    return int(os.environ["RANK"]) if joins() else 0


def local(name: str, otherwise: str) -> int:
    """LOCAL_RANK or LOCAL_WORLD_SIZE; launchers other than torchrun may not set them: one host then."""
    return int(os.environ.get(name, os.environ[otherwise]))


def one_host() -> bool:
    """Whether all processes of the run are on this host, so that nothing need listen beyond the loopback."""
    address = os.environ["MASTER_ADDR"]
    loopback = address in ("localhost", "::1") or address.startswith("127.")
    return loopback or os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]


@dataclass(frozen=True)
class Sweep:
    """A sweep. ``folder``: of its tables. ``jobs``: how many; 0 where that is unknown. ``keys``: those that are swept.
    ``begun``: when the first job could begin, in seconds of time.time(). ``due``: a letter for each job: 1 where it has
    to be run, 0 where its run is finished. ``job``: the number of the one in this process, from 0."""

    folder: str
    jobs: int
    keys: Sequence[str] = ()
    begun: float = 0.0
    due: str = ""
    job: int = 0

    @classmethod
    def told(cls) -> Sweep | None:
        """The sweep to which this process belongs."""
        return cls(**json.loads(os.environ[SWEEP])) if SWEEP in os.environ else None

    def tell(self) -> None:
        """From here on ``told`` returns this, also in processes that this one starts."""
        os.environ[SWEEP] = json.dumps(asdict(self))

    @property
    def name(self) -> str:
        return os.path.basename(self.folder)

    @property
    def place(self) -> str:
        """Which job of how many."""
        return f"job {self.job + 1}" + (f"/{self.jobs}" if self.jobs else "")

    def note(self, letter: str) -> None:
        """That this job begins, B, or has ended, E, if its run is due: in a file of the sweep's folder, for jobs may
        run beside each other."""
        if self.due[self.job : self.job + 1] == "1":
            with open(self._notes, "a", encoding="ascii") as file:
                file.write(letter)

    def forget(self) -> None:
        """What was noted when the sweep was run before."""
        with suppress(FileNotFoundError):
            os.remove(self._notes)

    @property
    def _notes(self) -> str:
        return os.path.join(self.folder, "jobs", "progress")

    def left(self, now: float, share: float = 0.0) -> float | None:
        """Seconds until all jobs have ended, if those that are left take as long as those before. ``share``: of this
        job that is done, and, for want of better knowledge, of those that run beside it. None where nothing is known
        yet."""
        try:
            with open(self._notes, encoding="ascii") as file:
                noted = file.read(2 * len(self.due))
        except (OSError, ValueError):
            return None
        ended = noted.count("E")
        done = ended + share * (noted.count("B") - ended)
        return (now - self.begun) / done * max(0.0, self.due.count("1") - done) if done > 0 else None
