"""Settings of the whole process: torch's switches, random generators, Hydra's singletons. A run has its own values
while it computes; afterwards the host program has its values back."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from typing import Any

import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.version import VersionBase
from omegaconf.basecontainer import BaseContainer

NOTED = ("KMP_", "TORCHINDUCTOR_", "TRITON_")  # by scikit-learn and by torch's compiler; each reads its own once
Switch = tuple[Callable[[], Any], Callable[[Any], object], Any]  # how it is read, how it is set, a run's own


@contextmanager
def settled() -> Iterator[None]:
    """Nothing that the program around a run has set decides its numbers: the default type is float32 on the CPU,
    float32 products and convolutions are float32 throughout (no TF32, no bfloat16 within), no kernel is chosen by
    timing, no autocast, gradients are kept. Those of speed.amp are the run's own and come later."""
    with ExitStack() as stack:
        for read, put, wanted in _switches():
            before = read()
            if before != wanted:
                put(wanted)
                stack.callback(put, before)
        if torch.get_default_device().type != "cpu":  # of a `with torch.device(...)` around us, too
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _switches() -> Iterator[Switch]:
    backends: Any = torch.backends
    yield torch.get_default_dtype, torch.set_default_dtype, torch.float32
    yield torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0
    yield _attribute(backends.cudnn, "benchmark", False)
    yield _attribute(backends.cudnn, "deterministic", False)
    yield _attribute(backends.cudnn, "enabled", True)
    if hasattr(backends.mkldnn, "enabled"):
        yield _attribute(backends.mkldnn, "enabled", True)
    if not hasattr(backends, "fp32_precision"):  # before torch 2.9
        yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
        yield _attribute(backends.cudnn, "allow_tf32", False)
        return
    places = [getattr(b, name) for b in (backends.cudnn, backends.mkldnn) for name in ("conv", "rnn")]
    for place in [*places, backends.mkldnn.matmul, backends.cuda.matmul]:
        yield _attribute(place, "fp32_precision", "ieee")


def _attribute(place: Any, name: str, wanted: object) -> Switch:
    return lambda: getattr(place, name), lambda value: setattr(place, name, value), wanted


@contextmanager
def undisturbed() -> Iterator[None]:
    """A run depends on none of the caller's settings of torch (see ``settled``), and what it changes is put back:
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
    """Hydra in a fresh state. Restores the caller's GlobalHydra, version base, resolvers and ConfigStore afterwards.
    Yields the ConfigStore that is used meanwhile. It lacks the caller's own entries, because Hydra would take one with
    the name of a file of ours for that file's schema."""
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
