"""One look per method in all figures and on the page, and what figures say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from report.folders import make
from scipy import stats

from commexp.metrics import metric
from commexp.report.bands import BANDS, band, told
from commexp.report.comparison import Comparison
from commexp.report.curves import draw_bits, draw_curves, is_far, spans_decades
from commexp.report.looks import BASELINE, look_of, looks
from commexp.report.naming import named
from commexp.report.page.embed import embedded
from commexp.report.phases import draw_phases
from commexp.report.plot import save_plot
from commexp.report.reading import read_runs
from commexp.report.replay import Priced, draw_replay
from commexp.report.style import COLOURS
from commexp.report.sweep import write_sweep
from commexp.report.tables import labels
from commexp.run_folder import Run, write_json

pytestmark = pytest.mark.drawn

SWEPT = ("sgd", "topk", "regtopk", "localsgd", "diloco")  # algo=..., the second and the third are presets


def method(
    folder: Path, algo: str, codec: str, seed: int, k: float | None = None, data: str = "digits", cost: float = 0.05
) -> Run:
    """A run's folder of that method, with a gradient's norm, bits, and phases of rounds. ``cost``: in bytes."""
    run = make(folder, seed, cost, algo=algo, compress=codec, dataset=data)
    config = run.config
    config["algo"]["_target_"] = f"commexp.algorithms.{algo.title()}"
    config["compress"] = {"_target_": f"commexp.compressors.{codec}", "k": k}
    config["dataset"]["_target_"] = f"commexp.problems.datasets.{data.title()}"
    run.write_config(config)
    metrics = run.metrics
    run.write_rows("metrics", metrics.assign(stationarity=0.9 ** metrics["round"]).to_dict("records"))
    run.write_rows("traffic", run.traffic.assign(bytes_sent=400, direction="up").to_dict("records"))
    run.write_summary({**run.metrics.iloc[-1], "bytes_against_dense": cost})
    return run


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of five methods and three seeds."""
    outputs = tmp_path_factory.mktemp("outputs")
    folder, number = outputs / "sweeps" / "five", 0
    for i, algo in enumerate(SWEPT):
        preset = algo in ("topk", "regtopk")
        words = ("sgd", algo) if preset else (algo, "none")
        for seed in range(3):
            name = f"{algo}-{seed}"
            method(outputs / "runs" / name, *words, seed, 0.05 if preset else None, cost=0.02 * (i + 1))
            job = {"overrides": {"algo": algo, "seed": str(seed)}, "run": name, "target": 0.6, "error": None}
            write_json(folder / "jobs" / f"{number}.json", job)
            number += 1
    return folder


ROOMS = ("curves", "pareto", "sweep", "phases", "replay", "plot")


