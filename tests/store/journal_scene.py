"""A person with a login session and a grant, their issuances, and what became of those."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from broker.adapters.store.engine import Database
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.schema import grants, issuances, login_sessions, principals
from broker.audit import record as audit
from broker.audit.record import Actor, Event, EventType
from broker.audit.verify import Verifier, export_line
from broker.issuance.journal import Intent, Outcome

NEVER = 3600.0
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRES = datetime(2026, 12, 1, 12, 30, tzinfo=UTC)


async def add_person(database: Database) -> None:
    now = datetime.now(UTC)
    later = now + timedelta(hours=1)
    async with database.begin() as conn:
        await conn.execute(
            insert(principals).values(
                id="p-1", kind="person", issuer="i", subject="s", provider="corp", handle="ada",
                email_verified=False, groups=[], claims={}, created_at=now,
            )
        )  # fmt: skip
        await conn.execute(
            insert(login_sessions).values(
                id="ls-1", principal_id="p-1", client="cli", auth_time=now, created_at=now,
                expires_at=later,
            )
        )  # fmt: skip
        await conn.execute(
            insert(grants).values(
                id="g-1", principal_id="p-1", role="reader", not_before=now, expires_at=later,
                granted_by="p-9", reason="x", created_at=now,
            )
        )  # fmt: skip


def event(kind: EventType, issuance: str = "iss-1", **detail: Any) -> Event:
    return Event(
        kind,
        Actor("p-1", "person", "ada"),
        audit.Outcome.SUCCESS,
        {"issuance": issuance, "principal": "p-1", "role": "reader"},
        detail,
        "req-1",
    )


def intent(name: str | None = None, **changes: Any) -> Intent:
    name = name or f"iss-{secrets.token_hex(8)}"
    made = Intent(
        id=name,
        principal_id="p-1",
        login_session_id="ls-1",
        grant_id="g-1",
        role="reader",
        role_arn="arn:aws:iam::111122223333:role/Reader",
        account_id="111122223333",
        session_name=f"ada-{name}",
        source_identity="p-1",
        duration_seconds=3600,
        policy_sha256="ab" * 32,
        event=event(EventType.ISSUANCE_REQUESTED, name),
    )
    return replace(made, **changes)


def outcome(of: Intent, key: str = "ASIAEXAMPLE", **changes: Any) -> Outcome:
    made = Outcome(
        intent=of,
        access_key_id=key,
        expires_at=EXPIRES,
        assumed_role_arn="arn:aws:sts::111122223333:assumed-role/Reader/ada",
        assumed_role_id="AROAEXAMPLE:ada",
        sts_request_id="sts-1",
        event=event(EventType.ISSUANCE_ISSUED, of.id, access_key_id=key),
    )
    return replace(made, **changes)


async def log(database: Database) -> list[dict[str, Any]]:
    """Every record, after the chain was verified."""
    verifier = Verifier()
    records = []
    async for row in AuditRecords(database).export():
        assert verifier.feed(export_line(row.record, row.leaf, row.chain))
        records.append(json.loads(row.record))
    found = verifier.close()
    assert found.consistent
    assert found.head == await AuditRecords(database).head()
    return records


async def stored(database: Database, name: str) -> Any:
    async with database.read() as conn:
        return (await conn.execute(select(issuances).where(issuances.c.id == name))).one_or_none()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition on the database or on a task, which no event tells of."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
