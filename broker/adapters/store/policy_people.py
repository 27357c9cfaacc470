"""Who is meant by the names and groups of an access policy: one read transaction.

Owns: the look-up for plans and for the rule of four eyes. Groups are those of each
person's last login. Does not own: binding names (`bindings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, and_, false, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.access.four_eyes import KnownPerson
from broker.access.plan import NAMED_MEMBERS, KnownPeople, Members, Named
from broker.access.policy import Group, Subject, User
from broker.adapters.store.engine import Database
from broker.adapters.store.principals import to_principal
from broker.adapters.store.schema import grants, principals, user_bindings
from broker.identity.people import split_user_name

_AT_ONCE = 10_000


class SqlKnownPeople:
    """Implements `access.plan.KnownPeopleReader`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known_people(
        self,
        *,
        users: frozenset[str],
        groups: frozenset[str],
        admins: frozenset[Subject],
        applier: str,
    ) -> KnownPeople:
        """All of one snapshot."""
        async with self._database.snapshot() as conn:
            now = await self._database.now(conn)
            granted = select(grants.c.role).where(
                grants.c.principal_id == applier,
                grants.c.expires_at > now,
                grants.c.revoked_at.is_(None),
            )
            return KnownPeople(
                users={
                    name: person
                    for names in _in_parts(users)
                    for name, person in (await _users(conn, names)).items()
                },
                groups={
                    name: members
                    for names in _in_parts(groups)
                    for name, members in (await _groups(conn, names)).items()
                },
                admins=await known_admins(conn, admins),
                granted=frozenset((await conn.execute(granted)).scalars()),
            )


def _in_parts(names: frozenset[str]) -> Iterator[frozenset[str]]:
    """As many at once as a statement has room for parameters."""
    ordered = sorted(names)
    for start in range(0, len(ordered), _AT_ONCE):
        yield frozenset(ordered[start : start + _AT_ONCE])


async def _users(conn: AsyncConnection, names: frozenset[str]) -> dict[str, Named | None]:
    """By binding; for names not bound yet the one person whom applying would bind."""
    found: dict[str, Named | None] = dict.fromkeys(names)
    columns = (principals.c.id, principals.c.handle)
    bound = await conn.execute(
        select(user_bindings.c.name, *columns)
        .join(principals, principals.c.id == user_bindings.c.principal_id)
        .where(user_bindings.c.name.in_(names))
    )
    found |= {row.name: Named(row.id, row.handle) for row in bound}
    by_id = await conn.execute(select(*columns).where(principals.c.id.in_(names)))
    found |= {row.id: Named(row.id, row.handle) for row in by_id}
    open_keys = {
        key: name for name in names if found[name] is None and (key := split_user_name(name))
    }
    holders: dict[str, list[Named]] = {}
    for row in await conn.execute(
        select(*columns, principals.c.provider, principals.c.email_key).where(
            _vouched_for(open_keys)
        )
    ):
        name = open_keys[row.provider, row.email_key]
        holders.setdefault(name, []).append(Named(row.id, row.handle))
    # Several had the address, one after the other: its next login shows whose it is.
    return found | {name: ones[0] for name, ones in holders.items() if len(ones) == 1}


async def _groups(conn: AsyncConnection, names: frozenset[str]) -> dict[str, Members]:
    group = each_group(conn)
    ranked = (
        select(
            group.c.value.label("name"),
            principals.c.id,
            principals.c.handle,
            func.row_number()
            .over(partition_by=group.c.value, order_by=(principals.c.handle, principals.c.id))
            .label("place"),
            func.count().over(partition_by=group.c.value).label("members"),
        )
        .select_from(principals)
        .join(group, true())
        .where(group.c.value.in_(names))
        .subquery()
    )
    rows = await conn.execute(
        select(ranked)
        .where(ranked.c.place <= NAMED_MEMBERS)
        .order_by(ranked.c.name, ranked.c.place)
    )
    counts: dict[str, int] = {}
    named: dict[str, list[Named]] = {}
    for row in rows:
        counts[row.name] = row.members
        named.setdefault(row.name, []).append(Named(row.id, row.handle))
    return {name: Members(counts[name], tuple(ones)) for name, ones in named.items()}


async def known_admins(
    conn: AsyncConnection, subjects: frozenset[Subject]
) -> tuple[KnownPerson, ...]:
    """All who are pinned, or meant by one of the subjects, or would be bound to one."""
    names = frozenset(one.name for one in subjects if isinstance(one, User))
    groups = frozenset(one.name for one in subjects if isinstance(one, Group))
    addresses = [key for name in names if (key := split_user_name(name))]
    group = each_group(conn)
    bound = select(user_bindings.c.principal_id).where(user_bindings.c.name.in_(names))
    in_group = select(group.c.value).where(group.c.value.in_(groups)).exists()
    candidates = or_(
        principals.c.pinned_admin_at.is_not(None),
        principals.c.id.in_(names),
        principals.c.id.in_(bound),
        in_group,
        _vouched_for(addresses),
    )
    rows = (await conn.execute(select(principals).where(candidates))).all()
    bindings = select(user_bindings.c.principal_id, user_bindings.c.name).where(
        user_bindings.c.principal_id.in_(select(principals.c.id).where(candidates))
    )
    named: dict[str, set[str]] = {}
    for principal_id, name in await conn.execute(bindings):
        named.setdefault(principal_id, set()).add(name)
    return tuple(
        KnownPerson(
            to_principal(row, frozenset(named.get(row.id, ()))),
            row.pinned_admin_at is not None,
            bool(row.email_verified),
        )
        for row in rows
    )


def _vouched_for(addresses: Iterable[tuple[str, str]]) -> ColumnElement[bool]:
    """People whose provider verified one of these addresses (provider and e-mail key). A list a
    provider: PostgreSQL recurses over a list of pairs, and refuses some thousands.
    """
    keys: dict[str, list[str]] = {}
    for provider, key in addresses:
        keys.setdefault(provider, []).append(key)
    theirs = (
        and_(principals.c.provider == provider, principals.c.email_key.in_(some))
        for provider, some in keys.items()
    )
    return and_(principals.c.email_verified, or_(false(), *theirs))


def each_group(conn: AsyncConnection) -> Any:  # noqa: ANN401 - SQLAlchemy's table-valued alias
    """The groups of each person's row, one a row."""
    sqlite = conn.dialect.name == "sqlite"
    unnest = func.json_each if sqlite else func.json_array_elements_text
    return unnest(principals.c.groups).table_valued("value")