def kept(patch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures by name, in place of their files."""
    made: dict[str, Figure] = {}
    for room in ROOMS:
        patch.setattr(f"commexp.report.{room}.save", lambda figure, path: made.update({path.name: figure}) or [])
    return made


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    return kept(monkeypatch)


@pytest.fixture(scope="module")
def of_sweep(swept: Path) -> dict[str, Figure]:
    with pytest.MonkeyPatch.context() as patch:
        figures = kept(patch)
        write_sweep(swept)
    return figures


def legend(figure: Figure) -> dict[str, str]:
    """Colour by label."""
    handles = {}
    for handle, text in zip(figure.legends[0].legend_handles, figure.legends[0].get_texts(), strict=True):
        handles[text.get_text()] = to_hex(handle.get_color())  # type: ignore[union-attr]
    return handles


def test_a_sweep_has_the_same_colours_in_all_its_figures_and_on_the_page(
    swept: Path, of_sweep: dict[str, Figure], drawn: dict[str, Figure], tmp_path: Path
) -> None:
    assert of_sweep.keys() == {"curves", "bits", "pareto", "final_against_compression", "bytes_to_target"}
    found = {name: {each: legend(figure)[each] for each in SWEPT} for name, figure in of_sweep.items()}
    first = found["curves"]
    assert len({*first.values()}) == 5
    assert first["sgd"] == "#000000"
    for name, colours in found.items():
        assert colours == first, name
    comparison = Comparison(*read_runs([swept]))
    groups = comparison.groups
    names = dict(zip(groups, SWEPT, strict=True))
    draw_curves(groups, tmp_path / "comparison")
    draw_bits(groups, tmp_path / "bits")
    draw_phases(groups, tmp_path / "phases")
    comparison.equal_cost.draw(tmp_path / "pareto", comparison.looks)
    save_plot(groups, tmp_path, "bytes_wire", "train_loss")
    seconds = {10.0: range(30), 100.0: range(30), 1000.0: range(30), 10000.0: range(30)}
    priced = {name: [Priced(run.metrics, seconds) for run in runs] for name, runs in groups.items()}
    draw_replay(priced, None, tmp_path / "replay", comparison.looks)
    assert drawn.keys() == {"comparison", "bits", "phases", "pareto", "train_loss-bytes_wire", "replay"}
    phases = drawn.pop("phases")
    marks = {str(line.get_ydata()[0]): to_hex(line.get_color()) for line in phases.axes[0].get_lines()}  # type: ignore
    assert {names[name]: colour for name, colour in marks.items()} == first
    for name, figure in drawn.items():
        shown = legend(figure)
        assert {names[each]: shown[each] for each in names} == first, name
    page = json.loads(json.dumps(embedded(comparison)))
    assert {names[each["name"]]: each["look"]["light"].lower() for each in page["methods"]} == first
    assert len({each["look"]["dark"] for each in page["methods"]}) == 5


def test_lines_have_the_colours_of_the_legend(swept: Path, tmp_path: Path) -> None:
    """Pixel by pixel, in the picture that is written."""
    groups = Comparison(*read_runs([swept])).groups
    picture, pdf = save_plot(groups, tmp_path)
    pixels = (matplotlib.image.imread(picture)[..., :3] * 255).round().astype(int) @ (65536, 256, 1)
    assert {int(look.colour[1:], 16) for look in looks(groups).values()} <= {*np.unique(pixels).tolist()}
    content = pdf.read_bytes()
    assert b"/FontFile2" in content, "TrueType, embedded"
    assert b"/Type3" not in content


def test_hues_tell_methods_and_lightness_k(tmp_path: Path) -> None:
    runs = {f"topk {k}": [method(tmp_path / f"t{k}", "sgd", "topk", 0, k)] for k in (0.001, 0.1, 0.01)}
    runs["dense"] = [method(tmp_path / "d", *BASELINE, 0)]
    runs["sign"] = [method(tmp_path / "s", "sgd", "sign", 0)]
    found = looks(runs)
    assert found["dense"].colour == COLOURS[-1]
    assert found["sign"].colour in COLOURS
    dark_to_light = [found[f"topk {k}"] for k in (0.1, 0.01, 0.001)]
    brightness = [sum(int(look.colour[i : i + 2], 16) for i in (1, 3, 5)) for look in dark_to_light]
    assert brightness == sorted(brightness)
    assert len({look.dash for look in dark_to_light}) == 3
    assert looks(dict(reversed(runs.items()))) == found, "whatever the order"
    alone = look_of(runs["sign"][0])
    assert alone.colour in COLOURS
    assert look_of(Run(tmp_path / "nothing")).colour in COLOURS, "a folder without a config"


def test_a_single_method_has_a_hue_for_each_setting_but_one_for_all_k(tmp_path: Path) -> None:
    one = {str(k): [method(tmp_path / f"k{k}", "sgd", "topk", 0, k)] for k in (0.1, 0.01)}
    other = {}
    for lr in (0.1, 0.2, 0.3):
        run = method(tmp_path / f"lr{lr}", "sgd", "topk", 0, 0.1)
        run.write_config({**run.config, "algo": {**run.config["algo"], "lr": lr}})
        other[str(lr)] = [run]
    assert all(look.colour in COLOURS for look in looks(other).values())
    assert len({look.colour for look in looks(other).values()}) == 3
    assert not any(look.colour in COLOURS for look in looks(one).values()), "shades of one"


def test_where_data_differ_their_name_comes_first(tmp_path: Path) -> None:
    runs = [method(tmp_path / d, "sgd", c, 0, k, d) for d, c, k in (("digits", "topk", 0.1), ("mnist", "none", None))]
    assert labels(runs) == ["digits: topk k=0.1", "mnist: dense"]
    assert labels(runs, "none")[1] == "mnist: none"
    assert labels(runs[:1]) == ["topk k=0.1"]


def test_order_and_label(tmp_path: Path) -> None:
    codecs = (("none", None), ("topk", 0.1), ("sign", None), ("topk", 0.2))
    runs = [method(tmp_path / f"{codec}{k}", "sgd", codec, 0, k) for codec, k in codecs]
    assert [*named(runs, ["sgd-sign", "topk"])] == ["sign", "topk k=0.1", "topk k=0.2", "dense"]
    assert [*named(runs, ["S"], {"sgd-topk": "Top-k", "sign": "S"})] == ["S", "dense", "Top-k k=0.1", "Top-k k=0.2"]
    assert [*named(runs, (), {"topk k=0.2": "a fifth"})] == ["dense", "topk k=0.1", "sign", "a fifth"]
    with pytest.raises(ValueError, match="label=sgd-nothing: no such method; give one of dense, topk"):
        named(runs, (), {"sgd-nothing": "x"})
    with pytest.raises(ValueError, match="label=dense: two methods would have this name"):
        named(runs, (), {"sign": "dense"})


def test_programs_read_the_same_names_as_before(tmp_path: Path) -> None:
    """budgets.csv and pareto.csv, whatever people are shown."""
    for codec, k in (("none", None), ("topk", 0.1)):
        method(tmp_path / "runs" / codec, "sgd", codec, 0, k)
    comparison = Comparison(*read_runs([tmp_path / "runs"]), label={"topk": "Top-k"})
    assert [*comparison.groups] == ["dense", "Top-k"]
    written = comparison.equal_cost.write(tmp_path, called=comparison.called)
    for path in written:
        table = pd.read_csv(path)
        assert {*table["method"]} == {"none", "topk k=0.1"}
        if "beaten_by" in table:
            assert {*table["beaten_by"].dropna(), *table["as_good"].dropna()} <= {"none", "topk k=0.1"}


VALUES = np.array([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])


@pytest.mark.parametrize("kind", BANDS)
def test_bands_are_what_they_say(kind: str) -> None:
    low, high = band(VALUES, kind)
    std = VALUES.std(axis=1, ddof=1)
    half = {"std": std, "se": stats.sem(VALUES, axis=1), "ci95": stats.sem(VALUES, axis=1) * stats.t.ppf(0.975, 2)}
    if kind == "range":
        assert (low.tolist(), high.tolist()) == ([1.0, 4.0], [6.0, 4.0])
    else:
        np.testing.assert_allclose(low, VALUES.mean(axis=1) - half[kind])
        np.testing.assert_allclose(high, VALUES.mean(axis=1) + half[kind])
    assert told(kind, [3, 1, 2]) == f"bands: {BANDS[kind]} over 2 to 3 seeds"
    assert told(kind, [1, 1]) == ""


def test_figures_say_what_their_bands_are_and_share_the_limits_of_a_row(
    swept: Path, of_sweep: dict[str, Figure], drawn: dict[str, Figure], tmp_path: Path
) -> None:
    said = {name: figure.get_supxlabel() for name, figure in of_sweep.items()}
    bars, bands = (f"{what}: mean ± standard deviation over 3 seeds" for what in ("bars", "bands"))
    assert said == {
        "curves": bands, "bits": bands, "pareto": bars, "final_against_compression": bars, "bytes_to_target": bars,
    }  # fmt: skip
    for name in ("curves", "pareto"):
        for row in rows(of_sweep[name]):
            assert len({axis.get_ylim() for axis in row}) == 1
            assert len({axis.get_yscale() for axis in row}) == 1
            assert row[0].get_ylabel()
    draw_curves(Comparison(*read_runs([swept])).groups, tmp_path / "range", kind="range")
    assert drawn["range"].get_supxlabel() == "bands: mean and range (least to greatest) over 3 seeds"


def rows(figure: Figure) -> list[list[Axes]]:
    found: dict[float, list[Axes]] = {}
    for axis in figure.axes:
        found.setdefault(round(axis.get_position().y0, 3), []).append(axis)
    return [*found.values()]


def test_a_distance_is_a_distance_everywhere(drawn: dict[str, Figure], tmp_path: Path) -> None:
    run = method(tmp_path / "one", "sgd", "topk", 0, 0.1)
    run.write_rows("metrics", run.metrics.assign(dist_to_opt=0.8 ** run.metrics["round"]).to_dict("records"))
    draw_curves({"one": [run]}, tmp_path / "curves")
    axis = next(axis for axis in drawn["curves"].axes if axis.get_ylabel() == metric("dist_to_opt").label)
    assert axis.get_lines()[0].get_ydata().tolist() == run.metrics["dist_to_opt"].tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("column", "values", "log"),
    [
        ("train_loss", [1.0, 0.3], False), ("train_loss", [1.0, 0.1], True), ("train_loss", [1.0, -0.1], False),
        ("train_loss", [1.0, 0.1, np.nan, np.inf], True), ("test_accuracy", [0.01, 0.9], False),
        ("consensus", [0.0, 1e-6, 1.0], True), ("staleness", [0.0, 1.0, 30.0], False), ("consensus", [0.0], False),
    ],
)  # fmt: skip
def test_a_log_axis_where_values_ask_for_it(column: str, values: list[float], log: bool) -> None:
    assert spans_decades({"": [pd.DataFrame({column: values})]}, column) is log


def test_a_log_axis_of_costs_where_they_ask_for_it() -> None:
    def frames(*lines: list[float], x: str = "bytes_sent") -> dict[str, list[pd.DataFrame]]:
        return {str(i): [pd.DataFrame({x: line})] for i, line in enumerate(lines)}

    assert is_far(frames([0.0, 1.0, 10.0]), "bytes_sent")
    assert not is_far(frames([0.0, 1.0, 2.0]), "bytes_sent"), "nothing would be gained, and the start lost"
    assert not is_far(frames([0.0, 1.0, 10.0], x="step"), "step")
    assert is_far(frames([0.0, 1.0], [0.0, 10.0], x="step"), "step")
