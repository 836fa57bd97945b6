"""Python processes that need not import torch: ``warm.Popen`` starts them as forks of one that has.

Importing torch takes seconds of a core, and the tests start hundreds of processes. The first call starts a parent
process that imports what a run imports and then waits. A process is a fork of it, with its own arguments, variables,
folder and streams; it becomes a child of the process that asked for it, so that signals, exit statuses and the death of
its parent mean what they mean for any other child. What it starts itself with ``subprocess.Popen`` is warm, too, and
so are the processes that multiprocessing would spawn.

What depends on the start of the interpreter (/proc/PID/cmdline, /proc/PID/environ, closed streams) is
tested with ``subprocess.Popen`` itself; so is each kind of start once.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36  # of prctl(2)
MADV_COLLAPSE, HUGE = 25, 2**21  # of madvise(2)
ALSO = "WARM_ALSO"  # environment variable: modules to be imported before the fork, by the first that needs them
EMPTY = bytes.fromhex(  # a PNG of one white pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a494441"
    "5478da63f80f00010101001cb08c990000000049454e44ae426082"
)
UNDRAWN = "WARM_UNDRAWN"  # environment variable: a process makes pictures, but draws nothing
NAME = "warm"  # in /proc/PID/comm, of what was forked
COLD, CONTEXT = subprocess.Popen, multiprocessing.get_context
IMPORTED = (
    "commexp.api",
    "commexp.cli.run",
    "commexp.experiment.execute",
    "commexp.launch.member",
    "commexp.launch.processes",
    "commexp.report.curves",
    "commexp.report.finish",
    "commexp.report.partition",
    "commexp.report.sweep",
    "fontTools.subset",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "networkx",
    "sklearn.datasets",
    "sklearn.model_selection",
)
_parent: socket.socket | None = None  # of the processes that this one asks for
_asking = threading.Lock()


class Popen(COLD):  # type: ignore[type-arg]
    """As subprocess.Popen; a python command with the usual options is forked instead of started."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        pass_fds, cwd, env, shell = rest[1], rest[2], rest[3], rest[6]
        pipes, start_new_session = rest[7:13], rest[18]
        command = [str(word) for word in args] if isinstance(args, list | tuple) else []
        job = parsed(command, cwd) if sys.platform == "linux" and not (shell or preexec_fn or pass_fds) else None
        if job is None:
            super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
            return
        job |= {
            "env": {**(os.environ if env is None else env)},
            "cwd": str(cwd or os.getcwd()),
            "session": bool(start_new_session),
        }
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        streams = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid = forked(job, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def start_cold_again() -> None:
    """In a fork: subprocess and multiprocessing are what they were."""
    subprocess.Popen, multiprocessing.get_context = COLD, CONTEXT  # type: ignore[misc]


def begin() -> None:
    """Lets the parent process import while this one does something else."""
    global _parent
    with _asking:
        if _parent is None:
            _parent = begun()


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run."""
    with patch.object(subprocess, "Popen", Popen):
        return subprocess.run(command, **options)


def parsed(command: list[str], cwd: Any) -> dict[str, Any] | None:
    """What this command line of python runs, or None if it is another's or has options that a fork cannot heed."""
    if command[:1] != [sys.executable]:
        return None
    flags = list(takewhile(lambda word: word in ("-P", "-u"), command[1:]))
    safe = "-P" in flags  # -u: where streams are files or pipes, and the end flushes them, no test can tell
    how, *args = command[1 + len(flags) :] or [""]
    if how in ("-c", "-m") and args:
        return {"how": how, "what": args[0], "args": args[1:], "safe": safe}
    return None if how.startswith("-") or not how else {"how": "", "what": how, "args": args, "safe": safe}


def forked(job: dict[str, Any], streams: list[int]) -> int:
    """The new process's id."""
    begin()
    assert _parent is not None
    with _asking:
        content = json.dumps(job).encode()
        _parent.sendmsg(
            [len(content).to_bytes(8, "little")],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))],
        )
        _parent.sendall(content)
        return int.from_bytes(received(_parent, 8), "little")


