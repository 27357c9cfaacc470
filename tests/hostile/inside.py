"""A look into a broker's database from outside, past everything that the broker would say of it."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import asyncpg

Row = tuple[Any, ...]


class Inside(Protocol):
    """`?` stands for a value in a statement."""

    def rows(self, query: str, *values: object) -> list[Row]: ...

    def change(self, statement: str, *values: object) -> None: ...

    def tables(self) -> list[str]: ...


class SqliteInside:
    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, query: str, *values: object) -> list[Row]:
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def change(self, statement: str, *values: object) -> None:
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            with connection:
                connection.execute(statement, values)
        finally:
            connection.close()

    def tables(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT name FROM sqlite_master WHERE type='table'")]


class PostgresInside:
    """`run` runs a coroutine to its end on a loop of another thread."""

    def __init__(self, url: str, run: Callable[[Coroutine[Any, Any, list[Row]]], list[Row]]):
        self._dsn = url.replace("postgresql+asyncpg:", "postgresql:")
        self._run = run

    def rows(self, query: str, *values: object) -> list[Row]:
        return self._run(self._ask(query, values))

    def change(self, statement: str, *values: object) -> None:
        self._run(self._ask(statement, values))

    def tables(self) -> list[str]:
        return [
            row[0]
            for row in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]

    async def _ask(self, query: str, values: tuple[object, ...]) -> list[Row]:
        numbers = itertools.count(1)
        connection = await asyncpg.connect(self._dsn)
        try:
            found = await connection.fetch(
                re.sub(r"\?", lambda _: f"${next(numbers)}", query), *values
            )
        finally:
            await connection.close()
        return [tuple(row) for row in found]
