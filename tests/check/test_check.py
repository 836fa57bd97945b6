"""The checks find each mistake that shipped elsewhere, for its own reason, and nothing else; ours pass."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from check.wrong_codecs import SOUND, WRONG, DenseValues, PlainTopK, ScaledSign
from conftest import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import options

from commexp.check import CHECKS, run_checks
from commexp.check.drive import normal, row_bytes
from commexp.check.fuzz import corrupt, corrupt_messages
from commexp.check.scale import best_factor, scale
from commexp.cli.check import imported, one, registered
from commexp.compressors import Compressor, Message, TopK
from commexp.config.messages import UserError
from commexp.seeding import generator


def reasons(factory: object) -> dict[str, str]:
    return {r.check: r.reason for r in run_checks(factory) if r.reason is not None}  # type: ignore[arg-type]


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 corrupt messages of each codec; all 10,000 are read where the command itself is tested."""
    monkeypatch.setattr("commexp.check.compressor.corrupt_messages", partial(corrupt_messages, messages=1000))


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("name", options("compress"))
def test_registered_codecs_pass(name: str) -> None:
    assert reasons(registered(name)) == {}


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("k", [0.0001, 0.001, 0.3, 1.0])
def test_every_format_of_indices_passes(k: float) -> None:
    assert reasons(lambda: TopK(k=k)) == {}


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("codec", SOUND)
def test_a_strangers_sound_codec_passes(codec: type[Compressor]) -> None:
    assert reasons(codec) == {}


@pytest.mark.parametrize(("codec", "check", "words"), WRONG, ids=[c.__name__ for c, _, _ in WRONG])
def test_each_mistake_fails_its_own_check(
    codec: type[Compressor], check: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = partial(corrupt_messages, messages=1500)  # the sound ones that they spoil get more, and all draws
    monkeypatch.setattr("commexp.check.compressor.corrupt_messages", some)
    monkeypatch.setattr("commexp.check.scale.DRAWS", (100, 400))
    found = reasons(codec)
    assert list(found) == [check], found
    assert words in found[check]


class Repeats(DenseValues):
    """Adds noise that is unbiased, but the same in every round."""

    stochastic = unbiased = True

    def change(self, a: torch.Tensor) -> torch.Tensor:
        rows = [torch.rand(a.shape[1], generator=generator(3, n), dtype=a.dtype) - 0.5 for n in range(len(a))]
        return a + torch.stack(rows)


class Shares(DenseValues):
    """Sound: the same noise for all workers, another one in every round."""

    stochastic = unbiased = True
    rounds = 0

    def change(self, a: torch.Tensor) -> torch.Tensor:
        self.rounds += 1
        return a + torch.rand(a.shape[1], generator=generator(4, self.rounds), dtype=a.dtype) - 0.5


def test_draws_that_depend_on_each_other_are_not_taken_for_many() -> None:
    """Of rows that do not, several are drawn in one encoding."""
    with pytest.raises(AssertionError, match="unbiased is declared"):
        scale(Repeats)
    scale(Shares)


def test_what_a_codec_raises_is_a_failure_and_no_crash() -> None:
    class Breaks(ScaledSign):
        def encode(self, a: torch.Tensor) -> Message:
            raise RuntimeError("two\nlines")

    found = reasons(Breaks)
    assert found["shape"] == "raised RuntimeError: two lines"
    assert set(found) == set(CHECKS) - {"distinct entries"}  # it names no places


class NeverRefuses(PlainTopK):
    def decode(self, message: Message) -> torch.Tensor:
        return torch.zeros(1, message.dim, dtype=message.dtype)


class BreaksOnNoise(PlainTopK):
    def places(self, message: Message) -> torch.Tensor:
        return message.buffers["indices"].long()


@pytest.mark.parametrize(("codec", "words"), [(NeverRefuses, "as if it were sound"), (BreaksOnNoise, "not Corrupt")])
def test_fuzz_notices(codec: type[Compressor], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        corrupt_messages(codec, messages=400)


@settings(max_examples=15, deadline=None)
@given(dim=st.integers(1, 80), seed=st.integers(0, 2**31), codec=st.sampled_from([*SOUND, TopK]))
def test_sound_codecs_survive_any_noise(dim: int, seed: int, codec: type[Compressor]) -> None:
    corrupt_messages(codec, dim, messages=60, seed=seed)


@settings(max_examples=60, deadline=None)
@given(dim=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_spoiling_a_message_leaves_the_sound_one_alone(dim: int, seed: int) -> None:
    sound = TopK(k=0.2).encode(normal(seed, 1, dim))
    before = row_bytes(sound, 0)
    how, spoilt, must = corrupt(sound, np.random.default_rng(seed))
    assert row_bytes(sound, 0) == before
    if must:
        assert described(spoilt) != described(sound), how


def described(message: Message) -> tuple[object, ...]:
    """What a message says of itself."""
    return message.dim, message.header, message.lengths, {name: b.shape for name, b in message.buffers.items()}


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    columns=st.integers(0, 5),
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.float64]),
)
def test_bytes_of_rows_are_the_sizes_of_messages(lengths: list[int], columns: int, dtype: torch.dtype) -> None:
    buffers = {
        "ragged": torch.zeros(len(lengths), 9, dtype=dtype),
        "whole": torch.zeros(len(lengths), columns, 2, dtype=torch.int32),
    }
    message = Message(buffers, 9, torch.float32, 0.0, TopK(), {"ragged": lengths})
    for worker, size in enumerate(message.sizes):
        assert sum(map(len, row_bytes(message, worker).values())) == size


