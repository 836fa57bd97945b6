"""Processes that measure what their links can do, before a plan."""

from __future__ import annotations

import re
from pathlib import Path

from processes import ranks, wait_for

from commexp.report.utilisation import bandwidth_text


def test_two_processes_measure_their_link_and_a_gradient(tmp_path: Path) -> None:
    words = ["dataset=linreg", "dataset.dim=40", "dataset.samples=10", "workers=4", "compress=topk"]
    started = ranks(2, ["-m", "commexp.cli.plan", "--probe", *words], tmp_path, COMMEXP_SECRET="s" * 32)
    (first, second) = wait_for(started, 120)
    assert (first[0], second[:2]) == (0, (0, "")), first
    found = re.match(
        r"Measured here: network.bandwidth=(\S+) network.latency=(\S+) network.compute.seconds=(\S+)\n", first[1]
    )
    assert found, first
    bandwidth, latency, seconds = map(float, found.groups())
    assert 10 < bandwidth < 1e6
    assert 0 < latency < 1000
    assert 0 < seconds < 10
    assert f"links of {bandwidth_text(bandwidth)}, {latency:g} ms" in first[1]
    assert not [*tmp_path.iterdir()]
