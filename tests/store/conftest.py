"""Fixtures of the conformance suite: every store, over one process's connections or two's."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.adapters.store.engine import Database
from tests.store.stores import Stores, event


@pytest.fixture
def stores(database: Database) -> Stores:
    """Every store over a fresh database, once on SQLite and once on PostgreSQL."""
    return Stores(database)


@pytest.fixture
async def replicas(database_url: str) -> AsyncIterator[tuple[Stores, Stores]]:
    """Two broker processes on one database, as far as the database can tell."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            database = Database.open(database_url)
            stack.push_async_callback(database.aclose)
            opened.append(Stores(database))
        yield opened[0], opened[1]


@pytest.fixture
def make_event() -> Any:
    return event


@pytest.fixture
def code_hash() -> bytes:
    return hashlib.sha256(b"a code").digest()


@pytest.fixture
def ago() -> Any:
    """A time that many seconds before now."""
    return lambda **delta: datetime.now(UTC) - timedelta(**delta)
