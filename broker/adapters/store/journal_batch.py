"""What one group commit does, apart from its SQL.

Owns the entries that wait for a flush and `Batch`, which a ledger
(`journal_postgresql`, `journal_sqlite`) walks through within one transaction:

1. lock the head
2. `live`: what to recheck, by one plain SELECT
3. `moves`: the terminal states to set, by one conditional UPDATE
4. `intents`: the issuances to insert
5. `token_keys`: CI tokens to use up, by one INSERT that skips those used before;
   `openings`: the sessions of the jobs whose token was not
6. `settle`: who was too late; the rows to append to the log
7. `recordings`: key ids of credentials that came too late

Does not own: the queue and the callers' patience (`journal`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from broker.adapters.store.records import Linked, LockedHead, link
from broker.audit import record as audit
from broker.audit.merkle import Growth
from broker.audit.record import (
    Appended,
    Attachment,
    Event,
    EventType,
    Prepared,
    clean,
    clean_and_prepare,
    prepare,
)
from broker.identity.job_store import Exchange, Exchanged, NotExchanged
from broker.issuance.journal import SYSTEM_ACTOR, Concluded, Intent, Outcome, State

Answer = Appended | Concluded | Exchanged | NotExchanged | None


@dataclass(slots=True, eq=False)
class Entry:
    """One caller's record, and the future that the caller waits on.

    Exactly one of `intent`, `outcome`, `failed` and `exchange` is set, or none for a plain event.
    """

    event: Event
    answer: asyncio.Future[Answer]
    intent: Intent | None = None
    outcome: Outcome | None = None
    failed: Intent | None = None
    exchange: Exchange | None = None
    prepared: Prepared = field(init=False)

    def __post_init__(self) -> None:
        """Everything that can be refused is refused here, before it shares a transaction.

        Raises NotStorable.
        """
        self.event, self.prepared = clean_and_prepare(self.event)


@dataclass(frozen=True, slots=True)
class Move:
    """From requested to `state`. The columns after it are set for outcomes alone."""

    id: str
    state: State
    expires_at: datetime | None = None
    access_key_id: str | None = None
    assumed_role_arn: str | None = None
    assumed_role_id: str | None = None
    sts_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A row that the reaper moved from requested to orphaned."""

    id: str
    principal_id: str
    login_session_id: str
    grant_id: str | None
    role: str
    role_arn: str
    account_id: str
    session_name: str
    source_identity: str
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Flushed:
    """What was committed: an answer for each entry, in order (None: an intent whose id is
    taken), the tree's growth, and the records whose callers get a receipt, by number.
    """

    answers: list[Answer]
    growth: Growth | None
    issued: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Opening:
    """A job's login session to insert, with its token where it gets one."""

    exchange: Exchange
    began_at: datetime
    ends_at: datetime
    reused: bool


class Ledger(Protocol):
    """The SQL of a group commit. Both methods raise AuditUnavailable where the database is out,
    and anything else where a statement was refused: nothing was committed then.
    """

    async def flush(self, entries: Sequence[Entry]) -> Flushed:
        """Commit all entries in one transaction."""
        ...

    async def reap(self, older_than: float, limit: int) -> int:
        """Close up to `limit` intents that are over `older_than` seconds old."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Recheck:
    """The ids whose standing decides whether outcomes may be handed out."""

    principals: list[str] = field(default_factory=list)
    login_sessions: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)

    @property
    def columns(self) -> tuple[list[str], list[str], list[str]]:
        """As PostgreSQL's statements take them."""
        return self.principals, self.login_sessions, self.grants

    @property
    def standing(self) -> list[tuple[str, str]]:
        """The rows of a recheck that finds all of it in good standing: see `Batch.moves`."""
        return [
            *(("principal", name) for name in self.principals),
            *(("login_session", name) for name in self.login_sessions),
            *(("grant", name) for name in self.grants),
        ]


