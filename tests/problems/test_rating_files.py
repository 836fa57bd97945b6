"""MovieLens and Netflix Prize files in every published format, and what is said of those that are not."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from registry import plan

from commexp.config.messages import UserError
from commexp.problems import Data, ProblemContext
from commexp.problems.datasets import ByUser, MovieLens, Netflix
from commexp.problems.models import MatrixFactorisation
from commexp.problems.ratings.data import Ratings
from commexp.problems.ratings.factorisation import Factorisation
from commexp.problems.ratings.triples import Triples, held_out
from commexp.run_folder import Run

SHARED = Path(__file__).parents[3] / "shared" / "data"  # beside the repository
LATEST = SHARED / "ml-latest-small" / "ratings.csv"
Row = tuple[int, int, float, int]
ROWS: list[Row] = [(70, 12, 4.5, 30), (3, 900, 1, 10), (70, 900, 0.5, 20), (3, 12, 5, 5), (3, 7, 3, 40), (8, 7, 2, 1)]
LINES: dict[str, Callable[[Row], str]] = {
    "u.data": lambda row: "{}\t{}\t{:g}\t{}".format(*row),
    "ratings.dat": lambda row: "{}::{}::{:g}::{}".format(*row),
    "ratings.csv": lambda row: "{},{},{},{}".format(*row),
}
HEADER = "userId,movieId,rating,timestamp\n"
COMBINED = """7:
3,3,2004-02-29
8,2,2000-01-02
12:
70,4,2000-01-01
3,5,2005-09-06
900:
3,1,2005-12-31
70,2,1999-10-09
"""


def write(folder: Path, name: str = "ratings.csv", rows: list[Row] | None = None, end: str = "\n") -> str:
    text = "".join(LINES[name](row) + end for row in rows or ROWS)
    return written(folder, name, (HEADER.replace("\n", end) if name == "ratings.csv" else "") + text)


def written(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text.encode("latin-1"))
    return str(folder / name)


def load(dataset: MovieLens | Netflix, seed: int = 0, dtype: torch.dtype = torch.float64) -> Data:
    data = dataset.load(2, seed, dtype)
    assert isinstance(data.train_x, Ratings)
    assert isinstance(data.test_x, Ratings)
    return data


def triples(data: Data) -> list[tuple[int, int, float]]:
    """Of both sets, sorted."""
    assert data.test_y is not None
    sides = ((data.train_x, data.train_y), (data.test_x, data.test_y))
    return sorted(row for x, y in sides for row in zip(x.users.tolist(), x.items.tolist(), y.tolist(), strict=True))


# MovieLens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n  \n"])
@pytest.mark.parametrize("name", LINES)
def test_every_format_is_read_as_it_says(name: str, end: str, tmp_path: Path) -> None:
    data = load(MovieLens(write(tmp_path, name, end=end)))
    users, items = {3: 0, 8: 1, 70: 2}, {7: 0, 12: 1, 900: 2}
    assert triples(data) == sorted((users[u], items[i], r) for u, i, r, _ in ROWS)
    assert (data.train_x.n_users, data.train_x.n_items, len(data.train_x), len(data.test_x)) == (3, 3, 5, 1)
    assert load(MovieLens(str(tmp_path)), dtype=torch.float32).train_y.dtype == torch.float32
    assert triples(load(MovieLens(tmp_path.name, root=str(tmp_path.parent)))) == triples(data)


def test_the_format_is_known_by_its_first_line_whatever_the_files_name(tmp_path: Path) -> None:
    data = [load(MovieLens(write(tmp_path / name, name))) for name in LINES]
    for name in LINES:
        (tmp_path / name / name).rename(tmp_path / f"{name}.txt")
        data.append(load(MovieLens(str(tmp_path / f"{name}.txt"))))
    assert all(triples(one) == triples(data[0]) for one in data)


def test_ids_are_any_integers_from_one_on(tmp_path: Path) -> None:
    """Whoever stands in no line has no number, so there are no empty users between."""
    rows = [(5, 10**15, 1.0, 0), (10**15, 1, 2.0, 0), (70, 7, 3.0, 0)]
    assert triples(load(MovieLens(write(tmp_path, rows=rows)))) == [(0, 2, 1.0), (1, 1, 3.0), (2, 0, 2.0)]


def test_ids_go_up_to_what_stands_beside_them(tmp_path: Path) -> None:
    written(tmp_path, "u.info", "70 users\n900 items\n7 ratings\n")
    assert len(load(MovieLens(write(tmp_path, "u.data"))).train_x) == 5
    for row, fault in (
        ((71, 7, 4.0, 1), "the user 71 is out of range; u.info says from 1 to 70"),
        ((3, 901, 4.0, 1), "the item 901 is out of range; u.info says from 1 to 900"),
    ):
        path = write(tmp_path, "u.data", rows=[*ROWS, row])
        with pytest.raises(ValueError, match=rf"^dataset.path=.*: u.data: line 7: {fault}$"):
            load(MovieLens(str(tmp_path)))
        with pytest.raises(ValueError, match=rf": line 7: {fault}$"):
            load(MovieLens(path))


def test_ratings_lie_on_the_scale(tmp_path: Path) -> None:
    path = write(tmp_path, rows=[*ROWS, (9, 7, 45.0, 1)])
    with pytest.raises(ValueError, match=r": line 8: the rating 45 is out of range; give one from 0.5 to 5, or anoth"):
        load(MovieLens(path))
    assert len(load(MovieLens(path, scale=None)).train_x) == len(load(MovieLens(path, scale=[0, 100])).train_x) == 6
    with pytest.raises(UserError, match=r"^dataset.scale=\[5.0, 1.0\]: is no range; give the lowest and the highest "):
        plan("dataset=movielens", f"dataset.path={path}", "dataset.scale=[5,1]")


def test_every_worker_has_users_who_have_training_ratings(tmp_path: Path) -> None:
    """Also where all ratings of some user are held out: that one is predicted by mu and the item's bias."""
    rows = [(u, i, float(i), 0) for u in range(1, 12) for i in range(1, 3)]
    data = load(MovieLens(write(tmp_path, rows=rows), test=0.4), seed=1)
    known = data.train_x.users.unique()
    lost = sorted(set(data.test_x.users.tolist()) - set(known.tolist()))
    assert lost, "nobody is in the test set alone"
    parts = ByUser().split(data, len(known), 0)
    assert sorted(int(data.train_x.users[rows].unique()) for rows in parts) == known.tolist()
    with pytest.raises(ValueError, match=rf"^workers={len(known) + 1}: more workers than the {len(known)} users with "):
        ByUser().split(data, len(known) + 1, 0)
    context = ProblemContext(parts, range(len(parts)), None, 0, torch.device("cpu"), torch.float64)
    made = MatrixFactorisation(rank=2).problem(data, context)
    assert isinstance(made, Factorisation)
    x = made.init(torch.Generator().manual_seed(0))
    assert math.isfinite(made.evaluate(x)["test_rmse"])
    assert not made.factors(x.view(-1, 3))[0][lost].any()


