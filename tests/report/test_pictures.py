"""Pictures of the loss around a run's models and of who holds which data."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from commexp.report.finish import FIGURES, finish, where_to_look
from commexp.report.gantt import draw_gantt
from commexp.report.landscape import _levels, draw_line, draw_plane
from commexp.report.palette import with_palette
from commexp.report.partition import draw_partition
from commexp.run_folder import Run

pytestmark = pytest.mark.drawn

Draw = Callable[[Run, Path], list[Path]]


def write_landscape(run: Run, loss: Callable[[float, float], float] = lambda x, y: 0.1 + x * x + y * y) -> None:
    ticks = [i / 5 for i in range(-5, 6)]
    run.write_rows("line", [{"t": t, "train_loss": loss(t, 0)} for t in ticks])
    run.write_rows("plane", [{"x": x, "y": y, "train_loss": loss(x, y)} for y in ticks for x in ticks])
    models = {"worker 0": (-0.5, 0), "worker 1": (0.5, 0), "worker 2": (0.1, 0.6), "average": (0.03, 0.2)}
    run.write_rows("plane_models", [{"name": name, "x": x, "y": y} for name, (x, y) in models.items()])


def write_partition(run: Run, workers: int = 4, classes: int = 10) -> None:
    held = [(w, c, (7 * w + 3 * c) % 11) for w in range(workers) for c in range(classes)]
    run.write_rows("partition", [{"worker": w, "class": c, "samples": n} for w, c, n in held])


def write_gantt(run: Run, workers: int = 10, cycles: int = 12) -> None:
    """Worker n takes n + 1 seconds to compute and one to wait."""
    rows = []
    for n in range(workers):
        for c in range(cycles):
            start, middle, end = c * (n + 2), c * (n + 2) + 1, (c + 1) * (n + 2)
            rows.append({"worker": n, "kind": "wait", "start": start, "end": middle})
            rows.append({"worker": n, "kind": "compute", "start": middle, "end": end})
    run.write_rows("gantt", rows)
    run.write_rows("staleness", [{"staleness": age, "messages": 100 - age} for age in range(0, 90, 3)])


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, laid out but not written: writing is most of the time."""
    made: list[Figure] = []

    def keep(figure: Figure, path: Path) -> list[Path]:
        figure.draw_without_rendering()
        made.append(figure)
        return []

    for module in ("gantt", "landscape", "partition"):
        monkeypatch.setattr(f"commexp.report.{module}.save", keep)
    return made


def colours(png: Path) -> int:
    """How many colours cover at least 100 pixels."""
    pixels = matplotlib.image.imread(png)[..., :3]
    found = np.unique((pixels * 255).astype(np.uint8).reshape(-1, 3), axis=0, return_counts=True)[1]
    return int((found >= 100).sum())


def check(written: list[Path], name: str) -> None:
    assert [p.name for p in written] == [f"{name}.png", f"{name}.pdf"]
    assert min(p.stat().st_size for p in written) > 5000
    assert float(matplotlib.image.imread(written[0])[..., :3].std()) > 0.03, "the picture is blank"


PICTURES: list[tuple[str, Draw]] = [
    ("line", draw_line),
    ("plane", draw_plane),
    ("partition", draw_partition),
    ("gantt", draw_gantt),
]


