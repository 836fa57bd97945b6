"""Where a run is carried out: in this process, in processes that are started here, or in one that the user's own
launcher has started beside others."""

from __future__ import annotations

from contextlib import ExitStack

from commexp.config.plan import Plan
from commexp.environment import settled
from commexp.launch.single import keep_memory, run_alone
from commexp.ranks import joins
from commexp.run_folder import Run


def launch(plan: Plan, hold: ExitStack | None = None) -> Run:
    """Runs the plan; in one of several processes each returns the run. Until ``hold`` is closed nobody else runs it.
    Raises UserError for a device that is not there or workers that cannot be spread, LaunchError where processes do
    not come together or one is lost."""
    with ExitStack() as own:
        return _launch(plan, hold or own)


def _launch(plan: Plan, hold: ExitStack) -> Run:
    if joins():
        from commexp.launch.member import run_as_member

        with settled():
            return run_as_member(plan, hold)
    if plan.config.launch.kind == "torchrun":
        from commexp.launch.processes import run_in_processes

        return run_in_processes(plan, hold)
    with settled():
        return run_alone(plan, hold)


__all__ = ["keep_memory", "launch"]