class Batch:
    """One flush. Made anew for every attempt."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        # A caller that gave up gets no answer, so an intent of theirs will have no STS call.
        # Nor is a token used up for one.
        self._entries = [
            e for e in entries if (e.intent is None and e.exchange is None) or not e.answer.done()
        ]
        self._all = entries
        self._abandoned = {e for e in entries if e.outcome is not None and e.answer.done()}
        self._reasons: dict[Entry, str] = {}
        self._late: list[Entry] = []
        self._suspended: set[Entry] = set()
        self._opened: dict[Entry, Opening] = {}
        self._answers: dict[Entry, Answer] = {}
        self._issued: dict[int, bytes] = {}
        self._growth: Growth | None = None

    @property
    def is_plain(self) -> bool:
        """Whether every caller waits still, and no CI token is to be used up."""
        return not self._abandoned and not any(e.exchange for e in self._entries)

    @property
    def intents(self) -> list[Intent]:
        return list({e.intent.id: e.intent for e in self._entries if e.intent}.values())

    @property
    def live(self) -> Recheck | None:
        """What to recheck; None where no outcome and no exchange is in the batch."""
        intents = [e.outcome.intent for e in self._entries if e.outcome]
        exchanging = {e.exchange.principal_id for e in self._entries if e.exchange}
        if not intents and not exchanging:
            return None
        return Recheck(
            principals=list({i.principal_id for i in intents} | exchanging),
            login_sessions=list({i.login_session_id for i in intents}),
            grants=list({i.grant_id for i in intents if i.grant_id is not None}),
        )

    def moves(self, standing: Iterable[tuple[str, str]]) -> list[Move]:
        """The conditional moves. `standing` is the recheck's rows: "principal" or
        "login_session" and the id of each in good standing; "grant", "grant_revoked" or
        "grant_expired" and the id of each grant.
        """
        known = set(standing)
        moves: dict[str, Move] = {}
        for entry in self._entries:
            if entry.outcome is not None:
                reason = self._reason(entry, entry.outcome.intent, known)
                if reason is not None:
                    self._reasons[entry] = reason
                state = State.ISSUED if reason is None else State.WITHHELD
                # One outcome an issuance: of two in a batch the first counts.
                moves.setdefault(entry.outcome.intent.id, _move(entry.outcome, state))
            elif entry.failed is not None:
                moves.setdefault(entry.failed.id, Move(entry.failed.id, State.FAILED))
        self._suspended = {
            entry
            for entry in self._entries
            if entry.exchange and ("principal", entry.exchange.principal_id) not in known
        }
        return list(moves.values())

    @property
    def token_keys(self) -> dict[bytes, datetime]:
        """The CI tokens to use up, and until when each is remembered."""
        return {e.token_key: e.token_forgotten_at for _, e in self._exchanges()}

    def openings(self, head: LockedHead, claimed: Collection[bytes]) -> list[Opening]:
        """The sessions to open. `claimed` are the keys that came back from the INSERT: of many
        entries with one token the first has it, and the others only where it may be reused.
        """
        unused = set(claimed)
        now = head.now
        for entry, exchange in self._exchanges():
            first = exchange.token_key in unused
            unused.discard(exchange.token_key)
            if first or exchange.reuse:
                ends_at = now + timedelta(seconds=exchange.lifetime)
                self._opened[entry] = Opening(exchange, now, ends_at, reused=not first)
        return list(self._opened.values())

    def _exchanges(self) -> Iterator[tuple[Entry, Exchange]]:
        for entry in self._entries:
            if entry.exchange is not None and entry not in self._suspended:
                yield entry, entry.exchange

    def settle(
        self, head: LockedHead, moved: Collection[str], inserted: Collection[str]
    ) -> tuple[Linked, list[Attachment]]:
        """What to append and what stands beside it. `moved` and `inserted` are the ids
        that came back from the conditional UPDATE and from the INSERT.
        """
        moved, inserted = set(moved), set(inserted)
        recorded: list[Entry] = []
        prepared: list[Prepared] = []
        for entry in self._entries:
            if entry.intent is not None and entry.intent.id not in inserted:
                continue
            if entry.intent is not None:
                inserted.discard(entry.intent.id)
            if entry.exchange is not None and entry not in self._opened:
                reason = "suspended" if entry in self._suspended else "replayed"
                self._answers[entry] = NotExchanged(reason)
                continue
            recorded.append(entry)
            prepared.append(self._final(entry, moved))
        linked = link(prepared, head)
        for entry, row in zip(recorded, linked.rows, strict=True):
            self._answers[entry] = self._answer(entry, Appended(row.seq, row.leaf))
            if row.type == EventType.ISSUANCE_ISSUED:
                self._issued[row.seq] = row.record
        self._growth = linked.growth
        return linked, [p.attachment for p in prepared if p.attachment is not None]

    @property
    def recordings(self) -> list[Move]:
        """For orphaned rows: what late credentials they stand for."""
        return [_move(e.outcome, State.ORPHANED) for e in self._late if e.outcome]

    @property
    def flushed(self) -> Flushed:
        """To be read once the transaction has committed."""
        answers = [self._answers.get(entry) for entry in self._all]
        return Flushed(answers, self._growth, self._issued)

    def _reason(self, entry: Entry, intent: Intent, known: set[tuple[str, str]]) -> str | None:
        """Why nothing may be handed out. What the recheck does not vouch for is not there."""
        if ("principal", intent.principal_id) not in known:
            return "suspended"
        if ("login_session", intent.login_session_id) not in known:
            return "session_ended"
        if intent.grant_id is not None and ("grant", intent.grant_id) not in known:
            expired = ("grant_expired", intent.grant_id) in known
            return "grant_expired" if expired else "grant_revoked"
        return "late" if entry in self._abandoned else None

    def _final(self, entry: Entry, moved: set[str]) -> Prepared:
        """The entry's record, or the one that takes its place."""
        outcome, failed = entry.outcome, entry.failed
        opened = self._opened.get(entry)
        if opened is not None and opened.reused:
            return prepare(replace(entry.event, detail={**entry.event.detail, "reused": True}))
        if outcome is not None:
            if outcome.intent.id in moved:
                moved.discard(outcome.intent.id)
            else:
                self._reasons[entry] = "late"
                self._late.append(entry)
            reason = self._reasons.get(entry)
            return entry.prepared if reason is None else prepare(_withheld(entry, outcome, reason))
        if failed is not None:
            if failed.id not in moved:
                return prepare(replace(entry.event, detail={**entry.event.detail, "late": True}))
            moved.discard(failed.id)
        return entry.prepared

    def _answer(self, entry: Entry, appended: Appended) -> Answer:
        opened = self._opened.get(entry)
        if opened is not None:
            return Exchanged(opened.began_at, opened.ends_at, opened.reused, appended)
        if entry.outcome is None:
            return appended
        reason = self._reasons.get(entry)
        return Concluded(State.ISSUED if reason is None else State.WITHHELD, reason, appended)


