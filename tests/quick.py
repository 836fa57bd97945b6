"""Hydra composes the same configs in less than half the time: the tests compose a thousand.

``begin`` changes a few things in Hydra and OmegaConf, for this process and its forks. None changes a result, see
test_quick.py: files that belong to commexp or Hydra are read once, and Hydra's own are merged once; an interpolation is
parsed once; copies of metadata and of Hydra's lists of sources do without copy.deepcopy's ways around; and a map that
only interpolated defaults need is made only for them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from functools import cache
from itertools import takewhile
from typing import Any

import omegaconf._utils
import omegaconf.base
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf.base import Metadata

from commexp.config.schema import CONF

LOAD, INTERPOLATION_MAP = ConfigRepository.load_config, defaults_list._create_interpolation_map
MERGE, LOAD_ONE = ConfigLoaderImpl._compose_config_from_defaults_list, ConfigLoaderImpl._load_single_config
CHANGED: list[tuple[Any, str, Any]] = []  # whose attribute, its name, what it was before (None: it had none)
_read: dict[tuple[str, ...], ConfigResult] = {}
_merged: dict[str, Any] = {}


def begin() -> None:
    parse = cache(omegaconf.base.parse)
    for owner, name, made in (
        (ConfigRepository, "load_config", load_config),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list", merge),
        (ConfigLoaderImpl, "_load_single_config", load_one),
        (ConfigRepository, "__deepcopy__", lambda self, memo: copy.copy(self)),  # its list is replaced, never changed
        (Metadata, "__deepcopy__", copy_of_metadata),
        (defaults_list, "_create_interpolation_map", interpolation_map),
        (omegaconf.base, "parse", parse),
        (omegaconf._utils, "parse", parse),
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
