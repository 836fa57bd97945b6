"""``commexp-plan``: what training would cost on a network, and which methods keep devices busy, without training."""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from commexp import __version__
from commexp.cli.parser import Parser
from commexp.config.messages import LaunchError, UserError
from commexp.files import printable
from commexp.launch.streams import complain, leave, lenient_streams

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from commexp.config.plan import Plan
    from commexp.experiment.forecast import Forecast, Workload
    from commexp.experiment.settings import SettingName
    from commexp.network import Network
    from commexp.report.utilisation import PlanRow

BANDWIDTHS = [10 ** (1 + k / 8) for k in range(33)]  # 10 Mbit/s to 100 Gbit/s
BATCH = 2**17  # tokens of a worker and step
PER_PARAMETER = 20  # tokens; Hoffmann et al., arXiv 2203.15556
CODED = {  # by network.compute.coding
    "None": "Encoding and decoding are not counted.",
    "measured": "Encoding and decoding take what they take here.",
}
SETTINGS_HELP = (
    "Without algo= and compress= a list of methods is planned; with them, what they say, beside dense fp32 and fp16."
)
HELP = f"""\
Overrides are those of commexp; several values, as with commexp -m, make several settings:

  commexp-plan --parameters 1e9 --workers 8 network=ethernet_1g network.compute=h100
  commexp-plan dataset=text model=gpt network=ethernet_100m network.compute.seconds=0.02
  commexp-plan algo=diloco algo.tau=30,100 compress=none,kbit dataset=text network=mobile network.compute=cpu
  torchrun --nproc-per-node 4 -m commexp.cli.plan --probe workers=4 dataset=text model=gpt
  commexp-plan dataset=digits network=mobile --from outputs/runs/A outputs/runs/B --target 0.95

{SETTINGS_HELP}
"""


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="commexp-plan",
        description="What training would cost on a network, in bytes and time, without training.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE", help="of the config, as commexp takes them")
    add("--parameters", type=_number, metavar="P", help="size of the model, in place of a dataset and a model")
    add("--tokens", type=_number, help=f"that all workers see together; with --parameters {PER_PARAMETER} P by default")
    add("--batch", type=_number, help=f"tokens of a worker and step, with --parameters; {BATCH} by default")
    add("--workers", type=_number, help="the same as workers=N")
    add("--probe", action="store_true", help="measures the links between the processes of torchrun, and a gradient")
    add(
        "--from", dest="runs", nargs="+", default=[], type=Path, metavar="RUN", help="finished runs: cost to the target"
    )
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--target", type=float, help="accuracy to reach; that of the runs' config if not given")
    goal.add_argument("--target-loss", type=float, help="loss to reach")
    add("--out", type=Path, help="a folder for plan.md, plan.csv, utilisation.csv and the figure")
    add("--version", action="version", version=f"commexp {__version__}")
    given = parser.parse_intermixed_args(words)
    given.overrides += [str(p) for p in given.runs if "=" in p.name and not p.exists()]  # typed behind --from
    given.runs = [p for p in given.runs if str(p) not in given.overrides]
    return given


def _number(text: str) -> float:
    value = float(text)
    if not 1 <= value < math.inf:
        raise ValueError(text)
    return value


@lenient_streams()
def main() -> None:
    gc.disable()  # importing torch makes a million objects, none of them garbage
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    try:
        given = _arguments(sys.argv[1:])
        _check(given)
        plan(given)
    except UserError as error:
        complain(printable(str(error)))
        sys.exit(2)
    except LaunchError as error:
        complain(printable(str(error)))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()


def _check(given: argparse.Namespace) -> None:
    """Raises UserError for flags that do not go together or are out of range."""
    for name in ("tokens", "batch"):
        if getattr(given, name) is not None and given.parameters is None:
            right = "dataset.block and batch_size say it" if name == "batch" else "steps= or rounds= say how long it is"
            raise UserError(f"--{name}={getattr(given, name):g}: goes with --parameters; of a config {right}")
    for name in ("parameters", "batch", "workers"):
        value = getattr(given, name)
        if value is not None and value != int(value):
            raise UserError(f"--{name}={value:g}: not a whole number; give one")
    if given.target is not None and not 0 < given.target <= 1:
        raise UserError(f"--target={given.target:g}: out of range; give a share in (0, 1] such as 0.95")
    if given.target_loss is not None and not 0 < given.target_loss < math.inf:
        raise UserError(f"--target-loss={given.target_loss:g}: must be positive; give a loss such as 1.5")
    if (given.target or given.target_loss) and not given.runs:
        raise UserError("--target: says what runs are to reach; give --from RUN, too")


