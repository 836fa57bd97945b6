"""``commexp-report RUN...``: a page, tables and figures of runs, also as another network would have had them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commexp import __version__
from commexp.cli.parser import Parser
from commexp.config.messages import UserError
from commexp.files import number, printable
from commexp.launch.streams import complain, lenient_streams
from commexp.report.target import Target
from commexp.run_folder import Run, clock_label, write_atomic

if TYPE_CHECKING:
    from commexp.network import Network
    from commexp.report.comparison import Comparison

BANDWIDTHS = [10 ** (k / 4) for k in range(21)]  # 1 Mbit/s to 100 Gbit/s


@lenient_streams()
def main() -> None:
    parser = Parser(prog="commexp-report", description="Compare runs: a page, tables and figures.")
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
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--target", type=float, help="accuracy to reach; the target of the runs' config if not given")
    goal.add_argument("--target-loss", type=float, help="loss to reach: test loss, or train loss of runs without one")
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="COST=LIST",
        help="show what each method has reached when it has spent so much: bytes=1e6,1e7 (sent by all workers), "
        "seconds=1,10 (virtual; with --replay on that network); if not given, what the cheapest run spends in all, a "
        "tenth of it, and ten times as much",
    )
    shape = parser.add_argument_group(
        "figures", "--x, --y, --size or --style also draws one figure for a paper, OUT/<y>-<x>.png and .pdf"
    )
    shape.add_argument("--x", metavar="COLUMN", help="column of metrics.csv on the x axis (default: bytes_sent)")
    shape.add_argument("--y", metavar="COLUMN", help="column on the y axis (default: the foremost metric of the runs)")
    shape.add_argument(
        "--size", metavar="WxH", help="width and height in inches (default: 3.3x2.4, or that of the style)"
    )
    shape.add_argument("--style", help="paper (default), report, slides: sizes of text and lines")
    shape.add_argument(
        "--order",
        default="",
        metavar="A,B",
        help="methods that come first in tables and figures, by name or as sgd-topk",
    )
    shape.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="sgd-topk=Top-k",
        help="another name of a method in all tables and figures; each with its own --label",
    )
    shape.add_argument(
        "--band",
        default="std",
        help="around the mean over seeds: std (default; standard deviation), se (standard error), range, ci95 "
        "(confidence interval)",
    )
    parser.add_argument("--version", action="version", version=f"commexp {__version__}")
    try:
        given = parser.parse_args()
        if given.target is not None and not 0 < given.target <= 1:
            raise UserError(f"--target={given.target:g}: out of range; give a share in (0, 1] such as 0.95")
        if given.target_loss is not None and not 0 < given.target_loss < math.inf:
            raise UserError(f"--target-loss={given.target_loss:g}: must be positive; give a loss such as 1.5")
        target = Target.of({"target_accuracy": given.target, "target_loss": given.target_loss})
        compare(given.runs, given.out, given.replay, target, budgets(given.at), wanted(given))
    except UserError as error:
        complain(printable(str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@dataclass(frozen=True)
class Wanted:
    """How figures and tables are to be: see commexp.report.plot. ``alone``: of one figure for a paper; None where none
    is asked for. ``label``: as given, old=new."""

    order: Sequence[str] = ()
    label: Sequence[str] = ()
    band: str = "std"
    alone: Mapping[str, Any] | None = None

    def labels(self, names: Iterable[str]) -> dict[str, str]:
        """By old name, which may have a = in it if it is one of ``names``. Raises UserError."""
        found, known = {}, {*names}
        for word in self.label:
            cuts = [i for i, letter in enumerate(word) if letter == "="]
            cut = next((i for i in cuts if word[:i] in known), cuts[0] if cuts else 0)
            if not word[:cut] or not word[cut + 1 :]:
                raise UserError(f"--label={word}: no new name of a method; give sgd-topk=Top-k")
            found[word[:cut]] = word[cut + 1 :]
        return found


def wanted(given: argparse.Namespace) -> Wanted:
    """Raises UserError for what does not exist, of all that can be told before runs are read."""
    size = None
    if given.size is not None:
        width, _, height = given.size.lower().partition("x")
        size = number(width) or 0.0, number(height) or 0.0
    from commexp.report.plot import check

    with told():
        check(given.band, given.style or "paper")
        try:
            check(given.band, given.style or "paper", size)
        except ValueError as error:  # as it was typed
            raise ValueError(f"size={given.size}: {str(error).partition(': ')[2]}") from error
    alone = {"x": given.x, "y": given.y, "size": size, "style": given.style}
    alone = {key: value for key, value in alone.items() if value is not None}
    order = [name.strip() for name in given.order.split(",") if name.strip()]
    return Wanted(order, given.label, given.band, alone or None)


@contextmanager
def told() -> Iterator[None]:
    """What report/ calls key=value is an option here."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"--{error}") from error


