"""Which way to a result is the fastest here: measured once, and remembered for this machine.

What was measured lies in ``commexp/ways.json`` of the user's cache folder ($XDG_CACHE_HOME, else ~/.cache), so that
the same command goes the same way, and gives the same bits, the next time. Deleting the file measures anew.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from filelock import FileLock

log = logging.getLogger("commexp")

CALLS = 3  # of each, taking turns; the shortest counts
CLEARLY = 0.9  # a later way must take less than this share of an earlier one's time


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "commexp" / "ways.json"


def remembered(key: str) -> str | None:
    """What has been the fastest; None where nobody has measured it."""
    try:
        known = json.loads(cache().read_text(encoding="utf-8"))
        return str(known[key]["way"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fastest(ways: Mapping[str, Callable[[], object]], key: str, device: torch.device) -> str:
    """The name of the fastest of ``ways``, in order of preference; each has been called before. ``key``: what the
    answer depends on. Where the cache cannot be written the answer is not kept."""
    file = cache()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):  # whoever comes first measures for all
            known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            if known.get(key, {}).get("way") not in ways:
                known[key] = measure(ways, device)
                written = file.with_suffix(".new")
                written.write_text(json.dumps(known, indent=1, sort_keys=True), encoding="utf-8")
                os.replace(written, file)
            return str(known[key]["way"])
    except (OSError, ValueError) as error:
        log.warning("%s: what is the fastest cannot be remembered (%s)", file, error)
        return str(measure(ways, device)["way"])


def measure(ways: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, object]:
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(CALLS):
        for name, call in ways.items():
            begin = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name] = min(seconds[name], time.perf_counter() - begin)
    best = next(iter(seconds))
    for name, taken in seconds.items():
        if taken < CLEARLY * seconds[best]:
            best = name
    log.info("gradients of all workers: %s (%s)", best, ", ".join(f"{n} {s * 1e3:.3g} ms" for n, s in seconds.items()))
    return {"way": best, "seconds": seconds}
