"""Bytes between processes: torch.distributed, and nothing at all where there is one process.

A transfer is begun at once and given as a generator, which yields each handle to wait for and returns the result. So
several transfers can be under way, and the caller decides when to wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from commexp.comm import secret

if TYPE_CHECKING:
    from commexp.server.endpoints import ServerEndpoint, WorkerEndpoint


class Handle(Protocol):
    """One collective under way."""

    def wait(self) -> object: ...
    def is_completed(self) -> bool: ...


class Done:
    """A handle of what is done already."""

    def wait(self) -> None: ...

    def is_completed(self) -> bool:
        return True


T = TypeVar("T")
PendingTransfer = Generator[Handle, None, T]


def finish(transfer: PendingTransfer[T]) -> T:
    """Waits for one transfer to its end."""
    try:
        while True:
            next(transfer).wait()
    except StopIteration as end:
        result: T = end.value
        return result


#: what Gloo, NCCL and the store say when another process is gone or silent
GONE = re.compile(r"closed by peer|reset by peer|broken pipe|not connected|connection refused|remote process", re.I)
SILENT = re.compile(r"timed? ?out", re.I)


class LostProcessError(RuntimeError):
    """Another process is gone, or silent: that is ``how``."""

    def __init__(self, text: str, how: str) -> None:
        super().__init__(text)
        self.how = how


def lost_how(error: Exception) -> str:
    """How the process at the other end of a channel is lost (server/channel.py)."""
    return "silent" if isinstance(error, TimeoutError) else "gone"


def lost_server(rank: int, how: str, timeout: timedelta) -> LostProcessError:
    """What process ``rank`` says of the first one."""
    if how == "silent":
        text = f"rank {rank}: no word from rank 0 in launch.timeout={timeout.total_seconds():g} s"
        return LostProcessError(text, how)
    return LostProcessError(f"rank {rank}: lost its connection to rank 0", how)


class Loss(NamedTuple):
    """Process ``rank``, which hosts ``workers``, was lost, or came ``back``, in round ``round`` = 1, 2, ..."""

    rank: int
    round: int
    workers: Sequence[int]
    back: bool = False


class Links:
    """One process: rank 0 of 1. Nothing is sent, and every result is the process's own.

    ``rank``, ``processes``: of the processes that take part in collectives, over which workers are spread.
    ``collective``: whether collectives reach other processes, which then call each of them together.
    ``server``, ``worker``: this process's endpoint where the first process is a server that does not wait for the
    others, else None.
    ``losses``: the processes that were lost so far, and those that came back. ``versions``: of what other processes
    keep of their workers by themselves, by rank, see experiment/checkpoint.py.
    ``workers_wait``: whether workers stand still while the first process evaluates the model.
    """

    rank = 0
    processes = 1
    collective = False
    server: ServerEndpoint | None = None
    worker: WorkerEndpoint | None = None
    losses: Sequence[Loss] = ()
    workers_wait = True

    @property
    def world_rank(self) -> int:
        """Of this process among all that carry out the run."""
        return self.rank

    @property
    def world_size(self) -> int:
        """How many processes carry out the run."""
        return self.processes

    @property
    def versions(self) -> Mapping[int, int]:
        return {}

    def request_save(self) -> None:
        """Asks workers in other processes to keep their own state; collectives do so by themselves."""

    def end(self) -> None:
        """Tells processes that do not take part in collectives that the run is over; may be called twice."""

    def agree(self, x: Tensor) -> Tensor:
        """int or float CPU tensor -> its sum over all processes; for small tensors, beside the messages."""
        return x

    def begin_agreement(self, x: Tensor, arrived: Callable[[], None]) -> Handle:
        """``agree`` without waiting: x holds the sum when the handle is done. ``arrived`` is called when the sum comes
        from other processes, on any thread."""
        return Done()

    def tell(self, text: str) -> list[str]:
        """Every process's text, in the order of ranks."""
        return [text]

    def first_says(self, answer: bool) -> bool:
        """The first process's answer, for all: files may look different to others in that moment."""
        return bool(self.agree(torch.tensor([int(answer and self.rank == 0)]))[0])

    def counts(self, mine: Tensor) -> Tensor:
        """int64 [m] of each process -> [P, m]."""
        return mine.long().cpu()[None]

    def all_reduce(self, x: Tensor) -> PendingTransfer[Tensor]:
        """x -> its sum over processes; x itself may be overwritten."""
        yield from ()
        return x

    def all_gather(self, x: Tensor, sizes: Sequence[int] | None = None) -> PendingTransfer[list[Tensor]]:
        """uint8 [n] of each process -> those of all. ``sizes``: of each, where they differ; then exactly those travel,
        directly from one to the other."""
        yield from ()
        return [x]

    def broadcast(self, x: Tensor, source: int) -> PendingTransfer[Tensor]:
        """x of process ``source``; the others give a tensor like it, which may be overwritten."""
        yield from ()
        return x

    def all_to_all(self, pieces: Sequence[Tensor], sizes: Sequence[int]) -> PendingTransfer[list[Tensor]]:
        """uint8 [n_p] for each process p -> what each had for this one, [sizes_p]."""
        yield from ()
        return list(pieces)

    def swap(
        self, out: Mapping[int, Tensor], sizes: Mapping[int, int], like: Tensor
    ) -> PendingTransfer[dict[int, Tensor]]:
        """Sends ``out`` to some processes and receives from some, all at once, point to point. ``sizes``: elements to
        receive from each, of the type and device of ``like``."""
        yield from ()
        return {}

    def subgroup(self, ranks: Sequence[int]) -> Links:
        """Links among some processes, this one with them, which call this together; those of this process alone where
        it is the only one."""
        return Links()

    def explain(self, error: Exception) -> Exception:
        """A LostProcessError, in one line, where that is what the error means; else the error itself."""
        return error


