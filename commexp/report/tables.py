"""Tables of runs: one run's summary, several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from commexp.files import printable
from commexp.metrics import Metric, human_bits, human_bytes, left_out, number, shown
from commexp.report.target import Target
from commexp.report.terminal import MarkdownTable
from commexp.run_folder import Run

PHASES = {
    "compute": "compute",
    "encode": "encode",
    "wait": "wait for the slowest",
    "transfer": "transfer",
    "decode": "decode",
}


def phase_seconds(run: Run) -> dict[str, float]:
    """Seconds of each phase of a round, the medians over all rounds but the first, see ``left_out``; empty for a run
    without rounds or from before they were measured."""
    traffic = run.traffic
    if traffic.empty or "compute_seconds" not in traffic:
        return {}
    rounds = traffic.groupby("round")[[f"{phase}_seconds" for phase in PHASES]].sum()
    medians = rounds.iloc[left_out(len(rounds)) :].median()
    return {phase: float(medians[f"{phase}_seconds"]) for phase in PHASES}


DENSE = "dense"  # what figures and tables call compress=none


def labels(runs: Sequence[Run], dense: str = DENSE) -> list[str]:
    """What each run is called beside the others: the data where they differ, its compressor, k, and as few keys of the
    config as tell it from all runs with this compressor that differ from it; the algorithm before it where there are
    several. Runs that differ by nothing but the seed have the same name; real processes and the virtual clock are told
    apart where a method has runs of both, and so is what is on the virtual clock where it is not the same for all.
    ``dense``: the name of no compressor."""
    flat = [flatten({k: v for k, v in run.config.items() if k not in NOT_IN_LABELS}) for run in runs]
    for each, run in zip(flat, runs, strict=True):
        each["clock"] = "wall" if run.on_wall_clock else "virtual"
    words = [words_of(run) for run in runs]
    several = len({algo for algo, _ in words}) > 1
    codecs = [_method(algo, codec, several, dense) for algo, codec in words]
    told_by = {codec: telling([f for f, c in zip(flat, codecs, strict=True) if c == codec]) for codec in {*codecs}}
    data, clocks = [data_of(run) for run in runs], [run.on_clock for run in runs]
    names = []
    for codec, mine, source, clock in zip(codecs, flat, data, clocks, strict=True):
        told = [key for key in mine if key in told_by[codec] and not (key == SOURCE and len({*data}) > 1)]
        first = [_say(key, mine[key]) for key in told if key.startswith("dataset.")]
        k = [f"k={mine['compress.k']:g}"] if mine.get("compress.k") is not None else []
        rest = [_say(key, mine[key]) for key in told if key != "compress.k" and not key.startswith("dataset.")]
        about = " ".join([*([source] if len({*data}) > 1 else []), *first])
        name = " ".join([codec, *k, *rest, *([f"({clock})"] if clock and len({*clocks}) > 1 else [])])
        names.append(f"{about}: {name}" if about else name)
    return names


SOURCE = "dataset._target_"


def _method(algo: str, codec: str, several: bool, dense: str) -> str:
    if several:
        return algo if codec == "none" else f"{algo} {codec}"
    return dense if codec == "none" else codec


def data_of(run: Run) -> str:
    """The name of its data, from meta.json, or else that of their class."""
    kept, node = run.meta.get("dataset"), run.config.get("dataset")
    target = node.get("_target_") if isinstance(node, dict) else None
    return kept if isinstance(kept, str) else str(target or "").rpartition(".")[2].lower()


def words_of(run: Run) -> tuple[str, str]:
    """The names of its method and its codec, from meta.json; of a run from before it had them, those of the classes."""

    def word(group: str) -> str:
        kept, target = run.meta.get(group), str(run.config[group]["_target_"])
        return kept if isinstance(kept, str) else target.rpartition(".")[2].lower().replace("nocompression", "none")

    return word("algo"), word("compress")


def telling(configs: Sequence[dict[str, Any]]) -> set[str]:
    """A few keys, besides compress.k, by which all flat configs that differ can be told apart: one by one the key that
    tells most of them apart, of several the first."""
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [str(config.get(key)) for config in configs] for key in keys}
    rest = {key: column for key, column in values.items() if len({*column}) > 1}
    given = [rest.pop(key, [""] * len(configs)) for key in ("compress.k", SOURCE)]  # which names have at any rate
    told: list[tuple[str, ...]] = [*zip(*given, strict=True)]  # of each config
    wanted = len({*zip(told, *rest.values(), strict=True)})

    def tells(key: str) -> tuple[bool, int]:
        """Last of all what changes no result."""
        parts = len({*zip(told, rest[key], strict=True)})
        return key != "eval_every" and parts > len({*told}), parts

    chosen: set[str] = set()
    if len({*given[1]}) > 1:
        chosen.add(SOURCE)
    while len({*told}) < wanted:
        best = max(rest, key=tells)
        told = [(*before, value) for before, value in zip(told, rest.pop(best), strict=True)]
        chosen.add(best)
    return chosen


def _say(key: str, value: Any) -> str:
    """lr=0.1; of a class its name alone, topology=Ring."""
    if key.endswith("._target_"):
        key, value = key.removesuffix("._target_"), str(value).rpartition(".")[2]
    return f"{key.removeprefix('algo.')}={value}"


NOT_IN_LABELS = (
    "seed", "debug", "preset", "launch", "target_accuracy", "target_loss", "outputs", "rerun", "save_every",
)  # fmt: skip


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": _told(value)}
    return flat


def _told(value: Any) -> Any:
    """A list as the text that stands for it where it is too long to be shown."""
    return text if isinstance(value, list) and (text := printable(str(value))) != str(value) else value


ESCAPED = str.maketrans({c: f"\\{c}" for c in "\\|<`"})  # markup, and what would end a cell


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]], minor: Sequence[str] = ()) -> MarkdownTable:
    """A Markdown table, padded so that it reads well as plain text too. ``minor``: see MarkdownTable."""
    table = [[printable(c).translate(ESCAPED).replace("](", r"]\(") for c in r] for r in (headers, minor, *rows)]
    return MarkdownTable.of(table[0], table[2:], table[1])


def as_text(blocks: Sequence[str]) -> str:
    """A file's text of paragraphs and tables."""
    return "\n\n".join(blocks) + "\n"


