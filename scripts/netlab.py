"""A real slow network: a namespace per host, shaped links between them, a process in each, and byte counters.

    python scripts/netlab.py --hosts 4 --mbit 100 -- python train.py

Linux and root only. The kernel shapes the links (``tc tbf``) and counts the bytes that cross them; nothing is
simulated. The links have a rate but no delay of their own (that needs ``tc netem``, which not every kernel has):
packets are delayed only by the queue before a busy link.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from commexp.metrics import human_bytes

SEGMENT = 16 * 1024  # most bytes that TCP hands to eth0 at once; each such segment counts one header of 66 bytes
BURST = 20_000  # bytes: a segment, with the headers of all its packets
CONTROL = "reno"  # of congestion, for TCP; on a ring BBR leaves up to a third of a link of 50 Mbit/s unused
QUEUE = 64_000_000  # bytes that may wait for a link: more than TCP has under way, so that nothing is sent twice


class NetLabError(RuntimeError):
    """Why there can be no such network here, in one line."""


class Traffic(NamedTuple):
    """Bytes that have crossed a host's eth0."""

    sent: int
    received: int


class Ended(NamedTuple):
    """How a rank ended; ``returncode`` is None if the lab stopped it: another rank failed, or time was up."""

    returncode: int | None
    output: str  # stdout and stderr together; empty where they passed through
    seconds: float


