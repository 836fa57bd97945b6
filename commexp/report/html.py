"""HTML by jinja2 from the files in templates/. Every value is escaped: what a run folder says is text, never markup.
Only the package's own styles and scripts are inserted as they are."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """The template filled in; ``tojson`` in it refuses NaN and infinity, and writes < so that no script can end."""
    environment = Environment(
        loader=PackageLoader("commexp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.globals["own_file"] = own_file
    return environment.get_template(template).render(values)


def own_file(name: str) -> Markup:
    """A style or script in templates/."""
    return Markup((files("commexp.report") / "templates" / name).read_text(encoding="utf-8"))