@settings(max_examples=60, deadline=None)
@given(factor=st.floats(1e-6, 1e6), scale=st.sampled_from([1e-30, 1.0, 1e30]), seed=st.integers(0, 1000))
def test_best_factor_is_found(factor: float, scale: float, seed: int) -> None:
    x = normal(seed, 2, 20, torch.float64) * scale
    torch.testing.assert_close(best_factor(x, x / factor), torch.full((2,), factor, dtype=torch.float64))


STRANGER = """
from commexp.compressors import TopK
NUMBER = 3
class Sound(TopK):
    pass
class Uncounted(TopK):
    def payload(self, dim, itemsize):
        return self.entries(dim) * itemsize
class NeedsK(TopK):
    def __init__(self, share):
        pass
def number():
    return 3
"""
MAIN = "import sys; sys.path.remove(''); from commexp.cli.check import main; main()"


def check(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """``commexp-check ARGS`` as a process of its own, whose path does not hold the current folder."""
    (folder / "stranger_codec.py").write_text(STRANGER, encoding="utf-8")
    command = [sys.executable, "-c", MAIN, *args]
    return warm.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)


def test_a_strangers_module_is_found_in_the_current_folder(tmp_path: Path) -> None:
    sound = check(tmp_path, "compressor", "stranger_codec:Sound")
    assert sound.returncode == 0, sound.stderr
    assert sound.stdout.endswith(f"\n{len(CHECKS)} of {len(CHECKS)} checks passed\n")
    wrong = check(tmp_path, "compressor", "stranger_codec:Uncounted")
    assert wrong.returncode == 1
    (row,) = (line for line in wrong.stdout.splitlines() if "FAILED" in line)
    assert row.startswith("| size")
    assert "sends 0.4314 bits an entry, declares 0.3198 (J = 65537" in row
    assert wrong.stderr == ""


def test_a_wrong_spec_ends_in_one_line(tmp_path: Path) -> None:
    done = check(tmp_path, "compressor", "topkk")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("commexp-check: error: topkk: no such compressor; give one of ")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere_at_all:Codec", "cannot be imported"),
        (":Codec", "cannot be imported"),
        ("stranger_codec:Missing", "no attribute 'Missing'"),
        ("stranger_codec:NUMBER", "is a int"),
        ("stranger_codec:number", "makes a int"),
        ("stranger_codec:NeedsK", "cannot be made without arguments"),
        ("../topk", "no such compressor"),
    ],
)
def test_wrong_specs(spec: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger_codec.py").write_text(STRANGER, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "stranger_codec", raising=False)
    with pytest.raises(UserError, match=words) as refused:
        one(spec)
    text = str(refused.value)
    assert text.startswith(f"{spec}: ")
    assert "; " in text
    assert "\n" not in text
    sys.modules.pop("stranger_codec", None)


def test_a_codec_of_a_stranger_is_made_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    make = imported("commexp.compressors:TopK")
    assert make() is not make()