@pytest.mark.parametrize(("name", "draw"), PICTURES)
def test_each_picture_from_its_files_alone(name: str, draw: Draw, tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_landscape(run)
    write_partition(run)
    write_gantt(run)
    check(draw(run, tmp_path / "figures" / name), name)
    if name in ("plane", "partition"):
        assert colours(tmp_path / "figures" / f"{name}.png") > 10


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: math.nan if x > 0.5 else 1 + x * x,
        lambda x, y: 1.0,
        lambda x, y: x - 3,
        lambda x, y: 10.0 ** (20 * x),
        lambda x, y: 0.0,
    ],
    ids=["with NaN", "flat", "negative", "forty decades", "zero"],
)
def test_landscapes_of_every_kind(
    loss: Callable[[float, float], float], tmp_path: Path, laid_out: list[Figure]
) -> None:
    write_landscape(Run(tmp_path), loss)
    draw_line(Run(tmp_path), tmp_path / "line")
    draw_plane(Run(tmp_path), tmp_path / "plane")
    line, plane = laid_out
    assert len(line.axes[0].get_lines()) == 3, "the loss and the places of both models"
    assert len(plane.axes[0].get_lines()) == 4
    (bar,) = plane.axes[0].child_axes
    assert bar.get_ylabel() == "train loss"
    assert 1 <= len(bar.get_yticks()) <= 10
    assert plane.axes[0].get_aspect() == 1
    for made in laid_out:
        box = made.get_tightbbox()
        assert min(box.x0, box.y0) >= 0, "a label is cut off"
        assert all(box.max <= made.get_size_inches()), "a label is cut off"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_landscape_without_a_finite_loss_says_so(bad: float, tmp_path: Path, laid_out: list[Figure]) -> None:
    write_landscape(Run(tmp_path), lambda x, y: bad)
    draw_line(Run(tmp_path), tmp_path / "line")
    draw_plane(Run(tmp_path), tmp_path / "plane")
    assert [made.axes[0].texts[0].get_text() for made in laid_out] == ["no finite value"] * 2


def test_levels_are_logarithmic_from_a_factor_of_five_on() -> None:
    levels, ticks, _ = _levels(0.01, 100)
    assert np.diff(np.log(levels)) == pytest.approx([math.log(1e4) / 16] * 16)
    assert ticks == pytest.approx([0.01, 0.1, 1, 10, 100])
    levels, ticks, _ = _levels(1, 4.9)
    assert np.diff(levels) == pytest.approx([3.9 / 16] * 16)
    assert 3 <= len(ticks) <= 8
    assert len(_levels(1, 6)[1]) >= 3
    assert _levels(2.5, 2.5)[1] == [2.5]


@pytest.mark.parametrize(("workers", "classes"), [(1, 10), (3, 1), (3, 11), (64, 10), (65, 100)])
def test_partitions_of_every_size(workers: int, classes: int, tmp_path: Path, laid_out: list[Figure]) -> None:
    write_partition(Run(tmp_path), workers, classes)
    draw_partition(Run(tmp_path), tmp_path / "partition")
    (made,) = laid_out
    axis = made.axes[0]
    assert axis.get_xlabel() == "training samples"
    assert axis.get_title() == ("the first 64 of 65 workers" if workers > 64 else "")
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        str(w) for w in range(0, min(workers, 64), 1 + (workers > 32))
    ]
    assert len(made.axes) == (2 if classes > 10 else 1), "a colour bar from eleven classes on"
    assert [t.get_text() for legend in made.legends for t in legend.texts] == [
        str(c) for c in range(classes) if classes <= 10
    ]
    held = sum((7 * w + 3 * c) % 11 > 0 for w in range(min(workers, 64)) for c in range(classes))
    assert len(axis.collections[0].get_paths()) == held


def test_class_names_may_be_words(tmp_path: Path, laid_out: list[Figure]) -> None:
    rows = [{"worker": 0, "class": name, "samples": 2} for name in ("cat", "dog", "snowy owl")]
    Run(tmp_path).write_rows("partition", rows)
    draw_partition(Run(tmp_path), tmp_path / "partition")
    assert [t.get_text() for t in laid_out[0].legends[0].texts] == ["cat", "dog", "snowy owl"]


@pytest.mark.parametrize("sources", [4, 30])
def test_whole_sources_are_drawn_as_such(sources: int, tmp_path: Path, laid_out: list[Figure]) -> None:
    rows = [{"worker": s % 3, "source": s, "samples": 2 + s} for s in range(sources)]
    Run(tmp_path).write_rows("partition", rows)
    draw_partition(Run(tmp_path), tmp_path / "partition")
    few, (made,) = sources <= 10, laid_out
    assert (made.legends[0].get_title().get_text() if few else made.axes[1].get_ylabel()) == "source"
    assert len(made.axes[0].collections[0].get_paths()) == sources


