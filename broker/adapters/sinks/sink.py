"""What a sink is, what it is given, and what it says when it did not take it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from broker.adapters.store.records import StoredRecord
from broker.audit.verify import export_line

# One JSON object of a record, without a line feed.
Format = Callable[[StoredRecord], bytes]


def native(stored: StoredRecord) -> bytes:
    """As `broker audit export` writes it: the record's exact bytes, its leaf and chain hashes."""
    return export_line(stored.record, stored.leaf, stored.chain).rstrip(b"\n")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that follow on each other, one at least, and the line of each in the format."""

    records: tuple[StoredRecord, ...]
    lines: tuple[bytes, ...]

    @property
    def first(self) -> int:
        return self.records[0].seq

    @property
    def last(self) -> int:
        return self.records[-1].seq

    @property
    def json_lines(self) -> bytes:
        return b"\n".join(self.lines) + b"\n"


class DeliveryFailed(Exception):
    """The batch was not taken, or it is not known to be. `reason` is for the log, the database and
    doctor: never a secret, nothing that the other side sent but numbers.

    `retry_after`: seconds that the other side asked to be left alone. `refused`: asking again
    soon is in vain, somebody must look. `too_large`: fewer records at once might be taken.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float | None = None,
        refused: bool = False,
        too_large: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.refused = refused
        self.too_large = too_large


class Sink(Protocol):
    """A destination. One delivery is under way at a time; it may be cancelled."""

    async def deliver(self, batch: Batch) -> None:
        """Return when the batch is safe there. Raises DeliveryFailed, and OSError likewise."""
        ...

    async def aclose(self) -> None:
        """Let go of what is open, for good."""
        ...


class OwnThread:
    """For a sink whose calls block. One that hangs holds up no other thread, no other call queues
    up behind it, and the process ends without it.
    """

    def __init__(self, name: str) -> None:
        self._name = f"sink-{name}"
        self._last: Future[None] | None = None

    async def run(self, call: Callable[[], None]) -> None:
        """Raises what `call` raises, and DeliveryFailed while the call before it hangs."""
        if self.busy:
            raise DeliveryFailed("the attempt before this one still hangs")
        done = self._last = Future[None]()
        threading.Thread(target=_settle, args=(done, call), name=self._name, daemon=True).start()
        await asyncio.wrap_future(done)

    @property
    def busy(self) -> bool:
        """Whether a call is under way, that nobody waits for any more."""
        return self._last is not None and not self._last.done()


def _settle(done: Future[None], call: Callable[[], None]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        call()
    except BaseException as fault:  # noqa: BLE001 - whoever waits gets it
        done.set_exception(fault)
    else:
        done.set_result(None)
