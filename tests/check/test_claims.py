"""The published claims are well-formed, and judged by what their runs have left."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import warm
import yaml
from conftest import environment
from registry import plan

from commexp.check.claim import CLAIMS, Bound, Claim, load
from commexp.check.judge import ELSEWHERE, FAILED, MET, NOT_MET, judged
from commexp.check.quantities import QUANTITIES, Unmeasured
from commexp.check.show import sections, table, write
from commexp.cli.check import main
from commexp.config.messages import UserError
from commexp.report.tables import as_text
from commexp.run_folder import Run

SYSTEMS, PUBLISHED = load()
SYSTEM = {"toy": {"title": "Toy", "paper": "nobody"}}
TOY: dict[str, Any] = {
    "id": "falls",
    "system": "toy",
    "says": "The loss falls.",
    "source": "nobody",
    "scale": "as small as can be",
    "runs": {"a": "+experiment=regtopk_toy compress=none rounds=4"},
    "measure": {"quantity": "value", "of": "a", "metric": "train_loss"},
    "bound": {"at_most": 0.3},
}


def written(folder: Path, *claims: dict[str, Any]) -> Path:
    (folder / "claims.yaml").write_text(yaml.safe_dump({"systems": SYSTEM, "claims": list(claims)}))
    return folder / "claims.yaml"


def claim(**changes: Any) -> Claim:
    return Claim(**{**TOY, "bound": Bound(at_most=1.0), **changes})


def left(folder: Path, loss: float, status: str = "completed") -> Run:
    """What a run with one evaluation leaves."""
    run = Run(folder)
    run.set_meta(status=status, error="round 3: a gradient is NaN")
    run.write_rows("metrics", [{"round": 0, "train_loss": 2.0}, {"round": 5, "train_loss": loss}])
    return run


def test_every_system_is_claimed_something_of() -> None:
    assert {c.system for c in PUBLISHED} == set(SYSTEMS)
    assert len(SYSTEMS) == 6


def test_every_figure_is_drawn_by_a_script() -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in (CLAIMS.parents[2] / "scripts").glob("*.py"))
    assert [name for system in SYSTEMS.values() for name in system.figures if f'"{name}"' not in scripts] == []


@pytest.mark.parametrize("words", sorted({w for c in PUBLISHED for w in c.runs.values()}))
def test_every_command_composes(words: str) -> None:
    plan(*shlex.split(words))


FRAMES = {
    "a": pd.DataFrame({"round": [0, 1, 2], "loss": [8.0, 4.0, 1.0], "bytes": [0, 10, 20]}),
    "b": pd.DataFrame({"round": [0, 1, 2], "loss": [8.0, 8.0, 2.0], "bytes": [0, 20, 40]}),
}
CASES: list[tuple[str, dict[str, Any], float]] = [
    ("value", {"of": "a", "metric": "loss ** 2", "at": 1}, 16.0),
    ("value", {"of": "a", "metric": "loss", "last": 0.67}, 2.5),
    ("ratio", {"of": "a", "to": "b", "metric": "loss"}, 0.5),
    ("difference", {"of": "a", "to": "b", "metric": "100 * (1 - loss)"}, 100.0),
    ("spread", {"metric": "loss + bytes"}, 2.0),
    ("drift", {"of": "b", "metric": "loss", "until": 1}, 0.0),
    ("drift", {"of": "b", "metric": "loss", "until": 2}, 0.75),
    ("apart", {"of": "a", "to": "b", "metric": "loss", "since": 0, "until": 2}, 2.0),
    (
        "at_equal",
        {"of": "a", "to": "b", "metric": "loss + 0 * bytes", "by": "bytes", "since": 0.995, "upto": 1.0},
        0.125,
    ),
    ("cost_ratio", {"of": "b", "to": "a", "metric": "loss", "by": "bytes", "target": 4.0}, 4.0),
    ("cost_ratio", {"of": "b", "to": "a", "metric": "loss", "by": "bytes"}, 2.0),
    ("cost_ratio", {"of": "b", "to": "a", "metric": "loss", "by": "bytes", "target": 1.5}, float("inf")),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_quantities(name: str, arguments: dict[str, Any], expected: float) -> None:
    assert QUANTITIES[name](FRAMES, **arguments) == pytest.approx(expected, rel=0.02)


def test_every_quantity_is_tested() -> None:
    assert {name for name, _, _ in CASES} == set(QUANTITIES)


def test_what_was_not_measured_is_said() -> None:
    with pytest.raises(Unmeasured, match=r"metrics\.csv has no rmse"):
        QUANTITIES["value"](FRAMES, of="a", metric="rmse")
    with pytest.raises(Unmeasured, match="a has no evaluation at round 7"):
        QUANTITIES["value"](FRAMES, of="a", metric="loss", at=7)


@pytest.mark.parametrize(
    ("losses", "mean", "verdict"),
    [((0.5, 1.4), "arithmetic", MET), ((0.5, 1.7), "arithmetic", NOT_MET), ((0.5, 1.7), "geometric", MET)],
)
def test_the_mean_over_seeds_is_judged(tmp_path: Path, losses: tuple[float, ...], mean: str, verdict: str) -> None:
    runs = [left(tmp_path / str(loss), loss) for loss in losses]
    found = judged(claim(seeds=2, mean=mean), {"a": runs})
    assert (found.verdict, found.numbers) == (verdict, losses)


def test_what_has_no_number_says_why(tmp_path: Path) -> None:
    missing = UserError("dataset.root=data: no a9a; give the folder that holds it")
    nan = left(tmp_path / "nan", float("nan"))
    cases: list[tuple[Run | Exception, str, str, str]] = [
        (missing, "train_loss", ELSEWHERE, str(missing)),
        (RuntimeError("two\nlines"), "train_loss", FAILED, "a, seed 0: RuntimeError: two lines"),
        (
            left(tmp_path / "d", 1.0, "diverged"),
            "train_loss",
            FAILED,
            "a, seed 0: d diverged (round 3: a gradient is NaN)",
        ),
        (left(tmp_path / "c", 1.0), "test_rmse", FAILED, "metrics.csv has no test_rmse"),
    ]
    for outcome, metric, verdict, reason in cases:
        found = judged(claim(measure={**TOY["measure"], "metric": metric}), {"a": [outcome]})
        assert (found.verdict, found.numbers) == (verdict, ())
        assert found.reason.startswith(reason)
        assert reason in as_text(table([found]))
    assert judged(claim(), {"a": [nan]}).verdict == NOT_MET


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bounds": 3}, "falls: bounds: no such key; give "),
        ({"bound": {}}, "falls: bound: bounds nothing; give at_most, at_least or both"),
        ({"bound": {"most": 3}}, "bound: most: no such key; give at_least, at_most"),
        ({"system": "toys"}, "falls: system=toys: no such system; give one of toy"),
        ({"mean": "harmonic"}, "falls: mean=harmonic: no such mean; give one of arithmetic, geometric"),
        ({"measure": {"quantity": "value", "of": "b", "metric": "x"}}, "falls: of=b: no such run; give one of a"),
        ({"measure": {"quantity": "values"}}, "falls: quantity=values: no such quantity; give one of value, ratio"),
        (
            {"measure": {"quantity": "value", "of": "a"}},
            "falls: value: missing a required argument: 'metric'; it takes",
        ),
    ],
)
def test_a_mistake_in_the_file_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as refused:
        load(written(tmp_path, {**TOY, **changes}))
    assert told in str(refused.value)


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of commexp-check claims WORDS."""
    monkeypatch.setattr(sys, "argv", ["commexp-check", "claims", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fals"], "fals: no such claim; give some of falls"),
        (["--root", "falls"], "--root falls: not DATA=FOLDER; give it where a claim asks for data"),
        (["--jobs=0"], "--jobs=0: runs none; give 1 or more"),
    ],
)
def test_a_mistake_in_the_words_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert call(monkeypatch, f"--file={written(tmp_path, TOY)}", *words) == 2
    assert capsys.readouterr().err == f"commexp-check: error: {told}\n"


