"""One of several processes that carry out many runs, one after the other: python walker.py TASKS.json.

Started with torchrun's environment. Importing torch once for all runs is what makes the walk quick.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from omegaconf import OmegaConf

from commexp.comm import Processes, exchange
from commexp.config import prepare
from commexp.launch.member import _join
from commexp.runner import execute

exchange.STRETCH = 500  # a small model's gradient, too, is sent in several stretches


def main() -> None:
    torch.set_num_threads(1)
    _join("gloo", 60)
    links = Processes(timedelta(seconds=60))
    for config in json.loads(Path(sys.argv[1]).read_text()):
        execute(prepare(OmegaConf.create(config)), torch.device("cpu"), links)


if __name__ == "__main__":
    main()
