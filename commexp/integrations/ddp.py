"""DistributedDataParallel with compressed gradients: a communication hook made of any compressor.

compress = hook(TopK(k=0.01))
ddp.register_comm_hook(model, compress)       # the module gives the parameters their names
"""

# Annotations are not postponed: register_comm_hook compares those of the hook with the types themselves.

import copy
import gc
import logging
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import accumulate, compress, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from commexp.comm import ALL_GATHER, ALL_REDUCE
from commexp.comm.links import PendingTransfer, Processes, begun, finish
from commexp.comm.transport import Transport
from commexp.compressors import CodecContext, Compressor, ErrorFeedback, Group, Grouped, Message, Wrapper
from commexp.state import under_prefix, with_prefix

log = logging.getLogger("commexp")
FAULT = "fault"  # the buffer of a bucket's message that says whether its gradients were finite


class FaultFlag(Wrapper):
    """``codec``, with a buffer in its first message that says whether the gradients behind it are ``finite``: where
    those of any process are not, the aggregate is NaN."""

    def __init__(self, codec: Compressor, finite: Tensor) -> None:
        super().__init__(codec)
        self.finite = finite

    def encode(self, a: Tensor) -> Message:
        message = self.codec.encode(a)
        return replace(message, codec=self, buffers={**message.buffers, FAULT: self._flag(message)})

    def _flag(self, message: Message) -> Tensor:
        """Of messages that sum, a number that makes any sum NaN, of the type of the others, or it would be an exchange
        of its own; else a byte."""
        if not self.sums:
            return (~self.finite).to(torch.uint8).view(1, 1)
        wide = [b.dtype for b in message.buffers.values() if b.dtype.is_floating_point]
        zero = self.finite.new_zeros((1, 1), dtype=wide[0] if wide else message.dtype)
        return torch.where(self.finite, zero, math.nan)

    def _read_flags(self, message: Message) -> Message:
        """Takes note of the flags in everyone's message; gives the codec's own message."""
        if FAULT in message.buffers:
            self.finite = (message.buffers[FAULT] == 0).all()
        return _without_flag(message)

    def decode(self, message: Message) -> Tensor:
        return self.codec.decode(_without_flag(message))

    def summands(self, message: Message) -> Tensor:
        return self.codec.summands(self._read_flags(message))

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        return self.codec.add_up(self._read_flags(message), weights)

    def next_phase(self, message: Message, total: Tensor) -> Message | None:
        following = self.codec.next_phase(_without_flag(message), total)
        return None if following is None else replace(following, codec=self)

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        return torch.where(self.finite, self.codec.finalize(_without_flag(message), total), math.nan)


def _without_flag(message: Message) -> Message:
    return replace(message, buffers={name: b for name, b in message.buffers.items() if name != FAULT})


