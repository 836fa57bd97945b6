"""A sweep's folder: its tables for programs, people and papers, and its plots."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from commexp import __version__
from commexp.metrics import Metric, foremost, human_bytes, metric, shown, tuned
from commexp.report.aggregate import Job, aggregate, per_run, read_jobs, varied
from commexp.report.bands import told
from commexp.report.budgets import EqualCost
from commexp.report.checked import LeftOut, ReadRun
from commexp.report.curves import draw_bits, draw_curves
from commexp.report.looks import Look, looks
from commexp.report.settings import on_own_network
from commexp.report.style import bytes_axis, columns_that_fit, figure, log_scale, note, percent_axis, save
from commexp.report.tables import DENSE, as_text, by_importance, markdown, sizes
from commexp.report.target import common
from commexp.report.terminal import MarkdownTable
from commexp.run_folder import FORMATS, on_clocks, read_json, sweep_up, write_atomic, write_json


def write_sweep(
    folder: Path, count: int = 0, best_first: bool = False
) -> tuple[MarkdownTable, list[Job], list[LeftOut]]:
    """sweep.csv, .md, .tex, runs.csv and the figures of a sweep's folder, of its first ``count`` jobs (0: all);
    returns the Markdown table, the jobs, and those whose files or runs cannot be read. ``best_first``: the rows of the
    table are in the order of what a search improves."""
    for place in (folder, folder / "figures"):
        sweep_up(place)
    listed = read_jobs(folder)[: count or None]
    jobs = [job for job in listed if isinstance(job, Job)]
    left = [one for one in listed if isinstance(one, LeftOut)]
    left += [LeftOut(job.run.folder, job.run.problem) for job in jobs if job.run.folder.is_dir() and job.run.problem]
    keys = varied(jobs)
    runs = per_run(jobs, keys)
    table = aggregate(runs, keys)
    if best_first and (goal := tuned(table)):
        table = table.sort_values(goal.best, ascending=goal.better == "lower", kind="stable", na_position="last")
    settings = [k for k in keys if k != "seed"]
    heads, cells = readable(table, settings, on_clocks(job.run for job in jobs if not job.run.problem))
    shown_table = markdown(heads, cells, minor(table))
    per_job = runs.to_csv(index=False)
    write_atomic(folder / "runs.csv", per_job)
    write_atomic(folder / "sweep.csv", table.to_csv(index=False))
    write_atomic(folder / "sweep.md", as_text([shown_table]))
    write_atomic(folder / "sweep.tex", latex(heads, cells))
    groups: dict[str, list[ReadRun]] = {}
    called: dict[str, str] = {}
    for job in jobs:
        if job.run.problem:
            continue
        setting = {k: job.overrides.get(k, "") for k in settings}
        groups.setdefault(_call(setting), []).append(job.run)
        called[_call(setting)] = _in_words(setting)
    complete = {name: [run for run in each if run.status == "completed"] for name, each in groups.items()}
    begun = {name: [run for run in each if not run.metrics.empty] for name, each in groups.items()}
    drawn = {name: each for name, each in complete.items() if each} or {n: each for n, each in begun.items() if each}
    pictures = Pictures(folder / "figures", per_job, [job.run for job in jobs])
    if drawn and pictures.are_due:
        draw_curves(drawn, folder / "figures" / "curves")
        draw_bits(drawn, folder / "figures" / "bits")
    if len(groups) > 1:
        _at_equal_cost(folder, groups, called, pictures.are_due)
    done, against = table[table["count"] > 0].copy(), None
    if len(done):
        against = _abscissa(done, settings)
    if against is not None and pictures.are_due:
        lines: dict[str, list[ReadRun]] = {}
        for job in jobs:
            if not job.run.problem:
                lines.setdefault(_call({k: job.overrides.get(k, "") for k in against.methods}), []).append(job.run)
        look = looks(lines)
        _draw_final(folder / "figures", done, against, look)
        if "reached_target" in done and done["reached_target"].any():
            _draw_target(folder / "figures", done, against, look)
    if pictures.are_due:
        pictures.keep()
    return shown_table, jobs, left


class Pictures:
    """The pictures in ``folder``, of a sweep. ``are_due``: whether they are to be drawn: ``table`` or the tables of the
    ``runs`` are not those from which they were drawn, or one has been removed. The file jobs/pictures says from
    what the pictures were drawn, and which there are."""

    def __init__(self, folder: Path, table: str, runs: Sequence[ReadRun]) -> None:
        self.folder, self.kept = folder, folder.parent / "jobs" / "pictures"
        digest = hashlib.blake2b(f"{__version__}\n{table}".encode(), digest_size=16)
        for path in (run.folder / name for run in runs for name in ("metrics.csv", "traffic.csv")):
            about = path.stat() if path.is_file() else None
            digest.update(f"{path}\n{about and (about.st_mtime_ns, about.st_size)}\n".encode())
        self.digest = digest.hexdigest()
        before = read_json(self.kept)
        files = before.get("files")
        there = isinstance(files, list) and all((folder / str(name)).is_file() for name in files)
        self.are_due = before.get("from") != self.digest or not there

    def keep(self) -> None:
        """Notes that they are drawn."""
        files = sorted(path.name for kind in FORMATS for path in self.folder.glob(f"*.{kind}"))
        if files:
            write_json(self.kept, {"from": self.digest, "files": files})


def _at_equal_cost(
    folder: Path, groups: Mapping[str, Sequence[ReadRun]], called: Mapping[str, str], draws: bool
) -> None:
    """budgets.csv, .md, pareto.csv and, if it ``draws``, the figure of the fronts. ``called``: see EqualCost.write."""
    equal = EqualCost.of(groups)
    sentences = "\n".join(f"* {text}" for text in on_own_network(groups, None))
    blocks = equal.markdown() + (["Soonest to the target:", sentences] if sentences else [])
    if equal.write(folder, called=called):
        write_atomic(folder / "budgets.md", as_text(blocks))
        if draws:
            equal.draw(folder / "figures" / "pareto", looks(groups))


ESCAPED = str.maketrans(
    {
        **{c: f"{{{c}}}" for c in "[*"},  # which the end of the row before would take for its own
        **{c: f"\\{c}" for c in "%_&#${}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{c: f"${c}$" for c in "<>|"},
        "±": r"$\pm$",
    }
)


def latex(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A booktabs table."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(c.translate(ESCAPED) for c in cells) + r" \\"

    body = "\n".join(line(r) for r in rows)
    columns = "l" * len(heads)
    top = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(heads)}\n\\midrule\n"
    return f"{top}{body}\n\\bottomrule\n\\end{{tabular}}\n"


def readable(table: pd.DataFrame, settings: Sequence[str], counted: str) -> tuple[list[str], list[list[str]]]:
    """Headers and cells for people: mean ± standard deviation; '-' in a row without a completed run; of numbers that
    ``settings`` have, three digits, see ``short``. ``counted``: what is in the virtual seconds, see ``on_clocks``."""
    settings_of = list(zip(*(short(list(map(str, table[k]))) for k in settings), strict=True)) or [()] * len(table)
    values = {m.name: (m.label, m) for m in shown("table")}
    values |= {m.best: (f"best {m.short}", m) for m in shown("best in sweeps")}
    values = {column: entry for column, entry in values.items() if column in table}
    counts = sizes(table.to_dict("records"))
    heads = [*settings, "runs", *[head for head, _ in values.values()], *[m.short for m in counts]]
    heads += ["sent / dense", "wall s"] if counts else []
    if "reached_target" in table:
        target = common(table)
        to = target.short if target else "target"
        heads += [f"sent to {to}", f"virtual s to {to}" + (f", {counted}" if counted else "")]
    heads += ["stopped by"] if "stopped_by" in table else []
    cells = []
    for setting, (_, row) in zip(settings_of, table.iterrows(), strict=True):
        line = [*setting, row["status"]]
        line += [m.plus_minus(row[column], row[f"{column}_std"]) for column, (_, m) in values.items()]
        line += [m.plus_minus(row[m.name], row[f"{m.name}_std"]) if row["count"] else "-" for m in counts]
        if counts:
            line += (
                [f"{row.get('bytes_against_dense', math.nan):.4g}", f"{row['wall_seconds']:.1f}"]
                if row["count"]
                else ["-", "-"]
            )
        if "reached_target" in table:
            line += [reached(row, "bytes_to_target", human_bytes), reached(row, "seconds_to_target", _seconds)]
        if "stopped_by" in table:
            line.append(row["stopped_by"] or "-")
        cells.append(line)
    return heads, cells


def minor(table: pd.DataFrame) -> list[str]:
    """The heads of ``readable`` that a narrow table leaves out, the least important first: what is left is the
    settings, the runs, the metric that says most, the bytes sent, the cost of the target and what ended the runs."""
    metrics = [m for m in shown("table") if m.name in table]
    less = by_importance([*metrics, *sizes(table.to_dict("records"))])
    heads = ["wall s", *(m.short if "cost" in m.shown else m.label for m in less)]
    best = [f"best {m.short}" for m in shown("best in sweeps")]
    done = all(re.fullmatch(r"\d+ completed", status) for status in table["status"])
    return [*heads, *best, "sent / dense", *(["runs"] if done else [])]


def short(texts: Sequence[str]) -> list[str]:
    """The values of a setting with three digits of each number that is no whole one; with as many more as it takes
    that different values remain different."""
    digits = next((d for d in range(3, 17) if len({_rounded(t, d) for t in texts}) == len({*texts})), 17)
    return [_rounded(text, digits) for text in texts]


def _rounded(text: str, digits: int) -> str:
    try:
        rounded = f"{float(text):.{digits}g}"
    except ValueError:
        return text
    whole = text.lstrip("+-").isdigit()
    return text if whole or len(rounded) >= len(text) or float(rounded) == float(text) else rounded


def reached(row: pd.Series, cost: str, say: Callable[[float, float], str]) -> str:
    """Mean cost of the target over the seeds that reached it, its spread, and how many did where not all."""
    n, of = int(row["reached_target"]), int(row["count"])
    if n == 0:
        return "not reached" if of and not math.isnan(row["target"]) else "-"
    return say(row[cost], row[f"{cost}_std"]) + ("" if n == of else f" ({n} of {of})")


def _seconds(mean: float, std: float) -> str:
    return f"{mean:.4g} ± {std:.2g}" if std > 0 else f"{mean:.4g}"


def _call(setting: Mapping[str, str]) -> str:
    """How a legend says a setting: the data first."""
    data = {k: v for k, v in setting.items() if k.partition(".")[0] == "dataset"}
    rest = {k: DENSE if (k, v) == ("compress", "none") else v for k, v in setting.items() if k not in data}
    return ": ".join(filter(None, (_in_words(data), _in_words(rest))))


def _in_words(setting: Mapping[str, str]) -> str:
    """The same as the tables for programs have it."""
    prefixes = ("compress.", "algo.")
    return ", ".join(
        v if k in ("algo", "compress", "dataset") else f"{k.split('.', 1)[1] if k.startswith(prefixes) else k}={v}"
        for k, v in setting.items()
    )


@dataclass(frozen=True)
class Against:
    """What the sweep's plots are drawn against: a column, its label, and the keys that tell the lines apart."""

    column: str
    label: str
    methods: list[str]


