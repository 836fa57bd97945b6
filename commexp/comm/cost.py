"""What an exchange puts on the links, from how it is carried out.

n workers, S bytes of payload each; the totals below are over all links.

    all_reduce (ring)       each worker forwards 2 (n-1)/n S    ->  2 (n-1) S
    all_gather              each message reaches n-1 others     ->  (n-1) sum_i S_i
    server                  every message goes up once, and the answer of A bytes comes down n times
"""

from __future__ import annotations

EXCHANGES = ("all_reduce", "all_gather", "server")


def check_exchange(exchange: str) -> None:
    """Raises ValueError for a name that is neither ``auto`` nor an exchange."""
    if exchange not in ("auto", *EXCHANGES):
        raise ValueError(f"exchange={exchange}: unknown; give auto, {', '.join(EXCHANGES)}")


def peer_wire_bytes(exchange: str, workers: int, sent: int) -> int:
    """Bytes on all links for messages of ``sent`` bytes in all. Raises ValueError for an unknown exchange."""
    if exchange == "all_reduce":
        return 2 * (workers - 1) * sent // workers
    if exchange == "all_gather":
        return (workers - 1) * sent
    if exchange == "server":
        return sent
    raise ValueError(f"exchange={exchange}: unknown; give one of {', '.join(EXCHANGES)}")
