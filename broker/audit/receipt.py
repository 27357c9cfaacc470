"""Receipts: the proof, handed out with credentials, that their record is in the log.

Owns the JSON form, version 1, and its offline check:

    {"version": 1, "seq": 17, "record": "<the record's exact bytes>",
     "path": ["<hex>", ...], "checkpoint": "<signed note>"}

`path` is the inclusion proof (RFC 9162) of the record in the tree that
`checkpoint` signs. So whoever holds a receipt can show, without the broker,
what was recorded and that the log's key stood for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.audit.chain import MAX_RECORD_BYTES, leaf_hash
from broker.audit.checkpoint import Checkpoint, opened, unverified
from broker.audit.merkle import HASH_BYTES, BadProof, verify_inclusion
from broker.audit.note import VerifierKey

VERSION = 1
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBERS = {"version", "seq", "record", "path", "checkpoint"}


class BadReceipt(ValueError):
    """What is no receipt. Says why, never quotes it."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """`checkpoint` is the signed note as it is."""

    seq: int
    record: bytes
    path: tuple[bytes, ...]
    checkpoint: str

    @classmethod
    def parse(cls, value: object) -> Receipt:
        """From the JSON object. Raises BadReceipt."""
        if not isinstance(value, dict) or set(value) != _MEMBERS or value["version"] != VERSION:
            raise BadReceipt("not a receipt of version 1")
        seq, record, path, note = (value[n] for n in ("seq", "record", "path", "checkpoint"))
        if type(seq) is not int or seq < 1 or not isinstance(record, str):
            raise BadReceipt("its number or record is missing")
        if not isinstance(note, str) or not isinstance(path, list) or len(path) > 64:
            raise BadReceipt("its path or checkpoint is missing")
        if not all(isinstance(one, str) and _HASH.fullmatch(one) for one in path):
            raise BadReceipt("its path holds what is no hash")
        try:
            encoded = record.encode("utf-8")
        except UnicodeEncodeError:
            raise BadReceipt("its record is not text") from None
        if len(encoded) > MAX_RECORD_BYTES:
            raise BadReceipt("its record is too long")
        return cls(seq, encoded, tuple(bytes.fromhex(one) for one in path), note)

    def as_json(self) -> dict[str, object]:
        """The JSON object."""
        return {
            "version": VERSION,
            "seq": self.seq,
            "record": self.record.decode("utf-8"),
            "path": [one.hex() for one in self.path],
            "checkpoint": self.checkpoint,
        }

    def verify(self, keys: Iterable[VerifierKey]) -> Checkpoint:
        """The checkpoint, once its signature, the record's place in its tree and the number in
        the record are right. Raises BadNote, BadProof or BadReceipt.
        """
        return self._check(opened(self.checkpoint, keys))

    def unverified(self) -> Checkpoint:
        """The same without the signature: the checkpoint is a claim."""
        return self._check(unverified(self.checkpoint))

    def _check(self, checkpoint: Checkpoint) -> Checkpoint:
        leaf = leaf_hash(self.record)
        verify_inclusion(leaf, self.seq - 1, checkpoint.size, self.path, checkpoint.root)
        if self.members().get("seq") != self.seq:
            raise BadReceipt("the record has another number")
        return checkpoint

    def members(self) -> dict[str, object]:
        """The record, read. Raises BadReceipt."""
        try:
            value = json.loads(self.record)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise BadReceipt("its record is not a JSON object")
        return value


def hashes(values: object) -> Sequence[bytes]:
    """A proof's hashes as the API writes them, in hex. Raises BadProof."""
    if not isinstance(values, list) or len(values) > 130:
        raise BadProof("the proof is not a list of hashes")
    if not all(isinstance(one, str) and _HASH.fullmatch(one) for one in values):
        raise BadProof(f"the proof holds what is no hash of {HASH_BYTES} bytes")
    return [bytes.fromhex(one) for one in values]
