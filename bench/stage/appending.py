"""Appends to a log as fast as callers let it, in one of several ways. A worker of bench/audit.

Tasks: {"how", "callers", "seconds", "url", "dsn"}; the answer: {"count", "p50"}.

  group       the broker's journal: one transaction for all that waits, chained, in the tree
  row_lock    a transaction an append: the head's row FOR UPDATE, the record, the head
  unchained   a single INSERT an append, no head, no hash
  issue, issue_signed   the journal's request and conclude, without and with receipts
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import uvloop

from broker.adapters.signing import FileSigner
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.audit.chain import chain_hash, leaf_hash
from broker.audit.record import Actor, Event, EventType, Outcome, prepare, rfc3339
from broker.issuance import journal as issuing

Step = Callable[[], Awaitable[object]]
_CONNECTIONS = 16
_ACTOR = Actor("p-abcdefghij234567", "person", "ada@example.com", "192.0.2.1", "broker/1")


def event(kind: EventType = EventType.ISSUANCE_REQUESTED, issuance: str = "iss-0") -> Event:
    """As an issuance's."""
    return Event(
        kind,
        _ACTOR,
        Outcome.SUCCESS,
        {
            "issuance": issuance,
            "principal": _ACTOR.id,
            "role": "data-reader",
            "role_arn": "arn:aws:iam::111122223333:role/DataReader",
            "account_id": "111122223333",
        },
        {
            "session_name": f"ada@example.com-{issuance}",
            "source_identity": _ACTOR.id,
            "duration": {"granted": 3600, "bound_by": "role_default", "chained": False},
            "policy_sha256": "ab" * 32,
            "policy_version": 3,
            "reason": "monthly report",
        },
        "req-0123456789abcdef0123",
    )


@asynccontextmanager
async def _journal(url: str, *, signed: bool = False) -> AsyncIterator[GroupCommitJournal]:
    database = Database.open(url)
    signer = FileSigner.of_seed("bench.example.com", bytes(32)) if signed else None
    journal = GroupCommitJournal(database, signer=signer)
    await journal.start()
    try:
        yield journal
    finally:
        await journal.aclose()
        await database.aclose()


@asynccontextmanager
async def _group(task: dict[str, Any]) -> AsyncIterator[Step]:
    async with _journal(task["url"]) as journal:
        yield lambda: journal.append(event())


@asynccontextmanager
async def _issue(task: dict[str, Any]) -> AsyncIterator[Step]:
    async with _journal(task["url"], signed=task["how"] == "issue_signed") as journal:
        yield lambda: _issue_once(journal)


async def _issue_once(journal: GroupCommitJournal) -> None:
    name = f"iss-{os.urandom(12).hex()}"
    intent = issuing.Intent(
        id=name, principal_id=_ACTOR.id, login_session_id="ls-bench", grant_id=None,
        role="data-reader", role_arn="arn:aws:iam::111122223333:role/DataReader",
        account_id="111122223333", session_name=name, source_identity=_ACTOR.id,
        duration_seconds=3600, policy_sha256=None, event=event(issuance=name),
    )  # fmt: skip
    await journal.request(intent)
    outcome = issuing.Outcome(
        intent=intent, access_key_id="ASIAEXAMPLEEXAMPLE00",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        assumed_role_arn="arn:aws:sts::111122223333:assumed-role/DataReader/x",
        assumed_role_id="AROAEXAMPLE:x", sts_request_id="sts-1",
        event=event(EventType.ISSUANCE_ISSUED, name),
    )  # fmt: skip
    concluded = await journal.conclude(outcome)
    if concluded.state is not issuing.State.ISSUED:
        raise RuntimeError(f"withheld: {concluded.reason}")
    if concluded.receipt is not None:
        concluded.receipt.as_json()


@asynccontextmanager
async def _row_lock(task: dict[str, Any]) -> AsyncIterator[Step]:
    async with asyncpg.create_pool(
        task["dsn"], min_size=_CONNECTIONS, max_size=_CONNECTIONS
    ) as pool:

        async def append() -> None:
            async with pool.acquire() as conn, conn.transaction():
                head = await conn.fetchrow("SELECT seq, chain FROM head FOR UPDATE")
                record = prepare(event()).record(head["seq"] + 1, rfc3339(datetime.now(UTC)))
                leaf = leaf_hash(record)
                chain = chain_hash(head["chain"], leaf)
                await conn.execute(
                    "INSERT INTO chained (seq, record, leaf, chain) VALUES ($1, $2, $3, $4)",
                    head["seq"] + 1, record, leaf, chain,
                )  # fmt: skip
                await conn.execute("UPDATE head SET seq = $1, chain = $2", head["seq"] + 1, chain)

        yield append


@asynccontextmanager
async def _unchained(task: dict[str, Any]) -> AsyncIterator[Step]:
    async with asyncpg.create_pool(
        task["dsn"], min_size=_CONNECTIONS, max_size=_CONNECTIONS
    ) as pool:

        async def append() -> None:
            record = prepare(event()).record(1, rfc3339(datetime.now(UTC)))
            await pool.execute("INSERT INTO unchained (record) VALUES ($1)", record)

        yield append


_WAYS = {
    "group": _group,
    "row_lock": _row_lock,
    "unchained": _unchained,
    "issue": _issue,
    "issue_signed": _issue,
}


async def _perform(task: dict[str, Any]) -> dict[str, Any]:
    times: list[float] = []
    async with _WAYS[task["how"]](task) as step:
        await step()
        end = time.perf_counter() + task["seconds"]

        async def caller() -> None:
            while (began := time.perf_counter()) < end:
                await step()
                times.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(task["callers"])))
        taken = time.perf_counter() - began
    return {"rate": len(times) / taken, "p50": statistics.median(times)}


def main() -> None:
    for line in sys.stdin:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            answer = runner.run(_perform(json.loads(line)))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
