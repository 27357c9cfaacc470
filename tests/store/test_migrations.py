"""The way to the schema: what migrations make is what the code expects."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import bindparam, text

from broker.adapters.migrations import check_schema, current_revision, migrate, newest_revision
from broker.adapters.store.engine import Database
from broker.adapters.store.schema import metadata
from broker.adapters.store.tree import AuditTree
from broker.adapters.store.utc_time import UtcTime
from broker.audit.chain import leaf_hash
from broker.audit.merkle import NO_LEAVES, verify_inclusion
from broker.errors import AuditUnavailable, StartupError


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that was never migrated."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/50%empty.db"
        return
    cluster = request.getfixturevalue("postgresql")
    with cluster.database("template1") as url:
        yield url


async def set_revision(url: str, revision: str) -> None:
    database = Database.open(url)
    async with database.begin() as conn:
        await conn.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    await database.aclose()


async def check(url: str) -> None:
    database = Database.open(url)
    try:
        await check_schema(database)
    finally:
        await database.aclose()


async def test_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    async with database.read() as conn:
        differences = await conn.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True}), metadata
            )
        )
    assert differences == []


async def test_the_head_of_the_log_is_seeded(database: Database) -> None:
    async with database.read() as conn:
        rows = (await conn.execute(text("SELECT id, seq, chain, time FROM audit_head"))).all()
    assert [tuple(row) for row in rows] == [(1, 0, bytes(32), None)]


async def test_records_from_before_the_tree_are_planted_in_it(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.adapters.migrations.command.upgrade", _upgrade_to("0001"))
    await migrate(empty_url)
    leaves = [leaf_hash(b"%d" % n) for n in range(600)]
    database = Database.open(empty_url)
    async with database.begin() as conn:
        await conn.execute(
            text(
                "INSERT INTO audit_records (seq, time, type, actor_id, record, leaf, chain) "
                "VALUES (:seq, :time, 't', 'a', :leaf, :leaf, :leaf)"
            ).bindparams(bindparam("time", type_=UtcTime())),
            [
                {"seq": seq, "time": datetime.now(UTC), "leaf": leaf}
                for seq, leaf in enumerate(leaves, 1)
            ],
        )
        await conn.execute(text("UPDATE audit_head SET seq = 600"))
    monkeypatch.undo()
    await migrate(empty_url)
    grown = NO_LEAVES.extend(leaves)
    tree = AuditTree(database)
    assert await tree.edge() == grown.after
    for seq in (1, 256, 257, 600):
        leaf, path = await tree.inclusion(seq, 600)
        verify_inclusion(leaf, seq - 1, 600, path, grown.after.root)
    await database.aclose()


def _upgrade_to(revision: str) -> Callable[[Config, str], None]:
    upgrade = command.upgrade
    return lambda config, _: upgrade(config, revision)


async def test_several_migrators_at_once_and_again(empty_url: str) -> None:
    assert await asyncio.gather(*(migrate(empty_url) for _ in range(4))) == [newest_revision()] * 4
    assert await migrate(empty_url) == newest_revision()
    await check(empty_url)


async def test_an_unmigrated_database_is_refused_with_what_to_do(empty_url: str) -> None:
    with pytest.raises(StartupError, match=r"has no tables yet.*run `broker migrate`"):
        await check(empty_url)


async def test_an_older_database_is_refused_with_what_to_do(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = rf"at revision {newest_revision()}.*needs later.*run `broker migrate`"
    monkeypatch.setattr("broker.adapters.migrations.newest_revision", lambda: "later")
    with pytest.raises(StartupError, match=says):
        await check(database_url)


async def test_an_older_binary_refuses_a_newer_database_and_leaves_it_alone(
    database_url: str,
) -> None:
    await set_revision(database_url, "9999")
    with pytest.raises(StartupError, match=r"9999.*a newer broker migrated it"):
        await check(database_url)
    with pytest.raises(StartupError, match=r"9999.*a newer broker migrated it"):
        await migrate(database_url)
    database = Database.open(database_url)
    assert await current_revision(database) == "9999"
    await database.aclose()


async def test_a_migration_that_fails_leaves_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "broker.adapters.migrations.command.upgrade", _upgrade_then_fail(asyncio.CancelledError)
    )
    with pytest.raises(asyncio.CancelledError):
        await migrate(empty_url)
    database = Database.open(empty_url)
    assert await current_revision(database) is None
    await database.aclose()


def _upgrade_then_fail(error: type[BaseException]) -> Callable[[Config, str], None]:
    upgrade = command.upgrade

    def both(config: Config, revision: str) -> None:
        upgrade(config, revision)
        raise error

    return both


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(AuditUnavailable):
        await migrate("postgresql+asyncpg://u@127.0.0.1:1/d")


async def test_migrations_are_found_beside_the_code_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path(__file__).parents[2]
    assert '"migrations" = "broker/migrations"' in (project / "pyproject.toml").read_text()
    shutil.copytree(project / "migrations", tmp_path / "broker" / "migrations")
    monkeypatch.setattr("broker.__file__", str(tmp_path / "broker" / "__init__.py"))
    url = f"sqlite+aiosqlite:///{tmp_path}/broker.db"
    assert await migrate(url) == newest_revision()
    shutil.rmtree(tmp_path / "broker")
    with pytest.raises(StartupError, match="has no migrations"):
        await migrate(url)