@pytest.mark.parametrize("workers", [1, 10, 24, 25])
def test_first_seconds_of_few_and_of_many(workers: int, tmp_path: Path, laid_out: list[Figure]) -> None:
    write_gantt(Run(tmp_path), workers)
    draw_gantt(Run(tmp_path), tmp_path / "gantt")
    axis, ages = laid_out[0].axes
    assert axis.get_title() == ("the first 24 of 25 workers" if workers > 24 else "")
    assert len(axis.get_yticks()) == min(workers, 24)
    assert axis.get_xlim() == (0, min(4 * (min(workers, 24) + 1), 12 * 2)), "four cycles of the slowest"
    assert sum(bar.get_height() for bar in ages.patches) == sum(100 - age for age in range(0, 90, 3))  # type: ignore[attr-defined]


def test_of_seconds_that_were_not_kept_there_is_no_picture(tmp_path: Path) -> None:
    write_gantt(Run(tmp_path))
    Run(tmp_path).write_rows("gantt", [])
    assert draw_gantt(Run(tmp_path), tmp_path / "gantt") == []


def test_finish_draws_what_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    monkeypatch.setattr("commexp.report.finish.summary_blocks", lambda run, target: ["a summary"])
    run.write_rows(
        "metrics",
        [
            {"round": r, "step": r, "bytes_sent": r, "sim_seconds": r, "train_loss": 9 - r, "stationarity": 9 - r}
            for r in range(5)
        ],
    )
    run.write_config({"workers": 2})

    def drawn() -> dict[str, float]:
        return {p.stem: p.stat().st_mtime for p in (run.folder / "figures").glob("*.png")}

    finish(run, figures=False)
    assert drawn() == {}
    assert "figures" not in where_to_look(run)
    finish(run)
    assert drawn().keys() == {"curves"}
    assert where_to_look(run).endswith("figures: figures/curves.{png,pdf}")
    write_landscape(run)
    (run.folder / "plane_models.csv").rename(run.folder / "elsewhere.csv")
    finish(run)
    assert drawn().keys() == {"curves", "line"}, "a plane without its models is not drawn"
    (run.folder / "elsewhere.csv").rename(run.folder / "plane_models.csv")
    write_partition(run)
    links = [(0, 1), (1, 0), (1, 2), (2, 1)]
    run.write_rows("topology", [{"worker": n, "neighbour": m, "weight": 1 / 3} for n, m in links])
    write_gantt(run)
    traffic = {"exchange": "server", "direction": "up", "bytes_sent": 8}
    run.write_rows("traffic", [{"round": r, **traffic} for r in range(1, 5)])
    finish(run)
    before = drawn()
    assert before.keys() == FIGURES.keys()
    assert where_to_look(run).endswith("figures: figures/{curves,bits,line,plane,partition,topology,gantt}.{png,pdf}")
    finish(run)
    assert drawn() == before
    newer = before["plane"] + 5
    os.utime(run.folder / "plane_models.csv", (newer, newer))
    finish(run)
    assert {name for name, when in drawn().items() if when != before[name]} == {"plane"}


def test_a_picture_keeps_its_frequent_colours_and_takes_less() -> None:
    """Lines have the colours that they were given; a map of more colours stays as it is."""
    figure = Figure(figsize=(6, 4), dpi=160)
    axes = figure.subplots()
    for number, colour in enumerate(("#0072B2", "#D55E00", "#009E73")):
        axes.plot([0, 1, 2], [number, number + 2, number], color=colour, label=colour)
    axes.legend()
    drawn, mapped = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    small = with_palette(drawn.getvalue())
    assert len(small) < len(drawn.getvalue()) / 2
    before, after = (Image.open(io.BytesIO(png)) for png in (drawn.getvalue(), small))
    assert after.size == before.size
    assert after.info["dpi"] == before.info["dpi"]
    ours, theirs = (np.asarray(picture.convert("RGB")).astype(int) for picture in (after, before))
    for colour in ("#0072B2", "#D55E00", "#009E73", "#FFFFFF", "#000000"):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert ((ours == rgb).all(2) >= (theirs == rgb).all(2)).all()
    assert (abs(ours - theirs).max(2) > 8).mean() < 0.005
    colours = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(colours).save(mapped, "png")
    assert with_palette(mapped.getvalue()) == mapped.getvalue()
