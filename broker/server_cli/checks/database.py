"""The database: reachable, writable, at this broker's schema, by a clock that agrees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from broker.access.versions import StoredPolicy
from broker.adapters.migrations import check_schema
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.durability import examine
from broker.adapters.store.engine import Database
from broker.adapters.store.principals import SqlPeople
from broker.errors import AuditUnavailable, StartupError
from broker.server_cli.checks.check import Check, clock, fail, ok, warn, within
from broker.server_cli.checks.kms import kms_checks
from broker.server_cli.checks.sinks import sink_checks
from broker.settings import Settings

_SECONDS = 15.0
_REACH = "start it, and check [database] url, the network and the password"


@dataclass(slots=True)
class Stored:
    """What the other checks need of the database: filled as far as the checks come."""

    policy: StoredPolicy | None = None
    has_admin: bool = False
    read: bool = False


async def database_checks(settings: Settings, stored: Stored) -> list[Check]:
    """Creates nothing: a SQLite file that is not there is a finding."""
    url = settings.database.url.get_secret_value()
    try:
        database = open_existing(url)
    except StartupError as fault:
        return [fail("database", str(fault), "correct [database] url, or run `broker migrate`")]
    try:
        return await within(_SECONDS, "database", _checks(settings, database, stored), cure=_REACH)
    finally:
        await within(_SECONDS, "database", _close(database), cure=_REACH)


async def _close(database: Database) -> list[Check]:
    await database.aclose()
    return []


def open_existing(url: str) -> Database:
    """Raises StartupError for a SQLite file that is not there, which connecting would create."""
    if url.startswith("sqlite"):
        file = Path(url.partition(":///")[2].partition("?")[0])
        if not file.exists():
            raise StartupError(f"there is no database file {file}")
    return Database.open(url, pool_size=2)


async def _checks(settings: Settings, database: Database, stored: Stored) -> list[Check]:
    name = f"{database.dialect} {database.url.database or ''}".strip()
    try:
        async with database.read() as conn:
            before = datetime.now(UTC)
            theirs = await database.now(conn)
            ours = before + (datetime.now(UTC) - before) / 2
    except AuditUnavailable as fault:
        return [fail("database", f"can't be reached: {fault.log_detail}", _REACH)]
    checks = [await _writable(database, name), *_private(database)]
    if database.dialect == "postgresql":  # SQLite's clock is this host's
        checks.append(clock("database clock", "the database", theirs, ours))
    try:
        await check_schema(database)
    except StartupError as fault:
        return [*checks, fail("database schema", str(fault), "run `broker migrate`")]
    checks.append(ok("database schema", "this broker's"))
    checks += await _durable(database, allow_unsafe=settings.audit.allow_unsafe_durability)
    checks += await sink_checks(settings, database)
    checks += await kms_checks(settings, database)
    stored.policy = await SqlAccessStore(database).current_policy()
    stored.has_admin = await SqlPeople(database).has_admin()
    stored.read = True
    return checks


async def _writable(database: Database, name: str) -> Check:
    try:
        async with database.begin() as conn:
            if database.dialect == "postgresql":
                setting = await conn.execute(text("SHOW transaction_read_only"))
                if setting.scalar_one() == "on":
                    return fail(
                        "database",
                        f"{name} can be read alone: a standby, or set to read only",
                        "set [database] url to the primary",
                    )
    except AuditUnavailable as fault:
        return fail(
            "database",
            f"{name} can't be written: {fault.log_detail}",
            "let the broker's user write it, and see whether another process holds a lock",
        )
    return ok("database", f"{name}, reachable and writable")


async def _durable(database: Database, *, allow_unsafe: bool) -> list[Check]:
    """What start-up asks, and refuses or warns of."""
    name, refused = "database durability", warn if allow_unsafe else fail
    found = await examine(database)
    checks = [
        refused(name, line, "make commits durable: the broker does not start otherwise")
        for line in found.refusals
    ]
    for line in found.warnings:
        message, _, cure = line.partition(": run ")
        checks.append(warn(name, message, f"run {cure}"))
    return checks or [ok(name, "what is committed stays")]


def _private(database: Database) -> list[Check]:
    """The file has sealed secrets and everybody's record in it."""
    if database.dialect != "sqlite":
        return []
    file = Path(database.url.database or "")
    if file.stat().st_mode & 0o077:
        return [warn("database file", f"{file} can be read by others", f"chmod 600 {file}")]
    return []
