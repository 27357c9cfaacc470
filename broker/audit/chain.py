"""How records chain: each leaf hash, and the running hash over all of them.

Owns the two hash formulas and the head of a chain. The leaf's 0x00 prefix is
RFC 6962's (section 2.1), so that the same leaves can later stand in a Merkle
tree; the chain's 0x02 keeps its inputs apart from leaves and tree nodes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

GENESIS = bytes(32)
MAX_RECORD_BYTES = 60 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: its last sequence number (0: empty) and chain hash (32 bytes)."""

    seq: int
    chain: bytes


EMPTY = Head(0, GENESIS)


def leaf_hash(record: bytes) -> bytes:
    """SHA-256(0x00 || record)."""
    return hashlib.sha256(b"\x00" + record).digest()


def chain_hash(previous: bytes, leaf: bytes) -> bytes:
    """SHA-256(0x02 || previous chain hash || leaf hash)."""
    return hashlib.sha256(b"\x02" + previous + leaf).digest()
