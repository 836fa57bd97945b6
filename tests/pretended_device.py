"""A second device without one: tensors that say they are on torch's "meta", for which nothing need be installed, and do
their sums on the CPU.

Every operation on them is looked at: an operand on the other device, a generator of the other device, or a look at
their memory is refused as CUDA would refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
MOVES = {"aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_"}  # which take operands of both
Generator, new = torch.Generator, torch.tensor


class There(Tensor):
    """A tensor on the pretended device; ``here`` holds its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
        )
        made.here = here
        return made  # type: ignore[no-any-return]

    def __getitem__(self, places: Any) -> Any:
        return super().__getitem__(new(places) if isinstance(places, list) else places)

    def new_tensor(self, data: Any) -> Tensor:  # type: ignore[override]
        return There(new(data, dtype=self.dtype))

    def tolist(self) -> Any:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


class Pretending(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


class GeneratorThere(Generator):
    """Operations are handed another Python object for the same generator, so its seed has to tell."""

    seeds: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> GeneratorThere:
        made = Generator.__new__(cls, "cpu")
        made.there = torch.device(device).type == DEVICE.type
        return made

    def manual_seed(self, seed: int) -> GeneratorThere:
        (self.seeds.add if self.there else self.seeds.discard)(seed)
        super().manual_seed(seed)
        return self


def carried_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    operands: list[Tensor] = []
    tree_map(lambda x: operands.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
    if any(x.is_meta and not isinstance(x, There) for x in operands):
        raise RuntimeError(f"{name}: an operand has no numbers; torch has made it without asking us")
    there = [x for x in operands if isinstance(x, There)]
    mixed = [x for x in operands if not isinstance(x, There) and x.ndim]
    if there and mixed and name not in MOVES:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device")
    wanted = kwargs.get("device")
    to_there = bool(there) if wanted is None else torch.device(wanted).type == DEVICE.type
    generator = kwargs.get("generator")
    if generator is not None and to_there != (generator.initial_seed() in GeneratorThere.seeds):
        raise RuntimeError(f"{name}: the generator is on another device than the numbers")
    plain = {k: ("cpu" if v is not None else None) if k == "device" else v for k, v in kwargs.items()}
    inner_args, inner_kwargs = tree_map(lambda x: x.here if isinstance(x, There) else x, (args, plain))
    if name == "aten::_to_copy" and wanted is not None:
        inner_kwargs["device"] = torch.device("cpu")
    done = func(*inner_args, **inner_kwargs)
    if name == "aten::_to_copy" and done.data_ptr() in {x.here.data_ptr() for x in there}:
        done = done.clone()
    if not to_there or name == "aten::_local_scalar_dense":
        return done
    out = tree_map(lambda x: There(x) if isinstance(x, Tensor) and not isinstance(x, There) else x, done)
    return return_and_correct_aliasing(func, args, kwargs, out) if there else out


def tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """torch's own makes it on the device without asking us."""
    made = new(data, dtype=dtype)
    return made if device is None else made.to(device)


@contextmanager
def pretended() -> Iterator[Callable[[Tensor], Tensor]]:
    """Gives what brings a tensor there."""
    torch.Generator = GeneratorThere  # type: ignore[misc,assignment]
    torch.tensor = tensor
    try:
        with torch.no_grad(), Pretending():
            yield There
    finally:
        torch.Generator = Generator  # type: ignore[misc]
        torch.tensor = new
