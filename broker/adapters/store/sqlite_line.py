"""A connection to SQLite in a thread of its own, past the pool: for what every request pays for.

Owns: the thread, connecting when it is first needed, and closing where anything went wrong. The
pool's connections take three changes of thread for a query and its end; work handed in here takes
one, however many statements it is. `line` is the same for PostgreSQL.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from broker.adapters.store.opening import is_broken
from broker.adapters.store.outage import PATIENCE, unavailable_when_out

T = TypeVar("T")


class SqliteLine:
    """One connection. `pragmas` are set on it. `on_broken` is called after an error that condemns
    every connection of this process to the file, once this one is closed.
    """

    def __init__(
        self, path: Path, pragmas: Sequence[str], on_broken: Callable[[], Awaitable[None]]
    ) -> None:
        self._path = path
        self._pragmas = pragmas
        self._on_broken = on_broken
        self._thread: ThreadPoolExecutor | None = None
        self._conn: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in the thread, after what was handed in before.

        Raises AuditUnavailable where the database is out, and what `work` raises; then the
        connection was closed, which rolls back.
        """
        with unavailable_when_out():
            try:
                return await self._in_thread(lambda: self._do(work))
            except sqlite3.Error as error:
                if is_broken(error):
                    await self._on_broken()
                raise

    async def disconnect(self) -> None:
        """Close the connection. The next work gets a new one."""
        if self._thread is not None:
            await self._in_thread(self._close)

    async def aclose(self) -> None:
        """Close the connection and end the thread. Work that comes after all begins anew."""
        try:
            await self.disconnect()
        finally:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown(wait=False)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sqlite-line")
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    # --- In the thread -------------------------------------------------------------------------

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connect())
        except BaseException:
            # The next work begins on a connection known to be good.
            self._close()
            raise

    def _connect(self) -> sqlite3.Connection:
        if self._conn is None:
            # mode=rw: a file that is gone is not made anew.
            self._conn = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw", uri=True, timeout=PATIENCE, isolation_level=None
            )
            self._conn.row_factory = sqlite3.Row
            for pragma in self._pragmas:
                self._conn.execute(f"PRAGMA {pragma}")
        return self._conn

    def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
