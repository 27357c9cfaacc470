"""The telemetry of one server: what the web tells it, and what is read when Prometheus asks.

Owns the start of tracing and the gauges that are read from database, pool and
queue. Does not own the counting itself (`instruments`), nor the port that metrics are
served on (`server_cli/server`). `ServerTelemetry` implements `web.telemetry.Telemetry`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.standing import log_standing
from broker.adapters.telemetry.instruments import Instruments
from broker.adapters.telemetry.issuance import IssuanceWatch
from broker.errors import AuditUnavailable, StartupError

if TYPE_CHECKING:
    from broker.adapters.telemetry.tracing import RequestTrace, Tracing

_log = logging.getLogger(__name__)

# Prometheus waits ten seconds for a scrape, and what is counted in memory is there at once.
_READING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """See settings.Telemetry."""

    endpoint: str
    ratio: float
    callers_per_second: int


class ServerTelemetry:
    """Made before anything else of the application, so that all of it can be counted; `start`
    and `aclose` are about tracing alone.
    """

    def __init__(self) -> None:
        self.instruments = Instruments()
        self._untraced = _Request(self.instruments, None)
        self._tracing: Tracing | None = None
        self._read: Callable[[], Awaitable[None]] | None = None
        self._reading: asyncio.Task[None] | None = None

    def start(self, settings: TracingSettings | None) -> None:
        """Raises StartupError where tracing is asked for and its packages are missing."""
        if settings is None:
            return
        try:
            from broker.adapters.telemetry import tracing  # noqa: PLC0415 - an extra, slow to import
        except ModuleNotFoundError as missing:
            if not (missing.name or "").startswith(("opentelemetry", "requests")):
                raise
            raise StartupError(
                "[telemetry] otlp_endpoint needs more packages: "
                "pip install 'credential-broker[server,otel]'"
            ) from missing
        sampling = tracing.Sampling(settings.ratio, settings.callers_per_second)
        self._tracing = tracing.Tracing(settings.endpoint, sampling)

    async def aclose(self) -> None:
        if self._tracing is not None:
            await self._tracing.aclose()

    # --- What the web tells ------------------------------------------------------------------

    def begin(
        self, headers: Iterable[tuple[bytes, bytes]], request_id: str, method: str
    ) -> _Request:
        """See web.telemetry.Telemetry."""
        if self._tracing is None:
            return self._untraced
        trace = self._tracing.begin(headers, request_id, method)
        return self._untraced if trace is None else _Request(self.instruments, trace)

    def denied(self, code: str) -> None:
        """See web.telemetry.Telemetry."""
        self.instruments.denials.labels(code).inc()

    def ci_exchange(self, outcome: str) -> None:
        """See web.telemetry.Telemetry."""
        self.instruments.ci_exchanges.labels(outcome).inc()

    # --- What is read when Prometheus asks -----------------------------------------------------

    def watch(
        self,
        database: Database,
        journal: GroupCommitJournal,
        *,
        ready: Callable[[], Awaitable[None]],
        unreachable: Callable[[], Sequence[str]],
    ) -> None:
        """The parts whose state is shown. `ready` raises while nothing could be issued;
        `unreachable` names what could not be connected to.
        """
        meters = self.instruments
        meters.unreachable.set_function(lambda: len(unreachable()))
        meters.audit_queue.set_function(lambda: journal.waiting)
        meters.pool_size.set(database.capacity)
        meters.pool_in_use.set_function(lambda: database.in_use)

        async def read() -> None:
            try:
                await ready()
                standing = await log_standing(database)
            except (AuditUnavailable, StartupError):
                self._unread()  # the log has why, from whoever needed the database
                return
            except Exception:  # noqa: BLE001 - else what is counted in memory would be hidden too
                _log.exception("the database can't be read for the metrics")
                self._unread()
                return
            meters.ready.set(1)
            meters.audit_head.set(standing.records)
            meters.audit_unsigned.set(max(0, standing.records - standing.signed))
            signed_at = standing.signed_at
            meters.audit_checkpoint_timestamp.set(0 if signed_at is None else signed_at.timestamp())
            meters.issuances_open.set(standing.open_intents)

        self._read = read

    async def unwatch(self) -> None:
        """Before the database is closed: read nothing more, and let the present reading end."""
        self._read = None
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def exposition(self) -> bytes:
        """See web.telemetry.Telemetry. What the database says is NaN while it says nothing."""
        if self._read is not None:
            # One reading at a time, whoever asks: it has the database's own patience, which is
            # longer than a scrape's, and breaking it off would cost the connection.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.ensure_future(self._read())
            done, _ = await asyncio.wait({self._reading}, timeout=_READING_SECONDS)
            if not done:
                self._unread()
        return self.instruments.exposition()

    def public_exposition(self) -> bytes:
        """See web.telemetry.Telemetry."""
        return self.instruments.public_exposition()

    def _unread(self) -> None:
        meters = self.instruments
        meters.ready.set(0)
        for gauge in (
            meters.audit_head,
            meters.audit_unsigned,
            meters.audit_checkpoint_timestamp,
            meters.issuances_open,
        ):
            gauge.set(math.nan)


class _Request:
    """Implements web.telemetry.RequestTelemetry. One stands for all that are not traced."""

    __slots__ = ("_instruments", "_trace")

    def __init__(self, instruments: Instruments, trace: RequestTrace | None) -> None:
        self._instruments = instruments
        self._trace = trace

    @property
    def trace_id(self) -> str | None:
        return None if self._trace is None else self._trace.id

    def credential_request(self) -> IssuanceWatch:
        return IssuanceWatch(self._instruments, self._trace)

    def ended(self, status: int, route: str | None) -> None:
        self._instruments.answered(status)
        if self._trace is not None:
            self._trace.end(status, route)
