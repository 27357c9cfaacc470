"""Bringing each sink every record, at least once and in order, beside everything else.

Owns the tasks of this process: one that looks how far the log and the sinks are,
and one for each sink that delivers while this process holds it. Does not own
positions and leases (`store/sinks`) nor the places (`files`, `syslog`, ...).

A batch goes so: the sink is claimed, the records after its position are read
and the batch's end is settled in the database, it is delivered, and only then
the position moves. A process that dies anywhere in between leaves a sink whose
next holder repeats that same batch. Nothing here is waited for by anybody who
asks for credentials, and there is never more in memory than one batch a sink.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from broker.adapters.sinks.sink import Batch, DeliveryFailed, Format, Sink
from broker.adapters.store.records import StoredRecord
from broker.adapters.store.sinks import (
    LEASE,
    Claim,
    RecordMissing,
    SinkEntry,
    SinkStanding,
    SqlSinks,
)
from broker.adapters.telemetry.instruments import Instruments
from broker.audit.chain import MAX_RECORD_BYTES
from broker.errors import AuditUnavailable

_log = logging.getLogger(__name__)

_RENEW_EVERY = LEASE.total_seconds() / 3
_BATCH_BYTES = 1024 * 1024
_BATCHES_BEFORE_MORE = 5
# A sink that has not moved for this long while there is something to deliver is behind.
_BEHIND_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds: how often is looked, how long is waited after a failure (doubled from `first` to
    `longest`; `refused` where it does not pass by itself; as long as the other side asks for, up
    to `asked`), and how long what is in flight has when the broker stops.
    """

    look: float = 0.5
    first: float = 1.0
    longest: float = 60.0
    refused: float = 300.0
    asked: float = 3600.0
    stop: float = 5.0


@dataclass(frozen=True, slots=True)
class Delivering:
    """A configured sink. `batch_records` at most go at once; fewer wait `linger` seconds for more.
    `seconds`: a delivery that takes longer has failed.
    """

    entry: SinkEntry
    sink: Sink
    format: Format
    batch_records: int
    linger: float
    seconds: float

    @property
    def name(self) -> str:
        return self.entry.name


_USUAL = Pace()


