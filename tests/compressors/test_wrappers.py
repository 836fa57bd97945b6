"""Wrappers have every flag and method from the codec inside, but for what they change themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from registry import bare, options

from commexp.compressors import (
    DCT,
    Composition,
    Compressor,
    ErrorFeedback,
    Grouped,
    Layerwise,
    NoCompression,
    TopK,
    Wrapper,
)
from commexp.compressors.base import OWN, Combination, Forwarded
from commexp.integrations.ddp import FaultFlag

CONTRACT = sorted(name for name in vars(Compressor) if not name.startswith("_"))
DERIVED = {"phases": "next_phase", "sparse": "clear_sent", "splittable": "cut"}
DERIVED |= {"learns": "feedback", "requantises": "requantise"}
WRAPPERS = [Wrapper, DCT, ErrorFeedback, Combination, Composition, Grouped, Layerwise, FaultFlag]


def changed(cls: type[Wrapper]) -> set[str]:
    """What the class, or one between it and Wrapper, says itself."""
    between = cls.__mro__[: cls.__mro__.index(Wrapper)]
    return {name for each in between for name in vars(each)}


@pytest.mark.parametrize("cls", WRAPPERS, ids=lambda c: c.__name__)
def test_what_a_wrapper_does_not_change_is_the_inner_codecs(cls: type[Wrapper]) -> None:
    inner: Any = TopK()
    wrapper: Any = object.__new__(cls)
    wrapper.codec = inner
    spoken_for = changed(cls) | vars(Wrapper).keys() & {"encode", "decode", "payload"} | OWN
    forwarded = [name for name in CONTRACT if name not in spoken_for]
    assert forwarded
    for name in forwarded:
        assert isinstance(vars(Wrapper)[name], Forwarded), name
        value = object()
        vars(inner)[name] = value  # also in the place of a property of its class
        seen = getattr(wrapper, name)
        own = getattr(inner, name)
        assert seen is value or seen == own, name


def test_every_public_name_of_the_contract_is_forwarded_or_the_wrappers_own() -> None:
    for name in CONTRACT:
        assert name in OWN or name in vars(Wrapper), name


def test_a_new_flag_is_forwarded_without_a_word_in_the_wrappers() -> None:
    """The flags are read from the codec at every access, not copied when the wrapper is made."""
    inner = TopK()
    wrappers: list[Compressor] = [ErrorFeedback(inner), Layerwise(inner), ErrorFeedback(Layerwise(inner))]
    inner.variable_size = inner.shared_state = inner.stochastic = True
    for wrapper in wrappers:
        assert wrapper.variable_size
        assert wrapper.shared_state
        assert wrapper.stochastic


@pytest.mark.parametrize("name", options("compress"))
def test_flags_follow_from_what_a_codec_implements(name: str) -> None:
    codec = bare(name)
    for flag, method in DERIVED.items():
        implemented = getattr(type(codec), method) is not getattr(Compressor, method)
        if not isinstance(codec, Wrapper):
            assert getattr(codec, flag) == (1 + implemented if flag == "phases" else implemented), flag
    codec.encode(torch.randn(2, 40, generator=torch.Generator().manual_seed(0)))
    rows = any("workers." in key for key in codec.state_dict())
    assert codec.stateful_per_worker or not rows, "what is kept for each worker is declared"
    if not codec.expands:
        fed = ErrorFeedback(codec)
        assert fed.stateful_per_worker
        assert not fed.entrywise
        for flag in ("sums", "phases", "sparse", "splittable", "learns", "variable_size", "stochastic", "name"):
            assert getattr(fed, flag) == getattr(codec, flag), flag


def test_without_a_flag_everything_is_at_its_default() -> None:
    plain = NoCompression()
    assert (plain.phases, plain.sparse, plain.splittable, plain.learns, plain.stateful_per_worker) == (1, *[False] * 4)
