"""Sphinx: the pages beside this file, and the reference, made anew from the code at every build."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

project = "commexp"
extensions = ["myst_parser"]
myst_heading_anchors = 3
highlight_language = "text"  # of indented blocks: commands, tables of output, formulas
html_theme = "furo"
html_title = "commexp"
html_show_copyright = False
smartquotes = False


def setup(app: Sphinx) -> None:
    from reference import write_reference

    write_reference(Path(app.srcdir) / "reference")
