"""What ``commexp launch=torchrun`` starts: one process of a run, told what to do by a file.

It ends with status 0 whenever the run has come to an end that starting anew would not change; else it leaves a line
that says why where the launcher looks for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from commexp.launch.streams import leave, open_closed
from commexp.ranks import ERROR_FILE


def main() -> None:
    open_closed()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    from omegaconf import OmegaConf

    from commexp.config.messages import LaunchError, UserError
    from commexp.config.plan import prepare
    from commexp.environment import settled
    from commexp.launch.member import run_as_member
    from commexp.launch.single import keep_memory
    from commexp.run_folder import write_atomic

    path = Path(sys.argv[1])
    if not path.is_file():
        sys.exit(1)  # the launcher was interrupted, and has gone
    task = json.loads(path.read_text(encoding="utf-8"))
    sys.argv[:] = task["command"]  # meta.json tells what the user typed
    status = 1
    try:
        plan = prepare(OmegaConf.create(task["config"]))
        assert plan.name == task["name"], "the plan has changed on its way"
        plan.given = task["given"]
        keep_memory()
        with settled(), ExitStack() as hold:
            run_as_member(plan, hold)
        status = 0
    except UserError as error:
        write_atomic(path.with_name("refusal"), str(error))
        status = 0
    except LaunchError as error:
        leave_word(str(error), error.lost)
        if error.lost == "silent":
            end(error.others)
    except Exception as error:
        leave_word(f"{type(error).__name__}: {error}", "")
    leave(status)


def leave_word(text: str, lost: str) -> None:
    """Where the launcher reads it, see launch/supervisor.py. ``lost``: how another process was lost, if one was."""
    from commexp.run_folder import write_json

    write_json(Path(os.environ[ERROR_FILE]), {"message": text, "lost": lost})


def end(others: Sequence[int]) -> None:
    """Ends the run's other processes, all on this host, after a moment in which they may leave word, too: one that
    hangs does not heed the launcher's SIGTERM either, and the launcher would wait for it. This process is to leave
    together with them, so that the launcher hears of all."""
    time.sleep(2)
    for pid in others:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
