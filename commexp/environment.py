"""torch's settings of the whole process, which are a run's own while it computes and the host program's after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

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
