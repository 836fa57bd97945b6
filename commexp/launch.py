"""Where a run is carried out: for now one process, on a CPU or one GPU."""

from __future__ import annotations

import torch

from commexp.config import Plan
from commexp.refusals import UserError
from commexp.rundir import Run
from commexp.runner import execute


def launch(plan: Plan) -> Run:
    """Chooses device and threads, then runs. Raises UserError for a device that is not there."""
    wanted = plan.config.launch
    name = wanted.device if wanted.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"launch.device={name}: not usable here; give cpu, or auto") from error
    if wanted.threads is not None:
        torch.set_num_threads(wanted.threads)
    return execute(plan, device)
