"""Signing the log's head every few seconds, and having it taken elsewhere.

Owns when a checkpoint is due, and the tasks that make it and have it copied. Does
not own the form of a checkpoint (`broker.audit.checkpoint`), its table
(`store/checkpoints`), the copying (`copying`), nor what is checked when the broker
starts (`rollback`).

A checkpoint is made in this order: the root so far is recorded as
`audit.checkpoint`, and when that is durable the head, that record included, is
signed and stored. So whoever gets the records gets the roots too, what is
signed is always durable first, and a signed head leaves nothing to sign: an
idle log stays idle. Where the key can't be used, that head waits for it: no
further one is recorded meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from broker.adapters.copying import Copying, push_quietly
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.tree import AuditTree
from broker.adapters.waiting import is_set_within
from broker.audit.checkpoint import Checkpoint
from broker.audit.note import CannotSign, Signer
from broker.audit.record import SYSTEM, Appended, Event, EventType, Outcome
from broker.errors import AuditUnavailable

_log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 10.0  # seconds
CHECKPOINT_RECORDS = 1000
# How long stopping waits for the places outside.
_LAST_COPIES = 10.0  # seconds


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
        copying: Copying | None = None,
        every: float = CHECKPOINT_EVERY,
        records: int = CHECKPOINT_RECORDS,
    ) -> None:
        self._checkpoints = checkpoints
        self._tree = tree
        self._journal = journal
        self._signer = signer
        self._copying = copying or Copying(checkpoints)
        self._every = every
        self._records = records
        # New records are noticed a tenth of the interval late at most, twice counted.
        self._poll = every / 10
        self._noticed: tuple[int, float] | None = None
        self._seen = 0
        self._unsigned: Checkpoint | None = None
        self._fault: str | None = None
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(), name="checkpoints"),
            asyncio.create_task(self._keep_copying(), name="checkpoint-copies"),
        ]

    async def aclose(self) -> None:
        """Sign what is not signed yet, have it copied, and stop."""
        if not self._tasks:
            return
        (signing, copies), self._tasks = self._tasks, []
        self._closing.set()
        await signing
        try:
            standing = await self._checkpoints.standing()
            if standing.records > standing.signed and self._fault is None:
                await self.publish()
        except AuditUnavailable as fault:
            _log.warning("the last records are left unsigned: %s", fault.log_detail)
        except CannotSign as fault:
            _log.warning("the last records are left unsigned: %s", fault)
        try:
            async with asyncio.timeout(_LAST_COPIES):
                await copies
                await push_quietly(self._copying)
        except TimeoutError:
            _log.warning("the last checkpoint was not copied everywhere; the next start does it")

    @property
    def problems(self) -> tuple[str, ...]:
        """What is behind, in a few words each, for who asks whether all is well."""
        signing = () if self._fault is None else ("signing of checkpoints",)
        return (*signing, *self._copying.failing)

    async def publish(self) -> Checkpoint:
        """Sign the head as it is now, and store it. Copies follow by themselves.

        Raises AuditUnavailable, and CannotSign where the key can't be used.
        """
        checkpoint = self._unsigned or await self._recorded()
        self._unsigned = checkpoint
        try:
            # In a thread: a key in KMS is a call away.
            note = await asyncio.to_thread(checkpoint.signed, self._signer)
        except CannotSign as fault:
            self._fault = str(fault)
            raise
        await self._checkpoints.add(checkpoint.size, note)
        self._unsigned = self._fault = None
        return checkpoint

    async def _recorded(self) -> Checkpoint:
        """The head that is to be signed, once the root so far is on record."""
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
        return Checkpoint(self._signer.key.name, after.size, after.root)

    async def _run(self) -> None:
        while not await is_set_within(self._closing, self._poll):
            try:
                await self._look()
            except AuditUnavailable as fault:
                _log.warning("no checkpoint now: %s", fault.log_detail)
            except CannotSign as fault:
                _log.error("no checkpoint now: %s", fault)
                # Not every poll: the key's owner may count the calls.
                await is_set_within(self._closing, self._every)
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
        if self._unsigned is not None and self._unsigned.size <= standing.signed:
            self._unsigned = self._fault = None  # another process could sign
        if standing.records == standing.signed:
            self._noticed = None
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

    async def _keep_copying(self) -> None:
        """Apart from the signing, which a place that hangs must not hold up."""
        while not await is_set_within(self._closing, self._poll):
            await push_quietly(self._copying)