class SinkDelivery:
    """One a process. Without sinks it only records that there are none any more."""

    def __init__(
        self,
        store: SqlSinks,
        sinks: Sequence[Delivering],
        instruments: Instruments,
        pace: Pace = _USUAL,
    ) -> None:
        self._store = store
        self._pace = pace
        self._instruments = instruments
        me = f"{socket.gethostname()[:64]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._me = me
        self._workers = {one.name: _Worker(one, store, me, instruments, pace) for one in sinks}
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Enter the sinks, on record, and begin. Raises AuditUnavailable."""
        workers = self._workers.values()
        await self._store.configure([worker.of.entry for worker in workers])
        if not workers:
            return
        for worker in workers:
            task = asyncio.create_task(worker.run(), name=f"sink {worker.of.name}")
            self._tasks.append(task)
        self._tasks.append(asyncio.create_task(self._look_on(), name="sinks"))

    def behind(self) -> tuple[str, ...]:
        """The names of sinks that fail, or have not moved for a minute though they should."""
        now = time.monotonic()
        return tuple(name for name, worker in self._workers.items() if worker.is_behind(now))

    async def aclose(self) -> None:
        """Let the batches in flight end, for a few seconds, and give the sinks to others."""
        self._closing.set()
        for worker in self._workers.values():
            worker.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._pace.stop)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers.values():
            await worker.aclose()

    async def _look_on(self) -> None:
        while not self._closing.is_set():
            try:
                self._seen(await self._store.standings(self._me))
            except AuditUnavailable as fault:
                _log.warning("the sinks can't be looked at: %s", fault.log_detail)
            except Exception:  # noqa: BLE001 - a look-out that ended would stop every sink
                _log.exception("the sinks can't be looked at")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.look):
                    await self._closing.wait()

    def _seen(self, standings: Sequence[SinkStanding]) -> None:
        for standing in standings:
            worker = self._workers.get(standing.name)
            if worker is not None:
                self._instruments.sink_lag.labels(standing.name).set(standing.lag)
                worker.consider(standing)


class _Worker:
    """Delivers to one sink whenever there is something and nobody else does."""

    def __init__(
        self,
        of: Delivering,
        store: SqlSinks,
        me: str,
        instruments: Instruments,
        pace: Pace,
    ) -> None:
        self.of = of
        self._store = store
        self._me = me
        self._failed = instruments.sink_failures.labels(of.name)
        self._pace = pace
        # How many go at once, how many did the last time, and how many batches were taken so.
        self._limit = of.batch_records
        self._tried = self._taken = 0
        self._due = asyncio.Event()
        self._stopping = False
        self._standing: SinkStanding | None = None
        self._moved = time.monotonic()
        self._waiting_since: float | None = None
        self._foreign = False

    # --- what is due

    def consider(self, standing: SinkStanding) -> None:
        """Take notice of how it stands, and begin where there is enough to deliver."""
        now = time.monotonic()
        before, self._standing = self._standing, standing
        if before is None or standing.position != before.position or standing.lag == 0:
            self._moved = now
        if standing.lag == 0:
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since = now
        self._notice_foreign(standing)
        lingered = now - self._waiting_since >= self.of.linger
        if standing.free and not self._foreign and (lingered or standing.lag >= self._limit):
            self._due.set()

    def _notice_foreign(self, standing: SinkStanding) -> None:
        foreign = standing.removed or standing.description != self.of.entry.text
        if foreign and not self._foreign:
            _log.warning(
                "sink %s: another process' settings have changed it; this one delivers nothing "
                "to it until it starts anew",
                self.of.name,
            )
        self._foreign = foreign

    def is_behind(self, now: float) -> bool:
        standing = self._standing
        if standing is None or standing.lag == 0:
            return False
        return standing.failures > 0 or now - self._moved > _BEHIND_AFTER + self.of.linger

    def stop(self) -> None:
        """Begin no further batch."""
        self._stopping = True
        self._due.set()

    async def aclose(self) -> None:
        """Let another process have the sink at once, and close what is open."""
        try:
            await self._store.release(self.of.name, self._me)
        except AuditUnavailable as fault:
            _log.warning("sink %s is held until its lease ends: %s", self.of.name, fault.log_detail)
        await self.of.sink.aclose()

    # --- delivering

    async def run(self) -> None:
        """Until `stop`."""
        while True:
            await self._due.wait()
            self._due.clear()
            if self._stopping:
                return
            try:
                await self._deliver_all()
            except AuditUnavailable as fault:
                _log.warning("sink %s: %s", self.of.name, fault.log_detail)
            except Exception:  # noqa: BLE001 - a task that ended would leave the sink behind for ever
                _log.exception("sink %s", self.of.name)

    async def _deliver_all(self) -> None:
        """Claim the sink and deliver batch after batch: while there is enough, and it is ours."""
        claim = await self._store.claim(self.of.name, self.of.entry.text, self._me)
        while claim is not None:
            claim = await self._try_one(claim)

    async def _try_one(self, claim: Claim) -> Claim | None:
        """The claim to go on with, or None where there is nothing to do now, or it failed."""
        try:
            return await self._deliver_one(claim)
        except AuditUnavailable:
            raise
        except DeliveryFailed as fault:
            failed = fault
        except RecordMissing as fault:
            failed = DeliveryFailed(str(fault), refused=True)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the sink is to be seen failing
            _log.exception("sink %s", self.of.name)
            failed = DeliveryFailed(f"a fault of the broker's ({type(fault).__name__})")
        await self._note_failure(claim, failed)
        return None

    async def _deliver_one(self, claim: Claim) -> Claim | None:
        batch = await self._next_batch(claim)
        if batch is None:
            return None
        if claim.batch_end is None and not await self._store.begin_batch(
            self.of.name, self._me, batch.last
        ):
            return None
        self._tried = len(batch.records)
        held = await self._while_held(self._deliver(batch))
        if not held or not await self._store.advance(self.of.name, self._me, batch.last):
            _log.warning("sink %s: another process took it over", self.of.name)
            return None
        self._waiting_since = None
        on = self._is_full(batch) and not self._stopping
        self._allow_more()
        return Claim(batch.last, None, 0) if on else None

    def _is_full(self, batch: Batch) -> bool:
        """Whether it was cut off by its number or its bytes: what follows does not wait then."""
        size = sum(len(one.record) for one in batch.records)
        return len(batch.records) >= self._limit or size > _BATCH_BYTES - MAX_RECORD_BYTES

    def _allow_more(self) -> None:
        """A receiver that took several batches of what it called enough is asked for more."""
        self._taken += 1
        if self._limit < self.of.batch_records and self._taken >= _BATCHES_BEFORE_MORE:
            self._limit = min(self._limit * 2, self.of.batch_records)
            self._taken = 0

    async def _next_batch(self, claim: Claim) -> Batch | None:
        records = await self._store.batch(
            claim.position, end=claim.batch_end, limit=self._limit, max_bytes=_BATCH_BYTES
        )
        if not records:
            if self._standing is None or self._standing.head <= claim.position:
                return None
            raise RecordMissing(claim.position + 1)
        lines = await asyncio.to_thread(_format, self.of.format, records)
        return Batch(records, lines)

    async def _deliver(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(self.of.seconds):
                await self.of.sink.deliver(batch)
        except TimeoutError:
            raise DeliveryFailed(f"not delivered within {self.of.seconds:g} s") from None
        except OSError as fault:
            raise DeliveryFailed(fault.strerror or type(fault).__name__) from fault

    async def _while_held(self, delivery: Coroutine[Any, Any, None]) -> bool:
        """Deliver, and renew the lease meanwhile. False where the sink was lost under it."""
        task = asyncio.create_task(delivery)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=_RENEW_EVERY)
                if done:
                    await task
                    return True
                if not await self._store.renew(self.of.name, self._me):
                    return False
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _note_failure(self, claim: Claim, failed: DeliveryFailed) -> None:
        self._failed.inc()
        smaller = failed.too_large and self._tried > 1
        if smaller:
            self._limit = self._tried // 2
            self._taken = 0
        wait = self._wait(claim.failures, failed)
        _log.warning("sink %s: %s; tried again in %.0f s", self.of.name, failed.reason, wait)
        await self._store.fail(
            self.of.name, self._me, failed.reason, retry_in=wait, smaller=smaller
        )

    def _wait(self, failures: int, failed: DeliveryFailed) -> float:
        """Seconds: doubled with each failure, less up to a half by chance, so that the sinks of
        many brokers do not come back all at once; never less than the other side asked for.
        """
        pace = self._pace
        if failed.refused and not failed.too_large:
            wait = pace.refused
        else:
            wait = min(pace.first * 2 ** min(failures, 16), pace.longest)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        return max(wait * jitter, min(failed.retry_after or 0.0, pace.asked))


def _format(form: Format, records: Sequence[StoredRecord]) -> tuple[bytes, ...]:
    return tuple(map(form, records))
