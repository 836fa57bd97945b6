"""The structured config: names and types of everything that is not a component's own field.

Kept apart from ``config.py`` so that ``commexp --help`` need not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore

#: groups whose choice is a component: a node with ``_target_`` and that class's fields
COMPONENTS = (
    "dataset", "partition", "allocation", "model", "prox", "topology", "compress", "algo", "network", "straggler",
)  # fmt: skip


@dataclass
class Comm:
    """``exchange``: auto, all_reduce, all_gather or server. ``deterministic``: sums in worker order and gradients
    worker by worker, so that any split of N over processes gives the same bits."""

    exchange: str = "auto"
    deterministic: bool = False


@dataclass
class Speed:
    """How gradients are computed. ``workers``: of several workers in one process: fold, vmap or loop; auto: of a
    model of at most 2^20 parameters the first of these that it allows, of a larger one loop. ``amp``: forward and
    backward pass in bfloat16 where torch's autocast does so. ``channels_last``: images with the channels innermost.
    ``compile``: by torch.compile, worker by worker."""

    workers: str = "auto"
    amp: bool = False
    channels_last: bool = False
    compile: bool = False


@dataclass
class Launch:
    """``kind``: single (one process) or torchrun (``nproc`` processes on this host, N / nproc workers in each; of
    asynchronous methods a server and N workers).
    ``device``: auto, cpu, cuda or cuda:0, ...; auto takes a GPU where there is one. ``threads``: of torch, null leaves
    torch's choice, shared out among the processes. ``port``: where the server of methods that do not wait listens, 0
    for any free one. ``timeout``: seconds that they wait for each other. ``max_restarts``: how often they are started
    anew when one dies. ``inject``: every process sleeps in each round as long as network.compute and the straggler
    model say that its workers compute."""

    kind: str = "single"
    device: str = "auto"
    threads: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    nproc: int = 2
    port: int = 0
    timeout: float = 300.0
    max_restarts: int = 0
    inject: bool = False


@dataclass
class Config:
    """The whole config. What does not change a result (``UNHASHED``) is left out of the run folder's name.

    ``preset``: values that a dataset or an experiment gives for fields of whichever component is chosen: conf/algo/*
    and conf/compress/* look there first. So an experiment may say k and still be run with a compressor without k.
    ``rounds``: the run's length in communications; ``steps``: in local steps of a worker instead, which makes methods
    with different numbers of local steps comparable. ``eval_every`` counts whichever of the two is given.
    ``flatness``: what is measured of the valley in which the models lie at the end: none, valley (its width, and
    sharpness) or landscape (also the loss on a line and a plane through the workers).
    ``on_nonfinite``: what NaN or Inf in a worker's gradient does: stop ends the run, skip makes that gradient zero for
    the round, zero only its bad entries. ``prox``: the convex term h beside the loss. ``allocation``: which subsets of
    the data the workers of coded methods hold. ``topology``, ``gossip``: who is whose neighbour, and how often
    decentralised methods mix. ``debug``: assert in every round what must hold in theory, such as equal means.
    ``save_every``: rounds between checkpoints; null: one every ten seconds. ``track``: who else is told the rows:
    tensorboard, mlflow, wandb, see integrations/tracking.py.
    """

    workers: int = 8
    seed: int = 0
    rounds: int = 500
    steps: Optional[int] = None  # noqa: UP045
    batch_size: Optional[int] = 16  # noqa: UP045
    eval_every: int = 10
    save_every: Optional[int] = None  # noqa: UP045
    dtype: str = "float32"
    on_nonfinite: str = "stop"
    flatness: str = "none"
    debug: bool = False
    dataset: Any = None
    partition: Any = None
    allocation: Any = None
    model: Any = None
    prox: Any = None
    topology: Any = None
    gossip: dict[str, Any] = field(default_factory=dict)
    compress: Any = None
    algo: Any = None
    network: Any = None
    straggler: Any = None
    comm: Comm = field(default_factory=Comm)
    speed: Speed = field(default_factory=Speed)
    launch: Launch = field(default_factory=Launch)
    preset: dict[str, Any] = field(default_factory=dict)
    target_accuracy: Optional[float] = None  # noqa: UP045
    track: list[str] = field(default_factory=list)
    outputs: str = "outputs"
    rerun: bool = False


UNHASHED = ("preset", "save_every", "debug", "launch", "target_accuracy", "track", "outputs", "rerun")
TRACKERS = ("tensorboard", "mlflow", "wandb")  # modules of commexp.integrations, and extras of the package


def register() -> None:
    """Makes the schema known to Hydra as ``commexp_schema``, the first entry of conf/config.yaml's defaults."""
    ConfigStore.instance().store(name="commexp_schema", node=Config)
