"""What a database may lose or change of the log, looked at when the broker starts.

Owns the questions and what is refused or warned of. Refused: settings under
which a commit that was answered may be gone after a crash (PostgreSQL's fsync or
synchronous_commit off, SQLite's synchronous below FULL), since then credentials
may be out that no record knows of. Warned of: a role that may change or delete
audit records; the triggers and the tree stand against that, but only the
database's own rights make it hard.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from broker.adapters.store.engine import Database

# PRAGMA synchronous: 2 is FULL, 3 is EXTRA.
_SQLITE_FULL = 2
_SETTINGS = ("synchronous_commit",)
# Of a server that writes pages to a disk of its own. Aurora's storage is a quorum of logs, where
# they say nothing: full_page_writes is off there, and can't be set.
_OF_A_DISK = ("fsync", "full_page_writes")
_IS_AURORA = "SELECT to_regprocedure('pg_catalog.aurora_version()') IS NOT NULL"
_APPEND_ONLY = (
    "audit_records",
    "audit_nodes",
    "audit_checkpoints",
    "audit_cosignatures",
    "audit_log_keys",
)


@dataclass(frozen=True, slots=True)
class Durability:
    """Each in one plain line with its cure; empty where all is well."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


async def examine(database: Database) -> Durability:
    """Raises AuditUnavailable where the database is out."""
    if database.dialect == "sqlite":
        return Durability(await _sqlite(database), ())
    return Durability(await _postgresql(database), await _rights(database))


async def _sqlite(database: Database) -> tuple[str, ...]:
    async with database.read() as conn:
        level = int((await conn.exec_driver_sql("PRAGMA synchronous")).scalar_one())
    if level >= _SQLITE_FULL:
        return ()
    return (f"SQLite runs with synchronous={level}, which is below FULL",)


async def _postgresql(database: Database) -> tuple[str, ...]:
    found = []
    async with database.read() as conn:
        aurora = (await conn.execute(text(_IS_AURORA))).scalar_one()
        for name in _SETTINGS if aurora else (*_OF_A_DISK, *_SETTINGS):
            value = (await conn.execute(text("SELECT current_setting(:n)"), {"n": name})).scalar()
            if value == "off":
                found.append(
                    f"PostgreSQL runs with {name}=off: after a crash it may have lost what it "
                    f"said is committed; set {name} = on"
                )
    return tuple(found)


async def _rights(database: Database) -> tuple[str, ...]:
    query = text(
        "SELECT t.name FROM unnest(CAST(:tables AS text[])) AS t(name)"
        " WHERE has_table_privilege(current_user, t.name, 'UPDATE, DELETE, TRUNCATE')"
    )
    async with database.read() as conn:
        tables = (await conn.execute(query, {"tables": list(_APPEND_ONLY)})).scalars().all()
    if not tables:
        return ()
    return (
        (
            f"the broker's database role may change or delete rows of {', '.join(sorted(tables))}: "
            "run the server as a role of its own (`broker migrate --app-role NAME` grants it "
            "what it needs and no more)"
        ),
    )


async def grant_to_application(database: Database, role: str) -> None:
    """Let `role` do what the server does, and nothing to the append-only tables but append.

    For the owner of the tables, on PostgreSQL. Raises SQLAlchemy's ProgrammingError where the
    role is not there or the caller may not grant.
    """
    async with database.begin() as conn:
        quoted = conn.dialect.identifier_preparer.quote_identifier(role)
        await conn.exec_driver_sql(f"GRANT USAGE ON SCHEMA public TO {quoted}")
        await conn.exec_driver_sql(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted}"
        )
        tables = ", ".join(_APPEND_ONLY)
        await conn.exec_driver_sql(
            f"REVOKE UPDATE, DELETE, TRUNCATE ON {tables}, audit_attachments FROM {quoted}"
        )
        await conn.exec_driver_sql(f"REVOKE INSERT, DELETE, TRUNCATE ON audit_head FROM {quoted}")
        await conn.exec_driver_sql(
            f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON alembic_version FROM {quoted}"
        )
