"""Is what a codec says of its messages' size what travels."""

from __future__ import annotations

import torch

from commexp.check.drive import SIZES, Factory, exchange, fresh, normal, row_bytes, whole_round


def size(factory: Factory) -> None:
    """``payload`` (at most, where ``variable_size``) == ``Message.sizes`` == bytes of the buffers, over all phases."""
    for dim in reversed(SIZES):  # a long vector's bits an entry say most
        for workers, dtype in ((1, torch.float32), (3, torch.float32), (2, torch.float64)):
            codec = fresh(factory, dim)
            for t in range(2):
                declared = codec.payload(dim, dtype.itemsize)
                messages = whole_round(codec, normal(t, workers, dim, dtype)).messages
                for w in range(workers):
                    sent = sum(len(b) for m in messages for b in row_bytes(m, w).values())
                    sizes = sum(m.sizes[w] for m in messages)
                    where = f"(J = {dim}, {dtype}, worker {w} of {workers}: {sent} against {{}} bytes)"
                    bits = f"sends {8 * sent / dim:.4g} bits an entry"
                    assert sizes == sent, f"{bits}, Message.sizes says {8 * sizes / dim:.4g} {where.format(sizes)}"
                    fits = sent <= declared if codec.variable_size else sent == declared
                    assert fits, f"{bits}, declares {8 * declared / dim:.4g} {where.format(declared)}"


def information(factory: Factory) -> None:
    """0 <= info_bits <= the bits sent."""
    for dim in SIZES:
        for message in exchange(fresh(factory, dim), normal(0, 2, dim)).messages:
            sent = 8 * message.nbytes
            counted = f"info_bits = {message.info_bits:.6g}, {sent} bits are sent (J = {dim})"
            assert 0 <= message.info_bits <= sent + 1e-6 * sent + 1e-6, counted


def integer_width(factory: Factory) -> None:
    """No buffer holds int64."""
    for dim in SIZES:
        for message in exchange(fresh(factory, dim), normal(0, 2, dim)).messages:
            for name, buffer in message.buffers.items():
                assert buffer.dtype != torch.int64, f"{name} is int64: 8 bytes a number where int32 takes 4"
