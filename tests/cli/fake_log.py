"""A broker's signed log, for the client's tests: honest until it is told not to be."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, succession
from broker.audit.delegate import Certificate, delegate_name
from broker.audit.merkle import NO_LEAVES, consistency_spans, fill
from broker.audit.receipt import Receipt
from tests.unit.audit.keys import TestSigner

ORIGIN = "log.example.com"


class FakeLog:
    """`signer` signs what comes next; `published` is the checkpoint that is served. Where there is
    a `delegate` it signs receipts' heads, and `certificate` goes with them.
    """

    def __init__(self, seed: int = 1) -> None:
        self.signers = [TestSigner(ORIGIN, seed)]
        self.successions: list[str] = []
        self.records: list[bytes] = []
        self.published: str | None = None
        self.delegate: TestSigner | None = None
        self.certificate: str | None = None
        # When its clock says it is.
        self.now = datetime.now(UTC)

    @property
    def signer(self) -> TestSigner:
        return self.signers[-1]

    def append(self, issuance: str = "iss-0") -> int:
        seq = len(self.records) + 1
        record = {
            "seq": seq,
            "subject": {"issuance": issuance},
            "time": f"{self.now:%Y-%m-%dT%H:%M:%S.%fZ}",
            "type": "issuance.issued",
        }
        self.records.append(json.dumps(record, separators=(",", ":")).encode())
        return seq

    def checkpoint(self) -> Checkpoint:
        leaves = [leaf_hash(record) for record in self.records]
        return Checkpoint(ORIGIN, len(leaves), NO_LEAVES.extend(leaves).after.root)

    def publish(self) -> None:
        self.published = self.checkpoint().signed(self.signer)

    def receipt(self, issuance: str) -> dict[str, object]:
        """Of a new record."""
        seq = self.append(issuance)
        leaves = [leaf_hash(record) for record in self.records]
        path = NO_LEAVES.extend(leaves).inclusion(seq - 1)
        note = self.checkpoint().signed(self.delegate or self.signer)
        return Receipt(seq, self.records[-1], path, note, self.certificate).as_json()

    def certify(
        self,
        by: TestSigner | None = None,
        *,
        origin: str = ORIGIN,
        ago: timedelta = timedelta(hours=1),
    ) -> None:
        """A delegate for a day, which began that long before `now`; by the log's key, or by
        another.
        """
        self.delegate = TestSigner(delegate_name(origin), seed=7)
        begins = self.now.replace(microsecond=0) - ago
        made = Certificate(origin, self.delegate.key, begins, begins + timedelta(hours=24))
        self.certificate = made.signed(by or self.signer)

    def rotate(self, seed: int, *, honest: bool = True) -> None:
        old, new = self.signer, TestSigner(ORIGIN, seed)
        self.signers.append(new)
        if honest:
            self.successions.append(succession(ORIGIN, old, new))

    def keys(self) -> dict[str, object]:
        keys = [str(signer.key) for signer in self.signers]
        return {"origin": ORIGIN, "keys": keys, "successions": self.successions}

    def consistency(self, old: int, new: int) -> dict[str, object] | None:
        """None for what the log has not grown to."""
        if new > len(self.records):
            return None
        leaves = [leaf_hash(record) for record in self.records[:new]]
        proof = fill(consistency_spans(old, new), NO_LEAVES.extend(leaves).nodes)
        return {"from": old, "to": new, "hashes": [one.hex() for one in proof]}
