"""``commexp-report RUN...``: a page, tables and figures of runs, also as another network would have had them."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commexp import __version__
from commexp.refusals import UserError
from commexp.rundir import Run, write_atomic
from commexp.streams import complain, lenient_streams

if TYPE_CHECKING:
    from commexp.network import Network

BANDWIDTHS = [10 ** (k / 4) for k in range(21)]  # 1 Mbit/s to 100 Gbit/s


@lenient_streams()
def main() -> None:
    parser = argparse.ArgumentParser(prog="commexp-report", description="Compare runs: a page, tables and figures.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, or that hold runs or a sweep"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/comparison"), help="where index.html, tables and figures go"
    )
    parser.add_argument(
        "--replay",
        action="append",
        default=[],
        metavar="network=NAME",
        help="price the runs anew on this network; also network.latency=5 and the like, each with its own --replay",
    )
    parser.add_argument("--target", type=float, help="accuracy to reach; that of the runs' config if not given")
    parser.add_argument("--version", action="version", version=f"commexp {__version__}")
    given = parser.parse_args()
    try:
        compare(given.runs, given.out, given.replay, given.target)
    except UserError as error:
        complain(str(error))
        sys.exit(2)


def compare(folders: Sequence[Path], out: Path, words: Sequence[str], target: float | None) -> None:
    """Raises UserError, before anything is written, where no folder holds a run; for a network, where one does not."""
    from commexp.report.reading import read_runs

    runs, left = read_runs(folders)
    wrong = [(run.folder, run.problem) for run in runs if run.problem] + [(one.folder, one.why) for one in left]
    if wrong and (words or not runs):
        raise UserError(
            f"RUN={wrong[0][0]}: no run with results ({wrong[0][1]}); give folders such as outputs/runs/..."
        )

    from commexp.report.comparison import Comparison, as_latex, as_markdown, in_brief
    from commexp.report.curves import draw_curves
    from commexp.report.graphs import draw_graphs
    from commexp.report.page import write_page
    from commexp.report.phases import draw_phases
    from commexp.report.style import STYLES

    compared = Comparison(runs, left, target)
    if words:
        replayed(compared.groups, out, words, target)
        return
    write_atomic(out / "comparison.md", as_markdown(compared))
    write_atomic(out / "comparison.tex", as_latex(compared))
    written = [write_page(compared, out / "index.html"), out / "comparison.md", out / "comparison.tex"]
    few = len(compared.groups) <= STYLES
    if compared.groups and few:
        written += draw_curves(compared.groups, out / "comparison") + draw_phases(compared.groups, out / "phases")
    written += draw_graphs(compared.groups, out / "topology")
    print(in_brief(compared))
    if not few:
        print(
            f"\nNo figures: {STYLES} lines at most can be told apart, of {len(compared.groups)} methods; see the page"
        )
    print("\n".join(str(p) for p in ["", *written]))


def replayed(groups: Mapping[str, Sequence[Run]], out: Path, words: Sequence[str], target: float | None) -> None:
    """replay.md and its figure: the runs on the network that ``words`` describe, and on faster and slower ones."""
    from commexp.replay import Replay
    from commexp.report.replay import SHOWN, Priced, draw_replay, replay_markdown

    network = described(words)
    bandwidths = sorted({*BANDWIDTHS, *SHOWN, network.bandwidth})
    priced: dict[str, list[Priced]] = {}
    for name, runs in groups.items():
        for run in runs:
            books = Replay(run)
            seconds = {b: books.seconds(at(network, b)) for b in bandwidths}
            priced.setdefault(name, []).append(Priced(run.metrics, seconds))
    first = next(iter(groups.values()))[0]
    target = target or first.config.get("target_accuracy")
    dense = [name for name, runs in groups.items() if runs[0].name.startswith("sgd-none-")]
    baseline = (dense or [max(priced, key=lambda name: float(priced[name][0].metrics["bytes_sent"].iloc[-1]))])[0]
    text = f"{' '.join(words)}\n\n" + replay_markdown(priced, network.bandwidth, target, baseline)
    write_atomic(out / "replay.md", text)
    written = draw_replay(priced, target, out / "replay")
    print(text)
    print("\n".join(str(p) for p in [out / "replay.md", *written]))


def described(words: Sequence[str]) -> Network:
    """The network of ``network=...`` and ``network.<field>=...``. Raises UserError for other words."""
    from commexp.api import compose_config
    from commexp.config import prepare

    for word in words:
        if not word.startswith(("network=", "network.")):
            raise UserError(f"--replay {word}: says nothing of the network; give network=mobile, or network.latency=5")
    return prepare(compose_config(words)).network


def at(network: Network, bandwidth: float) -> Network:
    """The same with another bandwidth; the way up, and the links of single workers both ways, as much faster or slower
    than it as they were. Latencies stay."""
    if math.isclose(bandwidth, network.bandwidth):
        return network

    def scaled(rate: float | None) -> float | None:
        return None if rate is None else rate * bandwidth / network.bandwidth

    links = network.links and {
        n: dataclasses.replace(link, bandwidth=scaled(link.bandwidth), up=scaled(link.up))
        for n, link in network.links.items()
    }
    return dataclasses.replace(network, bandwidth=bandwidth, up=scaled(network.up), links=links)