def test_random_splits_follow_the_seed(tmp_path: Path) -> None:
    rows = [(u, i, 3.0, 0) for u in range(1, 11) for i in range(1, 6)]
    path = write(tmp_path, rows=rows)
    first, again, other = (load(MovieLens(path, test=0.3), seed) for seed in (0, 0, 1))
    assert len(first.test_x) == 15
    assert torch.equal(first.test_x.users, again.test_x.users)
    assert not torch.equal(first.test_x.users, other.test_x.users)
    assert len(set(zip(first.train_x.users.tolist(), first.train_x.items.tolist(), strict=True))) == 35


def test_splits_by_time_hold_out_the_last_of_each_user(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(u + 1, i + 1, 3.0, int(rng.integers(100))) for u in range(6) for i in range(2 * u + 1)]
    data = load(MovieLens(write(tmp_path, rows=rows), split="time", test=0.4), seed=5)
    for u in range(6):
        mine = sorted((t, i - 1) for user, i, _, t in rows if user == u + 1)
        late = [i for _, i in mine[len(mine) - int(0.4 * len(mine)) :]]
        assert sorted(data.test_x.items[data.test_x.users == u].tolist()) == sorted(late)
        assert (data.train_x.users == u).sum() == len(mine) - len(late) > 0
    users, zeros = np.array([4, 4, 4, 1, 1]), np.zeros(5)
    late = held_out(Triples(users, np.arange(5), zeros, np.array([3, 1, 2, 9, 8])), 0.5, "time", 0)
    assert late.tolist() == [True, False, False, True, False]