class ModuleState:
    """What a hook keeps for one module, by parameter: DDP regroups its buckets after the first step.

    What a backward pass leaves is believed when the next one begins, and undone if any gradient was not finite.
    """

    def __init__(self, loaded: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.loaded = {name: dict(state) for name, state in loaded.items()}  # of parameters that have not been met
        self.codecs: dict[Tensor, Compressor] = {}
        self.names: dict[Tensor, str] = {}
        self._forms: dict[Tensor, tuple[object, ...]] = {}  # a parameter in another one is another parameter
        self._before: dict[Tensor, dict[str, Tensor]] = {}
        self._finite: list[Tensor] = []
        self.ddp: weakref.ref[DistributedDataParallel] | None = None

    def look_at(self, module: nn.Module) -> None:
        """The names that the module's parameters have now. What belonged to others, or to the same in another shape,
        dtype or device, is forgotten. Raises ValueError for a loaded state that belongs to none of them."""
        names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
        forms: dict[Tensor, tuple[object, ...]] = {p: (p.shape, p.dtype, p.device) for p in names}
        for p in [p for p, form in self._forms.items() if forms.get(p) != form]:
            name = self.names.pop(p)
            del self._forms[p]
            self.loaded.pop(name, None)
            self._before.pop(p, None)
            if self.codecs.pop(p, None):
                log.warning("hook: %s of %s was replaced; it starts anew", name, type(module).__name__)
        if unknown := sorted(self.loaded.keys() - names.values()):
            wrong = f"state_dict={unknown[0]}: no parameter of {type(module).__name__}"
            raise ValueError(f"{wrong}; give what was saved for this model")
        self.names, self._forms = names, forms

    def knows(self, parameters: Iterable[Tensor]) -> bool:
        return all(self._forms.get(p) == (p.shape, p.dtype, p.device) for p in parameters)

    def settle(self) -> None:
        """Decides about the last backward pass."""
        if not all(bool(finite) for finite in self._finite):
            for p, state in self._before.items():
                self.codecs.pop(p, None)
                self.loaded[self.names[p]] = state
        self._before, self._finite = {}, []

    def begin(self, parameter: Tensor) -> None:
        """The parameter's codec is about to encode."""
        self._before[parameter] = {key: x.clone() for key, x in self.codecs[parameter].state_dict().items()}

    def judge(self, aggregate: Tensor) -> None:
        self._finite.append(torch.isfinite(aggregate).all())  # not looked at now: a GPU would have to be waited for

    def state_dict(self) -> dict[str, Tensor]:
        states = {**self.loaded, **{self.names[p]: codec.state_dict() for p, codec in self.codecs.items()}}
        return {key: x.clone() for name, s in states.items() for key, x in with_prefix(f"{name}.", s).items()}


class Hook:
    """What ``hook`` makes. State is kept by module, for as long as there is the module."""

    def __init__(self, compressor: Compressor, error_feedback: bool, seed: int, timeout: timedelta) -> None:
        if error_feedback and ErrorFeedback in (type(compressor), type(getattr(compressor, "codec", None))):
            raise ValueError("compressor=ErrorFeedback: has a residual already; give error_feedback=False as well")
        if error_feedback:
            ErrorFeedback(compressor)  # refuses what it cannot go around
        self.compressor, self.error_feedback, self.seed, self.timeout = compressor, error_feedback, seed, timeout
        self.__name__ = self.__qualname__ = f"commexp.{compressor.name}"  # register_comm_hook asks for them
        self._states: weakref.WeakKeyDictionary[nn.Module, ModuleState] = weakref.WeakKeyDictionary()
        self._loaded: dict[str, dict[str, Tensor]] = {}  # for the first module
        self._links: dict[dist.ProcessGroup, Processes] = {}

    def __call__(self, state: nn.Module, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
        """The mean over processes of the bucket's decoded gradients, in its layout and dtype."""
        if not isinstance(state, nn.Module):
            raise ValueError(f"state={state}: is no module; give register_comm_hook the model that DDP wraps")
        module = state.module if isinstance(state, DistributedDataParallel) else state
        kept, parameters = self._kept(module), bucket.parameters()
        if bucket.index() == 0:
            kept.settle()
        if not kept.knows(parameters):
            kept.look_at(module)
        links = self._links_of(_ddp(state, kept, parameters))
        buffer: Tensor = bucket.buffer()
        if buffer.is_sparse:
            return self._whole(links, kept, buffer)
        numbers = torch.view_as_real(buffer).flatten() if buffer.is_complex() else buffer
        codecs = {p: self._codec(kept, p, links.rank) for p in parameters if p.numel()}
        if not codecs:
            return _done(buffer, buffer)
        for p in codecs:
            kept.begin(p)
        wide = numbers[None].to(torch.promote_types(numbers.dtype, torch.float32))
        finite = torch.isfinite(wide).all()
        codec = FaultFlag(Grouped(next(iter(codecs.values())), _groups(codecs)), finite)
        message = codec.encode(torch.where(finite, wide, 0.0))
        transfer = self._exchange(links, message, wide.new_full((1,), 1.0 / links.processes), numbers)

        def arrive() -> Tensor:
            kept.judge(finish(transfer))
            return buffer

        plain = all(b.dtype == message.dtype for b in message.buffers.values()) if codec.sums else not message.lengths
        if plain and message.last and not (links.staged and buffer.is_cuda):  # one collective, none follows
            work = next(transfer)
            assert isinstance(work, dist.Work)
            return work.get_future().then(lambda arrived: (arrived.wait(), arrive())[1])
        return _done(arrive(), buffer)

    def _whole(self, links: Processes, kept: ModuleState, buffer: Tensor) -> Future[Tensor]:
        """Sparse gradients, as of nn.Embedding(sparse=True): summed as DDP itself sums them."""
        begun(dist.all_reduce(buffer, group=links.group, async_op=True)).wait()
        buffer.div_(links.processes)
        kept.judge(buffer.coalesce().values())
        return _done(buffer, buffer)

    def _kept(self, module: nn.Module) -> ModuleState:
        if module not in self._states:
            self._states[module] = ModuleState(self._loaded)
            self._loaded = {}
        return self._states[module]

    def _links_of(self, ddp: DistributedDataParallel) -> Processes:
        group = ddp.process_group
        if group not in self._links:
            self._links = {g: links for g, links in self._links.items() if _lives(g)}
            self._links[group] = Processes(self.timeout, group)
        return self._links[group]

    def _codec(self, kept: ModuleState, parameter: Tensor, rank: int) -> Compressor:
        if parameter not in kept.codecs:
            name = kept.names[parameter]
            codec = copy.deepcopy(self.compressor)
            codec = ErrorFeedback(codec) if self.error_feedback else codec
            shape = (*parameter.shape, 2) if parameter.is_complex() else parameter.shape
            codec.setup(CodecContext(self.seed, [rank], {name: shape}, f"compressor.{name}"))
            if state := kept.loaded.pop(name, None):
                codec.load_state_dict({key: x.to(parameter.device, copy=True) for key, x in state.items()})
            kept.codecs[parameter] = codec
        return kept.codecs[parameter]

    def _exchange(self, links: Processes, message: Message, weights: Tensor, out: Tensor) -> PendingTransfer[Tensor]:
        """All that follows the first encoding; the aggregate is written over ``out``."""
        codec, over = message.codec, Transport(links, in_order=False)
        exchange = ALL_REDUCE if codec.sums else ALL_GATHER
        total = yield from exchange.carry(over, message, weights)
        while (following := codec.next_phase(message, total)) is not None:
            message = following
            total = yield from exchange.carry(over, message, weights)
        aggregate = codec.finalize(message, total)
        codec.feedback(aggregate, weights)
        return out.copy_(aggregate)

    def state_dict(self, module: nn.Module | None = None) -> dict[str, Tensor]:
        """Copies of what this rank's next step depends on, named ``PARAMETER..KEY``. No part of a parameter's name is
        empty, so the first two dots end it. ``module``: whose, needed where the hook serves several."""
        kept = self._of(module)
        if kept is None:
            return ModuleState(self._loaded).state_dict()
        kept.settle()
        return kept.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], module: nn.Module | None = None) -> None:
        """Goes on from what this rank's ``state_dict`` gave, also before the first backward pass: each parameter gets
        its part when it is first met; those without a part start anew. Without ``module`` it is for the one that the
        hook serves, or the first that it will. Raises ValueError for a parameter that the model does not have, as soon
        as the model is known."""
        loaded = {name: under_prefix(f"{name}.", state) for name in {key.partition("..")[0] for key in state}}
        served = module if module is not None else self._one()
        if served is None:
            self._loaded = loaded
            return
        fresh = ModuleState(loaded)
        fresh.look_at(_inner(served))
        self._states[_inner(served)] = fresh

    def _of(self, module: nn.Module | None) -> ModuleState | None:
        served = module if module is not None else self._one()
        if served is None:
            return None
        kept = self._kept(_inner(served))
        kept.look_at(_inner(served))
        return kept

    def _one(self) -> nn.Module | None:
        """The module that the hook serves, if there is one. Raises ValueError where there are several."""
        if len(self._states) > 1:
            gc.collect()  # some may be gone but for references to themselves
        if len(self._states) > 1:
            names = ", ".join(type(module).__name__ for module in self._states)
            raise ValueError(f"module=None: this hook serves {len(self._states)} modules ({names}); say whose state")
        return next(iter(self._states), None)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Hook":
        """With the state of those modules that are copied with it, for the copies."""
        twin = Hook(copy.deepcopy(self.compressor, memo), self.error_feedback, self.seed, self.timeout)
        memo[id(self)] = twin
        for module in list(self._states):
            if id(module) in memo:
                twin.load_state_dict(self.state_dict(module), memo[id(module)])
        twin._loaded = copy.deepcopy(self._loaded)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """For saving a whole DistributedDataParallel: process groups stay behind, as DDP leaves its own."""
        settings = {name: getattr(self, name) for name in ("compressor", "error_feedback", "seed", "timeout")}
        states = [(module, self.state_dict(module)) for module in self._states]
        return {"settings": settings, "states": states, "loaded": self._loaded}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(**saved["settings"])  # type: ignore[misc]
        self._loaded = saved["loaded"]
        for module, state in saved["states"]:
            self.load_state_dict(state, module)


