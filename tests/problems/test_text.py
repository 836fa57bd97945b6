"""Text as tokens: what is read, how it is divided, what names a run, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli
from registry import plan

from commexp.config.messages import UserError
from commexp.problems import Data
from commexp.problems.datasets import BySource, Natural, Text, text_files, token_files
from commexp.problems.datasets.text import by_speaker
from commexp.problems.tokens import Tokens

SHORT = {"block": 4, "test_tokens": None}


def load(path: Path | str | None, workers: int = 1, **fields: object) -> Data:
    return Text(None if path is None else str(path), **{**SHORT, **fields}).load(workers, 0, torch.float32)  # type: ignore[arg-type]


def streams(data: Data) -> tuple[bytes, bytes]:
    """Both texts of level=byte."""
    return data.train_x.stream.tobytes(), data.test_x.stream.tobytes()


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def many(count: int = 20, length: int = 50) -> dict[str, str | bytes]:
    """Files of ``length`` bytes each, of which one occurs in no other."""
    return {f"{i:02}.txt": chr(ord("A") + i) * length for i in range(count)}


# ------------------------------------------------------------------------------------------------------ what is read


def test_one_file_is_divided_at_its_end(tmp_path: Path) -> None:
    text = bytes(range(32, 127)) * 3
    write(tmp_path, {"a.txt": text})
    data = load(tmp_path / "a.txt")
    cut = len(text) - round(0.1 * len(text))
    assert streams(data) == (text[:cut], text[cut:])
    assert (data.train_x.vocabulary, data.train_x.bytes_per_token, data.test_x.bytes_per_token) == (256, 1.0, 1.0)
    assert (data.source, data.test_y, data.classes, len(data.train_y)) == (None, None, None, 0)
    assert data.train_x.shape == ((cut - 1) // 4, 4)
    few = load(tmp_path / "a.txt", tokens=100, test_tokens=7)
    assert streams(few) == (text[:100], text[cut : cut + 7])


def test_windows_and_their_targets(tmp_path: Path) -> None:
    text = bytes(range(33, 127))
    data = load(write(tmp_path, {"a": text}) / "a")
    inputs, targets = data.train_x.windows(torch.tensor([[0, 1], [80, 40]]))
    assert inputs.shape == targets.shape == (2, 2, 4)
    for row, start in zip(inputs.flatten(0, 1), (0, 1, 80, 40), strict=True):
        assert bytes(row.tolist()) == text[start : start + 4]
    assert torch.equal(targets, inputs + 1)


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_a_file_may_be_compressed(pack: object, tmp_path: Path) -> None:
    text = b"To be, or not to be: that is the question.\n" * 9
    plain = load(write(tmp_path, {"a": text}) / "a")
    packed = load(write(tmp_path, {"b": pack(text)}) / "b")  # type: ignore[operator]
    assert streams(packed) == streams(plain)
    assert Text(str(tmp_path / "b")).digest == Text(str(tmp_path / "a")).digest, "the text is what counts"


def test_a_folder_gives_its_utf8_files_in_order(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "b.txt": "b" * 50, "a/z.py": "z" * 50, "a/y.md": "\u00fc" * 25, "c": "c" * 50, "empty": "",
        "image.png": b"\x89PNG\r\n", "late": b"so far " * 9 + b"\xff", ".hidden": "h" * 50, ".git/config": "g" * 50,
        "packed.gz": gzip.compress(b"p" * 50),
    }  # fmt: skip
    folder = write(tmp_path / "in", files)
    os.mkfifo(folder / "fifo")
    os.symlink(folder, folder / "loop")
    data = load(folder)
    assert streams(data)[0] == ("\u00fc" * 25).encode()[:45] + b"z" * 45 + b"b" * 45 + b"c" * 45
    assert data.source is not None
    assert data.source.tolist() == [0] * 12 + [1] * 11 + [2] * 11 + [3] * 10  # window i begins at byte 4 i < 176


def test_a_glob_gives_what_it_matches(tmp_path: Path) -> None:
    folder = write(tmp_path, {"b.txt": "b" * 50, "in/a.txt": "a" * 50, "c.md": "c" * 50, ".d.txt": "d" * 50})
    assert set(b"".join(streams(load(f"{folder}/*.txt")))) == set(b"b")
    assert set(b"".join(streams(load(f"{folder}/**/*.txt")))) == set(b"ab")
    with pytest.raises(FileNotFoundError, match=rf"^dataset.path={folder}/\*.csv: .* is missing; give a UTF-8 file, "):
        load(f"{folder}/*.csv")


def test_the_default_is_pythons_library() -> None:
    data = Text(tokens=20_000).load(4, 0, torch.float32)
    folder = Path(sysconfig.get_path("stdlib"))
    text = data.train_x.stream.tobytes()
    first = min(p for p in folder.glob("*.py") if not p.name.startswith("_sysconfigdata")).read_bytes()
    assert first[:200] in text
    assert b"def " in text
    assert len(data.test_x.stream) == 100_000
    assert Text(level="char").digest == Text().digest == text_files.content_sum(text_files.library())
    assert 5e6 < sum(map(len, text_files.library())) < 5e7
    joined = b"\n".join(text_files.library())
    assert b"class TestProgram" in joined  # unittest is a module
    assert not [p for p in text_files._inside(folder, text_files.OTHERS) if "test" in p.parts[len(folder.parts) : -1]]


# ------------------------------------------------------------------------------------------------------------- levels


def test_characters_are_numbered_in_order(tmp_path: Path) -> None:
    train, test = "ba\u20acc\U0001f600ab" * 10, "ab\u00fc\u20acx" * 2
    write(tmp_path, {"a": train + test})
    data = load(tmp_path / "a", level="char", test=10 / 80)
    alphabet = sorted(set(train))
    assert data.train_x.stream.tolist() == [alphabet.index(c) for c in train]
    unknown = len(alphabet)
    assert data.test_x.stream.tolist() == [alphabet.index(c) if c in train else unknown for c in test]
    assert data.train_x.vocabulary == data.test_x.vocabulary == unknown + 1
    assert data.test_x.bytes_per_token == pytest.approx(len(test.encode()) / len(test))
    assert data.train_x.bytes_per_token == pytest.approx(len(train.encode()) / len(train))
    write(tmp_path, {"a": train + "abc" * 4})
    assert load(tmp_path / "a", level="char", test=12 / 82).train_x.vocabulary == len(alphabet)


# -------------------------------------------------------------------------------------------------------- held out


def owners(stream: bytes) -> list[str]:
    """Of which files of ``many`` a text is made."""
    return [chr(c) for c in dict.fromkeys(stream)]


def test_whole_files_are_held_out_by_the_digest_of_their_content(tmp_path: Path) -> None:
    folder = write(tmp_path, many())
    data = load(folder, test=0.25)
    in_order = sorted(many().values(), key=lambda text: hashlib.blake2b(str(text).encode()).digest())
    assert owners(streams(data)[1]) == [str(text)[0] for text in in_order[:5]]
    assert owners(streams(data)[0]) == sorted(str(text)[0] for text in in_order[5:])
    assert len(streams(data)[0]) == 750
    for i, name in enumerate(sorted(many())):
        (folder / name).rename(folder / f"{i:02}.other")
    assert streams(load(folder, test=0.25)) == streams(data), "names decide the order alone"


def test_the_end_of_each_file_is_held_out_where_no_file_is_small_enough(tmp_path: Path) -> None:
    data = load(write(tmp_path, many(3, 40)), test=0.1)
    assert streams(data) == (b"A" * 36 + b"B" * 36 + b"C" * 36, b"AAAABBBBCCCC")
    assert data.source is not None
    assert data.source.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(("count", "length"), [(1, 1000), (20, 50), (3, 400)])
@pytest.mark.parametrize("validation", [0.2, 180])
def test_validation_is_a_part_of_the_training_text(count: int, length: int, validation: float, tmp_path: Path) -> None:
    # distinct neighbours in every file, so that each piece of text is found at one place alone
    text = {f"{i:02}": bytes([33 + i]) + bytes(np.random.default_rng(i).integers(33, 127, length - 1, np.uint8))
            for i in range(count)}  # fmt: skip
    folder = write(tmp_path, dict(text))
    train, test = streams(load(folder))
    kept, held = streams(load(folder, validation=validation))
    wanted = validation if validation > 1 else 0.2 * len(train)
    assert 0.7 * wanted <= len(held) <= wanted + 1
    assert len(kept) + len(held) == len(train)
    places = {data[i : i + 8] for data in text.values() for i in range(length - 7)}
    parts = [{piece[i : i + 8] for i in range(len(piece) - 7)} & places for piece in (kept, held, test)]
    assert all(len(part) > 50 for part in parts)
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
    assert not parts[0] & parts[2]
    assert streams(load(folder, validation=validation)) == (kept, held)


def test_neither_seed_nor_workers_change_the_text(tmp_path: Path) -> None:
    dataset = Text(str(write(tmp_path, many())), block=4)
    one, two = dataset.load(1, 0, torch.float32), dataset.load(8, 7, torch.float64)
    assert streams(one) == streams(two)
    assert torch.equal(one.source, two.source)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- partitions


def test_whole_sources_go_to_the_worker_with_the_fewest_samples() -> None:
    sizes = [5, 30, 20, 10, 8, 7, 3, 40]
    source = torch.repeat_interleave(torch.tensor([7, 1, 2, 30, 4, 5, 6, 0]), torch.tensor(sizes))
    data = Data(torch.zeros(len(source), 1), torch.zeros(len(source)), source=source)
    for workers in (1, 3, 8):
        parts = BySource().split(data, workers, 0)
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(source)))
        owner = torch.empty(len(source), dtype=torch.long)
        for n, rows in enumerate(parts):
            owner[rows] = n
        loads = [0] * workers
        for size, name in sorted(zip(sizes, (7, 1, 2, 30, 4, 5, 6, 0), strict=True), reverse=True):
            (worker,) = owner[source == name].unique().tolist()
            assert loads[worker] == min(loads)
            loads[worker] += size
    for lacking, workers, wrong in (
        (Data(data.train_x, data.train_y), 2, "partition=by_source: the data have no sources; give partition=iid or"),
        (data, 9, "workers=9: more workers than the 8 sources; give at most 8, or partition=natural"),
    ):
        with pytest.raises(ValueError, match=f"^{wrong}"):
            BySource().split(lacking, workers, 0)


def test_workers_have_whole_files_or_contiguous_blocks(tmp_path: Path) -> None:
    data = load(write(tmp_path, many(20, 65)), 3, test=0.01)  # the last window of a file goes on in the next
    assert data.source is not None
    found = [set(data.source[rows].tolist()) for rows in BySource().split(data, 3, 0)]
    assert sum(map(len, found)) == len(set().union(*found))
    assert set().union(*found) == set(range(20))
    for rows in Natural().split(data, 3, 0):
        assert torch.equal(rows, torch.arange(int(rows[0]), int(rows[-1]) + 1))


PLAY = """A Tragedy

