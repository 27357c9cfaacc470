"""Signing the log's head every few seconds, and taking copies of it elsewhere.

Owns when a checkpoint is due, the task that makes it, and what is checked of
the outside copies when the broker starts. Does not own the form of a checkpoint
(`broker.audit.checkpoint`), its table (`store/checkpoints`), nor the places
that copies go to (`checkpoint_copies`).

A checkpoint is made in this order: the root so far is recorded as
`audit.checkpoint`, and when that is durable the head, that record included, is
signed and stored. So whoever gets the records gets the roots too, what is
signed is always durable first, and a signed head leaves nothing to sign: an
idle log stays idle.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.tree import AuditTree
from broker.audit.checkpoint import Checkpoint, LogKeys, opened
from broker.audit.note import BadNote, Signer
from broker.audit.record import SYSTEM, Appended, Event, EventType, Outcome
from broker.errors import AuditUnavailable, StartupError

_log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 10.0  # seconds
CHECKPOINT_RECORDS = 1000


class CheckpointCopy(Protocol):
    """A place outside the database that keeps the newest checkpoint. Both methods raise OSError
    where it can't be reached.
    """

    @property
    def name(self) -> str: ...

    async def push(self, note: str) -> None: ...

    async def latest(self) -> str | None:
        """The last note that was pushed; None where there was none."""
        ...


class Journal(Protocol):
    async def append(self, event: Event) -> Appended: ...

    def halt(self, reason: str) -> None:
        """Record nothing more, and so issue nothing more."""
        ...


class CheckpointPublisher:
    """One a process; several processes may sign the same head, and the first note stays."""

    def __init__(
        self,
        *,
        checkpoints: SqlCheckpoints,
        tree: AuditTree,
        journal: Journal,
        signer: Signer,
        copies: Sequence[CheckpointCopy] = (),
        every: float = CHECKPOINT_EVERY,
        records: int = CHECKPOINT_RECORDS,
        on_copy: Callable[[str, bool], None] = lambda _name, _failing: None,
    ) -> None:
        """`on_copy` is told the name of each copy that was tried, and whether that failed."""
        self._on_copy = on_copy
        self._checkpoints = checkpoints
        self._tree = tree
        self._journal = journal
        self._signer = signer
        self._copies = copies
        self._every = every
        self._records = records
        # New records are noticed a tenth of the interval late at most, twice counted.
        self._poll = every / 10
        self._noticed: tuple[int, float] | None = None
        self._seen = 0
        self._pushed: dict[str, str] = {}
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="checkpoints")

    async def aclose(self) -> None:
        """Sign what is not signed yet, and stop."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._closing.set()
        await task
        try:
            standing = await self._checkpoints.standing()
            if standing.records > standing.signed:
                await self.publish()
        except AuditUnavailable as fault:
            _log.warning("the last records are left unsigned: %s", fault.log_detail)

    async def publish(self) -> Checkpoint:
        """Sign the head as it is now, store it, and push it to every copy.

        Raises AuditUnavailable.
        """
        before = await self._tree.edge()
        event = Event(
            EventType.AUDIT_CHECKPOINT,
            SYSTEM,
            Outcome.SUCCESS,
            subject={"origin": self._signer.key.name},
            detail={
                "size": before.size,
                "root": before.root.hex(),
                "key": self._signer.key.key_id.hex(),
            },
        )
        await self._journal.append(event)
        after = await self._tree.edge()
        checkpoint = Checkpoint(self._signer.key.name, after.size, after.root)
        await self._checkpoints.add(after.size, checkpoint.signed(self._signer))
        await self._push()
        return checkpoint

    async def _run(self) -> None:
        while not await self._closing_within(self._poll):
            try:
                await self._look()
            except AuditUnavailable as fault:
                _log.warning("no checkpoint now: %s", fault.log_detail)
            except Exception:  # noqa: BLE001 - a publisher that ended would leave the log unsigned
                _log.exception("no checkpoint now")

    async def _look(self) -> None:
        standing = await self._checkpoints.standing()
        if standing.records < self._seen:
            reason = f"the audit log went back from {self._seen} to {standing.records} records"
            self._journal.halt(reason)
            _log.critical("%s; nothing is issued any more", reason)
            return
        self._seen = standing.records
        if standing.records == standing.signed:
            self._noticed = None
            await self._push()
            return
        now = time.monotonic()
        if self._noticed is None or self._noticed[0] != standing.signed:
            self._noticed = (standing.signed, now)
        waited = now - self._noticed[1]
        if (
            standing.records - standing.signed >= self._records
            or waited >= self._every - 2 * self._poll
        ):
            await self.publish()

    async def _push(self) -> None:
        """To every copy that does not have the newest yet; one that fails is tried again."""
        if not self._copies:
            return
        note = await self._checkpoints.latest()
        for copy in self._copies:
            if note is None or self._pushed.get(copy.name) == note:
                continue
            try:
                await copy.push(note)
            except OSError as fault:
                _log.error("the checkpoint could not be copied to %s: %s", copy.name, fault)
                self._on_copy(copy.name, True)
            else:
                self._on_copy(copy.name, False)
                self._pushed[copy.name] = note

    async def _closing_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._closing.wait()
        except TimeoutError:
            return False


async def check_copies(
    copies: Sequence[CheckpointCopy],
    *,
    checkpoints: SqlCheckpoints,
    tree: AuditTree,
    keys: LogKeys,
) -> list[tuple[str, Checkpoint]]:
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
    conflicts = []
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


def refusal(conflicts: Sequence[tuple[str, Checkpoint]], records: int) -> StartupError:
    """The plain message of a database that is behind, or beside, what was signed."""
    known = "\n".join(f"  {name}: {checkpoint}" for name, checkpoint in conflicts)
    return StartupError(
        f"the database holds {records} audit records, and not the log that was signed before:\n"
        f"{known}\n"
        "An older backup was restored, or records were changed. Nothing is issued until the right "
        "database is back. If the loss is known and accepted: `broker server --accept-rollback`, "
        "which is recorded; clients that hold later receipts will say so."
    )


async def record_rollback(
    conflicts: Sequence[tuple[str, Checkpoint]], *, journal: Journal, records: int
) -> None:
    """Record that an operator accepted the loss. Raises AuditUnavailable."""
    for name, checkpoint in conflicts:
        await journal.append(
            Event(
                EventType.AUDIT_ROLLBACK_ACCEPTED,
                SYSTEM,
                Outcome.SUCCESS,
                subject={"origin": checkpoint.origin},
                detail={
                    "copy": name,
                    "expected_size": checkpoint.size,
                    "expected_root": checkpoint.root.hex(),
                    "found_size": records,
                },
            )
        )
