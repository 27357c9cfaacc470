"""Limits on attempts hold exactly, over replicas too."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import throttle_counters
from broker.adapters.store.throttle import SqlThrottle
from broker.errors import RateLimited
from broker.identity.throttle import Limit
from tests.store.stores import Stores

# A window that does not end while the test runs.
YEARS = 100 * 365 * 86400
SMALL = Limit("small", 3, YEARS)


async def admitted(throttle: SqlThrottle, limit: Limit, attempts: int, key: str = "key") -> int:
    async def one() -> bool:
        try:
            await throttle.admit(limit, key)
        except RateLimited:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(attempts))))


async def test_as_many_as_the_limit_says_and_then_none(stores: Stores) -> None:
    assert await admitted(stores.throttle, SMALL, 10) == 3
    with pytest.raises(RateLimited) as refused:
        await stores.throttle.admit(SMALL, "key")
    assert 0 < refused.value.retry_after <= YEARS


async def test_keys_and_limits_are_counted_apart(stores: Stores) -> None:
    await admitted(stores.throttle, SMALL, 10)
    assert await admitted(stores.throttle, SMALL, 10, key="\ud800 other") == 3
    assert await admitted(stores.throttle, Limit("other", 2, YEARS), 10) == 2


@pytest.mark.parametrize("count", [7, 210])
async def test_replicas_together_admit_no_more(replicas: tuple[Stores, Stores], count: int) -> None:
    limit = Limit("shared", count, YEARS)
    first, second = replicas
    total = sum(
        await asyncio.gather(
            admitted(first.throttle, limit, count), admitted(second.throttle, limit, count)
        )
    )
    assert total == count


async def test_a_new_window_admits_again(stores: Stores) -> None:
    limit = Limit("short", 2, 1)
    assert await admitted(stores.throttle, limit, 5) in {2, 4}  # 4 where a second ended meanwhile
    async with asyncio.timeout(10):
        while not await admitted(stores.throttle, limit, 1):  # noqa: ASYNC110 - only time helps
            await asyncio.sleep(0.02)
    assert len(await stores.rows(throttle_counters)) == 1


async def test_a_flood_that_is_refused_no_longer_reaches_the_database(stores: Stores) -> None:
    await admitted(stores.throttle, SMALL, 4)
    statements: list[str] = []
    event.listen(
        stores.database.engine.sync_engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, *rest: statements.append(statement),
    )
    assert await admitted(stores.throttle, SMALL, 50) == 0
    assert statements == []


async def test_many_keys_take_bounded_memory(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.adapters.store.throttle._MAX_HELD", 5)
    throttle = SqlThrottle(sqlite_database)
    for number in range(20):
        await throttle.admit(SMALL, str(number))
    assert len(throttle._lots) == 5
    # Forgetting a lot forgets no attempt.
    assert await admitted(throttle, SMALL, 10, key="0") == 2
