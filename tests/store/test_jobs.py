"""What CI jobs share before they are judged: the clock and the policy's number."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from broker.adapters.store.jobs import SqlJobs
from broker.errors import AuditUnavailable
from tests.store.stores import Stores


async def test_whoever_asks_while_a_look_is_under_way_is_shown_a_later_one(
    stores: Stores, monkeypatch: Any
) -> None:
    jobs, looks = SqlJobs(stores.database), 0
    under_way, go_on = asyncio.Event(), asyncio.Event()
    read = stores.database.read

    @asynccontextmanager
    async def slow() -> Any:
        nonlocal looks
        looks += 1
        async with read() as conn:
            yield conn
            under_way.set()
            await go_on.wait()

    monkeypatch.setattr(stores.database, "read", slow)
    first = asyncio.create_task(jobs.standing())
    await under_way.wait()
    asked_at = datetime.now(UTC)
    crowd = [asyncio.create_task(jobs.standing()) for _ in range(20)]
    given_up = asyncio.create_task(jobs.standing())
    await asyncio.sleep(0)
    given_up.cancel()
    go_on.set()
    seen = await asyncio.gather(*crowd)
    assert looks == 2
    assert (await first).now < min(one.now for one in seen)
    assert all(one.now >= asked_at for one in seen)
    assert given_up.cancelled()


async def test_while_the_database_is_out_each_job_hears_of_it_and_later_ones_are_served(
    stores: Stores, monkeypatch: Any
) -> None:
    jobs = SqlJobs(stores.database)
    with monkeypatch.context() as outage:
        outage.setattr(stores.database, "read", _out)
        seen = await asyncio.gather(*(jobs.standing() for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in seen] == [AuditUnavailable] * 5
    assert len(set(map(id, seen))) == 5
    assert (await jobs.standing()).access_version == 0


def _out() -> None:
    raise AuditUnavailable(log_detail="out")