BAD = {
    "3,7,4.0": "'3,7,4.0' has 3 words between ','; give user, item, rating and time",
    "3,7,4.0,1,1": "'3,7,4.0,1,1' has 5 words",
    "3,7,nan,1": "the rating 'nan' is no finite number; give one such as 3.5",
    "3,7,,1": "the rating '' is no finite number; ",
    "3,7,1e999,1": "the rating '1e999' is no finite number; ",
    "3,7,good,1": "the rating 'good' is no finite number; ",
    "3,7,1_0,1": "the rating '1_0' is no finite number; ",
    "3,7,0,1": "the rating 0 is out of range; give one from 0.5 to 5, or another dataset.scale",
    "3,7,-4,1": "the rating -4 is out of range; ",
    "3,7,5.5,1": "the rating 5.5 is out of range; ",
    "0,7,4.0,1": "the user 0 is out of range; ids count from 1",
    "3,-7,4.0,1": "the item -7 is out of range; ids count from 1",
    ",7,4.0,1": "the user '' is no integer; give a number such as 17",
    "x,7,4.0,1": "the user 'x' is no integer; ",
    "3,7.5,4.0,1": "the item '7.5' is no integer; ",
    "3,99999999999999999999,4.0,1": "the item '99999999999999999999' is no integer; ",
    "3,7,4.0,": "the time '' is no integer; ",
    "3,7,4.0,noon": "the time 'noon' is no integer; ",
    '"3",7,4.0,1': "the user '\"3\"' is no integer; ",
    "\xff\x00\x07,7,4.0,1": "the user '\\xff",
    "9,12,4.0,1\n9,12,3.0,2": "user 9 has rated item 12 before; give each pair once",
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named_by_its_number(line: str, name: str, tmp_path: Path) -> None:
    separator = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}[name]
    path = write(tmp_path, name)
    before = Path(path).read_text()
    written(tmp_path, name, before + "\n" + line.replace(",", separator) + "\n")
    number = before.count("\n") + 2 + line.count("\n")
    for given, where in ((path, ""), (str(tmp_path), f"{name}: ")):
        with pytest.raises(ValueError, match="; ") as refusal:
            load(MovieLens(given))
        message = str(refusal.value)
        assert message.isprintable()
        wrong = BAD[line].replace("','", repr(separator))
        if "has" in wrong and "words" in wrong:
            wrong = wrong.replace(line, line.replace(",", separator).encode("unicode_escape").decode(), 1)
        assert message.startswith(f"dataset.path={given}: {where}line {number}: {wrong}")


FILES = {
    "": "holds no rating; give a folder with ratings.csv, ratings.dat or u.data from https://grouplens",
    "\n\n": "holds no rating; ",
    HEADER: "holds no rating; ",
    "userId,movieId,stars\n1,1,3\n": "line 1: 'userId,movieId,stars' is in none of the formats; give userId,movieId,",
    "1,1,3,5\n": "line 1: '1,1,3,5' is in none of the formats; ",
    "1 1 3 5\n": "line 1: '1 1 3 5' is in none of the formats; ",
    "1\t1\t3\t5\t6\n2\t2\t3\t5\t6\n": "line 1: '1\\t1\\t3\\t5\\t6' has 5 words",
    "1::2::3::4\n1::2,5::3::4\n": "line 2: the item '2,5' is no integer; ",
}


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_files_of_another_kind_are_refused(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, "file", text)
    with pytest.raises(ValueError, match="; give ") as refusal:
        load(MovieLens(path))
    assert str(refusal.value).startswith(f"dataset.path={path}: {FILES[text]}")
    assert str(refusal.value).isprintable()


