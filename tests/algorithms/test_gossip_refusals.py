"""Decentralised methods: what makes no sense is refused in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from commexp.api import run_experiment
from commexp.config.messages import UserError

SMALL = ["dataset=linreg", "dataset.dim=5", "dataset.samples=6", "rounds=2"]
REFUSED = {
    "algo=dpsgd workers=8 topology=file topology.path={}/apart.txt": "topology",
    "algo=dpsgd workers=8 topology=matrix topology.path={}/sums.txt": "topology.path",
    "algo=dpsgd topology=ladder workers=7": "workers=7",
    "algo=dpsgd topology=hypercube workers=6": "workers=6",
    "algo=dsgt prox=l1 prox.weight=-1": "prox.weight=-1",
    "algo=sgd topology=ring": "topology",
    "algo=sgd prox=l1": "prox",
    "algo=dpsgd compress=topk": "compress=topk",
    "algo=choco compress.error_feedback=true": "compress.error_feedback=true",
    "algo=choco compress=onebit": "compress",
    "algo=choco compress=powersgd": "compress",
    "algo=choco topology=one_peer": "compress",
    "algo=choco gossip.rounds=3": "compress",
    "algo=dpsgd gossip.chebyshev=true topology=exponential": "gossip.chebyshev=true",
    "algo=dpsgd gossip.contraction=2": "gossip.contraction=2",
    "algo=dpsgd gossip.rounds=0": "gossip.rounds=0",
    "algo=dpsgd gossip.rounds=3 gossip.contraction=0.1": "gossip.rounds=3",
    "algo=dpsgd comm.exchange=server": "comm.exchange=server",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_line(words: str, tmp_path: Path) -> None:
    (tmp_path / "apart.txt").write_text("0 1\n2 3\n4 5\n6 7\n")
    np.savetxt(tmp_path / "sums.txt", np.full((8, 8), 0.12))
    with pytest.raises(UserError) as caught:
        run_experiment([*SMALL, *words.format(tmp_path).split(), f"outputs={tmp_path / 'outputs'}"], figures=False)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(REFUSED[words]), text
    assert text[len(REFUSED[words])] in "=:.", text
    assert "; " in text.partition(":")[2], text
    assert not (tmp_path / "outputs").exists()
