"""DistributedDataParallel with compressed gradients: a communication hook made of any compressor.

compress = hook(TopK(k=0.01))
ddp.register_comm_hook(model, compress)       # the module gives the parameters their names
"""

# Annotations are not postponed: register_comm_hook compares those of the hook with the types themselves.

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future

from commexp.comm.links import Processes, Steps, finish
from commexp.comm.transport import Transport
from commexp.compressors import Compressor, ErrorFeedback, Message, Setup
from commexp.state import under_prefix, with_prefix


class Fused(Compressor):
    """C(a) = (C_1(a_1), ..., C_L(a_L)) over one bucket's parameters, for one exchange.

    ``codecs``: copies of one codec, each with a state of its own; ``dims``: J_1, ..., J_L, together J. A parameter
    whose codec has sent its last message takes no part in the messages that follow.
    """

    def __init__(self, codecs: Sequence[Compressor], dims: Sequence[int]) -> None:
        self.codecs, self.dims, self.sums = codecs, list(dims), codecs[0].sums
        self._aggregates: dict[int, Tensor] = {}

    def encode(self, a: Tensor) -> Message:
        pieces = torch.split(a, self.dims, dim=1)
        return self._fuse({i: c.encode(x) for i, (c, x) in enumerate(zip(self.codecs, pieces, strict=True))})

    def _fuse(self, own: Mapping[int, Message]) -> Message:
        """One message of the parameters' own."""
        self._own, each = own, list(own.values())
        buffers = {f"{i}.{name}": b for i, m in own.items() for name, b in m.buffers.items()}
        lengths = {f"{i}.{name}": n for i, m in own.items() for name, n in m.lengths.items()}
        bits, last = sum(m.info_bits for m in each), all(m.last for m in each)
        return Message(buffers, sum(self.dims), each[0].dtype, bits, self, lengths, last)

    def _split(self, message: Message) -> Iterator[Message]:
        """The parameters' own messages of one."""
        for i, m in self._own.items():
            buffers = {name: message.buffers[f"{i}.{name}"] for name in m.buffers}
            yield replace(m, buffers=buffers, lengths={name: message.lengths[f"{i}.{name}"] for name in m.lengths})

    def decode(self, message: Message) -> Tensor:
        return torch.cat([m.codec.decode(m) for m in self._split(message)], dim=1)

    def payload(self, dim: int, itemsize: int) -> int:
        return sum(c.payload(d, itemsize) for c, d in zip(self.codecs, self.dims, strict=True))

    def parts(self, message: Message) -> Tensor:
        return self._join(m.codec.parts(m) for m in self._split(message))

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        return self._join(m.codec.add_up(m, weights) for m in self._split(message))

    def _join(self, pieces: Iterable[Tensor]) -> Tensor:
        columns = list(pieces)
        self._widths = [c.shape[-1] for c in columns]
        return torch.cat(columns, dim=-1)

    def proceed(self, message: Message, total: Tensor) -> Message | None:
        following = {}
        for (i, m), own in zip(self._own.items(), torch.split(total, self._widths), strict=True):
            answer = m.codec.proceed(m, own)
            if answer is None:
                self._aggregates[i] = m.codec.conclude(m, own)
            else:
                following[i] = answer
        return self._fuse(following) if following else None

    def conclude(self, message: Message, total: Tensor) -> Tensor:
        """What ``proceed`` concluded for each parameter."""
        return torch.cat([self._aggregates[i] for i in range(len(self.codecs))])

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        for codec, own in zip(self.codecs, torch.split(aggregate, self.dims), strict=True):
            codec.feedback(own, weights)


