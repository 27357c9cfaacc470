"""Records as the log has them, one of every kind."""

from __future__ import annotations

from broker.adapters.store.records import StoredRecord
from broker.audit.chain import chain_hash, leaf_hash
from broker.audit.record import Actor, Event, EventType, Outcome, prepare

ADA = Actor("p-abcdefghijklmnop", "person", "ada@example.com", "192.0.2.7", "curl/8 é")
TIME = "2026-11-24T10:20:30.123456Z"


def stored(
    event_type: EventType = EventType.ISSUANCE_ISSUED,
    *,
    seq: int = 7,
    actor: Actor = ADA,
    outcome: Outcome = Outcome.SUCCESS,
    subject: dict[str, object] | None = None,
    detail: dict[str, object] | None = None,
) -> StoredRecord:
    event = Event(event_type, actor, outcome, subject or {}, detail or {}, "req-1")
    record = prepare(event).record(seq, TIME)
    leaf = leaf_hash(record)
    return StoredRecord(seq, record, leaf, chain_hash(bytes(32), leaf))
