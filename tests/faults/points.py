"""The crash points: where a server process kills itself, from the outside of the product's code.

Owns their names, what each is, and how a function of the broker is wrapped so that the process
dies by SIGKILL before or after it. Nothing of this is in the product: `prefork` arms one point in
one process before the server starts. Does not own who dies when (`test_kills`).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from broker.adapters.checkpoints import CheckpointPublisher
from broker.adapters.store import grants as grant_store
from broker.adapters.store import journal_postgresql, journal_swap, logins, sessions
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.grants import SqlGrants
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.journal_batch import Entry
from broker.adapters.store.journal_postgresql import PostgresLedger
from broker.adapters.store.logins import SqlLoginStore
from broker.adapters.store.sessions import SqlSessionStore
from broker.adapters.sts.client import StsClient
from broker.adapters.sts.pool import Pool
from broker.web import credentials

Pass = Callable[[], None]


@dataclass(frozen=True)
class Point:
    """`what` completes "the process dies …". `needs`: what the load must bring about."""

    name: str
    what: str
    arm: Callable[[Pass], None]
    needs: str = "issuances"


# --- Wrapping ----------------------------------------------------------------------------------


def before(owner: object, name: str) -> Callable[[Pass], None]:
    """Die when it is called."""

    def install(passed: Pass) -> None:
        original = getattr(owner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            passed()
            return original(*args, **kwargs)

        setattr(owner, name, called)

    return install


def after(owner: object, name: str) -> Callable[[Pass], None]:
    """Die when it has done its work, before anybody hears of it."""

    def install(passed: Pass) -> None:
        original = getattr(owner, name)

        async def finished(*args: Any, **kwargs: Any) -> Any:
            done = await original(*args, **kwargs)
            passed()
            return done

        def returned(*args: Any, **kwargs: Any) -> Any:
            done = original(*args, **kwargs)
            passed()
            return done

        setattr(owner, name, finished if iscoroutinefunction(original) else returned)

    return install


_flushing: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar(
    "flushing", default=frozenset()
)


def _kinds(entries: Sequence[Entry]) -> frozenset[str]:
    kinds = {"intent": "intent", "outcome": "outcome", "failed": "failure"}
    return frozenset(
        kind for name, kind in kinds.items() if any(getattr(e, name) is not None for e in entries)
    )


def flushing(kind: str, step: Callable[[Pass], None] | None) -> Callable[[Pass], None]:
    """Die within a flush that holds an entry of `kind`: when it begins, or where `step` says."""

    def install(passed: Pass) -> None:
        flush = PostgresLedger.flush

        async def flushed(self: PostgresLedger, entries: Sequence[Entry]) -> Any:
            kinds = _kinds(entries)
            if step is None and kind in kinds:
                passed()
            token = _flushing.set(kinds)
            try:
                return await flush(self, entries)
            finally:
                _flushing.reset(token)

        PostgresLedger.flush = flushed  # type: ignore[method-assign]
        if step is not None:

            def passed_in_flush() -> None:
                if kind in _flushing.get():
                    passed()

            step(passed_in_flush)

    return install


def _while_sts_is_asked(passed: Pass) -> None:
    post = Pool.post

    async def asking(self: Pool, *args: Any, **kwargs: Any) -> Any:
        # As soon as it waits for the answer, the question is on its way.
        asyncio.get_running_loop().call_later(0.003, passed)
        return await post(self, *args, **kwargs)

    Pool.post = asking  # type: ignore[method-assign]


def _when_answered(passed: Pass) -> None:
    send = RequestResponseCycle.send

    async def sent(self: RequestResponseCycle, message: Any) -> None:
        await send(self, message)
        if self.response_complete and self.scope["path"] == credentials.PATH:
            passed()

    RequestResponseCycle.send = sent  # type: ignore[method-assign]


def _when_reaped(passed: Pass) -> None:
    reap = PostgresLedger.reap

    async def reaped(self: PostgresLedger, older_than: float, limit: int) -> int:
        closed = await reap(self, older_than, limit)
        if closed:
            passed()
        return closed

    PostgresLedger.reap = reaped  # type: ignore[method-assign]


def _flush_points(kind: str, subject: str, needs: str = "issuances") -> list[Point]:
    """The steps of the group commit that holds it."""
    return [
        Point(
            f"{kind} queued",
            f"with the {subject} in the queue, its flush not begun",
            flushing(kind, None),
            needs,
        ),
        Point(
            f"{kind} flush, head locked",
            f"in the {subject}'s flush, holding the head row's lock",
            flushing(kind, after(journal_postgresql, "_read")),
            needs,
        ),
        Point(
            f"{kind} flush, rows changed",
            f"in the {subject}'s flush, the issuance's row changed and no record appended",
            flushing(kind, after(journal_postgresql, "_change")),
            needs,
        ),
        Point(
            f"{kind} flush, before COMMIT",
            f"with the {subject}'s record written, before COMMIT",
            flushing(kind, before(journal_postgresql, "commit")),
            needs,
        ),
        Point(
            f"{kind} flush, after COMMIT",
            f"with the {subject} committed, before its caller hears of it",
            flushing(kind, after(journal_postgresql, "commit")),
            needs,
        ),
    ]


def _when_swapped(passed: Pass) -> None:
    swap = journal_swap.swap

    async def swapped(*args: Any) -> Any:
        done = await swap(*args)
        if done is not None:
            passed()
        return done

    journal_postgresql.swap = swapped  # type: ignore[assignment, attr-defined]


def _swap_points(kind: str, subject: str) -> list[Point]:
    """The group commit in one statement, which a process that writes alone may take."""
    return [
        Point(
            f"{kind} swap, not sent",
            f"with the {subject}'s record made on a head that it knows, before the one statement",
            flushing(kind, before(journal_postgresql, "swap")),
        ),
        Point(
            f"{kind} swap, committed",
            f"with the {subject} committed by one statement, before its caller hears of it",
            flushing(kind, _when_swapped),
        ),
    ]


ISSUANCE = [
    Point(
        "intent not queued",
        "with the request decided and narrowed, before its intent is queued",
        before(GroupCommitJournal, "request"),
    ),
    *_flush_points("intent", "intent"),
    Point(
        "STS not asked",
        "with the intent durable, before STS is called",
        before(StsClient, "assume_role"),
    ),
    Point("STS asked", "while STS works on the call", _while_sts_is_asked),
    Point(
        "STS answered",
        "with credentials in memory, before their outcome is queued",
        after(StsClient, "assume_role"),
    ),
    *_flush_points("outcome", "outcome"),
    Point(
        "not answered",
        "with the outcome durable, before the answer is made",
        before(credentials, "answer"),
    ),
    Point("answered", "right after the answer's last byte was sent", _when_answered),
    *_flush_points("failure", "refusal by STS", "refusals"),
]
MUTATORS = [
    Point(
        "refresh, before COMMIT",
        "with a refresh token rotated and recorded, before COMMIT",
        after(sessions, "append"),
        "refreshes",
    ),
    Point(
        "refresh, after COMMIT",
        "with the rotation committed, before the new pair is sent",
        after(SqlSessionStore, "rotate_refresh_token"),
        "refreshes",
    ),
    Point(
        "grant, before COMMIT",
        "with a direct grant made and recorded, before COMMIT",
        after(grant_store, "append"),
        "grants",
    ),
    Point(
        "grant, after COMMIT",
        "with a direct grant committed, before the admin hears of it",
        after(SqlGrants, "create_grant"),
        "grants",
    ),
    Point(
        "login, before COMMIT",
        "with a login recorded, before COMMIT",
        after(logins, "append"),
        "logins",
    ),
    Point(
        "login, after COMMIT",
        "with a login committed, before the browser gets its cookie",
        after(SqlLoginStore, "log_in"),
        "logins",
    ),
    Point(
        "checkpoint not recorded",
        "when a checkpoint is due, before its root is recorded",
        before(CheckpointPublisher, "publish"),
    ),
    Point(
        "checkpoint not signed",
        "with the root recorded, before the signed note is stored",
        before(SqlCheckpoints, "add"),
    ),
    Point("checkpoint stored", "with the signed note stored", after(SqlCheckpoints, "add")),
]
ALONE = [*_swap_points("intent", "intent"), *_swap_points("outcome", "outcome")]
REAPER = [
    Point(
        "reaper, before COMMIT",
        "with old intents closed as orphaned, before COMMIT",
        before(journal_postgresql, "orphaned"),
        "orphans",
    ),
    Point(
        "reaper, after COMMIT",
        "with old intents closed as orphaned and committed",
        _when_reaped,
        "orphans",
    ),
]
POINTS = {point.name: point for point in (*ISSUANCE, *MUTATORS, *ALONE, *REAPER)}


def arm(name: str, nth: int) -> None:
    """From now on the `nth` pass of that point kills this process."""
    passes = 0

    def passed() -> None:
        nonlocal passes
        passes += 1
        if passes >= nth:
            os.kill(os.getpid(), signal.SIGKILL)

    POINTS[name].arm(passed)