def plan(given: argparse.Namespace) -> None:
    """Prints the plan, and writes it to --out."""
    from commexp.report.terminal import in_terminal
    from commexp.report.utilisation import plan_tables, recommendation, write_plan

    words = [*given.overrides, *([] if given.workers is None else [f"workers={int(given.workers)}"])]
    if given.probe:
        measured = probed(words, given)
        if measured is None:
            return
        words += measured
    forecasts, left = forecasts_of(words, given)
    first = next(iter(forecasts.values()))
    bandwidth = first.network.bandwidth
    rows = rows_of(forecasts, BANDWIDTHS if given.out else ())
    blocks = [heading(first, given), *plan_tables(rows), *left]
    advice = recommendation(rows, bandwidth)
    if given.runs:
        from commexp.cli.joining import joined_runs

        joined, advice = joined_runs(given, first.plan.network)
        blocks += joined
    blocks.append(f"Recommended: {advice}")
    print(in_terminal(blocks, "plan.md of --out"))
    if given.out is not None:
        try:
            print("\n" + "\n".join(map(str, write_plan(rows, bandwidth, blocks, given.out))))
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"--out={given.out}: cannot be written ({why}); give a folder that can") from error


def probed(words: Sequence[str], given: argparse.Namespace) -> list[str] | None:
    """Overrides with what was measured, which the first process prints; None in the other processes."""
    from commexp.config.plan import prepare
    from commexp.launch.probe import probe

    some = jobs(words)[0]
    first = prepare(compose([some])[0], some)
    measured, rank = probe(first, gradient=given.parameters is None and first.network.compute.flops is None)
    if rank:
        return None
    print(f"Measured here: {' '.join(measured.words)}" if measured.words else "Nothing measured: start it by torchrun")
    print(flush=True)
    return [*measured.words, *(["network.up=null"] if measured.bandwidth and first.network.up is not None else [])]


def jobs(words: Sequence[str]) -> list[list[str]]:
    """The overrides of each setting: every combination of the values that were given, as commexp -m has them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from commexp.config.overrides import explain, legible

    try:
        overrides = OverridesParser.create().parse_overrides(legible(words))
        return [list(job) for batch in BasicSweeper.split_arguments(overrides, max_batch_size=None) for job in batch]
    except UserError:
        raise
    except Exception as error:
        raise UserError(explain(error, words)) from error


def compose(each: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The configs of these overrides. Raises UserError."""
    from commexp.api import compose_config

    return [compose_config(words) for words in each]


def forecasts_of(words: Sequence[str], given: argparse.Namespace) -> tuple[dict[SettingName, Forecast], list[str]]:
    """Every setting's, and what could not be planned, and why. The baselines come first. All take as many local steps
    as the first. Raises UserError."""
    from commexp.config.plan import prepare
    from commexp.config.variant import variant
    from commexp.experiment.forecast import Forecast
    from commexp.experiment.settings import BASELINES, SETTINGS, is_method, key_of, name_of

    each = jobs(words)
    varied = {key for job in each for word in job for key in [key_of(word)] if not is_method(word)}
    varied = {key for key in varied if len({word for job in each for word in job if key_of(word) == key}) > 1}
    own = any(is_method(word) for word in words)
    forecasts: dict[SettingName, Forecast] = {}
    left: list[str] = []
    works: dict[str, tuple[Workload, int]] = {}
    planned = [(job, prepare(composed, job)) for job, composed in zip(each, compose(each), strict=True)]
    for job, base in planned:
        kept = [word for word in job if not is_method(word)]
        if str(kept) not in works:
            works[str(kept)] = workload(base, given)
        work, steps = works[str(kept)]
        for text in BASELINES if own else SETTINGS:
            name = name_of([*text.split(), *kept], varied)
            if name in forecasts or (not work.shapes and "powersgd" in text):
                continue  # without the tensors' shapes nothing can be said of it
            try:
                forecasts[name] = Forecast(variant(base, base.config.preset, text.split()), work, steps)
            except UserError as error:
                left.append(f"Not planned: {' '.join(name)}: {error}")
    for job, base in planned if own else ():
        work, steps = works[str([word for word in job if not is_method(word)])]
        forecasts.setdefault(name_of(job, varied), Forecast(base, work, steps))
    if not forecasts:
        raise UserError("; ".join(left).removeprefix("Not planned: "))
    return forecasts, left