def begun() -> socket.socket:
    """Starts the process that imports everything."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    here, there = socket.socketpair()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COMMEXP", "HYDRA", "PYTHON"))}
    env |= {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"}
    start = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import warm; warm.main({there.fileno()})"
    COLD([sys.executable, "-c", start], env=env, pass_fds=[there.fileno()], start_new_session=True, cwd="/")
    there.close()
    return here


def received(line: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = line.recv(size - len(content))
        if not more:
            raise EOFError
        content += more
    return content


def main(handle: int) -> None:
    subprocess.Popen = Popen  # type: ignore[misc]  # torch takes hold of it while it is imported
    multiprocessing.get_context = lambda method=None: CONTEXT("fork" if method == "spawn" else method)  # type: ignore
    gc.disable()
    for name in IMPORTED:
        importlib.import_module(name)
    import quick
    from hydra.core.plugins import Plugins
    from PIL import Image

    from commexp.api import compose_config
    from commexp.config.schema import known_keys

    quick.begin()
    write_without_waiting()
    Plugins.instance()  # looks for them
    Image.init()
    known_keys()  # read from all files of conf/
    for algo in ("sgd", "topk", "localsgd"):  # parsers remember what they have learnt, and quick.py what it has merged
        compose_config([f"algo={algo}", "dataset=linreg", "algo.lr=0.1"])

    settle()
    gc.set_threshold(50_000, 20, 20)  # as in conftest.py
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work(serve(socket.socket(fileno=handle)))


def serve(line: socket.socket) -> dict[str, Any]:
    """Forks until nobody asks any more. Returns in each fork, with what it is to do."""
    while True:
        try:
            size, ancillary, _, _ = line.recvmsg(8, socket.CMSG_SPACE(3 * 4))
            if not size:
                os._exit(0)
            job = json.loads(received(line, int.from_bytes(size, "little")))
        except (EOFError, OSError):
            os._exit(0)
        if new := [name for name in job["env"].get(ALSO, "").split() if name not in sys.modules]:
            for name in new:
                importlib.import_module(name)
            settle()
        streams, (told, tell) = array.array("i", ancillary[0][2]), os.pipe()
        between = forking()
        if between:
            os.waitpid(between, 0)
            line.sendall(os.read(told, 8))
            for handle in (*streams, told, tell):
                os.close(handle)
            continue
        between = os.getpid()
        child = forking()
        if child:  # whoever asked becomes its parent by this one's end
            os.write(tell, child.to_bytes(8, "little"))
            os._exit(0)
        line.close()
        os.close(told)
        os.close(tell)
        for number, handle in enumerate(streams):
            os.dup2(handle, number)
            os.set_inheritable(number, True)
        for handle in streams:
            if handle > 2:
                os.close(handle)
        while os.getppid() == between:
            time.sleep(0.0005)
        return job


def write_without_waiting() -> None:
    """No test pulls the plug: what was written outlives its process even if it has not reached the disk."""
    os.fsync = lambda handle: None  # type: ignore[assignment]


def settle() -> None:
    """What has been imported stays as it is in all forks: not looked through, not taken apart, copied where written."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # torch's remove its operators one by one, which are 7,000 pages
    gc.collect()
    gc.freeze()
    gather_pages()


def gather_pages() -> None:
    """Memory in pages of 2 MB, where the system can: a fork copies a table of all pages, and half of its time goes."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split()
        if rights.startswith("rw") and name in ([], ["[heap]"]):
            begin, end = (int(word, 16) for word in span.split("-"))
            for place in range(-(-begin // HUGE) * HUGE, end - HUGE + 1, HUGE):
                madvise(place, HUGE, MADV_COLLAPSE)  # refused where parts are unused or the kernel is older than 6.1


def draw_nothing(put: Callable[[Any, str, Any], object] = setattr) -> None:
    """What is drawn is an empty page, and its layout is not settled. ``put``: how an attribute is set."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    put(ConstrainedLayoutEngine, "execute", lambda self, figure: None)
    put(Figure, "draw_without_rendering", lambda self: None)
    put(Figure, "savefig", lambda self, file, **_: file.write(EMPTY))


def forking() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries, which wait
        return os.fork()


def work(job: dict[str, Any]) -> NoReturn:
    """Ends as python ends, but does not take the interpreter apart, which takes longer than most of what runs here."""
    status: object = 0
    try:
        carry_out(job)
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(status, str):
        print(status, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status if isinstance(status, int) else bool(status))


def carry_out(job: dict[str, Any]) -> None:
    """Does what python does with its command line."""
    global _parent
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    tempfile.tempdir = None  # TMPDIR may be another
    if UNDRAWN in os.environ:
        draw_nothing()
    here, there = socket.socketpair()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    if not forking():
        here.close()
        for number in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_NAME, b"parent")
        work(serve(there))
    there.close()
    ctypes.CDLL(None).prctl(PR_SET_NAME, NAME.encode())
    _parent = here
    sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    safe = job["safe"] or "PYTHONSAFEPATH" in os.environ
    how, what = job["how"], job["what"]
    if how == "-c":
        sys.argv = ["-c", *job["args"]]
        sys.path[:0] = [] if safe else [""]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    elif how == "-m":
        sys.argv = [what, *job["args"]]
        sys.path[:0] = [] if safe else [os.getcwd()]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [what, *job["args"]]
        sys.path[:0] = [] if safe else [str(Path(what).resolve().parent)]
        runpy.run_path(what, run_name="__main__")
