"""Many runs, two at a time: commexp.batch."""

from commexp.batch import result, run_all

__all__ = ["result", "run_all"]
