"""As much of a broker as keeps the log, over whatever database, and one strict witness."""

from __future__ import annotations

from dataclasses import dataclass

from broker.adapters.checkpoints import CheckpointPublisher
from broker.adapters.copying import Copying
from broker.adapters.outbound import new_client
from broker.adapters.rollback import (
    Conflict,
    StoredLog,
    check_witnesses,
)
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.tree import AuditTree
from broker.adapters.witness import TlogWitness
from broker.audit.checkpoint import Checkpoint, LogKeys
from broker.audit.cosignature import CosignerKey, cosigned_by
from broker.audit.note import BadNote
from broker.audit.record import EventType
from tests.store.journal_scene import event
from tests.unit.audit.keys import ORIGIN, TestSigner
from tests.witness.strict import StrictWitness

SIGNER = TestSigner()
KEYS = LogKeys(ORIGIN, (SIGNER.key,), ())


@dataclass
class Broker:
    """As much of a server process as keeps the log, with one witness or more."""

    database: Database
    witnesses: list[TlogWitness]
    failed: list[tuple[str, bool]]
    patience: float = 0.05

    def __post_init__(self) -> None:
        self.tree, self.checkpoints = AuditTree(self.database), SqlCheckpoints(self.database)
        self.journal = GroupCommitJournal(self.database, signer=SIGNER)
        self.copying = Copying(
            self.checkpoints,
            (),
            self.witnesses,
            retry_after=self.patience,
            on_copy=lambda name, failing: self.failed.append((name, failing)),
        )
        self.publisher = CheckpointPublisher(
            checkpoints=self.checkpoints,
            tree=self.tree,
            journal=self.journal,
            signer=SIGNER,
            copying=self.copying,
            every=self.patience,
        )

    async def record(self, count: int = 1) -> None:
        for number in range(count):
            await self.journal.append(event(EventType.LOGIN_SUCCEEDED, n=number))

    async def publish(self, count: int = 1) -> Checkpoint:
        await self.record(count)
        checkpoint = await self.publisher.publish()
        await self.copying.push()
        return checkpoint

    async def cosigned(self, key: CosignerKey) -> bool:
        note = await self.checkpoints.latest()
        if note is None:
            return False
        try:
            cosigned_by(note, key)
        except BadNote:
            return False
        return True

    async def conflicts(self) -> list[Conflict]:
        stored = StoredLog(self.checkpoints, self.tree, AuditRecords(self.database), KEYS)
        return await check_witnesses(self.witnesses, stored, SIGNER)


class Scene:
    """One witness, and brokers over whatever database."""

    def __init__(self, witness: StrictWitness, url: str) -> None:
        self.witness, self.url = witness, url
        self.client = new_client(total_seconds=30)

    def broker(self, database: Database) -> Broker:
        tree = AuditTree(database)
        key = self.witness.signer.key
        return Broker(database, [TlogWitness(self.url, key, self.client, tree.consistency)], [])