def test_one_rating_cannot_be_split(tmp_path: Path) -> None:
    path = write(tmp_path, rows=ROWS[:1])
    for split in ("random", "time"):
        with pytest.raises(ValueError, match=r"^dataset.test=0.2: one of the two sets of 1 ratings would be empty; "):
            load(MovieLens(path, split=split))


@pytest.mark.parametrize("dataset", [MovieLens, Netflix])
@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"path": ""}, "path=: empty; give a folder with "),
        ({"test": 1.0}, "test=1.0: out of range; "),
        ({"split": "user"}, "split=user: unknown; give random or time"),
    ],
)
def test_wrong_fields_are_refused_by_name(dataset: Any, fields: dict[str, Any], start: str) -> None:
    with pytest.raises(ValueError, match="; give ") as refusal:
        dataset(**fields)
    assert str(refusal.value).startswith(start)


def test_a_missing_file_is_missed_when_it_is_loaded(tmp_path: Path) -> None:
    for made, name in ((MovieLens(str(tmp_path)), "ratings.csv"), (Netflix(str(tmp_path / "none")), "combined_data")):
        assert made.digest == ""
        with pytest.raises(FileNotFoundError, match=rf"^dataset\.path=.* is missing or holds no .*; give .*{name}"):
            load(made)


def test_the_content_names_the_run_and_the_place_does_not(tmp_path: Path) -> None:
    path, other = write(tmp_path / "one"), write(tmp_path / "two")
    inner = hashlib.blake2b(Path(path).read_bytes()).digest()
    assert MovieLens(path).digest == hashlib.blake2b(inner).hexdigest()[:16]
    name = plan("dataset=movielens", f"dataset.path={path}").name
    assert name.split("-")[2] == "movielens"
    assert plan("dataset=movielens", f"dataset.path={other}").name == name
    assert plan("dataset=movielens", "dataset.path=two", f"dataset.root={tmp_path}").name == name
    before = MovieLens(path)
    write(tmp_path / "one", rows=ROWS[:-1])
    assert plan("dataset=movielens", f"dataset.path={path}").name != name
    with pytest.raises(ValueError, match=rf"^dataset\.digest={before.digest}: the files have changed since; "):
        load(before)
    with pytest.raises(UserError, match=r"^dataset.digest=abc: the files have changed since; "):
        plan("dataset=movielens", f"dataset.path={path}", "dataset.digest=abc")


@pytest.mark.skipif(not LATEST.is_file(), reason="ml-latest-small is not in shared/data beside the repository")
@pytest.mark.parametrize("words", [["model.travels=items"], ["model.travels=all", "batch_size=512"]])
def test_real_ratings_are_predicted(words: list[str], run: Callable[..., Run]) -> None:
    data = load(MovieLens(str(LATEST.parent)))
    assert (len(data.train_x), len(data.test_x)) == (80_669, 20_167)
    assert (data.train_x.n_users, data.train_x.n_items) == (610, 9724)
    result = run("dataset=movielens", f"dataset.path={LATEST}", *words, "rounds=150", "eval_every=50", "workers=8")
    assert result.metrics["test_rmse"].iloc[-1] < 0.90
    assert result.summary["best_test_rmse"] == result.metrics["test_rmse"].min()


# Netflix --------------------------------------------------------------------------------------------------------------


def netflix(folder: Path, text: str = COMBINED) -> str:
    return written(folder, "combined_data_1.txt", text)


