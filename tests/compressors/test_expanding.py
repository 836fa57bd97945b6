"""Error feedback goes around what leaves behind less than it was given, and around nothing that expands."""

from __future__ import annotations

import pytest
import torch
from registry import bare, options, plan

from commexp.compressors import (
    QSGD,
    Composition,
    Compressor,
    ErrorFeedback,
    Layerwise,
    Natural,
    OneBit,
    RandK,
    RegTopK,
    Sign,
    TernGrad,
    Threshold,
    TopK,
)
from commexp.config.messages import UserError
from commexp.integrations.ddp import hook

EXPANDING: list[Compressor] = [
    RandK(k=0.25, rescale=True),
    RandK(k=0.25, rescale=True, shared=False),
    OneBit(),
    TernGrad(),
    QSGD(),
    QSGD(levels=1, bucket=4),
    Composition(TopK(k=0.3), QSGD()),
    Composition(TopK(k=0.1), OneBit()),
    Composition(RandK(k=0.1, rescale=True), QSGD(bucket=64)),
    Layerwise(QSGD()),
]
BOUNDED: list[Compressor] = [
    QSGD(bucket=128),
    QSGD(levels=127),
    Natural(),
    Composition(TopK(k=0.3), QSGD(bucket=128)),
    Sign(vote=True),
    Sign(scaled=False),
    Threshold(t=0.3, adaptive=False),
    OneBit(bound="fixed", B=5.0),
    TernGrad(clip=2.5),
]


def residual(codec: Compressor, rounds: int = 150) -> float:
    """||e|| over ||g|| after so many rounds of noise around a mean."""
    generator, fed = torch.Generator().manual_seed(0), ErrorFeedback(codec)
    mean = 0.1 * torch.randn(1, 1000, generator=generator)
    for _ in range(rounds):
        g = mean + 0.5 * torch.randn(1, 1000, generator=generator)
        fed.encode(g)
    assert fed.residual is not None
    return float(fed.residual.norm() / g.norm())


@pytest.mark.parametrize("codec", EXPANDING, ids=lambda c: c.name)
def test_error_feedback_around_what_expands_is_refused(codec: Compressor) -> None:
    for around in (ErrorFeedback, hook):
        with pytest.raises(ValueError, match=r"^error_feedback=true: .*; give error_feedback=false[^;\n]*$"):
            around(codec)


@pytest.mark.parametrize("codec", BOUNDED, ids=lambda c: c.name)
def test_what_stays_behind_is_bounded_around_the_others(codec: Compressor) -> None:
    assert residual(codec) < 25


@pytest.mark.parametrize("name", options("compress"))
def test_every_registered_codec_is_bounded_or_refused(name: str) -> None:
    made = bare(name)
    if made.expands:
        with pytest.raises(ValueError, match="error_feedback=true"):
            ErrorFeedback(made)
    else:
        assert residual(made) < 60
    assert plan(f"compress={name}").compressor is not None, "its own settings go together"


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["compress=randk", "compress.rescale=true", "compress.k=0.25"], "rescale=false"),
        (["compress=qsgd", "compress.error_feedback=true"], "bucket=98"),
        (["compress=onebit", "compress.error_feedback=true"], ""),
        (["compress=terngrad", "compress.error_feedback=true", "compress.scope=layer"], ""),
        (["compress=topk_qsgd", "compress.values.bucket=512"], "values.bucket=98"),
    ],
)
def test_on_the_command_line(words: list[str], instead: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(*words)
    text = str(refused.value)
    assert text.startswith("compress.error_feedback=true: ")
    assert text.endswith("; give compress.error_feedback=false" + (instead and f", or compress.{instead}"))


@pytest.mark.parametrize(("levels", "bucket"), [(7, 98), (7, 195), (1, 3), (3, 30)])
def test_qsgd_contracts_as_it_says(levels: int, bucket: int) -> None:
    """Also on the vector that is worst for it, all of whose entries lie half way between two levels."""
    codec = QSGD(levels=levels, bucket=bucket)
    delta = codec.delta(bucket)
    assert delta is not None
    half = torch.full((4000, bucket), 0.5, dtype=torch.float64)
    rest = levels**2 - (bucket - 1) / 4
    half[:, 0] = rest**0.5  # so that the norm is s, and a level 1
    for x in (half, torch.randn(1, bucket, dtype=torch.float64).expand(4000, -1)):
        lost = (x - codec.decode(codec.encode(x))).square().sum(1) / x.square().sum(1)
        assert float(lost.mean()) <= 1 - delta + 4 * float(lost.std()) / len(x) ** 0.5


def test_values_of_a_composition_do_not_learn() -> None:
    with pytest.raises(ValueError, match=r"^values=RegTopK: learns from aggregates"):
        Composition(TopK(k=0.1), RegTopK(k=0.5))
