"""Checks that every compressor must pass, ours and anybody's: ``commexp-check compressor my.module:MyCodec``."""

from commexp.check.compressor import CHECKS, Result, run_checks

__all__ = ["CHECKS", "Result", "run_checks"]