def test_the_prizes_files_are_read_as_they_say(tmp_path: Path) -> None:
    path = netflix(tmp_path / "combined")
    data = load(Netflix(path))
    assert triples(data) == [(0, 0, 3.0), (0, 1, 5.0), (0, 2, 1.0), (1, 0, 2.0), (2, 1, 4.0), (2, 2, 2.0)]
    blocks = re.split(r"(?m)^(?=\d+:)", COMBINED)[1:]
    for k, block in enumerate(blocks):
        written(tmp_path / "apart", f"mv_{k:07}.txt", "\n\n" + block.rstrip("\n") if k == 1 else block)
        (tmp_path / "whole").mkdir(exist_ok=True)
        written(tmp_path / "whole" / "training_set", f"mv_{k:07}.txt", block.replace("\n", "\r\n"))
    for folder in ("combined", "apart", "whole"):
        assert triples(load(Netflix(str(tmp_path / folder)))) == triples(data)
    late = load(Netflix(path, split="time", test=0.34))
    assert triples(late) == triples(data)
    assert (late.test_x.users.tolist(), late.test_x.items.tolist()) == ([0], [2])
    assert len(Netflix(path).digest) == 16


NETFLIX_BAD = {
    "3,x,2004-02-29": "line 10: the rating 'x' is no finite number; ",
    "3,4,2004-02": "line 10: '3,4,2004-02' is no rating; give customer,rating,date",
    "3,4,2004-13-01": "line 10: '3,4,2004-13-01' is no rating; give customer,rating,date",
    "3,4": "line 10: '3,4' is no rating; ",
    "0,4,2004-02-29": "line 10: the user 0 is out of range; ids count from 1",
    "-3,4,2004-02-29": "line 10: the user -3 is out of range; ids count from 1",
    "2649430,4,2004-02-29": "line 10: the user 2649430 is out of range; the Prize's go from 1 to 2649429",
    "3000000000,4,2004-02-29": "line 10: the user 3000000000 is out of range; ",
    "0:\n3,4,2004-02-29": "line 10: the item 0 is out of range; ids count from 1",
    "17771:\n3,4,2004-02-29": "line 10: the item 17771 is out of range; the Prize's go from 1 to 17770",
    "3,0,2004-02-29": "line 10: the rating 0 is out of range; give one from 1 to 5, or another dataset.scale",
    ",4,2004-02-29": "line 10: the user '' is no integer; ",
    "x,4,2004-02-29": "line 10: the user 'x' is no integer; ",
    "3,-1,2005-0906": "line 10: '3,-1,2005-0906' is no rating; ",
    "12:": "line 10: its movie has no rating; remove that movie",
    "13:\n14:\n3,4,2004-02-29": "line 11: no rating precedes it; remove that movie",
    "3,4,12:30": "line 10: '3,4,12:30' is no rating; ",
    "70,3,2004-02-29": "line 10: user 70 has rated item 900 before; give each pair once",
}


@pytest.mark.parametrize("line", NETFLIX_BAD)
def test_a_bad_line_of_the_prizes_is_named_by_its_number(line: str, tmp_path: Path) -> None:
    path = netflix(tmp_path, COMBINED + line + "\n")
    for given, where in ((path, ""), (str(tmp_path), "combined_data_1.txt: ")):
        with pytest.raises(ValueError, match="; ") as refusal:
            load(Netflix(given))
        inside = where if NETFLIX_BAD[line].startswith("line") else ""
        assert str(refusal.value).startswith(f"dataset.path={given}: {inside}{NETFLIX_BAD[line]}")


def test_ratings_above_the_first_movie_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r": line 1: no movie precedes it; give a line such as 17: before it"):
        load(Netflix(netflix(tmp_path, "3,4,2004-02-29\n" + COMBINED)))
    with pytest.raises(ValueError, match=r": holds no rating; give a folder with combined_data"):
        load(Netflix(netflix(tmp_path, "")))
