"""Hydra composes the same configs in less than half the time: the tests compose a thousand.

``begin`` changes a few things in Hydra and OmegaConf, for this process and its forks. None changes a result, see
test_quick.py: files that belong to commexp or Hydra are read once, and Hydra's own are merged once; an interpolation is
parsed once; copies of metadata and of Hydra's lists of sources do without copy.deepcopy's ways around; what is asked
only of defaults that are interpolated, of nodes that may be read-only, of values that may be nodes, is not asked of
others; and where nobody mentions Hydra's own keys, nothing is composed to see whether they say that it is a sweep.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from functools import cache
from itertools import takewhile
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import ValueNode, _utils, base, basecontainer, dictconfig, listconfig, nodes, omegaconf
from omegaconf.base import Container, Metadata, Node

from commexp.config.schema import CONF

LOAD, INTERPOLATION_MAP = ConfigRepository.load_config, defaults_list._create_interpolation_map
GET_MODE, VALUE_NODE, INVALIDATE = Hydra.get_mode, ValueNode.__init__, Container._invalidate_flags_cache
MERGE, LOAD_ONE = ConfigLoaderImpl._compose_config_from_defaults_list, ConfigLoaderImpl._load_single_config
CHANGED: list[tuple[Any, str, Any]] = []  # whose attribute, its name, what it was before (None: it had none)
_read: dict[tuple[str, ...], ConfigResult] = {}
_merged: dict[str, Any] = {}


def begin() -> None:
    parse = cache(base.parse)
    for owner, name, made in (
        (ConfigRepository, "load_config", load_config),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list", merge),
        (ConfigLoaderImpl, "_load_single_config", load_one),
        (ConfigRepository, "__deepcopy__", lambda self, memo: copy.copy(self)),  # its list is replaced, never changed
        (Metadata, "__deepcopy__", copy_of_metadata),
        (defaults_list, "_create_interpolation_map", interpolation_map),
        (Hydra, "get_mode", get_mode),
        (ValueNode, "__init__", value_node),
        (Container, "_invalidate_flags_cache", invalidate_flags),
        *((module, "parse", parse) for module in (base, _utils)),
        *((m, f.__name__, f) for f in OF_PLAIN for m in OMEGACONF if vars(m).get(f.__name__) is PLAINLY[f.__name__]),
    ):
        CHANGED.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, made)


def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
    """A copy of what has been read, where no file can have changed or come since."""
    if not all(map(lasting, self.sources)):
        return LOAD(self, config_path)
    key = (config_path, *map(described, self.sources))
    if key not in _read:
        result = LOAD(self, config_path)
        if result is None or result.path.startswith("structured:"):  # what lies there may be another tomorrow
            return result
        _read[key] = result
    return dataclasses.replace(_read[key], config=copy.deepcopy(_read[key].config))


@dataclasses.dataclass
class Merged:
    """In a list of defaults, what stands for those of Hydra at its beginning: ``config``, all of them merged."""

    config: Any
    config_path: str = "hydra"


def merge(self: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> Any:
    sources = repo.get_sources()
    count = len([*takewhile(lambda default: (default.config_path or "").startswith("hydra/"), defaults)])
    if not count or not all(map(lasting, sources)):
        return MERGE(self, defaults, repo)
    key = repr([*map(dataclasses.astuple, defaults[:count]), *map(described, sources)])
    if key not in _merged:
        _merged[key] = MERGE(self, defaults[:count], repo)
    return MERGE(self, [Merged(copy.deepcopy(_merged[key])), *defaults[count:]], repo)


def load_one(self: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
    return default if isinstance(default, Merged) else LOAD_ONE(self, default, repo)


def described(source: ConfigSource) -> str:
    return f"{source.provider} {source.scheme()}://{source.path}"


def lasting(source: ConfigSource) -> bool:
    return source.scheme() in ("pkg", "structured") or source.path in (str(CONF), str(CONF.resolve()))


def copy_of_metadata(self: Metadata, memo: dict[int, Any]) -> Metadata:
    made = object.__new__(type(self))
    made.__dict__.update(self.__dict__)
    if self.flags is not None:
        made.flags = dict(self.flags)
    if self.resolver_cache is not None:
        made.resolver_cache = copy.deepcopy(self.resolver_cache, memo) if self.resolver_cache else defaultdict(dict)
    return made


def interpolation_map(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
    if any(default.is_interpolation() for default in defaults if not default.is_self()):
        return INTERPOLATION_MAP(overrides, defaults, self_added)
    return None


def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """None, as no file of conf/ sets hydra.mode."""
    ours = config_name == "config" and all(map(lasting, self.config_loader.get_sources()))
    return None if ours and not any("hydra" in word for word in overrides) else GET_MODE(self, config_name, overrides)


def value_node(self: ValueNode, parent: Any, value: Any, metadata: Metadata) -> None:
    Node.__init__(self, parent, metadata)
    if self._get_flag("readonly"):
        VALUE_NODE(self, parent, value, metadata)
    else:
        self._set_value(value)
        self.__dict__["_flags_cache"] = None


def invalidate_flags(self: Container) -> None:
    if self.__dict__["_flags_cache"] is not None:
        INVALIDATE(self)


def is_attr_class(obj: Any) -> bool:
    return type(obj) not in PLAIN and PLAINLY["is_attr_class"](obj)


def is_dataclass(obj: Any) -> bool:
    return type(obj) not in PLAIN and PLAINLY["is_dataclass"](obj)


def _is_missing_value(value: Any) -> bool:
    return value == "???" if type(value) in PLAIN else PLAINLY["_is_missing_value"](value)


def _is_interpolation(v: Any, strict_interpolation_validation: bool = False) -> bool:
    if type(v) in PLAIN and not (type(v) is str and "${" in v):
        return False
    return PLAINLY["_is_interpolation"](v, strict_interpolation_validation)


def _is_none(value: Any, resolve: bool = False, throw_on_resolution_failure: bool = True) -> bool:
    return value is None if type(value) in PLAIN else PLAINLY["_is_none"](value, resolve, throw_on_resolution_failure)


OF_PLAIN = (is_attr_class, is_dataclass, _is_missing_value, _is_interpolation, _is_none)
OMEGACONF = (_utils, base, basecontainer, dictconfig, listconfig, nodes, omegaconf)
PLAIN = frozenset({str, int, float, bool, type(None), dict, list, tuple})  # which are neither nodes nor classes
PLAINLY: dict[str, Any] = {f.__name__: getattr(_utils, f.__name__) for f in OF_PLAIN}
