"""State that is declared by names is saved and loaded without a line of code more."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from commexp.state import Stateful, declared, has_workers


class Part(Stateful):
    state = "count"

    def __init__(self, count: int) -> None:
        self.count = count


class Whole(Stateful):
    state = "x steps=_steps flag part=inner.part calls **by_name"
    worker_state = "rows q"
    rows: Tensor | None = None
    _steps = 0

    def __init__(self) -> None:
        self.x = torch.arange(3.0)
        self.flag = False
        self.inner = Holder()
        self.by_name = {"a": Part(1), "b": Part(2)}
        self.calls = [0, 0]
        self.q: list[Tensor] = []


class Holder:
    def __init__(self) -> None:
        self.part = Part(0)


class More(Whole):
    state = "mean buffers"

    def __init__(self) -> None:
        super().__init__()
        self.mean = self.x
        self.buffers: dict[str, Tensor] = {}


def filled() -> More:
    whole = More()
    whole._steps, whole.flag, whole.calls = 7, True, [3, 4]
    whole.inner.part.count, whole.by_name["b"].count = 5, 6
    whole.rows = torch.ones(1, 2).expand(4, 2)
    whole.q = [torch.zeros(4, 1), torch.ones(4, 2)]
    whole.buffers = {"velocity": torch.full((3,), 2.0)}
    return whole


def test_names_in_a_file() -> None:
    state = filled().state_dict()
    assert {name: list(x.shape) for name, x in state.items()} == {
        "x": [3],
        "steps": [],
        "flag": [],
        "part.count": [],
        "calls": [2],
        "a.count": [],
        "b.count": [],
        "workers.rows": [4, 2],
        "workers.q0": [4, 1],
        "workers.q1": [4, 2],
        "mean": [3],
        "buffers.velocity": [3],
    }
    assert {name for name in state if has_workers(name)} == {"workers.rows", "workers.q0", "workers.q1"}
    assert [name for name, _ in declared(More)][-2:] == ["mean", "buffers"]


def test_what_is_loaded_is_what_was_saved() -> None:
    content, second = save(filled().state_dict()), More()  # safetensors refuses two tensors in the same memory
    inner = second.inner.part
    second.load_state_dict(load(content))
    assert (second._steps, second.flag, second.calls, inner.count) == (7, True, [3, 4], 5)
    assert type(second.flag) is bool
    assert [part.count for part in second.by_name.values()] == [1, 6]
    state = filled().state_dict()
    assert all(torch.equal(x, state[name]) for name, x in second.state_dict().items())
    assert second.state_dict().keys() == state.keys()


def test_what_is_missing_has_the_classes_value_or_is_reported() -> None:
    whole = filled()
    state = whole.state_dict()
    for name in ("steps", "workers.rows", "workers.q0", "workers.q1"):
        del state[name]
    whole.load_state_dict(state)
    assert (whole._steps, whole.rows, whole.q) == (0, None, [])
    del state["x"]
    with pytest.raises(ValueError, match=r"^x: missing$"):
        whole.load_state_dict(state)


def test_state_for_what_keeps_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Stateful keeps no state, but was given \['x'\]$"):
        Stateful().load_state_dict({"x": torch.zeros(1)})