def budgets(words: Sequence[str]) -> dict[str, list[float]]:
    """The budgets of ``bytes=1e6,1e7`` and ``seconds=1,10`` by their column of metrics.csv; those of a word that is
    given twice together. Raises UserError for anything else."""
    from commexp.report.budgets import COSTS

    right = "bytes=1e6,1e7 or seconds=1,10"
    found: dict[str, list[float]] = {}
    for word in words:
        cost, _, values = word.partition("=")
        if cost not in COSTS:
            raise UserError(f"--at {word}: no such cost; give {right}")
        for value in values.split(","):
            amount = number(value.strip())
            if amount is None or not 0 < amount < math.inf:
                raise UserError(f"--at {word}: {value!r} is no positive number; give {right}")
            found.setdefault(COSTS[cost], []).append(amount)
    return found


def compare(
    folders: Sequence[Path],
    out: Path,
    words: Sequence[str],
    target: Target | None,
    at: Mapping[str, Sequence[float]] | None = None,
    how: Wanted | None = None,
) -> None:
    """Raises UserError, before anything is written, where no folder holds a run; for a network, where none holds one
    that can be priced on it; for methods and columns that no run has; and for a folder ``out`` that cannot be
    written."""
    from commexp.report.reading import read_runs

    runs, left = read_runs(folders)
    if not any(not run.problem for run in runs):
        wrong = [(run.folder, run.problem) for run in runs] + [(one.folder, one.why) for one in left]
        raise UserError(
            f"RUN={wrong[0][0]}: no run with results ({wrong[0][1]}); give folders such as outputs/runs/..."
        )

    from commexp.report.comparison import Comparison

    how = how or Wanted()
    if words and how.alone is not None:
        options = ", ".join(f"--{key}" for key in how.alone)
        raise UserError(f"--replay {words[0]}: draws its own figures; leave {options} out, or --replay")
    comparison = Comparison(runs, left, target, at or {}, band=how.band)
    with told():
        comparison = replace(comparison, order=how.order, label=how.labels(comparison.groups))
        if how.alone is not None:
            from commexp.report.plot import column_up

            column_up(comparison.groups, how.alone.get("x", "bytes_sent"), how.alone.get("y"))
        comparison.groups  # noqa: B018
    try:
        if words:
            replayed(comparison, out, words)
        else:
            compared(comparison, out, how.alone)
    except OSError as error:
        raise UserError(
            f"--out={out}: cannot be written ({error.strerror or error}); give a folder that can"
        ) from error


def compared(comparison: Comparison, out: Path, alone: Mapping[str, Any] | None = None) -> None:
    """The page, the tables and the figures. A figure that cannot be drawn is named; all else stands without it.
    ``alone``: of one more figure, see ``Wanted``."""
    from commexp.report.comparison import as_latex, as_markdown, in_brief
    from commexp.report.curves import draw_bits, draw_curves
    from commexp.report.graphs import draw_graphs
    from commexp.report.page import write_page
    from commexp.report.phases import draw_phases
    from commexp.report.plot import save_plot
    from commexp.report.style import STYLES
    from commexp.report.terminal import in_terminal

    write_atomic(out / "comparison.md", as_markdown(comparison))
    write_atomic(out / "comparison.tex", as_latex(comparison))
    written = [write_page(comparison, out / "index.html"), out / "comparison.md", out / "comparison.tex"]
    written += comparison.equal_cost.write(out, called=comparison.called)
    groups, few = comparison.groups, len(comparison.groups) <= STYLES
    if groups and few:
        written += _drawn(lambda path: draw_curves(groups, path, kind=comparison.band), out / "comparison")
        written += _drawn(lambda path: draw_bits(groups, path, kind=comparison.band), out / "bits")
        written += _drawn(lambda path: draw_phases(groups, path), out / "phases")
        written += _drawn(lambda path: comparison.equal_cost.draw(path, comparison.looks), out / "pareto")
    written += _drawn(lambda path: draw_graphs(groups, path), out / "topology")
    if alone is not None:
        written += _drawn(
            lambda path: save_plot(groups, path.parent, band=comparison.band, **alone), out / "the figure"
        )
    print(in_terminal(in_brief(comparison), out / "comparison.md"))
    if not few:
        methods = len(comparison.groups)
        print(f"\nNo figures: {STYLES} lines at most can be told apart, of {methods} methods; see the page")
    print("\n".join(str(p) for p in ["", *written]))


