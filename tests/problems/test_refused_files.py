"""A user's mistake in a file of data, at the command line: one line with file and line, exit status 2, nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli

HEADER = "userId,movieId,rating,timestamp\n"
GOOD = [f"{u},{i},{(u + i) % 5 + 1},{u * i}" for u in range(1, 7) for i in range(1, 5)]
PRIZE = "".join(f"{i}:\n" + "".join(f"{u},{(u + i) % 5 + 1},2004-02-{u:02}\n" for u in range(1, 7)) for i in (1, 2, 3))
SAMPLES = "".join(f"{(-1) ** i} 1:{i + 1} {i % 5 + 2}:1\n" for i in range(40))


def lines(separator: str, bad: str) -> str:
    return "".join(line.replace(",", separator) + "\n" for line in [*GOOD, bad])


FILES = {
    "u.data": (lines("\t", "944,7,4,5"), 25, "the user 944 is out of range; u.info says from 1 to 943"),
    "ratings.dat": (lines("::", "3,0,4,5"), 25, "the item 0 is out of range; ids count from 1"),
    "ratings.csv": (HEADER + lines(",", ",7,4,5"), 26, "the user '' is no integer; give a number such as 17"),
    "combined_data_1.txt": (PRIZE + "9,6,2004-02-29\n", 22, "the rating 6 is out of range; give one from 1 to 5, or "),
    "a bad line": (SAMPLES + "1 2=7\n", 41, "'2=7' is not index:value; give a line such as -1 3:0.5 7:1"),
    "an index": (SAMPLES + "1 3:1 2:1\n", 41, "index 2 comes after 3; indices of a line ascend, each once"),
    "three labels": (SAMPLES + "2 3:1\n2 4:1\n", 41, "the label 2 is the third, and model=logistic_regression tells "),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_in_one_line(name: str, entry: Cli, tmp_path: Path) -> None:
    text, line, wrong = FILES[name]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_text(text)
    (folder / "u.info").write_text("943 users\n1682 items\n100000 ratings\n")
    dataset = "netflix" if "combined" in name else "movielens"
    words, place = [f"dataset={dataset}", "dataset.path=in"], f"dataset.path=in: {name}"
    if "." not in name:
        place = f"dataset.path=in/{name}"
        words = ["dataset=libsvm", place, "model=logistic_regression"]
    ended = entry(*words, "workers=2", "rounds=2")
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith(f"commexp: error: {place}: line {line}: {wrong}")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