def sizes(summaries: Sequence[Mapping[Any, Any]]) -> list[Metric]:
    """The costs in counts, bytes and bits that a run has; the bits down, and the sum with them, only where there are
    any."""
    known = [m for m in shown("cost") if m.scale in ("count", "bytes", "bits") and any(m.name in s for s in summaries)]
    down = any(number(s.get("bits_down")) > 0 for s in summaries)
    return [m for m in known if down or m.name not in ("bits_down", "bits_both")]


def _bits(s: dict[str, Any]) -> list[list[str]]:
    """Of summary.json and traffic.csv."""
    rows = [["up", human_bits(s["bits_up"]), "1/N of what the workers have sent, each message once"]]
    if s["bits_down"]:
        rows.append(["down", human_bits(s["bits_down"]), "1/N of what has come back to them"])
        rows.append(["both", human_bits(s["bits_both"]), "their sum"])
    return rows


def _graph(s: dict[str, Any]) -> list[list[str]]:
    """Of summary.json."""
    return [
        ["links", f"{number(s['links']):g}"],
        ["lambda", f"{number(s['second_singular_value']):.8g}; spectral gap {number(s['spectral_gap']):.4g}"],
        ["mixings K", f"{s['mixings']}; an exchange leaves at most {number(s['contraction']):.6g} of distances"],
        ["gossip rounds", f"{s['gossip_rounds']:,}"],
        ["samples per node", f"{s['samples_per_node']:,}"],
    ]


def _theory(s: dict[str, Any]) -> list[list[str]]:
    """Of summary.json."""
    rows = [
        ["learning rate", f"{number(s['lr']):.6g}, {number(s['lr_factor']):g} x the step {s['theoretical_step']:.6g}"],
        ["smoothness L", f"{number(s['smoothness']):.6g}"],
        ["of the workers", f"{number(s['smoothness_rms']):.6g} rms, at most {number(s['smoothness_max']):.6g}"],
        ["strong convexity mu", f"{number(s['strong_convexity']):.6g}"],
    ]
    if "theoretical_probability" in s:
        rows.append(["probability of an exchange", f"best {number(s['theoretical_probability']):.6g}"])
    return rows + [[f"{name} of the compressor", f"{number(s[name]):.6g}"] for name in ("delta", "omega") if name in s]


def _redundancy(run: Run) -> list[list[str]]:
    """Copies of the data, how far they are from pair-wise balance, and how many answers counted."""
    s, workers = run.summary, run.config["workers"]
    possible, balance = workers * s["round"], number(s["off_balance"])
    rows = [
        ["copies", f"{number(s['copies']):g} of each of {s['subsets']} subsets; at most {s['largest_load']} a worker"],
        [
            "off balance",
            f"by {balance:.4g} workers at most, {number(s['off_balance_rms']):.4g} rms, over pairs of subsets",
        ],
        ["answers", f"{s['answers']:,} of {possible:,} counted"],
    ]
    return rows + [["lost", text] for text in run.meta.get("lost", [])]


