"""Waiting for something: not for ever, and for what others wait for too."""

from __future__ import annotations

import asyncio

from broker.errors import AuditUnavailable

_MOST_TURNS = 12


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it was set within so many seconds: a pause that whoever closes a task can end."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def for_one_of_many(error: Exception) -> Exception:
    """What each of those who waited for one answer raises: with a traceback of its own."""
    if not isinstance(error, AuditUnavailable):
        return error
    own = AuditUnavailable(log_detail=error.log_detail)
    own.__cause__ = error
    return own


async def give_way(to: int) -> None:
    """Before something is asked for all who wait: let the event loop turn once for each of as many
    as came last time, so that more of a crowd come along. A lone caller waits for one turn, some
    20 µs; a busy loop's turn is longer, and worth it: a quarter more issuances at 32 callers.
    """
    for _ in range(min(to, _MOST_TURNS)):
        await asyncio.sleep(0)
