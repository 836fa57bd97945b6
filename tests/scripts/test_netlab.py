"""The slow network is slow, counts what it carries, and goes when its owner goes, however that ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import environment

NETLAB = Path(__file__).parent.parent.parent / "scripts" / "netlab.py"
SPEC = importlib.util.spec_from_file_location("netlab", NETLAB)
assert SPEC is not None
assert SPEC.loader is not None
netlab = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(netlab)
NetLab, NetLabError = netlab.NetLab, netlab.NetLabError

SIZE = 1_000_000
TRANSFER = f"""
import os, socket, time
end = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if os.environ["RANK"] == "0":
    connection, _ = socket.create_server(end).accept()
    begin, count = time.perf_counter(), 0
    while data := connection.recv(65536):
        count += len(data)
    print(count, time.perf_counter() - begin)
else:
    for _ in range(1000):
        try:
            connection = socket.create_connection(end)
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    connection.sendall(bytes({SIZE}))
    connection.close()
"""
OWNER = f"""
import runpy, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
with runpy.run_path({str(NETLAB)!r})["NetLab"](2, 10) as lab:
    print(lab.start(0, ["sleep", "1000"]).pid, flush=True)
    time.sleep(1000)
"""
STRANGER = f"""
import os, runpy
main = runpy.run_path({str(NETLAB)!r})["main"]
if os.geteuid() == 0:
    os.seteuid(65534)
raise SystemExit(main(["--hosts", "2", "--", "true"]))
"""


@pytest.fixture(scope="module")
def permitted() -> None:
    try:
        with NetLab(hosts=1, mbit=10):
            pass
    except NetLabError as error:
        pytest.skip(f"no network namespaces here: {error}")


def namespaces(owner: int) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.startswith(f"commexp-{owner}-")]


def alive(pid: int) -> bool:
    return Path("/proc", str(pid), "exe").exists()  # a zombie has none


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize("mbit", [10.0, [None, 10.0], [10.0, None]], ids=["both", "uplink", "downlink"])
def test_a_link_holds_its_rate_and_counts_its_bytes(mbit: object) -> None:
    with NetLab(2, mbit) as lab:
        before = lab.counters()
        receiver, sender = lab.run_everywhere([sys.executable, "-c", TRANSFER], timeout=30)
        after = lab.counters()
    assert (receiver.returncode, sender.returncode) == (0, 0), receiver.output + sender.output
    count, seconds = receiver.output.split()
    assert int(count) == SIZE
    assert float(seconds) > 0.6  # 0.8 s for the payload alone, but for the first burst
    assert SIZE < after[1].sent - before[1].sent < 1.03 * SIZE
    assert SIZE < after[0].received - before[0].received < 1.03 * SIZE


@pytest.mark.usefixtures("permitted")
def test_a_failed_rank_or_the_time_limit_stops_the_others() -> None:
    with NetLab(3, None) as lab:
        ranks = lab.run_everywhere(
            ["sh", "-c", 'echo rank $RANK; [ "$RANK" != 1 ] || { sleep 0.3; exit 5; }; sleep 60']
        )
        assert [(r.returncode, r.output) for r in ranks] == [(None, "rank 0\n"), (5, "rank 1\n"), (None, "rank 2\n")]
        ranks = lab.run_everywhere(["sh", "-c", '[ "$RANK" = 0 ] || sleep 60'], timeout=0.3)
        assert [r.returncode for r in ranks] == [0, None, None]


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize("raises", [False, True])
def test_nothing_is_left(raises: bool) -> None:
    with suppress(ZeroDivisionError), NetLab(2, 10) as lab:
        assert len(namespaces(os.getpid())) == 3
        shell = lab.start(1, ["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
        child = int(shell.stdout.readline())
        assert alive(child)
        if raises:
            raise ZeroDivisionError
    shell.stdout.close()
    assert not alive(child)
    assert shell.returncode == -signal.SIGKILL
    assert namespaces(os.getpid()) == []


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_owner_that_is_stopped_leaves_nothing_or_the_next_lab_removes_it(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None
        sleeper = int(owner.stdout.readline())
        assert alive(sleeper)
        assert len(namespaces(owner.pid)) == 3
        owner.send_signal(number)
    if number == signal.SIGKILL:
        with NetLab(1, None):
            pass
    assert not alive(sleeper)
    assert namespaces(owner.pid) == []


@pytest.mark.usefixtures("permitted")
def test_a_process_has_one_lab_at_a_time() -> None:
    with NetLab(1, None):
        with pytest.raises(NetLabError, match="open already"), NetLab(1, None):
            pass
        assert len(namespaces(os.getpid())) == 2


@pytest.mark.usefixtures("permitted")
def test_command_line() -> None:
    command = ["sh", "-c", 'echo I am $RANK; [ "$RANK" = 0 ] || { sleep 0.3; exit 5; }']
    done = subprocess.run(
        [sys.executable, str(NETLAB), "--hosts", "2", "--mbit", "10,none", "--", *command],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 5
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["I", "am"], ["host", "Mbit/s"], ["10.77.0.1", "10"], ["10.77.0.2", "-"],
    ]  # fmt: skip
    assert done.stderr == "netlab: rank 1 failed, status 5\nI am 1\n"


def test_without_the_right_one_line_says_so() -> None:
    command = [sys.executable, "-c", STRANGER]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("netlab: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("mbit", [0.0, -1.0, float("nan"), [10.0], [10.0, 10.0, 10.0]])
def test_a_rate_above_zero_for_each_host(mbit: object) -> None:
    with pytest.raises(NetLabError, match="rates"):
        NetLab(2, mbit)
