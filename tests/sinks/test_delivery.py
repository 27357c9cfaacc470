"""Every record arrives, at least once and in order, whatever a sink or a process does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import delete, text, update

from broker.adapters.sinks import delivery as delivering
from broker.adapters.sinks.delivery import Pace
from broker.adapters.sinks.sink import Batch, DeliveryFailed
from broker.adapters.sinks.syslog import SyslogConfig, SyslogSink
from broker.adapters.sinks.webhook import WebhookConfig, WebhookSink
from broker.adapters.store import sinks as leases
from broker.adapters.store.engine import Database
from broker.adapters.store.records import StoredRecord
from broker.adapters.store.schema import audit_records, audit_sinks
from broker.adapters.store.sinks import SinkEntry
from broker.audit.verify import Verifier
from tests.e2e.processes import free_port
from tests.sinks import conftest
from tests.sinks.conftest import QUICK, Log, until
from tests.sinks.receivers import Answer, SyslogReceiver, syslog_receiver, webhook_receiver

SECRET = b"a secret of enough length"


class Recorder:
    """A sink in memory. `fault`, called with each batch, may raise or wait."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.tried = self.cancelled = 0
        self.fault: Callable[[Batch], None] | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.closed = False

    async def deliver(self, batch: Batch) -> None:
        self.tried += 1
        if self.fault is not None:
            self.fault(batch)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.batches.append(batch)

    async def aclose(self) -> None:
        self.closed = True

    @property
    def seqs(self) -> list[int]:
        return [one.seq for batch in self.batches for one in batch.records]


def gapless(seqs: list[int], last: int) -> bool:
    """Every number up to `last` is there, and each for the first time after the one before it."""
    return list(dict.fromkeys(seqs)) == list(range(1, last + 1))


async def test_records_arrive_once_and_in_order_where_nothing_fails(database: Database) -> None:
    log, recorder = Log(database), Recorder()
    await log.record(250)
    async with log.delivering(recorder):
        await until(log.done)
        await log.record(3)
        await until(log.done)
    assert recorder.seqs == list(range(1, 255))  # with the record that the sink was added
    assert max(len(batch.records) for batch in recorder.batches) == 100
    assert recorder.closed
    verifier = Verifier()
    for batch in recorder.batches:
        for line in batch.lines:
            assert verifier.feed(line + b"\n")
    assert verifier.close().consistent


async def test_a_sink_that_was_down_gets_all_it_missed(log: Log) -> None:
    port = free_port()
    sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{port}/in", 5.0, secret=SECRET))
    async with log.delivering(sink) as delivery:
        for _ in range(12):
            await log.record(10)
        await until(lambda: delivery.behind() == ("siem",))
        standing = await log.standing()
        assert standing.last_error is not None
        assert "no usable answer" in standing.last_error
        assert standing.position == 0
        await until(lambda: metric(log, 'broker_sink_lag_records{sink="siem"}') == 121)
        with webhook_receiver(SECRET, port) as receiver:
            await until(log.done)
            await until(lambda: delivery.behind() == ())
            assert gapless(seqs(receiver.taken), 121)
            await until(lambda: metric(log, 'broker_sink_lag_records{sink="siem"}') == 0)
    assert metric(log, 'broker_sink_failures_total{sink="siem"}') >= 1


