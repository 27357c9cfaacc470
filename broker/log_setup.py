"""The log's signing, its copies and witnesses, from the settings.

Owns: in which order they start, and that nothing is issued on a log that does not
continue what was signed. Does not own: how any of them works (`adapters`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.adapters import checkpoint_copies, kms_signing, witness
from broker.adapters.checkpoints import CheckpointPublisher
from broker.adapters.copying import Copying
from broker.adapters.delegates import Delegates
from broker.adapters.outbound import new_client
from broker.adapters.rollback import (
    StoredLog,
    check_copies,
    check_witnesses,
    record_rollback,
    refusal,
)
from broker.adapters.signing import SigningKeys
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.tree import AuditTree
from broker.adapters.telemetry.instruments import Instruments
from broker.audit.cosignature import CosignerKey
from broker.audit.note import CannotSign
from broker.errors import StartupError
from broker.settings import Settings


@dataclass(frozen=True, slots=True)
class StoredParts:
    """What the database holds of the log."""

    checkpoints: SqlCheckpoints
    tree: AuditTree
    records: AuditRecords
    journal: GroupCommitJournal


async def open_delegates(
    signing: SigningKeys, database: Database, stack: AsyncExitStack
) -> Delegates | None:
    """None where the log's key is at hand, and signs receipts itself."""
    if not kms_signing.is_kms(signing.signer):
        return None
    now = await _records_clock(database)
    delegates = Delegates(signing.log.origin, signing.signer, now=now)
    try:
        await delegates.start()
    except CannotSign as fault:
        raise StartupError(
            f"the log's key certified no delegate to sign receipts, so nothing could be issued: "
            f"{fault}"
        ) from fault
    stack.push_async_callback(delegates.aclose)
    return delegates


async def _records_clock(database: Database) -> Callable[[], datetime]:
    """The database's, which dates records: a host whose own is wrong would certify its delegate
    for another time, and every client would call the receipts false.
    """
    async with database.read() as conn:
        ahead = await database.now(conn) - datetime.now(UTC)
    return lambda: datetime.now(UTC) + ahead


async def start_signing(
    settings: Settings,
    stack: AsyncExitStack,
    meters: Instruments,
    signing: SigningKeys,
    log: StoredParts,
    *,
    accept_rollback: bool,
) -> CheckpointPublisher:
    """Checkpoints are signed and copied from here on. Raises StartupError where the log does not
    continue what was signed, unless that is accepted: nothing is issued on such a log.
    """
    checkpoints, tree, journal = log.checkpoints, log.tree, log.journal
    retention = timedelta(days=settings.audit.s3_retention_days)
    copies = [
        checkpoint_copies.parse(reference, retention=retention)
        for reference in settings.audit.checkpoint_copies
    ]
    client = new_client(total_seconds=witness.TOTAL_SECONDS)
    stack.push_async_callback(client.aclose)
    witnesses = [
        witness.TlogWitness(one.url, CosignerKey.parse(one.key), client, tree.consistency)
        for one in settings.audit.witnesses
    ]
    copying = Copying(
        checkpoints,
        copies,
        witnesses,
        retry_after=settings.audit.checkpoint_seconds / 10,
        on_copy=meters.copied,
    )
    publisher = CheckpointPublisher(
        checkpoints=checkpoints,
        tree=tree,
        journal=journal,
        signer=signing.signer,
        copying=copying,
        every=settings.audit.checkpoint_seconds,
        records=settings.audit.checkpoint_records,
    )
    conflicts = await check_copies(copies, checkpoints=checkpoints, tree=tree, keys=signing.log)
    stored = StoredLog(checkpoints, tree, log.records, signing.log)
    conflicts += await check_witnesses(witnesses, stored, signing.signer)
    if conflicts:
        size = (await tree.edge()).size
        if not accept_rollback:
            raise refusal(conflicts, size)
        await record_rollback(conflicts, journal=journal, records=size)
        await _sign_now(publisher)
        await copying.push()
    await publisher.start()
    stack.push_async_callback(publisher.aclose)
    return publisher


async def _sign_now(publisher: CheckpointPublisher) -> None:
    """Raises StartupError where the acceptance of a loss can't be signed."""
    try:
        await publisher.publish()
    except CannotSign as fault:
        raise StartupError(f"the log's signing key can't be used: {fault}") from fault
