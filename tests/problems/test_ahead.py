"""Batches that are drawn several at a time are those that would be drawn one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from commexp.problems import Data, ProblemContext
from commexp.problems.augment import Augment
from commexp.problems.feeds import Feed, make_feed
from commexp.problems.feeds.ahead import ALIGNED, Ahead
from commexp.problems.items import Items
from commexp.problems.tokens import Tokens
from commexp.problems.trees import tensors

SHARDS = [
    torch.arange(0, 60, 3),
    torch.arange(1, 60, 3)[:7],
    torch.arange(2, 60, 3),
]  # one is shorter than a few batches


def tokens() -> Any:
    return Tokens(torch.randint(50, (60 * 8 + 1,), generator=torch.Generator().manual_seed(0)).byte().numpy(), 8, 50)


def vectors(*shape: int) -> Tensor:
    return torch.randn(60, *shape, generator=torch.Generator().manual_seed(1))


LABELS = torch.arange(60) % 4
PIXELS = (vectors(3, 6, 5).abs() * 50).clamp(max=255).byte()
DATA: dict[str, Callable[[], Data]] = {
    "vectors": lambda: Data(vectors(5), LABELS, vectors(5), LABELS, classes=4),
    "images": lambda: Data(
        PIXELS, LABELS, PIXELS, LABELS, classes=4, augment=Augment(crop=1, flip=True, cutout=2),
        mean=torch.tensor([0.4, 0.5, 0.6]), std=torch.tensor([0.2, 0.3, 0.2]),
    ),
    "tokens": lambda: Data(tokens(), torch.empty(0), tokens()),
    "items": lambda: Data(Items({"a": vectors(3), "b": LABELS}), torch.empty(0), Items({"a": vectors(3), "b": LABELS})),
}  # fmt: skip


def feed(name: str, worker_ids: list[int]) -> Feed:
    context = ProblemContext(SHARDS, worker_ids, 4, 11, torch.device("cpu"), torch.float32)
    return make_feed(DATA[name](), context)


def same(a: Any, b: Any) -> bool:
    pairs = list(zip(tensors(a), tensors(b), strict=True))
    return bool(pairs) and all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("name", DATA)
def test_the_order_does_not_depend_on_how_many_steps_are_drawn_at_once(name: str) -> None:
    """In a row, step by step, from the middle, backwards, twice; of all workers, of one, of another process's."""
    whole, single = feed(name, [0, 1, 2]), feed(name, [0, 1, 2])
    single.ahead.most = 1
    one, away = whole.for_workers([1]), feed(name, [1, 2])
    in_a_row = [whole.batch(step) for step in range(40)]
    assert whole.ahead.count > 4, "nothing was drawn ahead"
    assert single.ahead.count == 1
    for step in (*range(40), 17, 18, 19, 19, 3, 39, 38):
        alone = single.batch(step)
        assert same(alone, in_a_row[step])
        assert same(whole.batch(step), alone)
        for part, first in ((one.batch(step), 1), (away.batch(step), 1)):
            rows = len(next(tensors(part)))
            for mine, everyone in zip(tensors(part), tensors(alone), strict=True):
                assert torch.equal(mine, everyone[first : first + rows])


@pytest.mark.parametrize("name", DATA)
def test_a_changed_batch_changes_no_other(name: str) -> None:
    """A network may write into its input."""
    changed, untouched = feed(name, [0, 2]), feed(name, [0, 2])
    for step in range(12):
        batch, expected = changed.batch(step), untouched.batch(step)
        assert same(batch, expected)
        for t in tensors(batch):
            t.zero_()
        assert same(changed.batch(step), expected)
        changed.batch(step)  # the next step follows again


def test_as_many_steps_as_fit_are_drawn_and_memory_begins_where_new_tensors_do() -> None:
    drawn: list[range] = []

    def draw(steps: range) -> tuple[Tensor, Tensor]:
        drawn.append(steps)
        return torch.arange(len(steps) * 3.0).view(-1, 3) + 3 * steps.start, torch.tensor([*steps])

    ahead = Ahead(draw, most=100)  # 20 bytes each
    for step in range(20):
        x, number = ahead.batch(step)
        assert x.tolist() == [3 * step, 3 * step + 1, 3 * step + 2]
        assert int(number) == step
        assert x.data_ptr() % ALIGNED == 0, "matrix products of aligned and of other memory may differ in the last bit"
    assert [len(steps) for steps in drawn] == [1, 2, 4, 5, 5, 5]
    assert [steps.start for steps in drawn] == [0, 1, 3, 7, 12, 17]
