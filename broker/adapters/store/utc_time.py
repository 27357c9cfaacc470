"""Instants as both databases keep them.

`UtcTime` is timestamptz on PostgreSQL and, on SQLite, integer microseconds since
the epoch, so that times compare as numbers in plain SQL. The verbs that go to a
driver directly convert by `to_microseconds` and `from_microseconds`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, TypeDecorator
from sqlalchemy.types import TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Whole microseconds since the epoch. Raises ValueError for a naive datetime."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone can't be stored")
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The UTC time that SQLite keeps as `value`."""
    return _EPOCH + value * _MICROSECOND


class UtcTime(TypeDecorator[datetime]):
    """An instant, always UTC: timestamptz, or integer microseconds since the epoch on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column type on this database."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | datetime | None:
        """To the database. Raises ValueError for a naive datetime."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone can't be stored")
        return to_microseconds(value) if dialect.name == "sqlite" else value.astimezone(UTC)

    def process_result_value(
        self, value: int | datetime | None, dialect: Dialect
    ) -> datetime | None:
        """From the database, in UTC."""
        if value is None:
            return None
        return from_microseconds(value) if isinstance(value, int) else value.astimezone(UTC)