First Citizen:
Before we proceed, hear me.

All:
Speak, speak.

First Citizen:
Note: you are resolved.

SECOND CITIZEN:
Resolved.
"""


def test_speeches_are_joined_by_speaker(tmp_path: Path) -> None:
    assert by_speaker(PLAY.replace("\n", "\r\n").encode()) == [
        b"A Tragedy",
        b"First Citizen:\nBefore we proceed, hear me.\n\nFirst Citizen:\nNote: you are resolved.",
        b"All:\nSpeak, speak.",
        b"SECOND CITIZEN:\nResolved.\n",
    ]
    speeches = "\n\n".join(f"Speaker {i % 12}:\n{chr(ord('a') + i % 12) * (20 + i)}" for i in range(60))
    path = write(tmp_path, {"play.txt": speeches}) / "play.txt"
    data = load(path, source="speaker", block=8)
    assert data.source is not None
    held = [set(data.source[rows].tolist()) for rows in BySource().split(data, 3, 0)]
    assert sum(map(len, held)) == len(set().union(*held)) > 8
    assert sorted(b"".join(streams(data))) == sorted(b"".join(by_speaker(speeches.encode())))
    assert load(path).source is None
    wrong = r"^dataset.source=speaker: no line after an empty one names a speaker, as NAME: does; give file$"
    with pytest.raises(ValueError, match=wrong):
        load(write(tmp_path, {"prose.txt": "no play " * 50}) / "prose.txt", source="speaker")
    with pytest.raises(ValueError, match=r"^source=scene: unknown; give file or speaker$"):
        Text(str(path), source="scene")


# -------------------------------------------------------------------------------------------------------- token files


def prepared(folder: Path, train: int = 1000, val: int = 100, size: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    parts = rng.integers(0, size, train, np.uint16), rng.integers(0, size, val, np.uint16)
    for name, tokens in zip(("train.bin", "val.bin"), parts, strict=True):
        tokens.astype("<u2").tofile(folder / name)
    (folder / "meta.pkl").write_bytes(b"never read")
    return parts


def test_token_files_are_mapped(tmp_path: Path) -> None:
    train, val = prepared(tmp_path)
    data = load(tmp_path)
    assert isinstance(data.train_x.stream, np.memmap)
    assert isinstance(data.test_x.stream, np.memmap)
    assert np.array_equal(data.train_x.stream, train)
    assert np.array_equal(data.test_x.stream, val)
    assert data.train_x.vocabulary == data.test_x.vocabulary == 1 + max(train.max(), val.max())
    assert (data.train_x.bytes_per_token, data.source) == (None, None)
    held = load(tmp_path, validation=300)
    assert isinstance(held.train_x.stream, np.memmap)
    assert np.array_equal(held.train_x.stream, train[:700])
    assert np.array_equal(held.test_x.stream, train[700:])
    few = load(tmp_path, tokens=50, test_tokens=20, vocabulary=7000)
    assert (len(few.train_x.stream), len(few.test_x.stream), few.train_x.vocabulary) == (50, 20, 7000)
    inputs, targets = data.train_x.windows(torch.tensor([995]))
    assert inputs.tolist() == [train[995:999].tolist()]
    assert targets.tolist() == [train[996:].tolist()]


def test_the_vocabulary_is_found_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = prepared(tmp_path)
    monkeypatch.setattr(token_files, "CHUNK", 64)
    assert load(tmp_path).train_x.vocabulary == 1 + max(train.max(), val.max())
    few = load(tmp_path, vocabulary=10)
    with pytest.raises(ValueError, match=r"^dataset.vocabulary=10: the text has the token \d+; give at least \d+, or"):
        few.train_x.windows(torch.arange(100))


def test_the_digest_of_large_token_files_covers_blocks_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path)
    whole = token_files.tokens_sum(tmp_path)
    monkeypatch.setattr(token_files, "BLOCK", 10)
    monkeypatch.setattr(token_files, "BLOCKS", 8)
    content = (tmp_path / "train.bin").read_bytes()
    expected = hashlib.blake2b(digest_size=8)
    for size, text in ((2000, content), (200, (tmp_path / "val.bin").read_bytes())):
        stride = size // 8
        expected.update(b"%d\n" % size + b"".join(text[i : i + 10] for i in range(0, size, stride)))
    assert token_files.tokens_sum(tmp_path) == expected.hexdigest() != whole


# -------------------------------------------------------------------------------------------------------------- names


def test_the_content_names_the_run_and_the_place_does_not(tmp_path: Path) -> None:
    here, there = write(tmp_path / "here", many()), write(tmp_path / "there", many())
    name = plan("dataset=text", f"dataset.path={here}").name
    assert name.split("-")[2] == "text"
    assert plan("dataset=text", f"dataset.path={there}").name == name
    assert plan("dataset=text", f"dataset.path={here}", "dataset.level=char").name != name
    assert plan("dataset=text").name != name
    sums = b"".join(hashlib.blake2b(str(text).encode()).digest() for text in many().values())
    made = Text(str(here), block=4)
    assert made.digest == hashlib.blake2b(sums).hexdigest()[:16]
    text = (here / "03.txt").read_text()
    (here / "03.txt").write_text(text[:-1] + "!")
    assert plan("dataset=text", f"dataset.path={here}").name != name
    with pytest.raises(UserError, match=rf"^dataset.digest={made.digest}: the text has changed since; leave it out to"):
        plan("dataset=text", f"dataset.path={here}", f"dataset.digest={made.digest}")
    with pytest.raises(ValueError, match=rf"^dataset.digest={made.digest}: the text has changed since; leave it out"):
        made.load(1, 0, torch.float32)


def test_token_files_name_the_run_too(tmp_path: Path) -> None:
    prepared(tmp_path)
    made = Text(str(tmp_path), block=4)
    assert len(made.digest) == 16
    (tmp_path / "val.bin").write_bytes(b"\1\0" * 100)
    assert Text(str(tmp_path)).digest != made.digest
    with pytest.raises(ValueError, match=r"^dataset.digest=\w{16}: the text has changed since"):
        made.load(1, 0, torch.float32)


# ------------------------------------------------------------------------------------------------------------ refusals

FIELDS = {
    "dataset.path=": "dataset.path=: empty; give a UTF-8 file, ",
    "dataset.level=word": "dataset.level=word: unknown; give byte or char",
    "dataset.block=0": "dataset.block=0: must not be less than 1; give a number of tokens",
    "dataset.tokens=0": "dataset.tokens=0: must not be less than 1",
    "dataset.test=1.0": "dataset.test=1.0: out of range; give the share of the test set, such as 0.1",
    "dataset.validation=0": "dataset.validation=0: out of range; give a share in (0, 1), a number of tokens, or null",
    "dataset.validation=1.5": "dataset.validation=1.5: out of range; ",
    "dataset.validation=many": "dataset.validation=many: ",
    "dataset.vocabulary=50": "dataset.vocabulary=50: that of a text follows from it; give null, or, as dataset.path, ",
}


@pytest.mark.parametrize("word", FIELDS)
def test_fields_that_make_no_sense(word: str, tmp_path: Path) -> None:
    write(tmp_path, {"a": "text" * 100})
    with pytest.raises(UserError) as refusal:
        plan("dataset=text", f"dataset.path={tmp_path}/a", word)
    assert str(refusal.value).startswith(FIELDS[word])


TEXT = b"To be, or not to be: that is the question.\n" * 9
REFUSED: dict[str, tuple[dict[str, str | bytes], dict[str, object], str]] = {
    "none": ({}, {}, "dataset.path=PATH: PATH is missing; give a UTF-8 file, "),
    "empty": ({"": ""}, {}, "dataset.path=PATH: holds no UTF-8 text; give "),
    "an empty folder": ({"/.a": "hidden"}, {}, "dataset.path=PATH: holds no UTF-8 text; give "),
    "latin-1": ({"": TEXT + b"caf\xe9 "}, {}, f"dataset.path=PATH: PATH is not UTF-8 text (byte {len(TEXT) + 3}); "),
    "cut": ({"": TEXT + "\u20ac".encode()[:2]}, {}, f"dataset.path=PATH: PATH is not UTF-8 text (byte {len(TEXT)}); "),
    "damaged": ({"": gzip.compress(TEXT)[:-9]}, {}, "dataset.path=PATH: PATH cannot be read (Compressed file ended "),
    "a long block": ({"": TEXT}, {"block": 39}, "dataset.block=39: the test text has 39 tokens, too few for "),
    "a short share": ({"": TEXT}, {"block": 200, "test": 0.5, "workers": 2},
        "dataset.block=200: the training text has 193 tokens, too few for a window for each of 2 workers; give 96 or "),
    "validation": ({"": TEXT}, {"validation": 348}, "dataset.validation=348: the training text has 348 tokens; give f"),
    "no val.bin": ({"/train.bin": b"12"}, {}, "dataset.path=PATH: PATH/val.bin is missing; give a folder with nanoGPT"),
    "no train.bin": ({"/val.bin": b"12"}, {}, "dataset.path=PATH: PATH/train.bin is missing; give a folder with nano"),
    "odd": ({"/train.bin": b"123", "/val.bin": b"12"}, {},
        "dataset.path=PATH: PATH/train.bin cannot be read (3 bytes are no uint16 tokens); give a folder with "),
    "short": ({"/train.bin": b"1234" * 50, "/val.bin": b"12" * 4}, {},
        "dataset.block=4: the test text has 4 tokens, too few for a window; give 3 or less"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_texts_that_are_refused(name: str, tmp_path: Path) -> None:
    files, fields, wrong = REFUSED[name]
    place = tmp_path / "given"
    for inside, content in files.items():
        path = Path(f"{place}{inside}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises((ValueError, FileNotFoundError)) as refusal:
        load(place, **fields)  # type: ignore[arg-type]
    assert str(refusal.value).startswith(wrong.replace("PATH", str(place)))
    assert str(refusal.value).isprintable()


def test_a_long_character_at_the_edge_of_a_block_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK", 5)
    text = "ab\u20ac\U0001f600\u00fc" * 20
    write(tmp_path, {"a": text})
    assert b"".join(streams(load(tmp_path / "a"))) == text.encode()
    write(tmp_path, {"a": text.encode() + b"abc\xf0\x9f\x98 "})
    with pytest.raises(ValueError, match=rf"is not UTF-8 text \(byte {len(text.encode()) + 3}\)"):
        load(tmp_path / "a")


def test_more_text_than_memory_is_meant_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LARGEST", 700)
    folder = write(tmp_path, many())
    with pytest.raises(ValueError, match=r"^dataset.path=.*/14.txt cannot be read \(more than the 700 bytes of text"):
        load(folder)


def test_levels_of_token_files(tmp_path: Path) -> None:
    prepared(tmp_path)
    with pytest.raises(ValueError, match=r"^level=char: train.bin and val.bin hold tokens already; leave it out$"):
        Text(str(tmp_path), level="char")


def test_a_bad_text_ends_the_command_in_one_line(entry: Cli, tmp_path: Path) -> None:
    write(tmp_path, {"in.txt": b"\xff\xfet\0e\0x\0t\0"})
    ended = entry("dataset=text", "dataset.path=in.txt", "rounds=2")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("commexp: error: dataset.path=in.txt: in.txt is not UTF-8 text (byte 0); give a UTF")
    assert ended.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_tokens_refuse_a_stream_shorter_than_a_window() -> None:
    with pytest.raises(
        ValueError, match=r"^dataset.block=4: longer than the text, which has 4 tokens; give 3 or less$"
    ):
        Tokens(np.zeros(4, np.uint8), 4, 2)
