"""``commexp.plot`` and ``commexp-report --x --y``: one figure for a paper."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report.folders import make

import commexp
from commexp.cli.report import main
from commexp.metrics import metric
from commexp.report.plot import plot
from commexp.report.style import save
from commexp.run_folder import Run

pytestmark = pytest.mark.drawn

CODECS = ("none", "topk", "sign")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of three codecs; longest names as they may be."""
    folder = tmp_path_factory.mktemp("runs")
    made = [
        make(folder / f"{codec}-{seed}", seed, 0.02 * (i + 1), rows=9, algo="sgd", compress=codec)
        for i, codec in enumerate(CODECS)
        for seed in (0, 1)
    ]
    return [run.folder for run in made]


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def test_it_is_commexp_plot() -> None:
    assert commexp.plot is plot


def test_axes_come_back_with_what_was_asked_for(runs: list[Path], axes: Axes) -> None:
    given = [Run(folder) for folder in runs]
    found = commexp.plot(
        given, x="bytes_wire", y="train_loss", order=["sgd-sign"], label={"sgd-topk": "Top-k", "sign": "1 bit"}, ax=axes
    )
    assert found is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (metric("bytes_wire").axis, "train loss")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["1 bit", "dense k=0.02", "Top-k"]
    assert legend.get_title().get_text() == "bands: mean ± standard deviation\nover 2 seeds"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    means = np.mean([run.metrics["train_loss"] for run in given[4:]], axis=0)
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), means[1:])  # type: ignore[arg-type]


def test_the_foremost_metric_if_none_is_named(runs: list[Path], axes: Axes) -> None:
    assert commexp.plot(runs[0], ax=axes).get_ylabel() == "test accuracy"
    assert axes.get_legend() is None, "one method"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"x": "nothing"}, "x=nothing: no column of these runs; give one of bytes_sent, bytes_wire"),
        ({"y": "nothing"}, "y=nothing: no column of these runs"),
        ({"band": "iqr"}, "band=iqr: no such band; give one of std, se, range, ci95"),
        ({"style": "nice"}, "style=nice: no such style; give one of paper, report, slides"),
        ({"size": (3.3, 0.0)}, "size=3.3x0: no size of a figure"),
        ({"order": ["dense", "nobody"]}, "order=nobody: no such method"),
    ],
)
def test_what_does_not_exist_is_one_line(runs: list[Path], words: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}") as raised:
        commexp.plot(runs, **words)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"runs=.*nowhere: no such folder: no run with results"):
        commexp.plot(tmp_path / "nowhere")


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["commexp-report", *map(str, words)])
    main()


def test_one_command_makes_a_papers_figure(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """3.3 inches wide, no letter below 6 points or out of the picture, fonts embedded as TrueType."""
    figures: list[Figure] = []
    monkeypatch.setattr("commexp.report.plot.save", lambda made, path: figures.append(made) or save(made, path))
    for other in ("curves.draw_curves", "phases.draw_phases", "graphs.draw_graphs"):
        monkeypatch.setattr(f"commexp.report.{other}", lambda *_, **__: [])
    out = tmp_path / "out"
    call(monkeypatch, "--y", "test_accuracy", "--x", "bytes_wire", "--label", "sgd-topk=Top-k", "--out", out, *runs)
    assert str(out / "test_accuracy-bytes_wire.pdf") in capsys.readouterr().out
    (figure,) = figures
    assert figure.get_size_inches().tolist() == [3.3, 2.4]
    texts = [text for text in figure.findobj(lambda one: hasattr(one, "get_fontsize")) if text.get_text()]
    assert min(text.get_fontsize() for text in texts if text.get_visible()) >= 6
    tight = figure.get_tightbbox()
    assert min(tight.x0, tight.y0) >= -0.01
    assert tight.x1 <= 3.31
    assert tight.y1 <= 2.41
    assert matplotlib.image.imread(out / "test_accuracy-bytes_wire.png").shape[1] == 990, "300 dots per inch"
    content = (out / "test_accuracy-bytes_wire.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert "| Top-k" in (out / "comparison.md").read_text(), "tables have the name, too"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--x", "nothing"], "--x=nothing: no column of these runs; give one of "),
        (["--size", "3.3"], "--size=3.3: no size of a figure; give width and height in inches, such as 3.3x2.4"),
        (["--band", "iqr"], "--band=iqr: no such band; give one of std, se, range, ci95"),
        (["--style", "nice"], "--style=nice: no such style; give one of paper, report, slides"),
        (["--order", "nobody"], "--order=nobody: no such method; give one of dense k=0.02, topk k=0.04"),
        (["--label", "nobody=A"], "--label=nobody: no such method; give one of dense k=0.02, topk k=0.04"),
        (
            ["--y", "train_loss", "--replay", "network=mobile"],
            "--replay network=mobile: draws its own figures; leave --y",
        ),
        (["--label", "A"], "--label=A: no new name of a method; give sgd-topk=Top-k"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str],
    said: str,
    runs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *words, "--out", tmp_path / "out", *runs)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"commexp: error: {said}")
    assert not (tmp_path / "out").exists()