def _abscissa(done: pd.DataFrame, settings: Sequence[str]) -> Against | None:
    """The share sent where it varies: k/J where all have a k, else of the bytes. Else the first swept key that is a
    number; None where there is neither."""
    methods = [k for k in settings if k != "compress.k"]
    if done["compression"].notna().all() and done["compression"].nunique() > 1:
        return Against("compression", "share of the entries sent, k/J", methods)
    if ("compress" in settings or "algo" in settings) and done["bytes_against_dense"].nunique() > 1:
        return Against("bytes_against_dense", metric("bytes_against_dense").axis, methods)
    for key in settings:
        values = pd.to_numeric(done[key], errors="coerce")
        if values.notna().all() and values.nunique() > 1:
            done["abscissa"] = values
            return Against("abscissa", key, [k for k in settings if k != key])
    return None


def _draw_final(folder: Path, done: pd.DataFrame, against: Against, look: Mapping[str, Look]) -> None:
    final: Metric | None = next((m for m in foremost("final") if m.name in done), None)
    if final is None:
        return
    with figure(1, 1, 4.6, 3.4) as (made, axes):
        _lines(axes[0], done, against, final.name, look)
        if final.scale == "percent":
            percent_axis(axes[0], f"final {final.label}")
        else:
            log_scale(axes[0].yaxis)
            axes[0].set_ylabel(f"final {final.label}")
        save(made, folder / ("final" if against.column == "abscissa" else "final_against_compression"))


