"""How much goes at once: what a receiver refuses as too much, what is cut by its bytes."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import update

from broker.adapters.sinks.sink import Batch, DeliveryFailed
from broker.adapters.store.schema import audit_sinks
from tests.sinks.conftest import QUICK, Log, until


class Choosy:
    """A sink that takes `most` records at once."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.refused = 0
        self.taken: list[int] = []  # how many, each time

    async def deliver(self, batch: Batch) -> None:
        if len(batch.records) > self.most:
            self.refused += 1
            raise DeliveryFailed("refused with 413", refused=True, too_large=True)
        self.taken.append(len(batch.records))

    async def aclose(self) -> None:
        pass


async def test_what_was_too_much_is_not_tried_again_with_each_batch(log: Log) -> None:
    """Each refusal costs a wait: a receiver that takes ten would never keep up."""
    sink = Choosy(10)
    await log.record(299)
    async with log.delivering(sink):
        await until(log.done)
    assert sum(sink.taken) == 300
    assert sink.refused < len(sink.taken) / 3


async def test_a_receiver_that_takes_more_again_is_given_more(log: Log) -> None:
    sink = Choosy(1)
    await log.record(20)
    async with log.delivering(sink):
        await until(log.done)
        sink.most = 1000
        await log.record(1000)
        await until(log.done)
    assert max(sink.taken) == 100


async def test_a_batch_that_another_process_began_is_made_smaller_too(log: Log) -> None:
    sink = Choosy(1)
    await log.record(9)
    async with log.delivering(sink):
        await until(log.done)
    assert set(sink.taken) == {1}
    await log.record(9)
    delivery = log.delivery(sink)
    await log.store.configure([one.of.entry for one in delivery._workers.values()])
    async with log.database.begin() as conn:
        await conn.execute(update(audit_sinks).values(batch_end=19))
    delivery._workers["siem"]._limit = 1
    await delivery.start()
    try:
        await until(log.done)
    finally:
        await delivery.aclose()


async def test_what_its_bytes_cut_off_a_batch_does_not_wait_for_more(log: Log) -> None:
    sink = Choosy()
    await log.record(40, pad=50_000)
    # One look at what there is must do.
    pace = replace(QUICK, look=1.0)
    async with log.delivering(sink, batch_records=30, linger=3600, pace=pace):
        await until(log.done)
    assert sum(sink.taken) == 41
    assert max(sink.taken) < 30
