"""The issuance path's audit log: many callers, one transaction, one order.

Owns the queue in front of the log, the callers' patience, the denials of the
current minute and the reaper's timer. Implements `broker.issuance.journal.Journal`,
and `append` for events that change nothing else. Does not own: what a group
commit does (`journal_batch`) and its SQL (`journal_postgresql`, `journal_sqlite`);
store verbs append by `records.append` in their own transactions.

Group commit: one appender task a process takes what waits, up to `_MAX_BATCH`,
and commits it at once; what comes meanwhile is the next batch. So a lone caller
waits for one transaction, and a crowd shares one.

Fail closed: a record that is not known to be durable is AuditUnavailable, be
it that the database is out, that its answer to COMMIT was lost, that too many
wait already, or that the caller's patience ended. Then nobody may act on it,
though it may turn out to be in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from operator import attrgetter
from time import perf_counter
from typing import Any, TypeVar

from broker.adapters.store.engine import Database
from broker.adapters.store.journal_batch import Answer, Entry, Flushed, Ledger
from broker.adapters.store.journal_observer import JournalObserver, Unobserved
from broker.adapters.store.journal_postgresql import PostgresLedger
from broker.adapters.store.journal_sqlite import SqliteLedger
from broker.adapters.store.outage import PATIENCE
from broker.adapters.waiting import give_way, is_set_within
from broker.audit.checkpoint import Checkpoint
from broker.audit.note import CannotSign, Signer
from broker.audit.receipt import Receipt, ReceiptKey
from broker.audit.record import Appended, Event, NotStorable, clean_text
from broker.audit.suppress import DenialWindow
from broker.errors import AuditUnavailable
from broker.identity.job_store import Exchange, Exchanged, NotExchanged
from broker.issuance.journal import Concluded, Intent, Outcome

CAPACITY = 4096
# Seconds: far beyond the longest STS call with its retries, and every intent is terminal within 60,
# what the reaper's own pace and patience take included.
REAP_AFTER = 45.0
HOUSEKEEPING_EVERY = 5.0  # seconds

_MAX_BATCH = 512
_REAP_BATCH = 500

_Row = TypeVar("_Row", Intent, Outcome)
# Reads every text of a row; in nearly every one of them there is nothing to clean.
_TEXTS = {
    kind: attrgetter(*(f.name for f in fields(kind) if f.type in ("str", "str | None")))
    for kind in (Intent, Outcome)
}

_log = logging.getLogger(__name__)


class GroupCommitJournal:
    """One a process, over one database. `start` it in the event loop, `aclose` it at the end."""

    def __init__(
        self,
        database: Database,
        *,
        capacity: int = CAPACITY,
        patience: float = PATIENCE,
        reap_after: float = REAP_AFTER,
        housekeeping_every: float = HOUSEKEEPING_EVERY,
        signer: Signer | None = None,
        receipt_key: Callable[[], ReceiptKey] | None = None,
        observer: JournalObserver | None = None,
    ) -> None:
        """`signer`: the log's key, which signs a receipt for each issuance. `receipt_key`: who
        does so now in its place; it raises CannotSign where nobody can. Without both there are no
        receipts.
        """
        if receipt_key is None and signer is not None:
            receipt_key = _always(ReceiptKey(signer.key.name, signer))
        self._observer = observer or Unobserved()
        self._ledger: Ledger = (
            SqliteLedger(database) if database.dialect == "sqlite" else PostgresLedger(database)
        )
        self._capacity = capacity
        self._patience = patience
        self._reap_after = reap_after
        self._housekeeping_every = housekeeping_every
        self._waiting: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._accepting = False
        self._stopping = False
        self._closing = asyncio.Event()
        self._appender: asyncio.Task[None] | None = None
        self._housekeeper: asyncio.Task[None] | None = None
        self._denials = DenialWindow()
        self._suppressed: tuple[Event, ...] = ()
        self._receipt_key = receipt_key
        self._halted: str | None = None

    async def start(self) -> None:
        """Begin to accept. Connects to nothing before there is something to append."""
        self._accepting = True
        self._appender = asyncio.create_task(self._append_batches(), name="audit-appender")
        self._housekeeper = asyncio.create_task(self._keep_house(), name="audit-housekeeper")

    async def aclose(self) -> None:
        """Refuse what comes from now on, write what waits and the counts of denials, close.

        Doing so again does nothing.
        """
        appender, housekeeper = self._appender, self._housekeeper
        if appender is None or housekeeper is None:
            return
        self._accepting = False
        self._appender = self._housekeeper = None
        self._closing.set()
        await housekeeper
        self._suppressed += self._denials.take_all()
        try:
            await self._append_suppressed()
        except AuditUnavailable as error:
            _log.error("counts of denials are lost at the end: %s", error.log_detail)
        self._stopping = True
        self._wake.set()
        await appender
        await self._ledger.aclose()

    # --- What callers may do -------------------------------------------------------------

    async def request(self, intent: Intent) -> Appended:
        """See Journal."""
        self._require_open()
        self._current_receipt_key()
        answer = await self._submit(intent.event, intent=_storable(intent), patience=self._patience)
        if not isinstance(answer, Appended):
            raise AuditUnavailable(log_detail=f"an issuance {intent.id} exists already")
        return answer

    async def conclude(self, outcome: Outcome) -> Concluded:
        """See Journal."""
        self._require_open()
        outcome, intent = _storable(outcome), _storable(outcome.intent)
        if intent is not outcome.intent:
            outcome = replace(outcome, intent=intent)
        answer = await self._submit(outcome.event, outcome=outcome, patience=self._patience)
        if not isinstance(answer, Concluded):
            raise AuditUnavailable(log_detail="the outcome was not recorded as one")
        return answer

    async def fail(self, intent: Intent, event: Event) -> Appended:
        """See Journal. Where the reaper was first, the record says `detail.late`."""
        self._require_open()
        answer = await self._submit(event, failed=_storable(intent), patience=self._patience)
        if not isinstance(answer, Appended):
            raise AuditUnavailable(log_detail="the failure was not recorded as one")
        return answer

    async def claim_token_id(self, exchange: Exchange) -> Exchanged | NotExchanged:
        """See identity.job_store.TokenIds."""
        self._require_open()
        answer = await self._submit(exchange.event, exchange=exchange, patience=self._patience)
        if not isinstance(answer, Exchanged | NotExchanged):
            raise AuditUnavailable(log_detail="the exchange was not recorded as one")
        return answer

    async def append(self, event: Event) -> Appended:
        """Append an event that goes with no other change. Raises AuditUnavailable."""
        self._require_open()
        answer = await self._submit(event, patience=self._patience)
        if not isinstance(answer, Appended):
            raise AuditUnavailable(log_detail="the event was not recorded as one")
        return answer

    async def deny(self, event: Event) -> None:
        """See Journal. Any event type of which a hostile party can cause a flood may come here:
        issuance.denied, login.failed, mfa.failed, ci.rejected. One that was counted is not
        waited for.
        """
        self._require_open()
        if not self._denials.admit(event, self._now()):
            return
        try:
            await self._submit(event, patience=self._patience)
        except AuditUnavailable:
            self._denials.retract(event)
            raise

    async def reap(self, older_than: float) -> int:
        """Close every intent over `older_than` seconds old as orphaned; how many there were.

        Raises AuditUnavailable.
        """
        total = 0
        while True:
            reaped = await self._ledger.reap(older_than, _REAP_BATCH)
            total += reaped
            self._observer.orphaned(reaped)
            if reaped < _REAP_BATCH:
                return total

    # --- The queue -------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Records in the queue."""
        return len(self._waiting)

    def halt(self, reason: str) -> None:
        """Accept nothing any more, for the rest of this process: the log is not to be trusted."""
        self._halted = reason

    def _require_open(self) -> None:
        if self._halted is not None:
            raise AuditUnavailable(log_detail=self._halted)
        if not self._accepting:
            raise AuditUnavailable(log_detail="the journal is not running")

    def _current_receipt_key(self) -> ReceiptKey | None:
        """None where no receipts are given. Raises AuditUnavailable where they can't be signed:
        nothing is issued without proof that it is on record.
        """
        if self._receipt_key is None:
            return None
        try:
            return self._receipt_key()
        except CannotSign as fault:
            raise AuditUnavailable(log_detail=str(fault)) from fault

    async def _submit(
        self,
        event: Event,
        *,
        intent: Intent | None = None,
        outcome: Outcome | None = None,
        failed: Intent | None = None,
        exchange: Exchange | None = None,
        patience: float | None,
    ) -> Answer:
        if len(self._waiting) >= self._capacity:
            raise AuditUnavailable(log_detail=f"{self._capacity} records wait already")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            entry = Entry(
                event, future, intent=intent, outcome=outcome, failed=failed, exchange=exchange
            )
        except NotStorable as error:
            raise AuditUnavailable(log_detail=f"{event.type}: {error}") from error
        self._waiting.append(entry)
        self._wake.set()
        if patience is None:
            return await future
        # A bare timer: asyncio.timeout costs twice as much (6 µs against 3), twice an issuance.
        timer = asyncio.get_running_loop().call_later(patience, _lose_patience, future, patience)
        try:
            return await future
        finally:
            timer.cancel()

    async def _append_batches(self) -> None:
        size = 1
        while True:
            while not self._waiting:
                if self._stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
            await give_way(size)
            size = min(len(self._waiting), _MAX_BATCH)
            await self._append_batch([self._waiting.popleft() for _ in range(size)])

    async def _append_batch(self, entries: Sequence[Entry]) -> None:
        try:
            answers = self._with_receipts(await self._flush(entries))
        except AuditUnavailable as error:
            _log.warning(
                "%d audit records could not be written: %s", len(entries), error.log_detail
            )
            _refuse(entries, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            if len(entries) > 1:
                # The database refused a statement, so nothing is committed: alone, each
                # entry answers for itself.
                for entry in entries:
                    await self._append_batch([entry])
                return
            _log.exception("an audit record was refused by the database")
            _refuse(entries, error)
        else:
            for entry, answer in zip(entries, answers, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(answer)

    async def _flush(self, entries: Sequence[Entry]) -> Flushed:
        began, failed = perf_counter(), True
        try:
            flushed = await self._ledger.flush(entries)
            failed = False
        finally:
            self._observer.flushed(len(entries), perf_counter() - began, failed=failed)
        return flushed

    def _with_receipts(self, flushed: Flushed) -> list[Answer]:
        """The answers, each issued one with the proof that its record is in the log: one
        signature for all of them, made when the transaction is over and its lock is free.
        """
        growth = flushed.growth
        if growth is None or not flushed.issued:
            return flushed.answers
        key = self._current_receipt_key()
        if key is None:
            return flushed.answers
        tree = growth.after
        note = Checkpoint(key.origin, tree.size, tree.root).signed(key.signer)
        paths = growth.inclusions(seq - 1 for seq in flushed.issued)
        answers: list[Answer] = []
        for answer in flushed.answers:
            if isinstance(answer, Concluded) and answer.appended.seq in flushed.issued:
                seq = answer.appended.seq
                path = paths[seq - 1]
                receipt = Receipt(seq, flushed.issued[seq], path, note, key.certificate)
                answers.append(replace(answer, receipt=receipt))
            else:
                answers.append(answer)
        return answers

    # --- Housekeeping ----------------------------------------------------------------------

    async def _keep_house(self) -> None:
        while not await is_set_within(self._closing, self._housekeeping_every):
            try:
                if not self._suppressed:
                    self._suppressed = self._denials.take_due(self._now())
                await self._append_suppressed()
                orphans = await self.reap(self._reap_after)
            except AuditUnavailable as error:
                _log.warning("audit housekeeping waits: %s", error.log_detail)
            except Exception:  # noqa: BLE001 - a reaper that ended would leave intents open for ever
                _log.exception("audit housekeeping failed")
            else:
                if orphans:
                    _log.error(
                        "%d issuances were never concluded: credentials nobody received may exist",
                        orphans,
                    )

    @staticmethod
    def _now() -> datetime:
        """For the minutes that denials are counted in, where nothing is decided by it."""
        return datetime.now(UTC)

    async def _append_suppressed(self) -> None:
        """Append the counts of past minutes; those that could not be are kept for next time."""
        while self._suppressed:
            batch, rest = self._suppressed[:_MAX_BATCH], self._suppressed[_MAX_BATCH:]
            # Waited for without end, as every flush has one: a count is written once.
            answers = await asyncio.gather(
                *(self._submit(event, patience=None) for event in batch), return_exceptions=True
            )
            kept = [e for e, a in zip(batch, answers, strict=True) if isinstance(a, BaseException)]
            self._suppressed = (*kept, *rest)
            if kept:
                raise AuditUnavailable(log_detail=f"{len(self._suppressed)} counts of denials wait")


def _lose_patience(answer: asyncio.Future[Answer], seconds: float) -> None:
    """The appender finds the answer done, and goes on."""
    if not answer.done():
        answer.set_exception(AuditUnavailable(log_detail=f"no answer in {seconds} s"))


def _always(key: ReceiptKey) -> Callable[[], ReceiptKey]:
    return lambda: key


def _refuse(entries: Sequence[Entry], cause: Exception) -> None:
    for entry in entries:
        if entry.answer.done():
            continue
        error = AuditUnavailable(log_detail=getattr(cause, "log_detail", None) or repr(cause))
        error.__cause__ = cause
        entry.answer.set_exception(error)


def _storable(value: _Row) -> _Row:
    """The intent or outcome with its texts made fit for a column of text."""
    read = _TEXTS[type(value)]
    everything = "".join([text for text in read(value) if text is not None])
    if everything.isascii() and "\0" not in everything:
        return value
    texts: dict[str, Any] = {
        field.name: clean_text(text)
        for field in fields(value)
        if isinstance(text := getattr(value, field.name), str)
    }
    return replace(value, **texts)
