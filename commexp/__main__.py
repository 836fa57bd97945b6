"""``python -m commexp``: the same as ``commexp``."""

from commexp.cli.run import main

main()