def test_claims_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--list", "topk_plateau") == 0
    assert capsys.readouterr().out.startswith("* topk_plateau: Top-k stands at a distance.")
    assert CLAIMS.is_file()


def test_exit_statuses_and_files(tmp_path: Path) -> None:
    """As real processes: 0 where all that ran is met, 1 where something is not; the second has the first one's runs."""
    absent = {**TOY, "id": "absent", "runs": {"a": "+experiment=proxgt_a9a dataset.root=nowhere"}}
    costly = {**TOY, "id": "costly", "costs": "a year"}
    wrong = {**TOY, "id": "vanishes", "bound": {"at_most": 0.0}}
    command = [sys.executable, "-c", "from commexp.cli.check import main; main()", "claims"]
    for claims, status, verdicts in (
        ((TOY, absent, costly), 0, [MET, ELSEWHERE, ELSEWHERE]),
        ((TOY, wrong), 1, [MET, NOT_MET]),
    ):
        given = [*command, "--jobs=1", f"--file={written(tmp_path, *claims)}"]
        done = warm.run(given, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stderr
        content = json.loads((tmp_path / "outputs/report/claims.json").read_text())["claims"]
        assert [c["verdict"] for c in content] == verdicts
        text = (tmp_path / "outputs/report/claims.md").read_text()
        assert text.startswith(done.stdout.split("\n\noutputs")[0].rstrip())
        if len(claims) == 3:
            assert content[1]["reason"].startswith("dataset=a9a: a9a is not in nowhere; put ")
            assert content[2]["reason"] == "takes a year; runs if it is named"
    assert len(list((tmp_path / "outputs/runs").iterdir())) == 1


def test_the_files_and_the_page_hold_every_claim(tmp_path: Path) -> None:
    verdicts = [judged(c, {label: [UserError("none: no data")] for label in c.runs}) for c in PUBLISHED]
    write(verdicts, tmp_path)
    text = (tmp_path / "claims.md").read_text()
    assert all(c.says in text and c.id in text for c in PUBLISHED)
    shown = sections(SYSTEMS, verdicts, tmp_path)
    assert [s.id for s in shown] == list(SYSTEMS)
    assert sorted(f.id for s in shown for f in s.findings) == sorted(c.id for c in PUBLISHED)
    assert all(f.commands[-1] == f"commexp-check claims {f.id}" for s in shown for f in s.findings)
