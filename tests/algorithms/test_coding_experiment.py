"""The experiments of 1-bit gradient coding: what a message weighs, whose messages are booked, what falls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest

from commexp.run_folder import Run

J = 100


@pytest.mark.parametrize("bound", ["max", "fixed"])
def test_a_message_weighs_a_bit_an_entry_and_its_bound(bound: str, run: Callable[..., Run]) -> None:
    size = math.ceil(J / 8) + 4 * (bound == "max")
    words = ("dataset.samples=20", "rounds=40", f"compress.bound={bound}", "compress.B=40", "straggler.p=0.3")
    done = run("+experiment=onebit_linreg", *words)
    metrics = done.metrics
    assert done.status == "completed"
    assert size == {"max": 17, "fixed": 13}[bound]
    assert (metrics["bytes_sent"] == size * metrics["answers"]).all()
    assert (metrics["bytes_wire"] == 99 * metrics["bytes_sent"]).all()
    draws = 40 * len({row["worker"] for row in done.rows("allocation")})  # who holds nothing says nothing
    assert metrics["answers"].iloc[-1] == pytest.approx(0.7 * draws, abs=4 * math.sqrt(draws * 0.3 * 0.7))


def test_those_who_answer_are_the_same_whatever_is_sent(run: Callable[..., Run]) -> None:
    words = ("+experiment=onebit_linreg", "dataset.samples=20", "rounds=40")
    bits, numbers = (run(*words, f"compress={codec}").metrics for codec in ("onebit", "none"))
    assert list(bits["answers"]) == list(numbers["answers"])
    assert list(numbers["bytes_sent"]) == [400 * count for count in numbers["answers"]]
    assert bits["excess_loss"].iloc[-1] < bits["excess_loss"].iloc[0] / 2


def test_the_classifier_learns_from_half_of_the_bits(run: Callable[..., Run]) -> None:
    """And who holds which classes is written down: every copy counts, without a word of warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = ("rounds=120", "eval_every=20", "model.hidden=[16]", "algo.lr=0.05")
        done = run("+experiment=onebit_digits", *words)
    size = math.ceil(done.summary["parameters"] / 8) + 4
    assert (done.metrics["bytes_sent"] == size * done.metrics["answers"]).all()
    assert done.metrics["test_accuracy"].max() > 0.5
    classes = [row["samples"] for row in done.rows("partition")]
    assert sum(classes) == done.summary["copies"] * 1437
