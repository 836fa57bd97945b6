"""The command line of the commands that have flags: a mistake is one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from commexp.config.messages import UserError


class Parser(argparse.ArgumentParser):
    """Raises UserError for what it cannot read."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")
