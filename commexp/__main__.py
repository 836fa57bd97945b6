"""``python -m commexp``: the same as ``commexp``."""

from commexp.cli import main

main()
