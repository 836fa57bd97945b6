"""The virtual clock compared with the wall clock, for exchanges among hosts with slow links.

    python scripts/bench_clock.py        # as root; needs ip and tc

Four namespaces joined by links of 100 Mbit/s (netlab.py), one worker in each; the median of seven rounds. What encoding
and decoding take of the two cores that all hosts share is measured, and the virtual clock counts it, too. Then the
dense exchanges again with one link of 20 Mbit/s, the last worker's and then the server's: the median of three. In the
overlapped all-reduce nothing is computed: a worker sleeps as long as its forward pass and each quarter of its backward
pass would take.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from netlab import NetLab, NetLabError

from commexp.comm import Communicator, Ledger, Processes, bucket_ends, communicator
from commexp.compressors import CodecContext, Compressor, NoCompression, TopK
from commexp.experiment.record import busy
from commexp.network import Compute, Link, Network, NoStragglers, VirtualClock
from commexp.topologies import Gossip, Mixer, Ring, Star

DIM, HOSTS, ROUNDS, BANDWIDTH = 2_000_000, 4, 7, 100.0
SLOW, SLOW_ROUNDS = 20.0, 3
GRADIENT = 0.75  # seconds, where it overlaps
communicator.BUCKET = DIM // 4
HEADERS = 66 / 1448  # what TCP over Ethernet adds, which the links of netlab carry as well
CASES: dict[str, tuple[str, Compressor]] = {
    "dense, all-reduce": ("all_reduce", NoCompression()),
    "dense, all-gather": ("all_gather", NoCompression()),
    "Top-k 10 %, all-gather": ("all_gather", TopK(k=0.1)),
    "dense, all-reduce, overlapped": ("overlapped", NoCompression()),
    "dense, parameter server": ("server", NoCompression()),
    "Top-k 10 %, parameter server": ("server", TopK(k=0.1)),
    "Top-k 10 %, two-phase": ("two_phase", TopK(k=0.1)),
    "dense, gossip on a ring": ("ring", NoCompression()),
    "dense, gossip on a star": ("star", NoCompression()),
    "Top-k 10 %, gossip on a ring": ("ring", TopK(k=0.1)),
}
DENSE = ["dense, all-reduce", "dense, parameter server", "dense, gossip on a ring", "dense, gossip on a star"]
#: whose link is slow, and what is exchanged then
LABS: list[tuple[int | None, list[str]]] = [(None, list(CASES)), (HOSTS - 1, DENSE), (0, DENSE[1:2])]


def rank(slow: int | None, cases: list[str]) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    links = Processes(timedelta(seconds=120))
    own = None if slow is None else {slow: Link(bandwidth=SLOW)}
    rounds, found = ROUNDS if slow is None else SLOW_ROUNDS, {}
    for name in cases:
        kind, codec = CASES[name]
        ahead = kind == "overlapped"
        compute = Compute(seconds=GRADIENT) if ahead else Compute(kind="measured")
        network = Network(BANDWIDTH, 0.2, links=own, overlap=ahead, headers=HEADERS, compute=compute)
        graph = {"ring": Ring(), "star": Star()}.get(kind)
        mixer = None if graph is None else Mixer(graph, Gossip(), HOSTS, 0)
        comm = Communicator(HOSTS, Ledger(), "auto" if mixer or ahead else kind, links=links, mixer=mixer)
        codec.setup(CodecContext(worker_ids=[links.rank]))
        x = torch.randn(1, DIM, generator=torch.Generator().manual_seed(links.rank))
        weights = torch.full((1,), 1 / HOSTS)
        message, walls = codec.encode(x), []
        for t in range(rounds):
            links.tell("")  # outside of the round, where it would count as computing
            begin = time.perf_counter()
            comm.begin_round(t + 1)
            if ahead:
                begun_early(comm, codec, x, weights)
            elif mixer is None:
                comm.aggregate(message, weights)
            elif isinstance(codec, NoCompression):
                comm.gossip(x)
            else:
                comm.gossip_messages(message)
            comm.end_round()
            links.tell("")
            walls.append(time.perf_counter() - begin)
        comm.settle()
        ends = mixer.mean_links[:2] if mixer else None
        buckets = bucket_ends(DIM, communicator.BUCKET)
        clock, virtual = VirtualClock(network, NoStragglers(), HOSTS, 0, ends, bucket_ends=buckets), []
        for t in range(1, rounds + 1):
            booked, before = [e for e in comm.ledger.entries if e.round == t], clock.now
            clock.round(t, float(ahead), booked, sum(map(busy, booked)))
            virtual.append(clock.now - before)
        found[name] = (statistics.median(virtual), statistics.median(walls))
    if links.rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def begun_early(comm: Communicator, codec: Compressor, x: torch.Tensor, weights: torch.Tensor) -> None:
    """What a round of SGD does with the gradient x [1, J]."""
    sum_of_all = comm.begin(codec, weights, DIM)
    assert sum_of_all.ready is not None
    time.sleep(GRADIENT / 3)
    ends = bucket_ends(DIM, communicator.BUCKET)
    for end in ends:
        time.sleep(GRADIENT * 2 / 3 / len(ends))
        sum_of_all.ready(x[0], round(DIM * (1 - end)))
    sum_of_all.finish(x)


def main() -> int:
    if sys.argv[1:2] == ["rank"]:
        rank(*json.loads(sys.argv[2]))
        return 0
    heads = [f"{HOSTS} hosts, {BANDWIDTH:g} Mbit/s", "virtual clock", "wall clock", "wall / virtual"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for slow, cases in LABS:
        rates = [SLOW if host == slow else BANDWIDTH for host in range(HOSTS)]
        command = [sys.executable, __file__, "rank", json.dumps([slow, cases])]
        try:
            with NetLab(HOSTS, rates) as lab:
                ended = lab.run_everywhere(command, timeout=300)
        except NetLabError as error:
            print(f"bench_clock: {error}", file=sys.stderr)
            return 2
        if any(e.returncode for e in ended):
            print(next(e.output for e in ended if e.returncode), file=sys.stderr)
            return 1
        but = "" if slow is None else f", host {slow} at {SLOW:g} Mbit/s"
        for name, (virtual, wall) in json.loads(ended[0].output.splitlines()[-1]).items():
            row = [name + but, f"{1e3 * virtual:.1f} ms", f"{1e3 * wall:.1f} ms", f"{wall / virtual:.3f}"]
            print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
