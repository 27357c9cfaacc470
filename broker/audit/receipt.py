"""Receipts: the proof, handed out with credentials, that their record is in the log.

Owns the JSON form and its offline check:

    {"version": 1, "seq": 17, "record": "<the record's exact bytes>",
     "path": ["<hex>", ...], "checkpoint": "<signed note>"}

`path` is the inclusion proof (RFC 9162) of the record in the tree that
`checkpoint` signs. So whoever holds a receipt can show, without the broker,
what was recorded and that the log's key stood for it. In version 2 a delegate has
signed the checkpoint, and `certificate` is the log's word for it (`delegate`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.audit.chain import MAX_RECORD_BYTES, leaf_hash
from broker.audit.checkpoint import Checkpoint, opened, unverified
from broker.audit.delegate import certified, claimed, time_of
from broker.audit.merkle import HASH_BYTES, BadProof, verify_inclusion
from broker.audit.note import BadNote, Signer, VerifierKey

VERSION = 1
VERSION_DELEGATED = 2
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBERS = {"version", "seq", "record", "path", "checkpoint"}


class BadReceipt(ValueError):
    """What is no receipt. Says why, never quotes it."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """`checkpoint` is the signed note as it is, and so is `certificate`, where a delegate has
    signed.
    """

    seq: int
    record: bytes
    path: tuple[bytes, ...]
    checkpoint: str
    certificate: str | None = None

    @classmethod
    def parse(cls, value: object) -> Receipt:
        """From the JSON object. Raises BadReceipt."""
        if not isinstance(value, dict) or not _is_receipt(value):
            raise BadReceipt("not a receipt of version 1 or 2")
        certificate = value.get("certificate")
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
        hashed = tuple(bytes.fromhex(one) for one in path)
        return cls(seq, encoded, hashed, note, certificate)

    def as_json(self) -> dict[str, object]:
        """The JSON object."""
        delegated = {} if self.certificate is None else {"certificate": self.certificate}
        return {
            "version": VERSION_DELEGATED if delegated else VERSION,
            "seq": self.seq,
            "record": self.record.decode("utf-8"),
            "path": [one.hex() for one in self.path],
            "checkpoint": self.checkpoint,
            **delegated,
        }

    def verify(self, keys: Iterable[VerifierKey], *, at: datetime | None = None) -> Checkpoint:
        """The checkpoint, once its signature, the record's place in its tree and the number in
        the record are right: signed by one of the log's `keys`, or by a delegate that one of them
        has certified for the time of the record, and, where it is given, for `at`.

        Raises BadNote, BadProof or BadReceipt.
        """
        if self.certificate is None:
            return self._check(opened(self.checkpoint, keys))
        certificate = certified(self.certificate, keys)
        checkpoint = self._check(opened(self.checkpoint, [certificate.key]))
        if checkpoint.origin != certificate.origin:
            raise BadNote("the delegate is another log's")
        if not certificate.covers(time_of(self.members().get("time"))):
            raise BadNote("the delegate was not certified for the time of the record")
        if at is not None and not certificate.covers(at):
            raise BadNote("the delegate is not certified for this time")
        return checkpoint

    def unverified(self) -> Checkpoint:
        """The same without the signatures: the checkpoint is a claim."""
        if self.certificate is not None:
            claimed(self.certificate)
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


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """What signs the heads in receipts of the log `origin`: a key of the log's own, or a
    delegate with its certificate.
    """

    origin: str
    signer: Signer
    certificate: str | None = None


def _is_receipt(value: dict[object, object]) -> bool:
    version = value.get("version")
    if type(version) is not int:
        return False
    if version == VERSION_DELEGATED:
        return set(value) == _MEMBERS | {"certificate"} and isinstance(value["certificate"], str)
    return version == VERSION and set(value) == _MEMBERS


def hashes(values: object) -> Sequence[bytes]:
    """A proof's hashes as the API writes them, in hex. Raises BadProof."""
    if not isinstance(values, list) or len(values) > 130:
        raise BadProof("the proof is not a list of hashes")
    if not all(isinstance(one, str) and _HASH.fullmatch(one) for one in values):
        raise BadProof(f"the proof holds what is no hash of {HASH_BYTES} bytes")
    return [bytes.fromhex(one) for one in values]
