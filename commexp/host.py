"""The process that calls ``commexp.run`` is somebody else's: how a run finds it, and leaves it."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr

import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.version import VersionBase
from omegaconf.basecontainer import BaseContainer

from commexp.environment import settled

NOTED = ("KMP_", "TORCHINDUCTOR_", "TRITON_")  # by scikit-learn and by torch's compiler; each reads its own once


@contextmanager
def undisturbed() -> Iterator[None]:
    """A run depends on none of the caller's settings of torch (see environment.py), and what it changes is put back:
    those settings; the global random generators; warning filters; what libraries note in the environment when they
    are imported."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if sys.stderr is None:
            stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        stack.callback(torch.set_rng_state, torch.get_rng_state())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.callback(random.setstate, random.getstate())
        stack.callback(_forget_notes, set(os.environ))
        stack.enter_context(settled())
        yield


def _forget_notes(before: set[str]) -> None:
    for name in os.environ.keys() - before:
        if name.startswith(NOTED):
            del os.environ[name]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Hydra prints where its logger has no handler: we say it in one line."""
    log, silence = logging.getLogger("hydra.utils"), logging.NullHandler()
    log.addHandler(silence)
    try:
        yield
    finally:
        log.removeHandler(silence)


@contextmanager
def hydra_of_our_own() -> Iterator[ConfigStore]:
    """Hydra as if nobody had used it: the caller's GlobalHydra, version base, resolvers and ConfigStore are as they
    were afterwards. Gives the ConfigStore that is used meanwhile, without the caller's own entries: Hydra would take
    one with the name of a file of ours for that file's schema."""
    Plugins.instance()  # or each time they would be looked for anew
    instances, resolvers = Singleton._instances, BaseContainer._resolvers
    theirs = ConfigStore.instance().repo
    Singleton._instances = {k: v for k, v in instances.items() if k not in (GlobalHydra, VersionBase, ConfigStore)}
    BaseContainer._resolvers = dict(resolvers)
    store = ConfigStore.instance()
    store.repo = {name: node for name, node in theirs.items() if name == "hydra" or name.startswith("_")}
    try:
        yield store
    finally:
        Singleton._instances, BaseContainer._resolvers = instances, resolvers
