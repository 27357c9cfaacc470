"""What the audit routes need of the store: Protocols beside their consumer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

from broker.audit.tiles import Tile


class StoredRecord(Protocol):
    """An audit record: exact bytes, and its two hashes (32 bytes each)."""

    @property
    def seq(self) -> int: ...
    @property
    def record(self) -> bytes: ...
    @property
    def leaf(self) -> bytes: ...
    @property
    def chain(self) -> bytes: ...


class AuditReader(Protocol):
    async def records(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        type: str | None = None,  # noqa: A002 -- the record member of this name is what it selects
        principal: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[StoredRecord, ...]:
        """The first `limit` records over `after` that match, in order."""
        ...

    def export(self, *, after: int = 0) -> AsyncIterator[StoredRecord]:
        """Every record over `after`, up to the head as it is now."""
        ...


class CheckpointReader(Protocol):
    async def latest(self) -> str | None:
        """The newest signed note."""
        ...


class TreeReader(Protocol):
    """Each raises NotFound for what the log has not grown to."""

    async def inclusion(self, seq: int, size: int) -> tuple[bytes, tuple[bytes, ...]]:
        """A record's leaf hash, and the proof that it is among the first `size` records."""
        ...

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the log of `new` records begins with that of `old`."""
        ...

    async def tile(self, tile: Tile) -> bytes:
        """Its contents."""
        ...
