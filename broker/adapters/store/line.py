"""A connection that is kept for one purpose, past the pool: for what every request pays for.

Owns: connecting when it is first needed, using it for one thing at a time, and ending it where
anything went wrong. To take a connection from the pool and give it back costs as much as a short
query (docs/performance.md). It is one of the pool's all the same, which counts it as in use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.adapters.store.outage import PATIENCE, is_out, unavailable_when_out

Driver: TypeAlias = Any  # asyncpg.Connection, which ships no types

_IDLE_BEFORE_PING = 10.0  # seconds; as in the pool
_PING_PATIENCE = 1.0


class Line:
    """One PostgreSQL connection, made anew when it was lost."""

    def __init__(self, engine: AsyncEngine, settings: Sequence[str] = ()) -> None:
        self._engine = engine
        self._settings = settings
        self._conn: AsyncConnection | None = None
        self._driver: Driver = None
        self._used_at = 0.0
        self._busy = asyncio.Lock()

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[Driver]:
        """Alone on the connection, within PATIENCE. Each statement commits by itself unless the
        caller opens a transaction.

        Raises AuditUnavailable where the database is out. Whatever is raised inside ends the
        connection, and with it what was begun.
        """
        with unavailable_when_out():
            async with self._busy, asyncio.timeout(PATIENCE):
                driver = await self._connect()
                try:
                    yield driver
                except BaseException:
                    # Not by asking for ROLLBACK: on a dead line that takes as long again,
                    # and an answer may still be under way. The server rolls back what it
                    # hears no more of.
                    driver.terminate()
                    raise
                self._used_at = time.monotonic()

    async def aclose(self) -> None:
        """Close it. Whoever uses it after all gets a new one."""
        async with self._busy:
            await self._release()

    async def _connect(self) -> Driver:
        if self._driver is not None and await self._is_alive(self._driver):
            return self._driver
        await self._release()
        self._conn = await self._engine.connect()
        driver: Driver = (await self._conn.get_raw_connection()).driver_connection
        for setting in self._settings:
            await driver.execute(f"SET {setting}")
        self._driver = driver
        return driver

    async def _is_alive(self, driver: Driver) -> bool:
        """So that nobody pays for a line that a firewall dropped while nothing was asked."""
        if driver.is_closed():
            return False
        if time.monotonic() - self._used_at < _IDLE_BEFORE_PING:
            return True
        try:
            async with asyncio.timeout(_PING_PATIENCE):
                await driver.execute("SELECT 1")
        except Exception as error:
            driver.terminate()
            if not is_out(error):
                raise
            return False
        return True

    async def _release(self) -> None:
        conn, self._conn, self._driver = self._conn, None, None
        if conn is not None:
            await conn.invalidate()
            await conn.close()
