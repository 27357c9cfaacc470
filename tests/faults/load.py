"""Callers who go on whatever happens, as a command line's retries would.

Owns who asks for what, and where. Does not own a request and what is kept of its answer (`world`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from tests.faults.world import Person, World

# After no answer, or a refusal: a moment, as for the next server.
_PAUSE = 0.05
# Between a caller's requests: what is found at a step needs many passes, not many requests.
_PACE = 0.1


class Load:
    """`wanted`: what else than issuances the callers do: refreshes, grants, logins."""

    def __init__(self, world: World, urls: Sequence[str]) -> None:
        self._world = world
        self._urls = itertools.cycle(urls)
        self.wanted = "issuances"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Callers at work; at the end each finishes what it is at."""
        over = asyncio.Event()
        async with self._world.client() as client, asyncio.TaskGroup() as group:
            for person in self._world.people:
                group.create_task(self._go_on(client, person, over))
            try:
                yield
            finally:
                over.set()

    async def _go_on(
        self, client: aiohttp.ClientSession, person: Person, over: asyncio.Event
    ) -> None:
        world = self._world
        for turn in itertools.count():
            if over.is_set():
                return
            status = await world.ask(client, next(self._urls), person)
            await asyncio.sleep(_PACE if status == 200 else _PAUSE)
            if self.wanted == "refreshes" or turn % 20 == 19:
                # A terminal asks for nothing else before it has its new pair: where the answer was
                # lost, the old token is good for a minute more and no longer.
                while not await world.refresh(client, next(self._urls), person):
                    if person.ended:
                        return
                    await asyncio.sleep(_PAUSE)
            if self.wanted == "grants":
                await world.grant(client, next(self._urls), person)
            if self.wanted == "logins":
                await world.log_in(client, next(self._urls))
