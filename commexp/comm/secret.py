"""The run's secret, by which each process proves to the others that it belongs to the run.

The process that starts the run makes it; where the user's own launcher starts the processes, the user gives it. It is
passed in the environment, which other users of a machine cannot read, and is never written to a file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

SECRET = "COMMEXP_SECRET"
PROOF = NONCE = 32  # bytes


def made() -> str:
    """A secret for a new run."""
    return secrets.token_hex(32)


def is_given() -> bool:
    return bool(os.environ.get(SECRET))


def nonce() -> bytes:
    return secrets.token_bytes(NONCE)


def proof(*parts: bytes | str | int) -> bytes:
    """HMAC-SHA256 of these parts under the secret, in this generation of the run's processes; may serve as a key.
    Without a secret anyone can compute it."""
    generation = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    mac = hmac.new(os.environ.get(SECRET, "").encode(), digestmod=hashlib.sha256)
    for part in (generation, *parts):
        octets = part if isinstance(part, bytes) else str(part).encode()
        mac.update(len(octets).to_bytes(8, "little") + octets)
    return mac.digest()


def equal(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)
