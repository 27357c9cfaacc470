"""Bringing the entitlement database to the schema that this binary knows.

Owns: running migrations, and refusing a database of another revision. The
migrations themselves are `migrations/` in the repository, `broker/migrations`
in the wheel. There is no way down: restore a backup.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

import broker
from broker.adapters.store.engine import Database
from broker.adapters.store.opening import migration_engine
from broker.adapters.store.outage import unavailable_when_out
from broker.errors import StartupError

# Any constant of our own: what two migrators of one PostgreSQL database queue on.
_MIGRATION_LOCK = 0x62726F6B6572  # "broker"


async def migrate(url: str | URL) -> str:
    """Bring the database at `url` to the newest revision, and return that.

    Safe to run several times and from several hosts at once: one does the work in one
    transaction, the others wait for it and find nothing to do.

    Raises StartupError where the database is newer than this binary or the URL can't be
    used, AuditUnavailable where the database is out.
    """
    engine = migration_engine(url)
    try:
        with unavailable_when_out():
            async with engine.begin() as conn:
                if conn.dialect.name == "postgresql":
                    await conn.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK}
                    )
                _refuse_newer(await _current(conn))
                await conn.run_sync(_upgrade)
    finally:
        await engine.dispose()
    return newest_revision()


async def check_schema(database: Database) -> None:
    """Raises StartupError, in one plain line, unless the schema is the one of this binary."""
    current = await current_revision(database)
    _refuse_newer(current)
    if current != newest_revision():
        found = f"is at revision {current}" if current else "has no tables yet"
        raise StartupError(
            f"the database {found}, this broker needs {newest_revision()}: run `broker migrate`"
        )


async def current_revision(database: Database) -> str | None:
    """The revision of the database, None where it was never migrated."""
    async with database.read() as conn:
        return await _current(conn)


def newest_revision() -> str:
    """The revision that this binary is made for."""
    head = _scripts().get_current_head()
    if head is None:
        raise StartupError("this installation has no migrations: install it again")
    return head


def _refuse_newer(current: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if current is not None and current not in known:
        raise StartupError(
            f"the database is at revision {current}, which this broker ({broker.__version__}) "
            "does not know: a newer broker migrated it. Run that one, or restore a backup"
        )


async def _current(conn: AsyncConnection) -> str | None:
    return await conn.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    # ConfigParser reads % as its own.
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


def _folder() -> Path:
    package = Path(broker.__file__).parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise StartupError("this installation has no migrations: install it again")
