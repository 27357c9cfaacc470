"""The way to the schema: what migrations make is what the code expects."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from broker.adapters.migrations import check_schema, migrate, newest_revision
from broker.adapters.store.engine import Database
from broker.adapters.store.schema import metadata
from broker.errors import StartupError


async def test_migrations_make_exactly_the_tables_that_the_code_uses(database):
    async with database.read() as conn:
        differences = await conn.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True}), metadata
            )
        )
    assert differences == []
