"""Codecs and methods on another device than the CPU, a pretended one (pretended_device.py): the numbers of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pretended_device import DEVICE, There, pretended
from registry import bare, composed, on_vectors, options
from torch import Tensor

from commexp.check.drive import fresh, normal, whole_round
from commexp.comm.frames import pack_frames, unpack_frames
from commexp.compressors import Compressor, ErrorFeedback
from commexp.config.plan import prepare
from commexp.launch.launch import launch


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda a: a + torch.ones(3), "aten::add: Expected all tensors to be on the same device"),
        (lambda a: a.numpy(), "numpy"),
        (lambda a: torch.empty_like(a).uniform_(generator=torch.Generator()), "aten::uniform_: the generator is on"),
        (lambda a: a.normal_(generator=torch.Generator().manual_seed(7)), "aten::normal_: the generator is on"),
    ],
)
def test_what_a_gpu_refuses_is_refused(wrong: Callable[[Tensor], object], says: str) -> None:
    with pretended() as there, pytest.raises((RuntimeError, TypeError), match=says):
        wrong(there(torch.ones(3)))


def rounds(codec: Compressor, inputs: Iterable[Tensor], other: Compressor) -> list[dict[str, Tensor]]:
    """What two rounds send and leave behind; before the third the state goes to another codec."""
    found = []
    for t, x in enumerate(inputs):
        if t == 2:
            other.load_state_dict({name: v.to(x.device) for name, v in codec.state_dict().items()})
            codec = other
        done = whole_round(codec, x)
        first = done.messages[0]
        read, weights = unpack_frames(pack_frames(first, x.new_full((len(x),), 0.5)), first)
        assert type(weights) is type(x)
        found.append({"decoded": done.decoded, "aggregate": done.aggregate, **read.buffers})
    return found


@pytest.mark.parametrize("dim", [9, 1000])
@pytest.mark.parametrize("name", options("compress"))
def test_codecs(name: str, dim: int) -> None:
    def codec() -> Compressor:
        made = fresh(lambda: bare(name), dim)
        return made if made.expands else ErrorFeedback(made)

    inputs = [normal(t, 2, dim) for t in range(3)]
    wanted = rounds(codec(), inputs, codec())
    with pretended() as there:
        found = rounds(codec(), [there(x.clone()) for x in inputs], codec())
    for one, other in zip(found, wanted, strict=True):
        assert all(isinstance(x, There) for x in one.values())
        assert all(torch.equal(one[key].here, other[key]) for key in other)  # type: ignore[attr-defined]


LINREG = ("dataset=linreg", "model=linear_regression", "dataset.samples=6", "dataset.dim=12", "workers=4")
RATINGS = ("dataset=ratings", "dataset.users=40", "dataset.items=30", "workers=4")


@pytest.mark.parametrize("algo", options("algo"))
def test_methods(algo: str, tmp_path: Path) -> None:
    problem = RATINGS if algo in ("ssp", "sync_ps") else LINREG
    config: Any = OmegaConf.create(composed(*on_vectors(algo), *problem, "rounds=2", "eval_every=2"))

    def last_row(device: str) -> dict[str, Any]:
        config.outputs, config.launch.device = str(tmp_path / device), device
        run = launch(prepare(config))
        return {key: value for key, value in run.rows("metrics")[-1].items() if key != "wall_seconds"}

    wanted = last_row("cpu")
    with pretended(), torch.enable_grad():
        assert last_row(str(DEVICE)) == wanted
