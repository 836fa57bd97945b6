"""What is kept of methods whose workers do not wait: their tables, and their state for a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from commexp.state import under_prefix, with_prefix

if TYPE_CHECKING:
    from commexp.algorithms.asynchronous.asynchronous import Asynchronous

COUNTS = ("had", "heard", "done", "calls")  # one of each worker
ROWS, OWN = "workers.", "own."  # a codec of one worker has one row, which the server's checkpoint keeps whole


def tables_of(method: Asynchronous) -> dict[str, list[dict[str, Any]]]:
    """staleness.csv: how many messages had which; workers.csv: what each did; gantt.csv: their first cycles."""
    clock = method.world.clock
    workers = [
        {
            "worker": n,
            "calls": method.calls[n],
            "iterations": done,
            "overwritten": int(clock.overwritten[n]),
            "busy_seconds": float(clock.busy[n]),
            "idle_seconds": float(clock.idle[n]),
        }
        for n, done in enumerate(method.done)
    ]
    ages = [{"staleness": age, "messages": count} for age, count in sorted(method.stale.items())]
    return {"staleness": ages, "workers": workers, "gantt": [span._asdict() for span in clock.spans]}


def state_of(method: Asynchronous) -> dict[str, Tensor]:
    """See Algorithm.state_dict."""
    kept = {name: torch.tensor(getattr(method, name)) for name in (*COUNTS, "version")}
    kept |= {"x": method.x, "sent": method.sent, **with_prefix("rows", method.rows())}
    kept["stale"] = torch.tensor(sorted(method.stale.items()), dtype=torch.int64).view(-1, 2)
    kept["away"] = torch.tensor(sorted(method.away), dtype=torch.int64)
    for n, codec in enumerate(method.world.codecs):
        kept |= with_prefix(f"codec.{n}", {k.replace(ROWS, OWN): v for k, v in codec.state_dict().items()})
    return kept


def load_state(method: Asynchronous, state: Mapping[str, Tensor]) -> None:
    """What ``state_of`` gave."""
    for name in COUNTS:
        setattr(method, name, state[name].tolist())
    method.x, method.sent, method.version = state["x"], state["sent"], int(state["version"])
    method.stale = Counter({int(age): int(count) for age, count in state["stale"].tolist()})
    method.away = set(state["away"].tolist())
    method.load_rows(under_prefix("rows", state))
    for n, codec in enumerate(method.world.codecs):
        own = under_prefix(f"codec.{n}", state)
        codec.load_state_dict({k.replace(OWN, ROWS): v for k, v in own.items()})
