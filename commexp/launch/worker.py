"""What ``commexp launch=torchrun`` starts: one process of a run, told what to do by a file.

It ends with status 0 whenever the run has come to an end that starting anew would not change; else it leaves a line
that says why where the launcher looks for it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from omegaconf import OmegaConf

    from commexp.config import prepare
    from commexp.launch.member import run_as_member
    from commexp.refusals import LaunchError, UserError
    from commexp.rundir import write_atomic

    path = Path(sys.argv[1])
    task = json.loads(path.read_text(encoding="utf-8"))
    try:
        plan = prepare(OmegaConf.create(task["config"]))
        assert plan.name == task["name"], "the plan has changed on its way"
        run_as_member(plan)
    except UserError as error:
        write_atomic(path.with_name("refusal"), str(error))
    except Exception as error:
        text = str(error) if isinstance(error, LaunchError) else f"{type(error).__name__}: {error}"
        leave_word(text, isinstance(error, LaunchError) and error.lost)
        sys.exit(1)


def leave_word(text: str, lost: bool) -> None:
    """In the form and at the place that torch's elastic launcher reads."""
    from commexp.rundir import write_json

    extra = {"timestamp": str(int(time.time())), "lost": lost, "py_callstack": ""}
    write_json(Path(os.environ["TORCHELASTIC_ERROR_FILE"]), {"message": {"message": text, "extraInfo": extra}})


if __name__ == "__main__":
    main()
