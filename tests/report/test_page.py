"""The page that commexp-report writes: what is in it, and that it works in a browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.folders import make

from commexp.cli.report import compare, main
from commexp.report.bands import BANDS, band
from commexp.report.comparison import Comparison, as_latex
from commexp.report.findings import Finding, Section, findings_page
from commexp.report.page import write_page
from commexp.report.page.embed import embedded
from commexp.report.page.tables import command_of
from commexp.report.reading import LeftOut, read_runs
from commexp.report.thin import WHOLE, thinned
from commexp.run_folder import Run

pytestmark = pytest.mark.drawn

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BROKEN = "round,step,bytes_sent,wall_seconds,sim_seconds,train_loss\n0,0,0,0,0,1.0\n1,1,1,1,1,one\n"
SCRIPTS = 5  # the data, plotly, and the page's own three
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & 100 % \\_"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three methods, and one of each kind that cannot be shown in full."""
    folder = tmp_path_factory.mktemp("zoo")
    for seed in (0, 1):
        make(folder / f"small-{seed}", seed, 0.01)
    make(folder / "large", 0, 0.1)
    make(folder / "running", 1, 0.1, "running", rows=12)
    make(folder / "failed", 2, 0.2, "failed", rows=5, error=f"RuntimeError: {NASTY}")
    (make(folder / "broken", 3, 0.1).folder / "metrics.csv").write_text(BROKEN)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def report(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    compare([zoo, zoo / "large", zoo / "nowhere"], out, [], None)
    return out


class Parsed(HTMLParser):
    """Cells of tables by their id, scripts, list items and the attributes that fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.items: list[str] = []
        self.fetched: list[str] = []
        self.policy = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.open += [] if tag in ("meta", "input", "br", "img", "link") else [tag]
        self.fetched += [given[a] or "" for a in ("src", "href") if a in given]
        if tag == "table":
            self.rows = self.tables.setdefault(given["id"] or "", [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append("")
        elif tag == "li":
            self.items.append("")
        elif tag == "meta" and "content" in given and given.get("http-equiv"):
            self.policy = given["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += text
        elif {"td", "th"} & {*self.open}:
            self.rows[-1][-1] += text
        elif "li" in self.open:
            self.items[-1] += text


@pytest.fixture(scope="module")
def parsed(report: Path) -> Parsed:
    return Parsed((report / "index.html").read_text(encoding="utf-8"))


def test_every_run_and_folder_has_a_row(parsed: Parsed, zoo: Path) -> None:
    head, *rows = parsed.tables["runs"]
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert len(rows) == 8, "a folder that was named twice has one row"
    runs = {path.name for path in zoo.iterdir()} - {"empty"}
    assert found.keys() == {*runs, str(zoo / "empty"), str(zoo / "nowhere")}
    told = {name: (row["status"], row["note"]) for name, row in found.items()}
    assert told["broken"] == (
        "completed, unreadable", "metrics.csv cannot be read: line 3, column train_loss: 'one' is no number",
    )  # fmt: skip
    assert told["failed"] == ("failed", f"RuntimeError: {NASTY}")
    assert told["running"] == ("interrupted", ""), "nobody holds its lock"
    assert told[str(zoo / "empty")] == ("no run", "an empty folder")
    assert told[str(zoo / "nowhere")] == ("no run", "no such folder")
    assert found["running"]["rounds"] == "110", "as far as it has come"
    assert found["running"]["sent"] == "1.1 MB"


def test_what_did_not_finish_is_told_apart(parsed: Parsed, report: Path) -> None:
    told = " ".join(parsed.items)
    text = (report / "comparison.md").read_text(encoding="utf-8").partition("Left out or not finished:")[2]
    for name in ("broken", "failed", "running", "empty", "nowhere"):
        assert name in told
        assert name in text
    assert "small-0" not in told + text


def test_methods_have_a_mean_and_a_spread_over_seeds(parsed: Parsed) -> None:
    head, *rows = parsed.tables["methods"]
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert [row["runs"] for row in found.values()] == ["1 failed", "1 completed, 1 interrupted", "2 completed"]
    small = found["topk k=0.01"]
    assert re.fullmatch(r"9\d\.\d\d% ± \d\.\d\d", small["test accuracy"])
    assert re.fullmatch(r"\d+ kB ± \d+(\.\d)?", small["bytes to 0.9 acc."])
    assert re.fullmatch(r"1\.\d* s", small["virtual time to 0.9 acc."])
    assert found["topk k=0.2"]["test accuracy"] == "-", "no run has completed"


def test_nothing_is_fetched_and_nothing_a_run_says_is_markup(parsed: Parsed, report: Path) -> None:
    assert len(parsed.scripts) == SCRIPTS
    assert parsed.fetched == ["#unfinished"]
    assert parsed.policy.startswith("default-src 'none'; script-src 'sha256-")
    ours = (report / "index.html").read_text(encoding="utf-8").replace(parsed.scripts[1], "")
    assert "http://www.w3.org/2000/svg" in ours
    assert set(re.findall(r"https?://[\w./]*", ours)) == {"http://www.w3.org/2000/svg"}, "the name of a format"
    assert "<script>alert" not in ours
    assert "<img" not in ours


def test_a_runs_name_cannot_end_the_script(tmp_path: Path) -> None:
    run = make(tmp_path / "one", 0, 0.1)
    run.set_meta(compress=NASTY)
    found, _ = read_runs([run.folder])
    page = Parsed(write_page(Comparison(found), tmp_path / "index.html").read_text(encoding="utf-8"))
    assert len(page.scripts) == SCRIPTS
    (method,) = json.loads(page.scripts[0])["methods"]
    assert NASTY in method["name"]
    assert NASTY in page.tables["methods"][1][0]


def test_embedded_numbers_are_those_of_the_runs(parsed: Parsed, zoo: Path) -> None:
    data = json.loads(parsed.scripts[0])
    seen = 0
    for method in data["methods"]:
        for curve in method["runs"]:
            metrics = Run(zoo / curve["name"]).metrics
            assert curve["columns"].keys() == set(metrics)
            for column, place in curve["columns"].items():
                values = np.frombuffer(base64.b64decode(data["pool"][place]), dtype="<f4")
                np.testing.assert_array_equal(values, metrics[column].to_numpy(dtype=np.float32))
                seen += 1
    assert seen == 5 * 9
    assert len(data["pool"]) < seen, "columns that several share are there once"
    assert [m["runs"][-1]["mean"] for m in data["methods"]] == [True, False, True], "a mean is of completed runs"


def test_long_curves_keep_ends_and_extremes(tmp_path: Path) -> None:
    runs = [make(tmp_path / str(seed), seed, 0.1, rows=rows) for seed, rows in ((0, 2000), (1, 1500))]
    frames = [run.metrics for run in runs]
    kept = thinned(frames)
    assert max(map(len, kept)) <= WHOLE
    for frame, few in zip(frames, kept, strict=True):
        assert list(few["round"].iloc[[0, -1]]) == list(frame["round"].iloc[[0, -1]])
    for column in frames[0]:
        for pick in (min, max):
            assert pick(pick(f[column]) for f in kept) == pick(pick(f[column]) for f in frames)
    shortest = len(kept[1])
    assert list(kept[0]["round"].iloc[: shortest - 1]) == list(kept[1]["round"].iloc[:-1]), "the same rows of both"


def test_a_diverged_run_is_shown_up_to_its_end(tmp_path: Path) -> None:
    run = make(tmp_path / "one", 0, 0.1, "diverged")
    rows = run.rows("metrics")
    rows[-1] |= {"train_loss": math.nan, "consensus": math.inf, "test_accuracy": 1e300}
    run.write_rows("metrics", rows)
    found, _ = read_runs([run.folder])
    data = embedded(Comparison(found))
    json.dumps(data, allow_nan=False)
    assert [c for c, _ in data["y"]] == ["train_loss", "test_accuracy", "consensus"]


def test_configs_differences_only(parsed: Parsed) -> None:
    head, *rows = parsed.tables["differences"]
    assert head == ["method", "seed", "compress.k"]
    assert [row[0] for row in rows] == [row[0] for row in parsed.tables["methods"][1:]]
    assert rows[-1][1:] == ["0, 1", "0.01"]


def test_the_graph_is_drawn_once(report: Path, parsed: Parsed) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    assert page.count('class="graph"') == 1
    (graph,) = json.loads(parsed.scripts[0])["graphs"]
    assert len(graph["links"]) == len(graph["workers"]) == 4
    assert "Ring, 4 workers; 4 links; every weight is 0.333" in page


def test_how_many_graphs_are_not_drawn_is_said(tmp_path: Path) -> None:
    """Eight random graphs of one method, two of them the same."""
    for seed in range(8):
        weight = 0.1 + max(seed, 1) / 100
        run = make(tmp_path / str(seed), seed, 0.1)
        run.write_rows("topology", [{"worker": n, "neighbour": 1 - n, "weight": weight} for n in (0, 1)])
    page = write_page(Comparison(*read_runs([tmp_path])), tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count('class="graph"') == 6
    assert " 1 more graph is not drawn." in page


def test_papers_get_tables_and_figures(report: Path) -> None:
    names = {path.name for path in report.iterdir()}
    assert names == {"index.html", "comparison.md", "comparison.tex", "budgets.csv", "pareto.csv"} | {
        f"{name}.{kind}" for name in ("comparison", "phases", "topology", "pareto") for kind in ("png", "pdf")
    }
    text = (report / "comparison.tex").read_text(encoding="utf-8")
    assert text.count(r"\begin{tabular}") == 2
    assert r" $\pm$ " in text
    assert as_latex(Comparison([])) == ""


def test_a_job_of_a_sweep_has_a_command_of_its_own(tmp_path: Path) -> None:
    words = ["algo=topk", "+name=two words"]
    all_jobs = "commexp -m algo=topk,sgd '+name=two words'"
    make(tmp_path / "a", 0, 0.1, command=all_jobs, overrides=words)
    make(tmp_path / "b", 0, 0.1, command=all_jobs)
    make(tmp_path / "c", 0, 0.1, command="python mine.py", overrides=words)
    runs = {run.folder.name: run for run in read_runs([tmp_path])[0]}
    assert command_of(runs["a"]) == "commexp algo=topk '+name=two words'"
    assert command_of(runs["b"]) == all_jobs, "from before meta.json had them"
    assert command_of(runs["c"]) == "python mine.py"


def test_what_a_run_was_composed_of_is_kept(run: Callable[..., Run]) -> None:
    made = run("dataset=linreg", "dataset.dim=4", "dataset.samples=4", "workers=2", "rounds=1")
    assert made.meta["overrides"][:3] == ["dataset=linreg", "dataset.dim=4", "dataset.samples=4"]


def test_more_methods_than_lines_can_tell_apart_get_no_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(29):
        make(tmp_path / "runs" / str(n), 0, (n + 1) / 1000, rows=2)
    compare([tmp_path / "runs"], tmp_path, [], None)
    assert "No figures: 28 lines at most can be told apart, of 29 methods" in capsys.readouterr().out
    assert "comparison.png" not in {path.name for path in tmp_path.iterdir()}


def test_folders_of_runs_and_sweeps_are_looked_through(zoo: Path, tmp_path: Path) -> None:
    runs, left = read_runs([zoo.parent])
    assert {run.folder for run in runs} >= {path for path in zoo.iterdir() if path.name != "empty"}
    assert zoo / "empty" in {one.folder for one in left}
    make(tmp_path / "runs" / "a", 0, 0.1)
    jobs = tmp_path / "sweeps" / "s" / "jobs"
    jobs.mkdir(parents=True)
    for number, (name, error) in enumerate((("a", None), ("b", "k=2: too much; less"), ("c", None))):
        job = {"overrides": {"compress.k": "2"}, "run": name, "target": None, "error": error}
        (jobs / f"{number}.json").write_text(json.dumps(job))
    for given in ([jobs.parent], [tmp_path]):
        runs, left = read_runs(given)
        assert [run.name for run in runs] == ["a"]
        assert [one.why for one in left] == ["compress.k=2: refused: k=2: too much; less", "never begun"]
    (jobs / "0.json").write_text("{")
    assert isinstance(read_runs([jobs.parent])[1][0], LeftOut)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "seed: 1", "config.yaml cannot be read: lacks algo, compress"),
        ("config.yaml", None, "config.yaml cannot be read"),
        ("meta.json", "\0\xff", "meta.json cannot be read"),
        ("summary.json", '{"train_loss": "low"}', "summary.json cannot be read"),
        ("metrics.csv", "a,b\n1,2\n", "metrics.csv cannot be read: there is no column round"),
        ("metrics.csv", "round\n1\n2,3,4\n", "metrics.csv cannot be read: line 3: 3 cells under 1 columns"),
        ("traffic.csv", "round,compute_seconds\n1,2\n", "traffic.csv cannot be read: "),
        ("topology.csv", "worker,neighbour,weight\n0,x,1\n", "topology.csv cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(name: str, content: str | None, why: str, tmp_path: Path) -> None:
    run = make(tmp_path / "one", 0, 0.1)
    (run.folder / name).unlink(missing_ok=True)
    if content is not None:
        (run.folder / name).write_text(content, encoding="latin-1")
    (found,), _ = read_runs([tmp_path])
    assert found.problem.startswith(why)
    page = Parsed(write_page(Comparison([found]), tmp_path / "index.html").read_text(encoding="utf-8"))
    assert page.tables["runs"][1][-1].startswith(why)


def test_no_run_at_all_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "report"
    monkeypatch.setattr(sys, "argv", ["commexp-report", "--out", str(out), str(tmp_path / "empty"), "nowhere"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"commexp: error: RUN={tmp_path / 'empty'}: no run with results (an empty folder); give")
    assert not out.exists()


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the browser asked for or complained of."""
    return []


@pytest.fixture(scope="module")
def browser(report: Path, told: list[str]) -> Iterator[Any]:
    """The page in headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome")
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
        page.on("request", lambda request: told.append(request.url))
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        page.goto((report / "index.html").as_uri())
        page.wait_for_selector("#plot .scatterlayer .trace", state="attached")
        yield page
        chromium.close()


def until(page: Any, expression: str) -> None:
    """What Playwright's own wait does with eval, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(expression)


def drawn(page: Any) -> set[int]:
    """The methods whose lines are in the plot, of as many traces as the plot shows."""
    found = page.evaluate("document.getElementById('plot').data.map(t => t.meta ?? null)")
    assert page.locator("#plot .scatterlayer .trace").count() == len(found)
    return {n for n in found if n is not None}


def test_a_method_is_switched_off_and_on(browser: Any) -> None:
    assert drawn(browser) == {0, 1, 2}
    box = browser.locator("#list input").nth(1)
    box.click()
    assert drawn(browser) == {0, 2}
    assert browser.locator("#count").text_content() == "2 of 3 methods"
    assert [bar.is_visible() for bar in browser.locator(".bar").all()] == [True, False, True]
    beside = "t => t.lastChild.getBoundingClientRect().right - t.getBoundingClientRect().right"
    assert browser.locator(".track").first.evaluate(beside) == pytest.approx(0, abs=1), "the longest fills the width"
    browser.click("#none")
    assert drawn(browser) == set()
    browser.click("#all")
    assert drawn(browser) == {0, 1, 2}


def test_no_button_sends_anything_away_and_none_covers_the_curves(browser: Any) -> None:
    titles = browser.locator("#plot .modebar-btn").evaluate_all("all => all.map(b => b.dataset.title)")
    assert titles == ["Download plot", "Zoom", "Pan", "Reset axes"]
    below = browser.evaluate("document.querySelector('#plot .modebar').getBoundingClientRect().bottom")
    above = browser.evaluate("document.querySelector('#plot .nsewdrag').getBoundingClientRect().top")
    assert below <= above


def test_controls_are_called_as_in_tables_and_figures(browser: Any) -> None:
    said = browser.locator("#axes").text_content()
    assert "x axis" in said
    assert "y axis" in said
    offered = browser.locator("#lines option").all_text_contents()
    assert offered == [*BANDS.values(), "every run"]
    assert browser.locator("#bands").text_content() == "bands: mean ± standard deviation over 2 seeds"


def downloaded(browser: Any, selector: str) -> list[dict[str, str]]:
    with browser.expect_download() as waiting:
        browser.click(selector)
    return [*csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8")))]


@pytest.mark.parametrize("kind", BANDS)
def test_curves_can_be_taken_along(kind: str, browser: Any, zoo: Path) -> None:
    """As CSV: the mean and the band, in the units of metrics.csv."""
    browser.select_option("#lines", kind)
    rows = [row for row in downloaded(browser, "#csv") if row["method"] == "topk k=0.01"]
    browser.select_option("#lines", "std")
    each = np.stack([Run(zoo / f"small-{seed}").metrics["test_accuracy"] for seed in (0, 1)], axis=1)
    low, high = band(each, kind)
    for column, values in (("", each.mean(axis=1)), ("_low", low), ("_high", high)):
        np.testing.assert_allclose([float(row[f"test_accuracy{column}"]) for row in rows], values, rtol=1e-5)
    assert [row["seeds"] for row in rows] == ["0, 1"] * 30
    sent = Run(zoo / "small-0").metrics["bytes_sent"]
    assert [float(row["bytes_sent"]) for row in rows] == pytest.approx(list(sent))


def test_so_can_tables_and_commands(browser: Any) -> None:
    rows = downloaded(browser, "button.csv[data-table=runs]")
    assert len(rows) == 8
    assert {row["run"]: float(row["sent"] or "nan") for row in rows if row["sent"] != "-"}["large"] == 2900000
    assert {row["note"] for row in rows} >= {f"RuntimeError: {NASTY}"}
    commands = downloaded(browser, "button.csv[data-table=made]")
    assert {row["command"] for row in commands} == {"commexp a=b"}
    browser.context.grant_permissions(["clipboard-read", "clipboard-write"])
    browser.locator("button.copy").first.click()
    assert browser.evaluate("navigator.clipboard.readText()") == "commexp a=b"


def test_axes_change(browser: Any) -> None:
    assert browser.locator("#plot .xtitle").text_content() == "bytes sent, all workers"
    browser.select_option("#x", "sim_seconds")
    assert browser.locator("#plot .xtitle").text_content() == "time on the virtual clock"
    assert any(text.endswith(" s") for text in browser.locator("#plot .xtick text").all_text_contents())
    browser.select_option("#y", "train_loss")
    assert browser.locator("#plot .ytitle").text_content() == "train loss"
    assert browser.locator("#logy").is_checked(), "as in the figures"
    before = browser.locator("#plot .ytick text").all_text_contents()
    browser.click("#logy")
    assert browser.locator("#plot .ytick text").all_text_contents() != before
    offered = browser.locator("#x option").evaluate_all("all => all.map(o => o.value)")
    assert offered == ["round", "step", "bytes_sent", "bytes_wire", "sim_seconds", "wall_seconds"]
    assert browser.locator("#y option").count() == 3
    browser.select_option("#y", "test_accuracy")


def test_every_run_is_a_line_if_asked_for(browser: Any) -> None:
    browser.select_option("#lines", "each")
    assert browser.locator("#plot .scatterlayer .trace").count() == 5
    browser.select_option("#lines", "range")
    assert browser.locator("#plot .scatterlayer .trace").count() == 4, "three lines and the range of one"


def test_values_are_read_under_the_mouse(browser: Any) -> None:
    browser.select_option("#x", "sim_seconds")
    at = browser.evaluate(
        """() => {
            const plot = document.getElementById("plot"), box = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            const line = plot.data.find((t) => t.meta === 0);
            return [box.x + xaxis._offset + xaxis.d2p(line.x[3]), box.y + yaxis._offset + yaxis.d2p(line.y[3])];
        }"""
    )
    browser.mouse.move(*at)
    browser.wait_for_selector("#plot .hoverlayer .hovertext")
    text = browser.locator("#plot .hoverlayer").text_content()
    assert "topk k=0.2" in text
    assert "0.3 s" in text
    assert "%" in text


def test_tables_are_sorted(browser: Any) -> None:
    def column(number: int) -> list[str]:
        return browser.locator(f"#runs tbody tr td:nth-child({number + 1})").all_text_contents()

    heads = browser.locator("#runs th").all_text_contents()
    head = browser.locator("#runs th").nth(heads.index("sent"))
    for order in (1, -1):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == ("ascending" if order == 1 else "descending")
        shown = column(heads.index("sent"))
        assert shown[-3:] == ["-", "-", "-"], "what has no value stays below"
        expected = ["290 kB", "290 kB", "800 kB", "1.1 MB", "2.9 MB"]
        assert shown[:5] == expected[::order]
    browser.locator("#runs th button").first.click()
    assert column(0) == sorted(column(0))


def test_a_workers_links_stand_out(browser: Any) -> None:
    browser.locator(".drawing .points path").first.hover(force=True)  # plotly's own layer lies above it
    browser.wait_for_selector(".drawing .shapelayer path", state="attached")
    near = browser.evaluate(
        """() => {
            const shown = document.querySelector(".drawing").layout.shapes.map((shape) => shape.path).join("");
            const links = data.graphs[0].links.filter(({ x, y }) => shown.includes(`M${x[0]} ${y[0]}L${x[1]} ${y[1]}`));
            return links.map((link) => link.ends.join(" "));
        }"""
    )
    assert near == ["0 1", "0 3"]
    browser.mouse.move(0, 0)
    until(browser, "document.querySelector('.drawing').layout.shapes.length === 0")


def test_plots_follow_dark_and_print(browser: Any) -> None:
    colour = "document.getElementById('plot').layout.font.color"
    light = browser.evaluate(colour)
    browser.emulate_media(color_scheme="dark")
    until(browser, f"{colour} !== '{light}'")
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate(colour) == light, "paper is white"
    assert browser.evaluate("document.querySelector('details').open")
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(colour) != light


def test_columns_out_of_sight_are_announced(browser: Any) -> None:
    def beyond() -> list[bool]:
        wider = "all => all.map((b) => b.scrollLeft + b.clientWidth < b.scrollWidth - 2)"
        return browser.locator(".scroll").evaluate_all(wider)  # type: ignore[no-any-return]

    seen = []
    for width in (1440, 1024):
        browser.set_viewport_size({"width": width, "height": 900})
        said = "[...document.querySelectorAll('.hidden-columns')].map((hint) => !hint.hidden)"
        until(browser, f"JSON.stringify({said}) === {json.dumps(json.dumps(beyond(), separators=(',', ':')))}")
        seen += beyond()
    assert True in seen
    assert False in seen
    last = seen[len(seen) // 2 :].index(True)
    box = browser.locator(".scroll").nth(last)
    box.evaluate("b => { b.scrollLeft = b.scrollWidth; }")
    until(browser, f"document.querySelectorAll('.hidden-columns')[{last}].hidden")


def test_a_phone_scrolls_down_only(browser: Any) -> None:
    browser.set_viewport_size({"width": 390, "height": 844})
    until(browser, "document.querySelector('#plot .main-svg').clientWidth < 390")
    assert browser.evaluate("document.documentElement.scrollWidth") == 390


def test_so_does_the_page_of_claims(browser: Any, tmp_path: Path) -> None:
    words = "no_blank_anywhere/" * 10
    told = Finding("id", words, "met", words, words, words, words, words, words, [words])
    path = tmp_path / "claims.html"
    path.write_text(findings_page([Section("id", words, words, [told])], words))
    page = browser.context.browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_the_browser_asked_for_nothing_and_complained_of_nothing(browser: Any, report: Path, told: list[str]) -> None:
    assert told == [(report / "index.html").as_uri()]