def workload(base: Plan, given: argparse.Namespace) -> tuple[Workload, int]:
    """What a gradient takes, and a worker's local steps: of --parameters, or of the config's problem, which is made as
    for a run."""
    import torch

    from commexp.experiment.forecast import Workload

    if given.parameters is not None:
        batch, workers = int(given.batch or BATCH), base.config.workers
        tokens = given.tokens or PER_PARAMETER * given.parameters
        work = Workload.of_parameters(int(given.parameters), tokens, batch)
        return work, max(1, math.ceil(tokens / (workers * batch)))
    from commexp.experiment.execute import folder_of
    from commexp.experiment.setup import ExperimentSetup

    made = ExperimentSetup(base, torch.device("cpu"), folder_of(base))
    steps = base.config.steps or base.algorithm.steps_in(base.config.rounds)
    return Workload.of(made.problem, made.gradient_flops), steps


def rows_of(forecasts: Mapping[SettingName, Forecast], bandwidths: Sequence[float]) -> list[PlanRow]:
    """``bandwidths``: in Mbit/s, those at which the figure has points."""
    from commexp.cli.report import with_bandwidth
    from commexp.report.utilisation import LEVELS, PlanRow, Point, merged

    rows = []
    for name, forecast in forecasts.items():
        network, computing = forecast.network, forecast.computing()

        def at(bandwidth: float, network: Network = network) -> Network:
            return with_bandwidth(network, bandwidth)

        def point(there: Network, forecast: Forecast = forecast, computing: float = computing) -> Point:
            seconds = forecast.seconds(there)
            return Point(there.bandwidth, computing / seconds if computing else None, seconds / 3600)

        here = point(network)
        rows.append(
            PlanRow(
                (name.method,),
                name.values,
                forecast.steps,
                forecast.sent / forecast.steps,
                forecast.sent,
                forecast.wire,
                forecast.exchange_seconds(network),
                here.utilisation,
                here.hours,
                {level: forecast.bandwidth_for(level, at) for level in LEVELS},
                [point(at(mbit)) for mbit in bandwidths],
                tuple(forecast.estimates),
            )
        )
    return merged(rows)


def heading(first: Forecast, given: argparse.Namespace) -> str:
    """What is planned, on which network, with which device."""
    from commexp.report.utilisation import bandwidth_text, seconds_text

    work, network, device = first.work, first.network, first.plan.network.compute
    size = f"{work.dim:,} parameters, {first.workers} workers, {first.steps:,} local steps"
    if given.parameters is not None:
        tokens = first.steps * first.workers * work.samples_per_step
        size += f" of {work.samples_per_step:,.0f} tokens ({tokens:.3g} in all)"
    up = "" if network.up is None else f", {bandwidth_text(network.up)} up"
    links = f"links of {bandwidth_text(network.bandwidth)}{up}, {network.latency:g} ms"
    if network.compute.is_instant:
        said = (
            "Communication only: nothing says how long a gradient takes; give network.compute=h100, a100, rtx4090 or "
            "cpu, network.compute.seconds=0.02, or --probe."
        )
    else:
        said = f"A gradient takes {seconds_text(network.compute.seconds)}"
        if network.compute.kind == "trace":
            said = "Gradients take what the trace says"
        elif device.flops is not None:
            share = f"of which training is taken to reach {device.utilisation:.0%}"
            said += f": {work.flops:.3g} operations at {device.flops:g} TFLOP/s, {share}"
        said += ". " + CODED.get(str(device.coding), f"Encoding and decoding go at {device.coding} GB/s.")
    return f"{size}; {links}.\n{said}"


def command() -> NoReturn:
    """The console script: what is done is printed and written, and torch need not be torn down."""
    main()
    leave(0)


if __name__ == "__main__":
    command()