def _groups(codecs: Mapping[Tensor, Compressor]) -> list[Group]:
    """Of parameters that lie one after the other in a bucket of real numbers."""
    ends = list(accumulate((p.numel() * (1 + p.is_complex()) for p in codecs), initial=0))
    return [Group([slice(*ends)], c) for c, ends in zip(codecs.values(), pairwise(ends), strict=True)]


def _inner(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, DistributedDataParallel) else module


def _done(result: Tensor, like: Tensor) -> Future[Tensor]:
    done: Future[Tensor] = Future(devices=[like.device] if like.is_cuda else None)
    done.set_result(result)
    return done


def _lives(group: dist.ProcessGroup | None) -> bool:
    """Whether the group has not been destroyed."""
    try:
        return dist.get_world_size(group) > 0
    except ValueError:
        return False


def _ddp(state: nn.Module, kept: ModuleState, parameters: Sequence[Tensor]) -> DistributedDataParallel:
    """The DistributedDataParallel whose buckets these parameters are in: torch tells a hook nothing of it, nor of its
    process group, so it is looked for among all objects, once. Raises ValueError where that does not settle it."""
    name = type(state).__name__
    for p in parameters:
        if p not in kept.names:
            wrong = f"state={name}: has no such parameter of shape {list(p.shape)}"
            raise ValueError(f"{wrong}; give register_comm_hook the model that DDP wraps")
    if isinstance(state, DistributedDataParallel):
        return state
    ddp = None if kept.ddp is None else kept.ddp()
    if ddp is None:
        around = _around(parameters[0])
        if len({id(ddp.process_group) for ddp in around}) > 1:
            gc.collect()  # some may be gone but for references to themselves
            around = _around(parameters[0])
        if len({id(ddp.process_group) for ddp in around}) != 1:
            wrong = f"state={name}: {len(around) or 'no'} DistributedDataParallel found around it"
            raise ValueError(f"{wrong}, so its process group is unknown; give register_comm_hook the DDP module itself")
        ddp = around[0]
        kept.ddp = weakref.ref(ddp)
    return ddp


