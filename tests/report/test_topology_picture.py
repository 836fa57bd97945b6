"""Pictures of who is linked to whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from commexp.report.topology import draw_topology
from commexp.run_folder import Run
from commexp.topologies import (
    Complete,
    Exponential,
    Geometric,
    Grid,
    Hypercube,
    Ladder,
    Line,
    OnePeer,
    Ring,
    Star,
    Topology,
    Torus,
)

pytestmark = pytest.mark.drawn


def write(run: Run, topology: Topology, workers: int) -> None:
    """As a run does: the mean over the graph's period."""
    mixings = topology.mixings(workers, 0)
    mean = sum(m.matrix for m in mixings).tocoo()
    entries = zip(mean.row, mean.col, mean.data / len(mixings), strict=True)
    rows: list[Mapping[str, object]] = [
        {"worker": int(n), "neighbour": int(m), "weight": float(w)} for n, m, w in entries if n != m
    ]
    run.write_rows("topology", rows)


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, laid out but not written."""
    made: list[Figure] = []

    def keep(figure: Figure, path: Path) -> list[Path]:
        figure.draw_without_rendering()
        made.append(figure)
        return []

    monkeypatch.setattr("commexp.report.topology.save", keep)
    return made


def texts(made: Figure) -> list[str]:
    return [t.get_text() for t in made.axes[0].texts if t.get_text()]


@pytest.mark.parametrize(
    ("topology", "workers", "title", "links"),
    [
        (Complete(), 2, "", 1),
        (Complete(), 8, "every weight is 0.125", 28),
        (Ring(), 8, "", 8),
        (Line(), 24, "", 23),
        (Star(), 16, "", 15),
        (Star(), 40, "the weight of every link is 0.025", 39),
        (Ladder(), 8, "", 10),
        (Grid(), 12, "", 17),
        (Hypercube(), 8, "", 12),
        (Hypercube(), 16, "every weight is 0.2", 32),
        (Torus(), 36, "every weight is 0.2", 72),
        (Exponential(), 16, "every weight is 0.2", 64),
        (OnePeer(), 6, "every link 0.167, oneself 0.5", 18),
        (Geometric(0.4), 40, "", 0),
    ],
)
def test_topologies_of_every_shape(
    topology: Topology, workers: int, title: str, links: int, tmp_path: Path, laid_out: list[Figure]
) -> None:
    write(Run(tmp_path), topology, workers)
    draw_topology(Run(tmp_path), tmp_path / "topology")
    (made,) = laid_out
    axis = made.axes[0]
    assert axis.get_title() == title
    assert len(axis.collections[0].get_offsets()) == workers
    box = made.get_tightbbox()
    assert min(box.x0, box.y0) >= 0, "cut off"
    assert all(box.max <= made.get_size_inches()), "cut off"
    assert max(made.get_size_inches()) < 9
    if isinstance(topology, Geometric):
        assert len(made.axes) == 2, "a colour bar"
        return
    if isinstance(topology, (Exponential, OnePeer)):
        assert sum(isinstance(t, Annotation) and t.arrow_patch is not None for t in axis.texts) == links
    else:
        assert len(axis.get_lines()) == links + (12 if isinstance(topology, Torus) else 0), "two ends of a way around"
    if workers <= 16:
        assert set(map(str, range(workers))) <= set(texts(made))


@pytest.mark.parametrize(("topology", "workers"), [(Ladder(), 8), (Star(), 16), (Hypercube(), 8), (Complete(), 6)])
def test_no_two_numbers_overlap(topology: Topology, workers: int, tmp_path: Path, laid_out: list[Figure]) -> None:
    write(Run(tmp_path), topology, workers)
    draw_topology(Run(tmp_path), tmp_path / "topology")
    (made,) = laid_out
    boxes = [t.get_window_extent() for t in made.axes[0].texts if t.get_text()]
    assert len(boxes) == 2 * workers + len(made.axes[0].get_lines())
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:i])


def test_the_weights_are_those_of_the_file(tmp_path: Path, laid_out: list[Figure]) -> None:
    given = {(0, 1): 0.5, (1, 2): -0.2, (0, 2): 0.05}
    both = [{"worker": a, "neighbour": b, "weight": w} for (n, m), w in given.items() for a, b in ((n, m), (m, n))]
    Run(tmp_path).write_rows("topology", both)
    draw_topology(Run(tmp_path), tmp_path / "topology")
    (made,) = laid_out
    assert sorted(texts(made)) == sorted(["0", "0.45", "1", "0.7", "2", "1.15", "0.5", "-0.2", "0.05"])
    by_width = sorted(made.axes[0].get_lines(), key=lambda line: line.get_linewidth())
    assert [line.get_linestyle() for line in by_width] == ["-", "--", "-"]


def test_an_arrow_leads_to_the_worker_that_takes(tmp_path: Path, laid_out: list[Figure]) -> None:
    rows = [{"worker": (n + 1) % 3, "neighbour": n, "weight": 0.5} for n in range(3)]
    Run(tmp_path).write_rows("topology", rows)
    draw_topology(Run(tmp_path), tmp_path / "topology")
    (made,) = laid_out
    places = np.asarray(made.axes[0].collections[0].get_offsets())
    arrows = [t for t in made.axes[0].texts if isinstance(t, Annotation) and t.arrow_patch is not None]
    ends = {tuple(int(np.linalg.norm(places - p, axis=1).argmin()) for p in (a.xyann, a.xy)) for a in arrows}
    assert ends == {(0, 1), (1, 2), (2, 0)}


def test_what_is_not_drawn(tmp_path: Path) -> None:
    for name, topology, workers in (("one", Complete(), 1), ("many", Ring(), 201)):
        run = Run(tmp_path / name)
        write(run, topology, workers)
        assert draw_topology(run, tmp_path / name / "topology") == []
        assert not list((tmp_path / name).glob("*.png"))


def test_both_files_are_written(tmp_path: Path) -> None:
    write(Run(tmp_path), Ladder(), 8)
    written = draw_topology(Run(tmp_path), tmp_path / "figures" / "topology")
    assert [p.name for p in written] == ["topology.png", "topology.pdf"]
    assert float(matplotlib.image.imread(written[0])[..., :3].std()) > 0.03, "the picture is blank"