class Processes(Links):
    """The processes of a group of torch.distributed, the default one if none is given: NCCL where each has a GPU of its
    own, else Gloo. Ranks are those in the group.

    Tensors on a GPU are copied to the CPU where Gloo carries them. Small things that all must know go through a second
    group, on Gloo in any case. Transfers raise RuntimeError when a process is gone or does not answer in time.
    """

    collective = True

    def __init__(self, timeout: timedelta, group: dist.ProcessGroup | None = None) -> None:
        self.group = dist.distributed_c10d._get_default_group() if group is None else group
        self.rank, self.processes = dist.get_rank(self.group), dist.get_world_size(self.group)
        self.staged = dist.get_backend(self.group) == "gloo"
        if self.group is dist.group.WORLD:
            control = dist.new_group(backend="gloo", timeout=timeout)
        else:  # processes outside the group know nothing of it
            members = dist.get_process_group_ranks(self.group)
            control = dist.new_group(members, timeout, "gloo", use_local_synchronization=True)
        assert isinstance(control, dist.ProcessGroup)  # every process belongs to it
        self.control = control
        self.timeout = timeout
        for each in (control, *([self.group] if self.staged else [])):
            self._prove(each)

    def subgroup(self, ranks: Sequence[int]) -> Links:
        if len(ranks) == 1:
            return Links()
        everywhere = [self._everywhere(rank) for rank in ranks]
        backend = dist.get_backend(self.group)
        group = dist.new_group(everywhere, self.timeout, backend, use_local_synchronization=True)
        assert isinstance(group, dist.ProcessGroup)
        return Processes(self.timeout, group)

    def _prove(self, group: dist.ProcessGroup) -> None:
        """Checks that the other end of each connection of a group knows the run's secret: it answers a random number.
        Raises LostProcessError where one does not."""
        mine = [secret.nonce() for _ in range(self.processes)]
        theirs = self._swap_octets(mine, group)
        proofs = [secret.proof("pair", self.rank, p, theirs[p]) for p in range(self.processes)]
        for p, proof in enumerate(self._swap_octets(proofs, group)):
            if not secret.equal(proof, secret.proof("pair", p, self.rank, mine[p])):
                text = f"rank {self.rank}: who says that it is rank {p} does not know this run's {secret.SECRET}"
                raise LostProcessError(text, "gone")

    def _swap_octets(self, out: Sequence[bytes], group: dist.ProcessGroup) -> list[bytes]:
        """32 bytes to every process, and theirs."""
        sent = torch.frombuffer(bytearray(b"".join(out)), dtype=torch.uint8)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=group)
        return [bytes(row.tolist()) for row in received.view(self.processes, -1)]

    def explain(self, error: Exception) -> Exception:
        if isinstance(error, LostProcessError):
            return error
        if isinstance(error, RuntimeError) and GONE.search(str(error)):
            return LostProcessError(f"rank {self.rank}: lost its connection to another process", "gone")
        if isinstance(error, RuntimeError) and SILENT.search(str(error)):
            wait = self.timeout.total_seconds()
            text = f"rank {self.rank}: no answer from another process in launch.timeout={wait:g} s"
            return LostProcessError(text, "silent")
        return error

    def agree(self, x: Tensor) -> Tensor:
        dist.all_reduce(x, group=self.control)
        return x

    def begin_agreement(self, x: Tensor, arrived: Callable[[], None]) -> Handle:
        work = begun(dist.all_reduce(x, group=self.control, async_op=True))
        work.get_future().add_done_callback(lambda _: arrived())
        return work

    def tell(self, text: str) -> list[str]:
        packed = torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
        sizes = self.counts(torch.tensor([len(packed)]))[:, 0].tolist()
        padded = torch.zeros(self.processes, max(sizes), dtype=torch.uint8)
        mine = torch.nn.functional.pad(packed, (0, max(sizes) - len(packed)))
        dist.all_gather(list(padded), mine, group=self.control)
        return [bytes(row[:n].tolist()).decode().strip(" ") for row, n in zip(padded, sizes, strict=True)]

    def counts(self, mine: Tensor) -> Tensor:
        everyone = torch.empty(self.processes, len(mine), dtype=torch.int64)
        dist.all_gather(list(everyone), mine.long().cpu(), group=self.control)
        return everyone

    def all_reduce(self, x: Tensor) -> PendingTransfer[Tensor]:
        sent = self._ready(x)
        yield begun(dist.all_reduce(sent, group=self.group, async_op=True))
        return sent.to(x.device)

    def all_gather(self, x: Tensor, sizes: Sequence[int] | None = None) -> PendingTransfer[list[Tensor]]:
        sent = self._ready(x)
        if sizes is None or len(set(sizes)) == 1:
            received = list(sent.new_empty(self.processes, len(sent)))
            yield begun(dist.all_gather(received, sent, group=self.group, async_op=True))
            return [r.to(x.device) for r in received]
        others = [p for p in range(self.processes) if p != self.rank]
        pieces = yield from self.swap({p: x for p in others}, {p: sizes[p] for p in others}, x)
        return [pieces.get(p, x) for p in range(self.processes)]

    def broadcast(self, x: Tensor, source: int) -> PendingTransfer[Tensor]:
        sent = self._ready(x)
        yield begun(dist.broadcast(sent, self._everywhere(source), group=self.group, async_op=True))
        return sent.to(x.device)

    def all_to_all(self, pieces: Sequence[Tensor], sizes: Sequence[int]) -> PendingTransfer[list[Tensor]]:
        others = [p for p in range(self.processes) if p != self.rank]
        received = yield from self.swap({p: pieces[p] for p in others}, {p: sizes[p] for p in others}, pieces[0])
        return [received.get(p, pieces[p]) for p in range(self.processes)]

    def swap(
        self, out: Mapping[int, Tensor], sizes: Mapping[int, int], like: Tensor
    ) -> PendingTransfer[dict[int, Tensor]]:
        staged = torch.device("cpu") if self.staged else like.device
        received = {p: torch.empty(n, dtype=like.dtype, device=staged) for p, n in sizes.items()}
        works = [dist.P2POp(dist.irecv, r, self._everywhere(p), self.group) for p, r in received.items() if r.numel()]
        order = sorted(out, key=lambda p: (p - self.rank) % self.processes)  # else all send to the same one at first
        sent = [(self._ready(out[p]), self._everywhere(p)) for p in order if out[p].numel()]
        works += [dist.P2POp(dist.isend, x, rank, self.group) for x, rank in sent]
        yield from dist.batch_isend_irecv(works) if works else ()
        return {p: r.to(like.device) for p, r in received.items()}

    def _everywhere(self, rank: int) -> int:
        """The rank among all processes of one in the group."""
        return rank if self.group is dist.group.WORLD else dist.get_global_rank(self.group, rank)

    def _ready(self, x: Tensor) -> Tensor:
        return (x.cpu() if self.staged else x).contiguous()


def begun(work: dist.Work | None) -> dist.Work:
    """torch gives None to processes outside a group; ours are all inside."""
    assert work is not None
    return work
