"""Hydra composes the same configs in less than half the time: the tests compose a thousand.

``begin`` changes a few things in Hydra and OmegaConf, for this process and its forks. None changes a result, see
test_quick.py: files that belong to commexp or Hydra are read once, and those that several configs begin with are merged
once; our schema is stored as it was stored before, and a version is parsed once, as is an interpolation; copies of
metadata and of Hydra's lists of sources do without copy.deepcopy's ways around; what is asked only of defaults that are
interpolated, of nodes that may be read-only, of values that may be nodes, is not asked of others; and where nobody
mentions Hydra's own keys, nothing is composed to see whether they say that it is a sweep.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from functools import cache
from itertools import takewhile
from typing import Any

from hydra import version
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import ValueNode, _utils, base, basecontainer, dictconfig, listconfig, nodes, omegaconf
from omegaconf.base import Container, Metadata, Node

from commexp.config.schema import CONF
from commexp.launch import sweep

LOAD, INTERPOLATION_MAP = ConfigRepository.load_config, defaults_list._create_interpolation_map
GET_MODE, VALUE_NODE, INVALIDATE = Hydra.get_mode, ValueNode.__init__, Container._invalidate_flags_cache
MERGE, LOAD_ONE = ConfigLoaderImpl._compose_config_from_defaults_list, ConfigLoaderImpl._load_single_config
REGISTER = sweep.register
CHANGED: list[tuple[Any, str, Any]] = []  # whose attribute, its name, what it was before (None: it had none)
_read: dict[tuple[str, ...], ConfigResult] = {}
_merged: dict[str, Any] = {}  # by the lists of defaults: what they give together, or None if that was asked for once
_schema: list[Any] = []
WORTH = 3  # so many defaults are merged again rather than that what they give is kept and copied


def begin() -> None:
    if CHANGED:
        return  # in this process, or the one that it was forked from
    parse = cache(base.parse)
    for owner, name, made in (
        (ConfigRepository, "load_config", load_config),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list", merge),
        (ConfigLoaderImpl, "_load_single_config", load_one),
        (sweep, "register", register),
        (version, "_get_version", cache(version._get_version)),
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
    """What has been read, where no file can have changed or come since; not to be changed: ``load_one`` copies it."""
    if not all(map(lasting, self.sources)):
        return LOAD(self, config_path)
    key = (config_path, *map(described, self.sources))
    if key not in _read:
        result = LOAD(self, config_path)
        ours = _schema and ConfigStore.instance().repo.get(f"{config_path}.yaml") is _schema[0]
        if result is None or (result.path.startswith("structured:") and not ours):
            return result  # what lies there may be another tomorrow
        _read[key] = result
    return _read[key]


@dataclasses.dataclass
class Merged:
    """In a list of defaults, what stands for several at its beginning: ``config``, all of them merged."""

    config: Any
    config_path: str = "hydra"


def merge(self: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> Any:
    """Goes on from the longest beginning that is kept; keeps what Hydra has, and what is asked for again."""
    if not all(map(lasting, repo.get_sources())):
        return MERGE(self, defaults, repo)
    key, keys = repr([*map(described, repo.get_sources())]), []
    for default in defaults:
        key += repr(dataclasses.astuple(default))
        keys.append(key)
    known = len([*takewhile(_merged.__contains__, keys)])
    hydras = len([*takewhile(lambda default: (default.config_path or "").startswith("hydra/"), defaults)])
    for later in keys[known:]:
        _merged[later] = None
    kept = next((n for n in range(known, 0, -1) if _merged[keys[n - 1]] is not None), 0)
    for longer in (hydras, known):
        if longer > kept + WORTH:
            _merged[keys[longer - 1]] = MERGE(self, after(kept, keys, defaults[:longer]), repo)
            kept = longer
    return MERGE(self, after(kept, keys, defaults), repo)


def after(kept: int, keys: list[str], defaults: list[Any]) -> list[Any]:
    return [Merged(copy.deepcopy(_merged[keys[kept - 1]])), *defaults[kept:]] if kept else defaults


def load_one(self: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
    """A copy, as merging takes it apart."""
    if isinstance(default, Merged):
        return default
    shared = repo.load_config(default.config_path)
    key = f"config_path={default.config_path}"
    repo.cache[key] = dataclasses.replace(shared, config=copy.deepcopy(shared.config))
    return LOAD_ONE(self, default, repo)


def register() -> None:
    store = ConfigStore.instance()
    if _schema:
        store.repo["commexp_schema.yaml"] = _schema[0]  # who loads it gets a copy
    else:
        REGISTER()
        _schema.append(store.repo["commexp_schema.yaml"])


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