def _kinds(of: type[Any]) -> Iterator[type[Any]]:
    """The class and all that inherit from it."""
    yield of
    for kind in of.__subclasses__():
        yield from _kinds(kind)


def _around(parameter: Tensor) -> list[DistributedDataParallel]:
    objects, kinds = gc.get_objects(), {id(kind) for kind in _kinds(DistributedDataParallel)}
    return [
        ddp
        for ddp in compress(objects, map(kinds.__contains__, map(id, map(type, objects))))  # a million: no Python loop
        if _lives(getattr(ddp, "process_group", None)) and any(p is parameter for p in ddp.parameters())
    ]


def hook(
    compressor: Compressor, error_feedback: bool = True, seed: int = 0, timeout: timedelta = timedelta(minutes=30)
) -> Hook:
    """A communication hook for ``ddp.register_comm_hook(model, hook(...))``, on the P ranks of the DDP's process group.

    At rank n every parameter has its own copy C of ``compressor``, which sees its gradient g_n as one vector [1, J],
    and with ``error_feedback`` its own residual e_n [1, J], zero at first (else e_n = 0):

        a_n = g_n + e_n;    e_n <- a_n - C(a_n);    p.grad = 1/P sum_n C(a_n)

    fp16 and bf16 gradients are encoded as fp32. For other feedback give ``ErrorFeedback(codec, Feedback(...))`` and
    error_feedback=False; ``Layerwise(codec, whole_below=m)`` sends parameters of fewer entries whole. ``seed``: of
    random draws, the same at every rank. ``timeout``: of the second group, which the first call makes.

    A bucket is one message. Where one collective carries it, the backward pass goes on meanwhile. Exchanges of several
    collectives, which all processes must begin in one order, end before the hook returns: PowerSGD, sums of numbers
    narrower than the gradient (fp16, bf16), messages whose length follows the data.

    A complex parameter of J entries counts as 2J real ones. Sparse gradients, as of nn.Embedding(sparse=True), travel
    as DDP itself sends them, and parameters without entries not at all.

    NaN or Inf in a bucket of any rank makes this bucket's aggregate NaN at every rank, so that all see that the step
    is to be skipped; and everything that any rank keeps is again what it was before that backward pass, as if there had
    been none. For this a copy of the state is kept from one backward pass to the next. Gradients must be of one scale
    (a GradScaler's may not change).

    The state is each rank's own, and of its module: a hook that serves several modules keeps one for each, and a
    parameter that takes the place of another starts anew. Every rank saves and loads its ``state_dict``. The copy of a
    module that copy.deepcopy or saving it whole makes has a copy of its state; register the hook again there, as torch
    forgets it. What is sent for a parameter that no rank used is lost: DDP leaves its gradient alone.
    Raises ValueError for an ErrorFeedback with error_feedback=True, and for a compressor around which error feedback
    would grow without bound: give error_feedback=False with it. The backward pass raises ValueError for a state
    that is no module, lacks a parameter, or is in several DDPs of different groups (give the DDP itself as the state),
    and what codecs raise: as RuntimeError where it had gone on meanwhile.
    """
    return Hook(compressor, error_feedback, seed, timeout)
