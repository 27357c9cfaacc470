"""Syslog over TCP or TLS: RFC 5424 messages, octet-counted (RFC 6587, RFC 5425).

Owns the message's header and frame, the connection, and what "delivered" means
without an answer: the receiver's TCP has acknowledged every byte and the
connection has lived on for a moment (a receiver that refuses a certificate, or
that stops, says so right afterwards). Where a connection ends soon after a
batch, that batch is sent once more on the next one. Whatever else a receiver's
host took in and its process lost, syslog has no way to say: where that matters,
another kind of sink is for that. Does not own the lines.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import ssl
import struct
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import truststore

from broker.adapters.sinks.sink import Batch, DeliveryFailed
from broker.adapters.store.records import StoredRecord
from broker.errors import StartupError

_log = logging.getLogger(__name__)

_APP_NAME = "broker"
_NOTICE, _WARNING = 5, 4
# RFC 5424 section 7.3.1: from 1, starting anew after this.
_MAX_SEQUENCE_ID = 2147483647
_ACK_POLL_SECONDS = 0.005
# How long a connection must outlive the first batch that is sent on it, and every other.
_FIRST_SETTLE, _SETTLE = 0.5, 0.1
_CLOSE_SECONDS = 1.0
# A receiver that is that slow may lose what it did not read when it stops.
_REPEAT_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Without `authorities` the system's are trusted. Certificate and key go together."""

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Verifies the other side's certificate and name. Raises OSError, ssl.SSLError among it."""
        context: ssl.SSLContext
        if self.authorities is None:
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        else:
            context = ssl.create_default_context(cafile=self.authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class SyslogConfig:
    """`hostname` is what messages say they come from; `facility` 13 is "log audit"."""

    host: str
    port: int
    tls: TlsFiles | None
    hostname: str
    facility: int = 13


class SyslogSink:
    """One connection, kept; made anew after any trouble, with the files read anew."""

    def __init__(self, config: SyslogConfig) -> None:
        """Raises StartupError for certificates that can't be used."""
        self._config = config
        self._peer: _Peer | None = None
        # The batch that went last, and that batch while it may have been lost.
        self._sent = self._unsure = b""
        try:
            if config.tls is not None:
                config.tls.context()
        except OSError as fault:
            raise StartupError(
                f"the certificates of a syslog sink can't be used: {fault}"
            ) from None

    async def deliver(self, batch: Batch) -> None:
        """Raises OSError and DeliveryFailed."""
        frames = await asyncio.to_thread(_frames, batch, self._config)
        if self._peer is not None and self._peer.lost.done():
            self._drop()
        if self._peer is None:
            self._peer = await self._connect()
        try:
            await self._peer.send(self._unsure + frames)
        except BaseException:
            # Half a frame may be on its way: nothing may follow it.
            self._drop()
            raise
        self._sent, self._unsure = frames, b""

    async def aclose(self) -> None:
        """Close the connection, after what was sent."""
        if self._peer is not None:
            await self._peer.aclose()

    def _drop(self) -> None:
        peer, self._peer = self._peer, None
        if peer is None:
            return
        if peer.ended_soon:
            self._unsure = self._sent
        peer.abort()

    async def _connect(self) -> _Peer:
        config = self._config
        context = None if config.tls is None else await asyncio.to_thread(config.tls.context)
        try:
            _, peer = await asyncio.get_running_loop().create_connection(
                _Peer,
                config.host,
                config.port,
                ssl=context,
                server_hostname=None if context is None else config.host,
            )
        except ssl.SSLCertVerificationError as fault:
            raise DeliveryFailed(
                f"the certificate is not trusted: {fault.verify_message}", refused=True
            ) from None
        return peer


class _Peer(asyncio.Protocol):
    """A connection whose other side has nothing to say: what it sends is thrown away."""

    def __init__(self) -> None:
        # The other side is gone, or said that it goes; and nothing of the connection is left.
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._settle = _FIRST_SETTLE
        self._sent_at, self._lost_at = -math.inf, 0.0

    # --- as asyncio calls it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's; uvloop's own is no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        # So that writing pauses until the kernel has everything. With 0, TLS would pause while
        # there is nothing to write, and nothing would end that.
        self._transport.set_write_buffer_limits(high=1, low=0)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if not self.closed.done():
            self.closed.set_result(None)

    def _end(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
            self._lost_at = time.monotonic()
        self._writable.set()

    # --- as the sink uses it

    async def send(self, data: bytes) -> None:
        """Return when the other side's TCP has it all and stays. Raises DeliveryFailed."""
        transport = self._transport
        if transport is None:
            raise DeliveryFailed("there is no connection")
        transport.write(data)
        await self._writable.wait()
        unacknowledged = _Unacknowledged(transport)
        while not self.lost.done():
            while not self.lost.done() and unacknowledged.count():
                await asyncio.wait({self.lost}, timeout=_ACK_POLL_SECONDS)
            await asyncio.wait({self.lost}, timeout=self._settle)
            # TLS has a buffer of its own, whose rest may only just have reached the kernel.
            if not unacknowledged.count():
                break
        if self.lost.done():
            raise DeliveryFailed("the receiver closed the connection")
        self._settle = _SETTLE
        self._sent_at = time.monotonic()

    @property
    def ended_soon(self) -> bool:
        """Whether it ends so soon after a batch that the batch may be lost."""
        ended = self._lost_at if self.lost.done() else time.monotonic()
        return ended - self._sent_at < _REPEAT_WITHIN

    async def aclose(self) -> None:
        """Close it after what was sent, and wait for that a moment."""
        if self._transport is not None:
            self._transport.close()
            await asyncio.wait({self.closed}, timeout=_CLOSE_SECONDS)
            self._transport.abort()

    def abort(self) -> None:
        """Close it, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()


class _Unacknowledged:
    """How many bytes that were sent the other side's TCP has not acknowledged (SIOCOUTQ); where
    the system does not say, none once they are with the kernel.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._socket = transport.get_extra_info("socket")

    def count(self) -> int:
        if not sys.platform.startswith("linux") or self._socket is None:
            return 0
        try:
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        except (OSError, ValueError) as fault:
            # The connection was closed under it: the caller sees that next.
            _log.debug("no count of unacknowledged bytes: %s", fault)
            return 0
        found: int = struct.unpack("i", answer)[0]
        return found


def _frames(batch: Batch, config: SyslogConfig) -> bytes:
    pairs = zip(batch.records, batch.lines, strict=True)
    return b"".join(frame(record, line, config) for record, line in pairs)


def frame(stored: StoredRecord, line: bytes, config: SyslogConfig) -> bytes:
    """The message, octet-counted: `LEN SP <PRI>1 TIME HOST broker - TYPE [meta ...] LINE`.

    MSGID is the record's type, `sequenceId` of the structured data its sequence number.
    """
    record = msgspec.json.decode(stored.record)
    severity = _NOTICE if record["outcome"] == "success" else _WARNING
    sequence_id = (stored.seq - 1) % _MAX_SEQUENCE_ID + 1
    header = (
        f"<{config.facility * 8 + severity}>1 {record['time']} {config.hostname} {_APP_NAME} - "
        f'{record["type"][:32]} [meta sequenceId="{sequence_id}"] '
    ).encode("ascii")
    return b"%d %b%b" % (len(header) + len(line), header, line)
