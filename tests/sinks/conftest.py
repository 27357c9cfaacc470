"""What the tests of sinks share: batches, and a delivery at a pace that tests can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from broker.adapters.sinks.delivery import Delivering, Pace, SinkDelivery
from broker.adapters.sinks.sink import Batch, Sink, native
from broker.adapters.store.engine import Database
from broker.adapters.store.records import append
from broker.adapters.store.sinks import SinkEntry, SinkStanding, SqlSinks
from broker.adapters.telemetry.instruments import Instruments
from broker.audit.record import EventType
from tests.sinks.records import stored
from tests.store.journal_scene import event

PATIENCE = 60.0
QUICK = Pace(look=0.01, first=0.02, longest=0.05, refused=0.05, asked=3600, stop=5)


def make_batch(first: int = 1, count: int = 3, pad: int = 0) -> Batch:
    records = tuple(
        stored(seq=seq, detail={"pad": "x" * pad}) for seq in range(first, first + count)
    )
    return Batch(records, tuple(map(native, records)))


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if isinstance(found, bool):
                if found:
                    return
            elif await found:
                return
            await asyncio.sleep(0.01)


class Log:
    """A database with a log, and what stands of its sinks."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = SqlSinks(database)
        self.instruments = Instruments()

    async def record(self, count: int, pad: int = 1) -> None:
        kind = EventType.LOGIN_SUCCEEDED
        async with self.database.begin() as conn:
            await append(conn, [event(kind, n=n, pad="x" * pad) for n in range(count)])

    async def standing(self, name: str = "siem") -> SinkStanding:
        (found,) = [one for one in await self.store.standings() if one.name == name]
        return found

    async def done(self, name: str = "siem") -> bool:
        return (await self.standing(name)).lag == 0

    def delivery(
        self, *sinks: Sink, pace: Pace = QUICK, batch_records: int = 100, linger: float = 0.0,
        seconds: float = 5.0,
    ) -> SinkDelivery:  # fmt: skip
        """Named siem, siem-2 and so on, each from the first record of the log."""
        names = ["siem", *(f"siem-{number}" for number in range(2, len(sinks) + 1))]
        made = [
            Delivering(
                SinkEntry(name, {"kind": "test"}, "beginning"),
                sink,
                native,
                batch_records,
                linger,
                seconds,
            )
            for name, sink in zip(names, sinks, strict=True)
        ]
        return SinkDelivery(self.store, made, self.instruments, pace)

    @asynccontextmanager
    async def delivering(self, *sinks: Sink, **options: object) -> AsyncIterator[SinkDelivery]:
        delivery = self.delivery(*sinks, **options)  # type: ignore[arg-type]  # as `delivery` takes them
        await delivery.start()
        try:
            yield delivery
        finally:
            await delivery.aclose()


@pytest.fixture
def log(sqlite_database: Database) -> Log:
    return Log(sqlite_database)