def summary_blocks(run: Run, target: Target | None = None) -> list[str]:
    """Final and best values, bytes, times, and what ended the run before its full length: what the end of a run shows
    and summary.md keeps."""
    s, status = run.summary, run.status
    values = [[m.label, m.show(s.get(m.name)), m.show(s.get(m.best))] for m in shown("table") if m.name in s]
    blocks: list[str] = [markdown(["", "final", "best"], values)]
    against = number(s["bytes_against_dense"])
    share = (
        "as dense" if against == 1 else f"1/{1 / against:.3g} of dense" if 0 < against < 1 else f"{against:.3g} x dense"
    )
    bytes_rows = [
        ["information", human_bytes(s["bytes_info"]), "what an ideal code would need"],
        ["sent", human_bytes(s["bytes_sent"]), f"payload handed to the exchange: {share}"],
        ["sent / information", f"{number(s['sent_over_info']):.3g}", "1 is the ideal code"],
        ["on the wire", human_bytes(s["bytes_wire"]), f"all links, {s['exchange']}"],
        *([["between islands", human_bytes(s["bytes_between"]), "of these"]] if "bytes_between" in s else []),
        ["dense", human_bytes(s["dense_bytes"]), "uncompressed, after every local step"],
    ]
    blocks.append(markdown(["bytes", "all workers", "meaning"], bytes_rows))
    if "bits_up" in s:
        blocks.append(markdown(["bits", "per worker", "meaning"], _bits(s)))
    if "spectral_gap" in s:
        blocks.append(markdown(["graph", ""], _graph(s)))
    if "theoretical_step" in s:
        blocks.append(markdown(["theory", ""], _theory(s)))
    if "subsets" in s:
        blocks.append(markdown(["redundancy", ""], _redundancy(run)))
    counted = f" ({run.on_clock})" if run.on_clock else ""
    clock = [
        ["computing here", f"{number(s['wall_seconds']):.2f} s"],
        ["wall clock" if run.on_wall_clock else "virtual clock", f"{number(s['sim_seconds']):.4g} s{counted}"],
    ]
    if phases := phase_seconds(run):
        each = ", ".join(f"{PHASES[phase]} {1e3 * seconds:.3g}" for phase, seconds in phases.items())
        clock.append(["ms of a round", f"{each} (medians)"])
    if target is not None and target.column(s):
        row = target.first(run.metrics)
        reached = "not reached" if row is None else f"{human_bytes(row.bytes_sent)} sent, {row.sim_seconds:.4g} s"
        clock.append([f"to {target}", reached + (f", round {row['round']:.0f}{counted}" if row is not None else "")])
    blocks.append(markdown(["time", ""], clock))
    if run.clock_note:
        blocks.append(run.clock_note)
    head = f"{run.name}: {status} after {s['round']:,} rounds"
    if s["evaluated_round"] != s["round"]:
        head += f" (evaluated after {s['evaluated_round']:,})"
    if "stopped_by" in s:
        head += f"\nstopped by {s['stopped_by']}"
    return [head, *blocks]


def compare_markdown(runs: Sequence[Run]) -> MarkdownTable:
    """A row per run, unfinished ones included."""
    metrics = [m for m in shown("table") if any(m.name in run.summary for run in runs)]
    costs = sizes([run.summary for run in runs])
    rows = []
    for run, name in zip(runs, labels(runs), strict=True):
        s = run.summary
        values = [m.show(s.get(m.name)) for m in (*metrics, *costs)]
        rows.append([run.name, name, str(run.config.get("seed", "-")), str(run.status), *values])
    heads = ["run", "method", "seed", "status", *[m.label for m in metrics], *[m.short for m in costs]]
    minor = [m.short for m in by_importance(costs)] + [m.label for m in by_importance(metrics)]
    if all(run.status == "completed" for run in runs):
        minor = [*minor, "status"]
    return markdown(heads, rows, minor)


def by_importance(metrics: Sequence[Metric]) -> list[Metric]:
    """Those that a narrow table leaves out, the least important first: all but the bytes sent, and the one that says
    most about a run."""
    costs = [m for m in metrics if "cost" in m.shown and m.name != "bytes_sent"]
    values = sorted((m for m in metrics if "cost" not in m.shown), key=lambda m: m.headline)
    return [*reversed(costs), *values[:-1]]
