"""A digest of what Python hands over: functions, modules and objects, by their source and their values."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from commexp.config.identity import source_digests

PLAIN = (type(None), bool, int, float, complex, str, bytes)


def fingerprint(value: Any) -> str:
    """16 hex digits of BLAKE2b.

    Of a function: its source and that of the user's own modules that it needs, its defaults, what it has from the
    functions around it, and the numbers and texts among its global variables. Of a torch module: its class likewise,
    its structure, its parameters and buffers. Of a tensor or array: type, shape and values. Of any other object: its
    class and its attributes.
    """
    digest = hashlib.blake2b(digest_size=8)
    _Walk(digest).take(value)
    return digest.hexdigest()


class _Walk:
    """``seen``: the objects that the digest has already."""

    def __init__(self, digest: Any) -> None:
        self.digest = digest
        self.seen: set[int] = set()
        self.kept: list[Any] = []  # so that no other object has the id of one that was seen

    def add(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.digest.update(len(content).to_bytes(8, "little") + content)

    def take(self, value: Any) -> None:
        self.add(type(value).__qualname__)
        if isinstance(value, PLAIN):
            self.add(repr(value))
            return
        if id(value) in self.seen:
            return
        self.seen.add(id(value))
        self.kept.append(value)
        if isinstance(value, Tensor | np.ndarray):
            self.array(value)
        elif isinstance(value, FunctionType):
            self.function(value)
        elif isinstance(value, MethodType):
            self.take(value.__self__)
            self.take(value.__func__)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.take(part)
        elif isinstance(value, type):
            self.source(value)
        elif isinstance(value, ModuleType):
            self.add(value.__name__)
        elif isinstance(value, Mapping):
            for key, each in value.items():
                self.take(key)
                self.take(each)
        elif isinstance(value, set | frozenset):
            for text in sorted(map(repr, value)):
                self.add(text)
        elif isinstance(value, list | tuple):
            for each in value:
                self.take(each)
        elif isinstance(value, nn.Module):
            self.module(value)
        else:
            self.take(type(value))
            self.take(getattr(value, "__dict__", {}))

    def array(self, value: Any) -> None:
        array = value.detach().cpu().contiguous() if isinstance(value, Tensor) else np.ascontiguousarray(value)
        self.add(f"{array.dtype} {tuple(array.shape)}")
        raw = array.flatten().view(torch.uint8).numpy() if isinstance(array, Tensor) else array
        self.add(raw.tobytes())

    def function(self, value: FunctionType) -> None:
        self.source(value)
        self.code(value.__code__)
        for part in (value.__defaults__, value.__kwdefaults__):
            self.take(part)
        for cell in value.__closure__ or ():
            self.take(cell.cell_contents)
        for name in names_of(value.__code__):
            found = value.__globals__.get(name)
            if isinstance(found, (*PLAIN, FunctionType, type)) and getattr(found, "__module__", "") in (
                "",
                value.__module__,
            ):
                self.add(name)
                self.take(found)

    def code(self, code: CodeType) -> None:
        try:
            self.add(inspect.getsource(code))
        except (OSError, TypeError):  # typed into an interpreter that keeps no text
            self.add(code.co_code)
            self.add(repr([c for c in code.co_consts if not isinstance(c, CodeType)]))

    def module(self, value: nn.Module) -> None:
        for each in value.modules():
            self.take(type(each))
        self.add(repr(value))
        for name, tensor in [*value.named_parameters(), *value.named_buffers()]:
            self.add(f"{name} {tensor.requires_grad}")
            self.array(tensor)

    def source(self, value: Any) -> None:
        """The name of a class or function, and its module with the user's own modules that this imports; of a class
        that was typed into an interpreter, and so is in no file, its methods and base classes."""
        self.add(f"{value.__module__}.{value.__qualname__}")
        digests = source_digests([str(value.__module__)], strict=False)
        for name, content in digests.items():
            self.add(f"{name} {content}")
        if isinstance(value, type) and value.__module__ == "__main__" and "__main__" not in digests:
            for name, part in vars(value).items():
                method = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
                if isinstance(method, (*PLAIN, FunctionType)) and name != "__firstlineno__":
                    self.add(name)
                    self.take(method)
            for base in value.__bases__:
                self.take(base)


def names_of(code: CodeType) -> list[str]:
    """The global names that a function uses, those within it included."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += names_of(constant)
    return sorted(set(names))