class NetLab:
    """Hosts 10.77.0.1, 10.77.0.2, ... at one switch, each in a network namespace, for as long as the block lasts.

    ``mbit`` is the rate of every host's link in each direction, or a rate per host; None: not shaped. The headers of
    1500-byte packets count in it: TCP's payload gets 95.7 %.

    A link that was idle lets one burst pass at once before its rate holds: 20 kB, or what the rate carries in 1 ms if
    that is more (125 kB at 1 Gbit/s). A message shorter than that after a pause costs no time.

    With ``islands`` = G groups of neighbours by number, a host's link has ``inside`` Mbit/s more for the hosts of its
    own group, which its other traffic leaves free.

    When the block ends, by an exception, Ctrl-C or SIGTERM too, all that runs on the hosts is killed and the
    namespaces go. What a killed owner left goes when the next lab starts.
    """

    def __init__(
        self,
        hosts: int = 4,
        mbit: float | Sequence[float | None] | None = 100.0,
        islands: int | None = None,
        inside: float = 1000.0,
    ) -> None:
        self.members, self.inside = hosts // (islands or hosts), inside
        self.mbit = list(mbit) if isinstance(mbit, Sequence) else [mbit] * hosts
        if not 1 <= hosts <= 254 or len(self.mbit) != hosts:
            raise NetLabError(f"1 to 254 hosts and a rate for each, not {hosts} hosts and {len(self.mbit)} rates")
        if not all(rate is None or 0 < rate <= 1e5 for rate in self.mbit):
            raise NetLabError(f"rates are above 0 and at most 100,000 Mbit/s, not {self.mbit}")
        self.hosts = [f"commexp-{os.getpid()}-{i}" for i in range(hosts)]
        self.switch = f"commexp-{os.getpid()}-switch"
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> NetLab:
        if missing := [tool for tool in ("ip", "tc") if shutil.which(tool) is None]:
            raise NetLabError(f"{' and '.join(missing)} not found; on Debian and Ubuntu: apt-get install iproute2")
        if os.geteuid() != 0:
            raise NetLabError("only root may make network namespaces")
        labs = re.findall(r"^(commexp-(\d+)-(?:\d+|switch))\b", _call("ip netns list"), re.MULTILINE)
        if str(os.getpid()) in (pid for _, pid in labs):
            raise NetLabError("this process has a lab open already")
        with ExitStack() as stack:
            in_main = threading.current_thread() is threading.main_thread()
            if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
                stack.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
            stack.callback(self._close)
            _remove([name for name, pid in labs if not Path("/proc", pid, "exe").exists()])  # a zombie has none
            self._build()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _build(self) -> None:
        with _undisturbed():
            for name in (self.switch, *self.hosts):
                _call(f"ip netns add {name}")
                _call(f"ip -n {name} link set lo up")
                for key, value in (("ipv6/conf/all/disable_ipv6", "1"), ("ipv4/tcp_congestion_control", CONTROL)):
                    _call(f"ip netns exec {name} sh -c 'echo {value} > /proc/sys/net/{key}'", check=False)
            _call(f"ip -n {self.switch} link add switch up type bridge")
            for i, (name, rate) in enumerate(zip(self.hosts, self.mbit, strict=True)):
                _call(f"ip -n {name} link add eth0 type veth peer name port{i} netns {self.switch}")
                _call(f"ip -n {name} link set eth0 gso_max_size {SEGMENT}")
                _call(f"ip -n {name} addr add {self.address(i)}/24 dev eth0")
                for place, end in ((name, "eth0"), (self.switch, f"port{i}")):
                    _call(f"ip -n {place} link set {end} up")
                _call(f"ip -n {self.switch} link set port{i} master switch")
                self._shape(i, rate)

    def _shape(self, host: int, rate: float | None) -> None:
        for place, end in ((self.hosts[host], "eth0"), (self.switch, f"port{host}")):
            if self.members > 1 and rate is not None:
                self._shape_apart(host, place, end, rate)
            elif rate is not None:
                _call(f"tc -n {place} qdisc replace dev {end} root {_tbf(rate)}")
            else:
                _call(f"tc -n {place} qdisc del dev {end} root", check=False)

    def _shape_apart(self, host: int, place: str, end: str, rate: float) -> None:
        """One class for the hosts of the same island, another for all the rest."""
        _call(f"tc -n {place} qdisc replace dev {end} root handle 1: htb default 1")
        for number, each in enumerate((rate, self.inside), 1):
            _call(f"tc -n {place} class add dev {end} parent 1: classid 1:{number} htb rate 40gbit quantum 60000")
            _call(f"tc -n {place} qdisc add dev {end} parent 1:{number} {_tbf(each)}")
        first, way = host // self.members * self.members, "dst" if end == "eth0" else "src"
        for mate in range(first, first + self.members):
            match = f"u32 match ip {way} {self.address(mate)}/32 flowid 1:2"
            _call(f"tc -n {place} filter add dev {end} parent 1: protocol ip prio 1 {match}")

    def shape(self, mbit: float | None) -> None:
        """Gives all links another rate."""
        self.mbit = [mbit] * len(self.hosts)
        for host in range(len(self.hosts)):
            self._shape(host, mbit)

    def _close(self) -> None:
        with _undisturbed():
            self.kill()
            _remove([*self.hosts, self.switch])

    def address(self, host: int) -> str:
        return f"10.77.0.{host + 1}"

    def counters(self) -> list[Traffic]:
        """What each host has sent and received so far: payload and a header per segment, acknowledgements too."""
        links = [json.loads(_call(f"ip -n {name} -s -j link show eth0"))[0]["stats64"] for name in self.hosts]
        return [Traffic(link["tx"]["bytes"], link["rx"]["bytes"]) for link in links]

    def rank_env(self, host: int, port: int = 29500) -> dict[str, str]:
        """What torch.distributed reads from the environment: a rank per host; host 0 is the master."""
        return {
            "RANK": str(host),
            "WORLD_SIZE": str(len(self.hosts)),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "GROUP_RANK": str(host),
            "MASTER_ADDR": self.address(0),
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": "1",
        }

    def start(
        self, host: int, command: Sequence[str], env: Mapping[str, str] | None = None, **popen: Any
    ) -> subprocess.Popen[bytes]:
        """Starts a command on a host, ``env`` added to the environment; the process returned is the command's own."""
        words = ["ip", "netns", "exec", self.hosts[host], *command]
        process = subprocess.Popen(words, env={**os.environ, **(env or {})}, **popen)
        self._started.append(process)
        return process

    def kill(self) -> None:
        """Kills all that runs on the hosts."""
        for process in self._started:
            process.kill()
            process.wait()
        _kill(self.hosts)

    def run_everywhere(
        self,
        command: Sequence[str],
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        through: Collection[int] = (),
    ) -> list[Ended]:
        """Runs a command as one rank per host and waits; output is collected, but that of ranks ``through`` passes.

        When a rank fails, or time is up, all that runs on the hosts is killed.
        """
        ranks: list[subprocess.Popen[bytes]] = []
        codes: list[int | None] = [None for _ in self.hosts]
        seconds = [0.0 for _ in self.hosts]
        with ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in self.hosts]
            begin = time.perf_counter()
            for i, file in enumerate(files):
                mine = {**self.rank_env(i), **(env or {})}
                ends: Any = {} if i in through else {"stdout": file, "stderr": subprocess.STDOUT}
                ranks.append(self.start(i, command, mine, stdin=subprocess.DEVNULL, **ends))
            while None in codes and not any(codes) and (timeout is None or time.perf_counter() - begin < timeout):
                time.sleep(0.01)
                for i, rank in enumerate(ranks):
                    if codes[i] is None:
                        codes[i], seconds[i] = rank.poll(), time.perf_counter() - begin
            if None in codes:
                self.kill()
            for file in files:
                file.seek(0)
            outputs = [file.read().decode(errors="replace") for file in files]
        return [Ended(*rank) for rank in zip(codes, outputs, seconds, strict=True)]


