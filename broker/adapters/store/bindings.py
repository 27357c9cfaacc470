"""The access policy's `user:` names, and the principals they are bound to.

Owns: binding a name once, by provider and verified e-mail, and never again. The
caller holds `lock_who_is_who`. Does not own: the policy itself (`access`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.schema import principals, user_bindings
from broker.identity.people import split_user_name


async def bind_pending(
    conn: AsyncConnection, principal_id: str, provider: str, email_key: str, now: datetime
) -> tuple[str, ...]:
    """Bind the pending names of this address, which the provider has just vouched for."""
    bound = await conn.execute(
        update(user_bindings)
        .where(
            user_bindings.c.provider == provider,
            user_bindings.c.email_key == email_key,
            user_bindings.c.principal_id.is_(None),
        )
        .values(principal_id=principal_id, bound_at=now)
        .returning(user_bindings.c.name)
    )
    return tuple(sorted(bound.scalars()))


async def name_users(conn: AsyncConnection, names: Iterable[str], now: datetime) -> None:
    """Make the policy's names those that are bound or pending.

    Bound names stay, also those that the policy no longer has: should one return, it still
    means the same person and not whoever has the address by then.
    """
    wanted = {name: key for name in names if (key := split_user_name(name)) is not None}
    stale = user_bindings.c.principal_id.is_(None) & user_bindings.c.name.not_in(wanted)
    await conn.execute(delete(user_bindings).where(stale))
    known = set((await conn.execute(select(user_bindings.c.name))).scalars())
    for name in sorted(wanted.keys() - known):
        provider, email_key = wanted[name]
        await conn.execute(
            insert(user_bindings).values(
                name=name, provider=provider, email_key=email_key, created_at=now
            )
        )
        holder = await _holder(conn, provider, email_key)
        if holder is not None:
            await bind_pending(conn, holder, provider, email_key, now)


async def _holder(conn: AsyncConnection, provider: str, email_key: str) -> str | None:
    """The one person seen with this verified address.

    Where several were, the address was passed on: then the name waits for the next login,
    which shows whose it is now.
    """
    query = select(principals.c.id).where(
        principals.c.provider == provider,
        principals.c.email_key == email_key,
        principals.c.email_verified,
    )
    holders = (await conn.execute(query.limit(2))).scalars().all()
    return holders[0] if len(holders) == 1 else None
