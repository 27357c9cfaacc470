"""What is looked at when the broker starts: is this the log that was signed before?

Owns the comparison of the database with its own newest checkpoint, with the copies
outside and with the witnesses; the words for one that is behind or beside them; and
the record of an operator who accepts the loss.

A copy is overwritten by the next checkpoint, a witness is not: what it has seen it
has seen. So a loss that was accepted once is not asked about again, where a signed
checkpoint covers the record of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.adapters.copying import CheckpointCopy
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.tree import AuditTree
from broker.adapters.witness import TlogWitness, WitnessDisagrees
from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, LogKeys, opened, unverified
from broker.audit.merkle import BadProof, verify_inclusion
from broker.audit.note import BadNote, CannotSign, Signer
from broker.audit.record import SYSTEM, Appended, Event, EventType, Outcome
from broker.errors import NotFound, StartupError

_log = logging.getLogger(__name__)

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What a witness has seen: how many records, but not which root."""

    origin: str
    size: int
    what: str

    @property
    def root(self) -> bytes:
        return b""

    def __str__(self) -> str:
        return f"{self.origin} {self.size} ({self.what})"


Conflict = tuple[str, Checkpoint | Witnessed]


@dataclass(frozen=True, slots=True)
class StoredLog:
    """The database's side of it."""

    checkpoints: SqlCheckpoints
    tree: AuditTree
    records: AuditRecords
    keys: LogKeys


async def check_copies(
    copies: Sequence[CheckpointCopy],
    *,
    checkpoints: SqlCheckpoints,
    tree: AuditTree,
    keys: LogKeys,
) -> list[Conflict]:
    """The checkpoints that this database's log does not continue, each with where it was found:
    in the database itself, or outside. A place that can't be reached is only warned of.

    Raises StartupError for a checkpoint that the log's keys have not signed.
    """
    found = [("the database", await checkpoints.latest())]
    for copy in copies:
        try:
            found.append((copy.name, await copy.latest()))
        except OSError as fault:
            _log.warning("the copy of the checkpoint in %s can't be read: %s", copy.name, fault)
    conflicts: list[Conflict] = []
    size = (await tree.edge()).size
    for name, note in found:
        if note is None:
            continue
        try:
            checkpoint = opened(note, keys.keys)
        except BadNote as fault:
            raise StartupError(
                f"the checkpoint in {name} is not of this log's keys ({fault}): restore the "
                "signing key file that belongs to this database"
            ) from fault
        if checkpoint.size > size or await tree.root(checkpoint.size) != checkpoint.root:
            conflicts.append((name, checkpoint))
    return conflicts


async def check_witnesses(
    witnesses: Sequence[TlogWitness], log: StoredLog, signer: Signer
) -> list[Conflict]:
    """As `check_copies`, by asking each witness to cosign the newest checkpoint.

    One that can't be reached, or does not know the log, is only warned of. Raises StartupError
    where the log's key is needed, to sign the first head, and can't be used.
    """
    if not witnesses:
        return []
    found = await asyncio.gather(*(_ask(witness, log, signer) for witness in witnesses))
    conflicts: list[Conflict] = []
    for name, conflict in (one for one in found if one is not None):
        if await _was_accepted(name, conflict, log):
            _log.error("%s: %s; an operator accepted that before", name, conflict)
        else:
            conflicts.append((name, conflict))
    return conflicts


async def _ask(
    witness: TlogWitness, log: StoredLog, signer: Signer
) -> tuple[str, Witnessed] | None:
    # Twice: another process of this broker may sign and push a newer one meanwhile.
    conflict: Witnessed | None = None
    for _ in range(2):
        note = await log.checkpoints.latest()
        stored = note is not None
        if note is None:
            note = await _first_head(log, signer)
        checkpoint = unverified(note)
        if conflict is not None and checkpoint.size < conflict.size:
            break
        try:
            line = await witness.cosign(note)
        except WitnessDisagrees as fault:
            conflict = Witnessed(log.keys.origin, fault.size, str(fault))
            continue
        except OSError as fault:
            _log.warning("%s can't be asked what it has seen: %s", witness.name, fault)
            return None
        if stored:
            await log.checkpoints.add_cosignature(checkpoint.size, str(witness.key), line)
        return None
    return None if conflict is None else (witness.name, conflict)


async def _first_head(log: StoredLog, signer: Signer) -> str:
    """Of a log that has no checkpoint yet, to ask what is known of it outside; nobody keeps it."""
    edge = await log.tree.edge()
    try:
        checkpoint = Checkpoint(log.keys.origin, edge.size, edge.root)
        return await asyncio.to_thread(checkpoint.signed, signer)
    except CannotSign as fault:
        raise StartupError(f"the log's signing key can't be used: {fault}") from fault


async def _was_accepted(name: str, conflict: Witnessed, log: StoredLog) -> bool:
    """Whether the log says so of that copy and as many records, under a checkpoint that its key
    has signed: who restored an older database could have written the record too.
    """
    note = await log.checkpoints.latest()
    if note is None:
        return False
    checkpoint = opened(note, log.keys.keys)
    after = 0
    while True:
        page = await log.records.records(
            after=after, limit=_PAGE, type=EventType.AUDIT_ROLLBACK_ACCEPTED
        )
        for one in page:
            said = _says(one.record, name, conflict.size)
            if said and await _is_in(one.seq, one.record, checkpoint, log):
                return True
        if len(page) < _PAGE:
            return False
        after = page[-1].seq


def _says(record: bytes, name: str, size: int) -> bool:
    detail = json.loads(record).get("detail", {})
    return bool(detail.get("copy") == name and detail.get("expected_size", -1) >= size)


async def _is_in(seq: int, record: bytes, checkpoint: Checkpoint, log: StoredLog) -> bool:
    if seq > checkpoint.size:
        return False
    try:
        _, path = await log.tree.inclusion(seq, checkpoint.size)
        verify_inclusion(leaf_hash(record), seq - 1, checkpoint.size, path, checkpoint.root)
    except (BadProof, NotFound):
        return False
    return True


# --- What is said of it -----------------------------------------------------------------------


def refusal(conflicts: Sequence[Conflict], records: int) -> StartupError:
    """The plain message of a database that is behind, or beside, what was signed."""
    known = "\n".join(f"  {name}: {seen}" for name, seen in conflicts)
    return StartupError(
        f"the database holds {records} audit records, and not the log that was signed before:\n"
        f"{known}\n"
        "An older backup was restored, or records were changed. Nothing is issued until the right "
        "database is back. If the loss is known and accepted: `broker server --accept-rollback`, "
        "which is recorded; clients that hold later receipts will say so."
    )


class _Journal(Protocol):
    async def append(self, event: Event) -> Appended: ...


async def record_rollback(
    conflicts: Sequence[Conflict], *, journal: _Journal, records: int
) -> None:
    """Record that an operator accepted the loss. Raises AuditUnavailable."""
    for name, seen in conflicts:
        await journal.append(
            Event(
                EventType.AUDIT_ROLLBACK_ACCEPTED,
                SYSTEM,
                Outcome.SUCCESS,
                subject={"origin": seen.origin},
                detail={
                    "copy": name,
                    "expected_size": seen.size,
                    "expected_root": seen.root.hex(),
                    "found_size": records,
                },
            )
        )