def first_says(lab: NetLab, command: Sequence[str], timeout: float) -> Any:
    """Opens the lab, runs a command as one rank per host, and reads the last line of the first one's output as JSON.
    Ends the program, with status 2 where there can be no such network, and 1 with a failed rank's output."""
    try:
        with lab:
            ended = lab.run_everywhere(command, timeout)
    except NetLabError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)
    if any(each.returncode for each in ended):
        print(next(each.output for each in ended if each.returncode), file=sys.stderr)
        sys.exit(1)
    return json.loads(ended[0].output.splitlines()[-1])


def _tbf(rate: float) -> str:
    """A shaper of ``rate`` Mbit/s, as tc has it."""
    return f"tbf rate {rate * 1e6:.0f}bit burst {max(BURST, rate * 125):.0f} limit {QUEUE}"


def _call(command: str, check: bool = True) -> str:
    """What a command prints; its failure is a NetLabError, unless ``check`` is false."""
    done = subprocess.run(shlex.split(command), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode:
        raise NetLabError(f"{command}: {' '.join(done.stderr.split())}")
    return done.stdout


def _kill(names: Sequence[str]) -> None:
    """Kills all processes in the namespaces; again, since one may have started another meanwhile."""
    for name in names:
        while pids := _call(f"ip netns pids {name}", check=False).split():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)


def _remove(names: Sequence[str]) -> None:
    _kill(names)
    for name in names:
        _call(f"ip netns delete {name}", check=False)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done, here and in the commands that it runs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def rates(text: str) -> list[float | None]:
    return [None if word == "none" else float(word) for word in text.split(",")]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Runs COMMAND as one rank per host of a slow network; needs root.")
    parser.add_argument("--hosts", type=int, default=4, help="how many (default: 4)")
    parser.add_argument("--mbit", type=rates, default=[100.0], help="rate of the links, or 100,10,none,... for each")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --; rank 0's output is shown")
    args = parser.parse_args(words)
    try:
        with NetLab(args.hosts, args.mbit * args.hosts if len(args.mbit) == 1 else args.mbit) as lab:
            before = lab.counters()
            ranks = lab.run_everywhere(args.command, through=(0,))
            after = lab.counters()
    except NetLabError as error:
        print(f"netlab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"{'host':<12}{'Mbit/s':>8}{'sent':>10}{'received':>10}{'seconds':>9}")
    for i, rank in enumerate(ranks):
        sent, received = (human_bytes(b - a) for a, b in zip(before[i], after[i], strict=True))
        rate = "-" if lab.mbit[i] is None else f"{lab.mbit[i]:g}"
        print(f"{lab.address(i):<12}{rate:>8}{sent:>10}{received:>10}{rank.seconds:>9.2f}", flush=True)
    failed = {i: rank for i, rank in enumerate(ranks) if rank.returncode}
    for i, rank in failed.items():
        print(f"netlab: rank {i} failed, status {rank.returncode}\n{rank.output}", end="", file=sys.stderr)
    return max((code if code > 0 else 128 - code for rank in failed.values() if (code := rank.returncode)), default=0)


if __name__ == "__main__":
    sys.exit(main())
