"""Runs random configs over all groups in this process: none may end in a traceback or hang.

python scripts/random_configs.py --count 300 --seed 0
python scripts/random_configs.py --only 17,203          # some of them again, with their output

A config sets options of a few groups and some fields, with valid and invalid values, on tiny data. It must complete,
diverge, fail with one line, or be refused with one line; anything else is a fault, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import torch

from commexp.api import run_experiment
from commexp.config.messages import UserError
from commexp.config.schema import CONF

SECONDS, PATIENCE = 30, 5
DATASETS = (
    ("dataset=linreg", "dataset.dim=6", "dataset.samples=8"),
    ("dataset=digits", "model=mlp", "model.hidden=[4]"),
    ("dataset=digits", "model=cnn", "model.width=4", "model.layers=1", "model.groups=2"),
    ("dataset=toy",),
    ("dataset=breast_cancer", "model=logistic_regression"),
    ("dataset=breast_cancer", "model=mlp", "model.hidden=[3]"),
    ("dataset=ratings", "dataset.users=12", "dataset.items=9"),
)
ELSEWHERE = ("cluster", "dataset", "experiment", "launch", "model")  # groups that are not drawn from
FIELDS: dict[str, tuple[str, ...]] = {
    "batch_size": ("1", "3", "null", "0", "-1", "2.5", "x"),
    "seed": ("0", "7", "-3", "1e3"),
    "eval_every": ("1", "2", "0"),
    "dtype": ("float64", "float32", "float16", "int8"),
    "on_nonfinite": ("stop", "skip", "zero", "maybe"),
    "clip": ("0.5", "null", "0", "-1"),
    "flatness": ("valley", "landscape", "none", "yes"),
    "debug": ("true", "1"),
    "save_every": ("1", "null", "0"),
    "comm.exchange": ("auto", "all_reduce", "all_gather", "server", "two_phase", "gossip"),
    "comm.deterministic": ("true", "false"),
    "speed.workers": ("auto", "fold", "vmap", "loop", "x"),
    "algo.lr": ("0.01", "1e9", "0", "nan", "-1", "[1]"),
    "algo.tau": ("1", "2", "100", "0"),
    "algo.momentum": ("0.9", "1.0", "-1"),
    "algo.optimizer": ("sgd", "adamw", "muon", "sign", "lion"),
    "algo.weight_decay_on": ("all", "matrices", "x"),
    "algo.schedule.final": ("0.1", "2"),
    "algo.sam": ("0.1", "-1"),
    "algo.solver": ("sgd", "svrg", "saga"),
    "algo.shares": ("equal", "samples"),
    "algo.push": ("0.1", "0", "-1"),
    "algo.gamma": ("0.5", "2"),
    "algo.first": ("1", "9", "null"),
    "algo.deadline": ("0.01", "0", "null"),
    "algo.schedule.kind": ("cosine", "step", "linear"),
    "algo.schedule.warmup": ("1", "50", "-1"),
    "compress.k": ("0.5", "1", "100000", "0", "1.5", "null"),
    "compress.error_feedback": ("true", "false", "maybe"),
    "compress.scope": ("layer", "model", "x"),
    "compress.whole_below": ("5", "-1"),
    "compress.rescale": ("true", "false"),
    "compress.levels": ("1", "127", "0", "200"),
    "compress.rank": ("1", "50", "0"),
    "compress.vote": ("true", "false"),
    "compress.chunk": ("64", "10", "0"),
    "compress.tiles": ("true", "false"),
    "compress.combine": ("senders", "x"),
    "compress.transform.kind": ("dct", "none", "x"),
    "compress.feedback.momentum": ("0.5", "2"),
    "compress.feedback.warmup": ("2", "-1"),
    "gossip.rounds": ("1", "3", "0"),
    "gossip.chebyshev": ("true", "false"),
    "gossip.contraction": ("0.1", "0", "2"),
    "topology.failure": ("0.3", "1", "-0.1"),
    "topology.lazy": ("true", "false"),
    "topology.weights": ("uniform", "metropolis", "x"),
    "network.compute.kind": ("lognormal", "measured", "constant", "x"),
    "network.compute.seconds": ("0.01", "0", "-1"),
    "network.compute.slow": ("[3]", "[1,2,3,4,5,6,7,8,9]", "[0]", "3"),
    "network.overlap": ("true", "false"),
    "partition.ratio": ("10", "0.5"),
    "partition.alpha": ("0.1", "0"),
    "partition.shards": ("1", "1000"),
    "allocation.d": ("1", "2", "20", "0"),
    "allocation.subsets": ("3", "1", "0"),
    "straggler.p": ("0.5", "0", "1", "2"),
    "prox.weight": ("0.01", "-1", "0"),
    "model.l2": ("0.1", "-1"),
    "model.lam": ("0.1", "0"),
    "model.travels": ("all", "items", "x"),
}

CLASSES = ("dataset=digits", "dataset=breast_cancer")
PROXIMAL = ("deepstorm", "dsgt", "proxgt_sa", "proxgt_sr_e", "proxgt_sr_o")
GOSSIP = ("choco", "d2", "dpsgd", *PROXIMAL)
WHOLE = ("d2", "dpsgd", "lsgd", "mgrawa")  # exchange whole models
CODED = ("exact_coding", "gradient_coding", "ignore")
GENERAL = (
    "seed",
    "eval_every",
    "dtype",
    "on_nonfinite",
    "clip",
    "flatness",
    "debug",
    "save_every",
    "comm.deterministic",
)


class Hang(BaseException):
    """The time is over; no ``except Exception`` may keep it."""


def config(rng: random.Random) -> list[str]:
    """The words of a random config."""
    if rng.random() < 0.6:
        return sane(rng)
    words = [*rng.choice(DATASETS), f"workers={rng.randint(1, 8)}", f"rounds={rng.randint(1, 3)}"]
    groups = {p.name: sorted(f.stem for f in p.glob("*.yaml")) for p in sorted(CONF.iterdir()) if p.is_dir()}
    drawn = {group: rng.choice(names) for group, names in groups.items() if group not in ELSEWHERE}
    often = {"algo": 1.0, "compress": 0.7, "partition": 0.4}
    words += [f"{group}={name}" for group, name in drawn.items() if rng.random() < often.get(group, 0.2)]
    chosen = {word.partition("=")[0] for word in words}
    fields = [f for f in FIELDS if "." not in f or f.partition(".")[0] in chosen | {"network", "comm", "algo"}]
    return words + [f"{field}={rng.choice(FIELDS[field])}" for field in rng.sample(fields, rng.randint(0, 3))]


def sane(rng: random.Random) -> list[str]:
    """One of which most go together."""
    data = rng.choice(DATASETS)
    algo = rng.choice(sorted(p.stem for p in (CONF / "algo").glob("*.yaml")))
    workers = 2 if data[0] == "dataset=toy" else rng.choice((2, 4, 8))
    words = [*data, f"workers={workers}", f"rounds={rng.randint(1, 3)}", f"algo={algo}"]
    words += ["algo.lr=0.01", "network.compute.seconds=0.01"]
    fitting = {"partition": ("iid", "random_shares")} if data[0] in CLASSES else {}
    if algo in GOSSIP:
        fitting |= {"topology": ("ring", "star", "complete", "line"), "prox": ("none", "l1")[: 1 + (algo in PROXIMAL)]}
        fitting |= {"compress": ("none",) if algo in WHOLE else ("none", "topk", "sign", "natural")}
    elif algo in CODED:
        fitting |= {"straggler": ("bernoulli", "none", "fixed"), "compress": ("none", "topk", "qsgd")}
    elif algo not in WHOLE:
        fitting |= {"compress": tuple(sorted(p.stem for p in (CONF / "compress").glob("*.yaml")))}
    words += [f"{group}={rng.choice(names)}" for group, names in fitting.items()]
    words += ["compress.error_feedback=false"] * (algo in GOSSIP)
    return words + [f"{field}={FIELDS[field][0]}" for field in rng.sample(GENERAL, rng.randint(0, 4))]


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises Hang within the block when so many seconds have passed; on a busy machine, where this process had less
    than half of them, up to PATIENCE times as many."""
    begun, rings = time.process_time(), 0

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal rings
        rings += 1
        if rings == PATIENCE or time.process_time() - begun > seconds / 2:
            raise Hang
        signal.alarm(seconds)

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(words: Sequence[str], outputs: Path, seconds: int = SECONDS) -> tuple[str, str]:
    """What becomes of a config: completed, diverged, failed or refused, each with its line; traceback or hang, with
    what there is to see."""
    try:
        with at_most(seconds):
            done = run_experiment([*words, f"outputs={outputs}", "launch.device=cpu"], figures=False)
        return done.status, str(done.meta.get("error", ""))
    except Hang:
        return "hang", f"more than {seconds} s"
    except UserError as error:
        text = str(error)
        fine = "\n" not in text and ": " in text and "; " in text and "see commexp --help" not in text
        return ("refused" if fine else "traceback"), text if fine else f"not one line that says what to give: {text}"
    except Exception:
        return "traceback", traceback.format_exc()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    numbers = [int(n) for n in given.only.split(",")] if given.only else range(given.count)
    counts: Counter[str] = Counter()
    for number in numbers:
        words, said = config(random.Random(f"{given.seed}.{number}")), io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
            kind, text = outcome(words, Path(folder))
        counts[kind] += 1
        if kind in ("traceback", "hang", "failed") or given.only:
            print(f"{number} {kind}: {' '.join(words)}\n{text}\n{said.getvalue() if given.only else ''}", flush=True)
    print(f"{sum(counts.values())} configs: {', '.join(f'{n} {kind}' for kind, n in sorted(counts.items()))}")
    return int(bool(counts["traceback"] or counts["hang"]))


if __name__ == "__main__":
    sys.exit(main())