def metric(log: Log, series: str) -> float:
    lines = log.instruments.exposition().decode().splitlines()
    (line,) = [one for one in lines if one.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


def seqs(bodies: list[bytes]) -> list[int]:
    lines = [line for body in bodies for line in body.splitlines()]
    return [json.loads(json.loads(line)["record"])["seq"] for line in lines]


async def test_a_syslog_receiver_that_hangs_up_and_restarts_misses_nothing(log: Log) -> None:
    port, got = free_port(), list[int]()
    sink = SyslogSink(SyslogConfig("127.0.0.1", port, None, hostname="broker.example.com"))
    # One batch at a time: of several that nobody read, syslog could not say which arrived.
    async with log.delivering(sink, batch_records=20, linger=3600):
        await log.record(19)
        for phase in range(3):
            with syslog_receiver(port, hang_up_after=10) as receiver:
                await until(log.done)
                await until(lambda: receiver.hang_up_after is None)
                await log.record(20)
                last = 40 + phase * 40
                await until(partial(_has_come, receiver, last))
                await until(log.done)
            got += map(_sequence, receiver.messages)
            await log.record(20)
        with syslog_receiver(port) as receiver:
            await until(lambda: 140 in map(_sequence, receiver.messages))
            got += map(_sequence, receiver.messages)
    assert gapless(got, 140)


def _has_come(receiver: SyslogReceiver, sequence: int) -> bool:
    return sequence in map(_sequence, receiver.messages)


def _sequence(message: bytes) -> int:
    return int(message.partition(b'sequenceId="')[2].partition(b'"')[0])


async def test_answers_that_are_no_yes_repeat_the_same_batch(log: Log) -> None:
    with webhook_receiver(SECRET) as receiver:
        receiver.script = [Answer(500), Answer(302, {"Location": "/x"}), Answer(410), Answer(429)]
        sink = WebhookSink(WebhookConfig(receiver.url, 5.0, secret=SECRET))
        await log.record(5)
        async with log.delivering(sink):
            await until(log.done)
        assert gapless(seqs(receiver.taken), 6)
        keys = [posted.headers["Idempotency-Key"] for posted in receiver.seen]
        assert len(keys) == 5
        assert len(set(keys)) == 1


async def test_a_receiver_that_takes_little_at_once_gets_little_at_once(log: Log) -> None:
    recorder = Recorder()

    def at_most_ten(batch: Batch) -> None:
        if len(batch.records) > 10:
            raise DeliveryFailed("refused with 413", refused=True, too_large=True)

    recorder.fault = at_most_ten
    await log.record(60)
    async with log.delivering(recorder):
        await until(log.done)
    assert gapless(recorder.seqs, 61)


async def test_what_the_receiver_asks_for_is_waited(log: Log) -> None:
    recorder = Recorder()

    def later(_: Batch) -> None:
        raise DeliveryFailed("answered 503", retry_after=1800)

    recorder.fault = later
    await log.record(1)
    async with log.delivering(recorder):
        await until(lambda: recorder.tried == 1)

        async def noted() -> bool:
            return (await log.standing()).failures == 1

        await until(noted)
        assert not (await log.standing()).free
        assert await log.store.claim("siem", '{"kind":"test"}', "other") is None
        assert recorder.tried == 1


async def test_a_sink_that_hangs_holds_up_no_other_and_not_the_end(log: Log) -> None:
    hanging, fine = Recorder(), Recorder()
    hanging.open.clear()
    await log.record(5)
    delivery = log.delivery(hanging, fine, pace=Pace(look=0.01, stop=0.1), seconds=60)
    await delivery.start()
    await until(lambda: hanging.tried == 1)
    await until(lambda: log.done("siem-2"))
    async with asyncio.timeout(30):
        await delivery.aclose()
    assert gapless(fine.seqs, 7)
    assert hanging.batches == []
    assert (await log.standing()).position == 0
    # Nobody waits for the lease of who left.
    assert await log.store.claim("siem", '{"kind":"test"}', "other") is not None


async def test_a_delivery_in_flight_is_let_end(log: Log) -> None:
    recorder = Recorder()
    recorder.open.clear()
    await log.record(5)
    delivery = log.delivery(recorder)
    await delivery.start()
    await until(lambda: recorder.tried == 1)
    closing = asyncio.create_task(delivery.aclose())
    await asyncio.sleep(0)
    recorder.open.set()
    await closing
    assert (await log.standing()).position == recorder.batches[-1].last


async def test_a_delivery_that_takes_too_long_has_failed(log: Log) -> None:
    recorder = Recorder()
    recorder.open.clear()
    await log.record(1)
    async with log.delivering(recorder, seconds=0.05):

        async def said() -> bool:
            return (await log.standing()).last_error == "not delivered within 0.05 s"

        await until(said)
        recorder.open.set()
        await until(log.done)
    assert gapless(recorder.seqs, 2)


async def test_few_records_wait_for_more(log: Log) -> None:
    recorder = Recorder()
    async with log.delivering(recorder, batch_records=20, linger=3600):
        await log.record(10)
        await log.record(9)
        await until(lambda: recorder.tried == 1)  # with the sink's own record they are twenty
        await until(log.done)
    assert [len(batch.records) for batch in recorder.batches] == [20]


# --- Several processes --------------------------------------------------------------------------


@pytest.fixture
def long_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lease ends by itself, however slow the machine is."""
    monkeypatch.setattr(leases, "LEASE", timedelta(hours=1))
    monkeypatch.setattr(delivering, "_RENEW_EVERY", 3600)


async def end_lease(log: Log) -> None:
    async with log.database.begin() as conn:
        past = await log.database.now(conn) - timedelta(seconds=1)
        await conn.execute(update(audit_sinks).values(held_until=past))


@pytest.fixture
async def replicas(long_lease: None, database_url: str) -> AsyncIterator[tuple[Log, Log]]:
    """Two broker processes on one database, as far as the database can tell."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            database = Database.open(database_url)
            stack.push_async_callback(database.aclose)
            made.append(Log(database))
        yield made[0], made[1]


async def test_two_processes_deliver_each_record_once_where_none_dies(
    replicas: tuple[Log, Log],
) -> None:
    one, two = replicas
    first, second = Recorder(), Recorder()
    async with one.delivering(first, batch_records=7), two.delivering(second, batch_records=7):
        for _ in range(10):
            await one.record(9)
        await until(one.done)
    assert sorted(first.seqs + second.seqs) == list(range(1, 92))


async def test_a_process_that_dies_is_succeeded_within_its_lease(
    replicas: tuple[Log, Log],
) -> None:
    one, two = replicas
    dying, heir = Recorder(), Recorder()
    dying.open.clear()
    await one.record(30)
    dead = one.delivery(dying, pace=Pace(look=0.01), batch_records=20, seconds=3600)
    await dead.start()
    await until(lambda: dying.tried == 1)
    for task in dead._tasks:  # as kill -9: nothing is released
        task.cancel()
    await asyncio.gather(*dead._tasks, return_exceptions=True)
    async with two.delivering(heir, batch_records=100) as delivery:
        await until(lambda: delivery._workers["siem"]._standing is not None)
        assert heir.batches == []
        await end_lease(two)
        await until(two.done)
    # What was under way is repeated as it was, and the rest follows.
    assert [len(batch.records) for batch in heir.batches] == [20, 11]
    assert gapless(heir.seqs, 31)


async def test_a_process_that_slept_through_its_lease_moves_nothing(
    replicas: tuple[Log, Log],
) -> None:
    one, two = replicas
    asleep, heir = Recorder(), Recorder()
    asleep.open.clear()
    await one.record(5)
    async with one.delivering(asleep, pace=Pace(look=0.01, stop=5), seconds=3600):
        await until(lambda: asleep.tried == 1)
        await end_lease(two)
        async with two.delivering(heir):
            await until(two.done)
            assert heir.seqs == list(range(1, 7))
            asleep.open.set()
            await until(lambda: len(asleep.batches) == 1)
            await two.record(5)
            await until(two.done)
    assert gapless(heir.seqs + asleep.seqs, 11) or gapless(asleep.seqs + heir.seqs, 11)
    assert (await two.standing()).position == 11


async def test_a_process_that_lost_its_sink_stops_delivering(
    replicas: tuple[Log, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "_RENEW_EVERY", 0.01)
    one, two = replicas
    slow = Recorder()
    slow.open.clear()
    await one.record(5)
    async with one.delivering(slow, seconds=3600) as delivery:
        await until(lambda: slow.tried == 1)
        # It renews its lease all the while: the settings' change takes the sink away.
        await two.store.configure([SinkEntry("siem", {"kind": "moved"}, "now")])
        await until(lambda: slow.cancelled == 1)
        await until(lambda: delivery._workers["siem"]._foreign)
        slow.open.set()
    assert slow.batches == []
    assert (await two.standing()).position == 0


async def test_a_sink_that_another_process_changed_gets_nothing_from_this_one(log: Log) -> None:
    recorder = Recorder()
    async with log.delivering(recorder) as delivery:
        await until(log.done)
        entry = delivery._workers["siem"].of.entry
        changed = type(entry)("siem", {"kind": "elsewhere"}, "now")
        await log.store.configure([changed])
        await log.record(5)
        await until(lambda: delivery._workers["siem"]._foreign)
        assert recorder.seqs == [1]
        assert (await log.standing()).lag == 6


# --- The database -------------------------------------------------------------------------------


async def test_a_hole_in_the_log_stops_a_sink_instead_of_being_passed_over(log: Log) -> None:
    await log.record(6)
    async with log.database.begin() as conn:
        await conn.execute(text("DROP TRIGGER audit_records_no_delete"))
        await conn.execute(delete(audit_records).where(audit_records.c.seq == 4))
    recorder = Recorder()
    async with log.delivering(recorder, batch_records=3) as delivery:
        await until(lambda: recorder.seqs == [1, 2, 3])
        await until(lambda: delivery.behind() == ("siem",))
        said = (await log.standing()).last_error
    assert said == "audit record 4 is missing in the database"
    assert recorder.seqs == [1, 2, 3]
    assert (await log.standing()).position == 3


async def test_a_record_that_can_not_be_formatted_stops_a_sink_where_it_is_seen(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: StoredRecord) -> bytes:
        raise KeyError("type")

    monkeypatch.setattr(conftest, "native", broken)
    recorder = Recorder()
    async with log.delivering(recorder) as delivery:
        await until(lambda: delivery.behind() == ("siem",))
        assert (await log.standing()).last_error == "a fault of the broker's (KeyError)"
    assert recorder.batches == []


async def test_a_database_that_was_out_is_no_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    real, out = log.store.advance, [3]

    async def advance(name: str, me: str, position: int) -> bool:
        if out[0]:
            out[0] -= 1
            raise DeliveryFailedByDatabase
        return await real(name, me, position)

    monkeypatch.setattr(log.store, "advance", advance)
    await log.record(3)
    async with log.delivering(recorder, pace=QUICK):
        await until(log.done)
    assert gapless(recorder.seqs, 4)
    assert len(recorder.batches) == 4  # repeated, since it was not known to be delivered


class DeliveryFailedByDatabase(Exception):
    """Whatever it is, the sink's task goes on."""
