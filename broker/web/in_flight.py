"""One issuance in flight a token: the others wait in line, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.errors import RateLimited

_MAX_LINE = 16


@dataclass(slots=True)
class _Line:
    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class InFlight:
    """Of each token, the request that is served and how many wait; a token without any is
    forgotten.
    """

    _lines: dict[bytes, _Line] = field(default_factory=dict)

    @asynccontextmanager
    async def turn(self, token_hash: bytes) -> AsyncIterator[None]:
        """Raises RateLimited where the line is too long already."""
        line = self._lines.setdefault(token_hash, _Line())
        if line.waiting >= _MAX_LINE:
            raise RateLimited("Too many requests with this token at once.", retry_after=1)
        line.waiting += 1
        try:
            async with line.lock:
                yield
        finally:
            line.waiting -= 1
            if line.waiting == 0:
                del self._lines[token_hash]
