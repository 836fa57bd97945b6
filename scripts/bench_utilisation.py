"""Which share of the time workers compute, measured on hosts with slow links and predicted by the virtual clock.

    python scripts/bench_utilisation.py [Mbit/s ...]     # as root; needs ip and tc; 50, 200 and 1000 take two minutes

Four namespaces with shaped links (netlab.py), one worker in each. DiLoCo averages a model of 1.2 M entries in fp32
after every H local steps, as in the runner, but a gradient takes a fixed time in which the process sleeps, so that four
workers do not compete for the cores of this machine. Utilisation is the seconds of the same run without an exchange,
measured in the same processes, over the seconds with it: on the wall, and on the virtual clock.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from bench_overlap import HEADERS, HOSTS, run
from netlab import NetLab, first_says

from commexp.comm import Communicator, Ledger, Processes
from commexp.compressors import NoCompression
from commexp.network import Compute, Network, NoStragglers, VirtualClock

STEPS = {1: 8, 8: 40, 32: 128}  # by H: local steps of a run


def timed(links: Processes, rate: float, tau: int) -> tuple[float, float, float]:
    """Seconds of a run without an exchange, and with them on the virtual clock and on the wall."""
    steps = STEPS[tau]
    links.tell("")
    without = run(Communicator(1, Ledger()), NoCompression(), tau=tau, steps=steps)[1]
    computing = float(links.agree(torch.tensor([without]))[0]) / HOSTS
    comm = Communicator(HOSTS, Ledger(), links=links)
    links.tell("")
    method, wall = run(comm, NoCompression(), tau=tau, steps=steps)
    comm.settle()
    network = Network(rate, 0.2, headers=HEADERS, compute=Compute(seconds=computing / steps))
    clock = VirtualClock(network, NoStragglers(), HOSTS, 0)
    for t, length in enumerate(method.lengths(steps), 1):
        clock.round(t, float(length), [entry for entry in comm.ledger.entries if entry.round == t])
    return computing, clock.now, wall


def rank(rate: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    links = Processes(timedelta(seconds=120))
    run(Communicator(HOSTS, Ledger(), links=links), NoCompression(), tau=1, steps=2)  # opens the connections
    found = [timed(links, rate, tau) for tau in STEPS]
    if links.rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def main() -> int:
    if sys.argv[1:2] == ["rank"]:
        rank(float(sys.argv[2]))
        return 0
    heads = [f"{HOSTS} hosts", "H", "clock", "wall", "utilisation: clock", "wall", "wall / clock"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for rate in [float(word) for word in sys.argv[1:]] or [50.0, 200.0, 1000.0]:
        found = first_says(NetLab(HOSTS, rate), [sys.executable, __file__, "rank", str(rate)], 300)
        for tau, (computing, clock, wall) in zip(STEPS, found, strict=True):
            predicted, measured = computing / clock, computing / wall
            cells = [
                f"{rate:g} Mbit/s",
                str(tau),
                f"{clock:.2f} s",
                f"{wall:.2f} s",
                f"{predicted:.1%}",
                f"{measured:.1%}",
            ]
            print(f"| {' | '.join([*cells, f'{measured / predicted:.3f}'])} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