def _draw_target(folder: Path, done: pd.DataFrame, against: Against, look: Mapping[str, Look]) -> None:
    target = common(done)
    with figure(1, 1, 4.6, 3.4) as (made, axes):
        _lines(axes[0], done[done["reached_target"] > 0], against, "bytes_to_target", look)
        axes[0].set_ylabel(f"bytes sent to reach {target}" if target else "bytes sent to reach the target")
        bytes_axis(axes[0].yaxis)
        save(made, folder / "bytes_to_target")


def _lines(axis: Axes, table: pd.DataFrame, against: Against, value: str, look: Mapping[str, Look]) -> None:
    """A line per method; bars are one standard deviation over seeds."""
    groups: dict[str, pd.DataFrame] = {}
    for setting, group in table.groupby(against.methods, sort=False) if against.methods else [((), table)]:
        names = setting if isinstance(setting, tuple) else (setting,)
        groups[_call({k: str(n) for k, n in zip(against.methods, names, strict=True)})] = group
    for name, unsorted in groups.items():
        group = unsorted.sort_values(against.column)
        axis.errorbar(
            group[against.column],
            group[value],
            yerr=group[f"{value}_std"].fillna(0.0),
            label=name or None,
            **{**look[name].point, "linestyle": look[name].dash if len(group) > 1 else "none"},
            capsize=2.5 if group[f"{value}_std"].notna().any() else 0,
        )
    log_scale(axis.xaxis, "{:g}".format)
    axis.set_xlabel(against.label)
    made = axis.get_figure(root=True)
    assert made is not None
    if against.methods:
        made.legend(loc="outside upper center", ncols=columns_that_fit(groups, made.get_figwidth()))
    note(made, told("std", map(int, table["count"]), "bars"))