class Hook:
    """What ``hook`` makes. State is kept by parameter: DDP regroups its buckets after the first step."""

    def __init__(self, compressor: Compressor, error_feedback: bool, seed: int, timeout: timedelta) -> None:
        if error_feedback and ErrorFeedback in (type(compressor), type(getattr(compressor, "codec", None))):
            raise ValueError("compressor=ErrorFeedback: has a residual already; give error_feedback=False as well")
        if error_feedback:
            ErrorFeedback(compressor)  # refuses what it cannot go around
        self.compressor, self.error_feedback, self.seed, self.timeout = compressor, error_feedback, seed, timeout
        self.__name__ = self.__qualname__ = f"commexp.{compressor.name}"  # register_comm_hook asks for them
        self._module: nn.Module | None = None
        self._names: dict[Tensor, str] = {}
        self._codecs: dict[str, Compressor] = {}
        self._loaded: dict[str, dict[str, Tensor]] = {}  # state of parameters that have not been met
        self._transport: Transport | None = None

    def __call__(self, state: nn.Module, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
        """The mean over processes of the bucket's decoded gradients, in its layout and dtype."""
        if not isinstance(state, nn.Module):
            raise ValueError(f"state={state}: is no module; give register_comm_hook the model that DDP wraps")
        if state is not self._module:
            self._module, self._names = state, {p: name for name, p in state.named_parameters()}
            self._check_loaded()
        if self._transport is None:
            self._transport = Transport(Processes(self.timeout), in_order=False)
        links, buffer, parameters = self._transport.links, bucket.buffer(), bucket.parameters()
        codec = Fused([self._codec(p, links.rank) for p in parameters], [p.numel() for p in parameters])
        vector = buffer[None].to(torch.promote_types(buffer.dtype, torch.float32))
        message = codec.encode(vector)
        steps = self._exchange(message, vector.new_full((1,), 1.0 / links.processes), buffer)
        plain = all(b.dtype == message.dtype for b in message.buffers.values()) if codec.sums else not message.lengths
        if plain and message.last and not (links.staged and buffer.is_cuda):  # one collective, and none follows
            transfer = next(steps)
            assert isinstance(transfer, dist.Work)
            return transfer.get_future().then(lambda arrived: (arrived.wait(), finish(steps))[1])
        done: Future[Tensor] = Future(devices=[buffer.device] if buffer.is_cuda else None)
        done.set_result(finish(steps))
        return done

    def _codec(self, parameter: Tensor, rank: int) -> Compressor:
        name = self._names.get(parameter)
        if name is None:
            wrong = f"state={type(self._module).__name__}: has no such parameter of shape {list(parameter.shape)}"
            raise ValueError(f"{wrong}; give register_comm_hook the model that DDP wraps")
        if name not in self._codecs:
            codec = copy.deepcopy(self.compressor)
            codec = ErrorFeedback(codec) if self.error_feedback else codec
            codec.setup(Setup(self.seed, [rank], {name: parameter.shape}, f"compressor.{name}"))
            if kept := self._loaded.pop(name, None):
                codec.load_state_dict({key: x.to(parameter.device, copy=True) for key, x in kept.items()})
            self._codecs[name] = codec
        return self._codecs[name]

    def _exchange(self, message: Message, weights: Tensor, buffer: Tensor) -> Steps[Tensor]:
        """All that follows the first encoding; the aggregate is written over ``buffer``."""
        assert self._transport is not None
        codec = message.codec
        carry = self._transport.all_reduce if codec.sums else self._transport.all_gather
        total = yield from carry(message, weights)
        while (following := codec.proceed(message, total)) is not None:
            message = following
            total = yield from carry(message, weights)
        aggregate = codec.conclude(message, total)
        codec.feedback(aggregate, weights)
        return buffer.copy_(aggregate)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of what this rank's next step depends on, named ``PARAMETER..KEY``. No part of a parameter's name is
        empty, so the first two dots end it."""
        states = {**self._loaded, **{name: codec.state_dict() for name, codec in self._codecs.items()}}
        return {key: x.clone() for name, s in states.items() for key, x in with_prefix(f"{name}.", s).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what this rank's ``state_dict`` gave, also before the first backward pass: each parameter gets
        its part when it is first met; those without a part start anew. Raises ValueError for a parameter that the
        model does not have, as soon as the model is known."""
        self._codecs = {}
        self._loaded = {name: under_prefix(f"{name}.", state) for name in {key.partition("..")[0] for key in state}}
        self._check_loaded()

    def _check_loaded(self) -> None:
        if self._module is not None and (unknown := sorted(self._loaded.keys() - self._names.values())):
            wrong = f"state_dict={unknown[0]}: no parameter of {type(self._module).__name__}"
            raise ValueError(f"{wrong}; give what was saved for this model")


def hook(
    compressor: Compressor, error_feedback: bool = True, seed: int = 0, timeout: timedelta = timedelta(minutes=30)
) -> Hook:
    """A communication hook for ``ddp.register_comm_hook(model, hook(...))``, on the default process group of P ranks.

    At rank n every parameter has its own copy C of ``compressor``, which sees its gradient g_n as one vector [1, J],
    and with ``error_feedback`` its own residual e_n [1, J], zero at first (else e_n = 0):

        a_n = g_n + e_n;    e_n <- a_n - C(a_n);    p.grad = 1/P sum_n C(a_n)

    fp16 and bf16 gradients are encoded as fp32. For other feedback give ``ErrorFeedback(codec, Feedback(...))`` and
    error_feedback=False; ``Layerwise(codec, whole_below=m)`` sends parameters of fewer entries whole. ``seed``: of
    random draws, the same at every rank. ``timeout``: of the second group, which the first call makes.

    A bucket is one message. Where one collective carries it, the backward pass goes on meanwhile. Exchanges of several
    collectives, which all processes must begin in one order, end before the hook returns: PowerSGD, sums of numbers
    narrower than the gradient (fp16, bf16), messages whose length follows the data.

    The state is each rank's own: every rank saves and loads its ``state_dict``. Gradients must be finite and of one
    scale (no GradScaler). What is sent for a parameter that no rank used is lost: DDP leaves its gradient alone.
    Raises ValueError for an ErrorFeedback with error_feedback=True, and for a compressor around which error feedback
    would grow without bound: give error_feedback=False with it. The backward pass raises ValueError for a state
    that is no module or lacks a parameter, and what codecs raise: as RuntimeError where it had gone on meanwhile.
    """
    return Hook(compressor, error_feedback, seed, timeout)
