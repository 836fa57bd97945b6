"""What a user names in a config: functions of their own, by full name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object


def imported(key: str, name: str) -> Callable[..., Any]:
    """The function or class of this full name, my_package.my_module.function. Importing it runs its module. Raises
    ValueError where there is none, and for what cannot be called."""
    try:
        found = get_object(name)
    except Exception as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"{key}={name}: cannot be imported ({' '.join(str(cause).split())[:200]}); give a function's full name, "
            "such as my_module.function, that Python finds from here"
        ) from error
    if not callable(found):
        raise ValueError(f"{key}={name}: is a {type(found).__name__}, which cannot be called; give a function")
    return found  # type: ignore[no-any-return]


def called(what: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What the function returns. ``what``: key and name of the function. Raises ValueError, with the function's own
    error in one line, where it fails."""
    try:
        return function(**arguments)
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"{what}: fails ({why}); give a function that works with these arguments") from error