def _move(outcome: Outcome, state: State) -> Move:
    return Move(
        outcome.intent.id,
        state,
        outcome.expires_at,
        outcome.access_key_id,
        outcome.assumed_role_arn,
        outcome.assumed_role_id,
        outcome.sts_request_id,
    )


def _withheld(entry: Entry, outcome: Outcome, reason: str) -> Event:
    detail: Mapping[str, object] = {
        "access_key_id": outcome.access_key_id,
        "expires_at": audit.rfc3339(outcome.expires_at),
        **entry.event.detail,
        "reason": reason,
    }
    return clean(
        replace(
            entry.event,
            type=EventType.ISSUANCE_WITHHELD,
            outcome=audit.Outcome.DENIED,
            detail=detail,
        )
    )


def orphaned(orphan: Orphan) -> Event:
    """The record of an intent that nobody concluded. Credentials may exist: alert on it."""
    return Event(
        EventType.ISSUANCE_ORPHANED,
        SYSTEM_ACTOR,
        audit.Outcome.FAILURE,
        subject={
            "issuance": orphan.id,
            "principal": orphan.principal_id,
            "role": orphan.role,
            "role_arn": orphan.role_arn,
            "account_id": orphan.account_id,
        },
        detail={
            "session_name": orphan.session_name,
            "source_identity": orphan.source_identity,
            "requested_at": audit.rfc3339(orphan.requested_at),
            "login_session": orphan.login_session_id,
            "grant": orphan.grant_id,
        },
    )
