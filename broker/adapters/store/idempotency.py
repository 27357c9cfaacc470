"""Requests that may be sent again, since an answer may be lost: the caller's key as a row.

Owns: that a key stands for one request of one principal. Works inside the
caller's transaction. The result is named by its id, so no answer is stored and
none with a secret can ever be replayed.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.access.grant import IDEMPOTENCY_LIFETIME, Repeatable
from broker.adapters.store.schema import idempotency_keys
from broker.errors import Conflict

_OTHER = "This Idempotency-Key was used for another request."


async def earlier_result(
    conn: AsyncConnection,
    principal_id: str,
    operation: str,
    repeatable: Repeatable | None,
    now: datetime,
) -> str | None:
    """The id of what the same request made before. Raises Conflict where it was another one."""
    if repeatable is None:
        return None
    row = (
        await conn.execute(
            select(idempotency_keys).where(
                idempotency_keys.c.principal_id == principal_id,
                idempotency_keys.c.operation == operation,
                idempotency_keys.c.key_hash == repeatable.key_hash,
                idempotency_keys.c.expires_at > now,
            )
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request_hash != repeatable.request_hash:
        raise Conflict(_OTHER)
    result_id: str = row.result_id
    return result_id


async def remember_result(
    conn: AsyncConnection,
    principal_id: str,
    operation: str,
    repeatable: Repeatable | None,
    result_id: str,
    now: datetime,
) -> None:
    """After `earlier_result` found nothing. Raises Conflict where another request with this key
    was faster.
    """
    if repeatable is None:
        return
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    await conn.execute(
        delete(idempotency_keys).where(
            idempotency_keys.c.principal_id == principal_id,
            idempotency_keys.c.operation == operation,
            idempotency_keys.c.key_hash == repeatable.key_hash,
            idempotency_keys.c.expires_at <= now,
        )
    )
    inserted = await conn.execute(
        dialect.insert(idempotency_keys)
        .values(
            principal_id=principal_id,
            operation=operation,
            key_hash=repeatable.key_hash,
            request_hash=repeatable.request_hash,
            result_id=result_id,
            expires_at=now + IDEMPOTENCY_LIFETIME,
        )
        .on_conflict_do_nothing()
    )
    if inserted.rowcount != 1:
        raise Conflict(_OTHER)