def _drawn(draw: Callable[[Path], list[Path]], path: Path) -> list[Path]:
    try:
        return draw(path)
    except OSError:
        raise
    except Exception as error:
        note(f"{path.name} is not drawn: {type(error).__name__}: {error}")
        return []


def note(text: str) -> None:
    print(f"commexp: note: {printable(text)}", file=sys.stderr)


def replayed(comparison: Comparison, out: Path, words: Sequence[str]) -> None:
    """replay.md and its figure: the runs on the network that ``words`` describe, and on faster and slower ones. A run
    that cannot be priced there is named with the reason. Raises UserError where none can."""
    from commexp.experiment.replay import Replay
    from commexp.report.checked import LeftOut
    from commexp.report.comparison import Comparison, left_out
    from commexp.report.replay import (
        SHOWN,
        Priced,
        at_bandwidths,
        best_settings,
        by_bandwidth,
        draw_replay,
        equal_cost,
        replay_table,
    )
    from commexp.report.settings import families
    from commexp.report.tables import as_text, words_of
    from commexp.report.terminal import in_terminal

    network = described(words)
    bandwidths = sorted({*BANDWIDTHS, *SHOWN, network.bandwidth})
    priced: dict[str, list[Priced]] = {}
    first: Run | None = None
    left = [LeftOut(run.folder, run.problem) for run in comparison.runs if run.problem] + [*comparison.left]
    dense = ""
    for name, runs in comparison.groups.items():
        for run in runs:
            try:
                replay = Replay(run)
                seconds = {b: replay.seconds(with_bandwidth(network, b)) for b in bandwidths}
            except UserError as error:
                left.append(LeftOut(run.folder, str(error).removeprefix(f"RUN={run.folder}: ")))
                continue
            for each in replay.outside:
                note(f"{run.name}: {each}: from outside commexp, and not made; its tables are priced without it")
            priced.setdefault(name, []).append(Priced(run.metrics, seconds, str(run.status)))
            first = first or run
            dense = dense or (name if words_of(run) == ("sgd", "none") else "")
    if first is None:
        raise UserError(f"RUN={left[0].folder}: {left[0].why}")
    target = comparison.target or Target.of(first.config)
    baseline = dense or max(priced, key=lambda name: float(priced[name][0].metrics["bytes_sent"].iloc[-1]))
    counted = clock_label(not network.compute.is_instant, network.compute.coding is not None)
    only = f", {counted}" if counted else ""
    equal = equal_cost(priced, network.bandwidth, comparison.at, only)
    table = by_bandwidth(priced, target, equal)
    called = {"method": comparison.called}
    blocks = [" ".join(words), replay_table(priced, network.bandwidth, target, baseline, only)]
    if counted:
        blocks.append("note: computing takes no time here; --replay network.compute=h100 counts it")
    blocks += at_bandwidths(table, network.bandwidth, target, equal.metric, only)
    alike = families({name: comparison.groups[name] for name in priced})
    blocks += best_settings(alike, priced, network.bandwidth, target)
    blocks += equal.markdown() if len(priced) > 1 or comparison.at else []
    blocks += left_out(Comparison([], left))
    write_atomic(out / "replay.md", as_text(blocks))
    write_atomic(out / "replay.csv", table.replace(called).to_csv(index=False))
    written = [out / "replay.md", out / "replay.csv", *equal.write(out, "replay_", comparison.called)]
    looks, clock = comparison.looks, f"virtual seconds{only}"
    written += _drawn(lambda path: draw_replay(priced, target, path, looks, clock, comparison.band), out / "replay")
    written += _drawn(lambda path: equal.draw(path, looks), out / "replay_pareto")
    print(in_terminal(blocks, out / "replay.md"), end="\n\n")
    print("\n".join(str(p) for p in written))


def described(words: Sequence[str]) -> Network:
    """The network of ``network=...`` and ``network.<field>=...``. Raises UserError for other words."""
    from commexp.api import compose_config
    from commexp.config.plan import prepare

    for word in words:
        if not word.startswith(("network=", "network.")):
            raise UserError(f"--replay {word}: says nothing of the network; give network=mobile, or network.latency=5")
    return prepare(compose_config(words)).network


def with_bandwidth(network: Network, bandwidth: float) -> Network:
    """The same with another bandwidth; the way up, and the links of single workers both ways, as much faster or slower
    than it as they were. Latencies stay."""
    if math.isclose(bandwidth, network.bandwidth):
        return network
    return network.scaled(bandwidth)
