"""One kept-alive HTTP/1.1 connection to an STS endpoint, one request at a time.

Owns: writing the request and reading its answer, parsed by httptools (llhttp). A
general HTTP client takes an eighth of an issuance's CPU more (docs/performance.md), for
redirects, cookies, compression and streaming that STS must not use anyway. Does not
own: which connection is used, nor connecting (`pool`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

from broker import __version__
from broker.adapters.sts.answer import OddAnswer, Reply

MAX_ANSWER_BYTES = 256 * 1024
# Beside the body: many times what AWS's heads have.
_MAX_HEAD_BYTES = 64 * 1024


# One account and region get about 600 requests/s; at 50 ms each that is 30 connections.
MAX_CONNECTIONS = 128
# A connection that the peer closes while a request is on its way leaves the outcome unknown, so
# none is used again after idling nearly as long as servers wait before they close: 5 s is the
# shortest in common use (uvicorn, Node), AWS's front ends wait 20 s and more. A busy pool never
# idles, an idle one pays a handshake.
KEEPALIVE_SECONDS = 3.0
USER_AGENT = {"user-agent": f"credential-broker/{__version__}"}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect` includes the wait for a free connection."""

    connect: float = 2.0
    read: float = 5.0


class NotSent(Exception):
    """The request did not leave: no connection. Sending it again is safe."""


class LineCut(Exception):
    """The connection failed or timed out after the request may have been sent."""


def request_bytes(target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """`target` and `headers` are ours: no CR or LF is in them, and Host is among them."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"POST {target} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


class Connection(asyncio.Protocol):
    """Between requests it is idle; whatever comes then, or an end of the line, closes it."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._answered: asyncio.Future[Reply] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._begin()

    def _begin(self) -> None:
        self._received = 0
        self._body: list[bytes] = []
        self._status = 0
        self._request_id: str | None = None
        self._date: str | None = None
        self._has_length = False

    @property
    def usable(self) -> bool:
        return self._answered is None and not self._transport.is_closing()

    async def exchange(self, request: bytes, seconds: float) -> Reply:
        """Send once and read the answer within `seconds`. Raises LineCut, OddAnswer."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Reply] = loop.create_future()
        self._answered = answered
        timer = loop.call_later(seconds, self._fail, LineCut(f"no answer in {seconds:.1f} s"))
        self._transport.write(request)
        try:
            return await answered
        finally:
            timer.cancel()
            if self._answered is not None:  # failed, or the caller was cancelled
                self.close()

    def close(self) -> None:
        self._transport.abort()

    # --- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answered is None:
            self.close()  # nobody asked
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(OddAnswer(f"not HTTP: {type(error).__name__}", may_have_minted=True))
            return
        if self._received > MAX_ANSWER_BYTES + _MAX_HEAD_BYTES:
            self._fail(self._too_long())

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self._status >= 200 and not self._has_length:
            # RFC 9112 section 6.3: such a body ends with the connection. A cut one is found by
            # the reader: its XML is not whole.
            self.on_message_complete()
            return
        reason = "closed by the other side" if error is None else type(error).__name__
        self._fail(LineCut(f"the line was cut: {reason}"))

    # --- httptools' calls

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"x-amzn-requestid":
                self._request_id = value.decode("latin-1")
            case b"date":
                self._date = value.decode("latin-1")
            case b"content-length" | b"transfer-encoding":
                self._has_length = True

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._status < 200:  # an interim answer; the one that counts follows
            return
        body = b"".join(self._body)
        if len(body) > MAX_ANSWER_BYTES:
            self._fail(self._too_long())
            return
        reply = Reply(self._status, body, self._request_id, self._date)
        answered, self._answered = self._answered, None
        keep = self._parser.should_keep_alive()
        self._begin()
        if not keep:
            self.close()
        if answered is not None and not answered.done():
            answered.set_result(reply)

    def _too_long(self) -> OddAnswer:
        return OddAnswer(
            f"longer than {MAX_ANSWER_BYTES} bytes", may_have_minted=self._status < 300
        )

    def _fail(self, error: LineCut | OddAnswer) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
