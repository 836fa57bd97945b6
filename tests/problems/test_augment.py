"""Random changes of images, against a loop over images that does the same by slices."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from commexp.problems.augment import Augment
from commexp.seeding import generator

KINDS = [
    Augment(),
    Augment(crop=2),
    Augment(flip=True),
    Augment(cutout=3),
    Augment(cutout=4),
    Augment(crop=3, flip=True, cutout=5),
]


def by_hand(augment: Augment, images: Tensor, draws: Tensor, black: Tensor) -> Tensor:
    made = []
    for image, (dy, dx, flip, cy, cx) in zip(images, draws.tolist(), strict=True):
        channels, height, width = image.shape
        padded = black.view(-1, 1, 1).repeat(1, height + 2 * augment.crop, width + 2 * augment.crop)
        padded[:, augment.crop : augment.crop + height, augment.crop : augment.crop + width] = image
        image = padded[:, dy : dy + height, dx : dx + width].clone()
        if augment.flip and flip:
            image = image.flip(2)
        top, left = cy - augment.cutout // 2, cx - augment.cutout // 2
        image[:, max(0, top) : max(0, top + augment.cutout), max(0, left) : max(0, left + augment.cutout)] = 0
        assert image.shape == (channels, height, width)
        made.append(image)
    return torch.stack(made)


@pytest.mark.parametrize("augment", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 7)], ids=str)
def test_a_batch_at_once_is_as_image_by_image(augment: Augment, shape: tuple[int, int, int]) -> None:
    images = torch.randn(200, *shape, generator=generator(0, "images")) + 10
    black = torch.arange(1.0, shape[0] + 1) * -3
    draws = augment.draw(generator(0, "draws"), 200, *shape[1:])
    assert torch.equal(augment.apply(images, draws, black), by_hand(augment, images, draws, black))
    assert torch.equal(augment.apply(images, draws), by_hand(augment, images, draws, torch.zeros(shape[0])))


def test_draws_are_as_likely_as_they_should_be() -> None:
    n = 100_000
    draws = Augment(crop=4, flip=True, cutout=8).draw(generator(1, "draws"), n, 32, 28)
    for column, kinds in zip(draws.unbind(1), (9, 9, 2, 32, 28), strict=True):
        counts = torch.bincount(column, minlength=kinds).double()
        assert len(counts) == kinds
        expected = n / kinds
        assert float(((counts - expected) ** 2 / expected).sum()) < kinds + 5 * (2 * kinds) ** 0.5  # chi squared
    correlation = torch.corrcoef(draws.T.double()) - torch.eye(5)
    assert float(correlation.abs().max()) < 0.02


def test_leaving_a_step_out_does_not_change_the_others_draws() -> None:
    whole = Augment(crop=4, flip=True, cutout=8)
    for left_out in ("flip", "cutout"):
        some = dataclasses.replace(whole, **{left_out: 0})
        assert torch.equal(some.draw(generator(0, "a"), 50, 32, 32), whole.draw(generator(0, "a"), 50, 32, 32))


def test_cutout_may_hang_over_the_edge_and_is_whole_inside() -> None:
    augment = Augment(cutout=4)
    images = torch.ones(1000, 1, 12, 12)
    draws = augment.draw(generator(0, "a"), 1000, 12, 12)
    holes = (augment.apply(images, draws) == 0).sum((1, 2, 3))
    inside = ((draws[:, 3:] >= 2) & (draws[:, 3:] <= 10)).all(1)
    assert (holes[inside] == 16).all()
    assert (holes[~inside] < 16).all()
    assert int(holes.min()) == 4  # its centre in the first row and column: a quarter is left


@pytest.mark.parametrize("field", ["crop", "cutout"])
def test_negative_sizes_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=rf"augment.{field}=-1: must not be negative; give pixels"):
        Augment(**{field: -1})
