"""HTTP/1.1 as uvicorn speaks it, with an end to a client's patience games.

Owns: how long a client may take over one request and over reading its answer,
and how large a request's head and a request in all may be. uvicorn has a limit
for none of these: one anonymous connection could stay for ever, or send headers
until the memory is full. Does not own: limits on bodies by route
(`web.middleware`), nor how many connections there may be (the operating
system's), nor when the process drains (`server`).
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

# The longest honest head: a CI token, cookies and a redirect's query. Proxies' usual limit.
MAX_HEAD_BYTES = 64 * 1024
# The largest body of any route (2 MiB), sent in small chunks.
MAX_REQUEST_BYTES = 16 * 1024 * 1024
# From the connection, or the first byte of a later request, to the request's last byte.
REQUEST_SECONDS = 30.0
# Without a byte of the answer taken, once the buffers are full.
ANSWER_STALLED_SECONDS = 30.0

_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Connections(ServerState):
    """What the connections of a server share. Once `draining`, each gives one more answer at most,
    which says that it is the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draining = False

    def drain(self) -> None:
        """Also those that answer now, and those that come from now on."""
        self.draining = True
        for connection in self.connections:
            if isinstance(connection, BoundedHttp):
                connection.end_after_this()

    @property
    def idle(self) -> bool:
        """Whether some connection has nothing to answer."""
        return any(isinstance(one, BoundedHttp) and one.idle for one in self.connections)


class BoundedHttp(HttpToolsProtocol):
    """One connection. The limits are attributes, so that a test can have shorter ones."""

    server_state: Connections

    request_seconds = REQUEST_SECONDS
    stalled_seconds = ANSWER_STALLED_SECONDS

    _awaited: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = True
    _refused = False
    _received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_awaited()
        self._forget_stalled()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._received += len(data)
        # Whatever comes stops uvicorn's wait for the next request, blank lines included.
        self._await_request()
        super().data_received(data)
        if self._in_head and self._received > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._received > MAX_REQUEST_BYTES:
            self._refused = True
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._await_request()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Not a trailer's: nobody reads those, and they would join headers already judged.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        # One that came in a single piece.
        if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            super().on_headers_complete()
            if self.server_state.draining:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        self._in_head = True
        self._received = 0
        self._forget_awaited()
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._forget_stalled()
        self._stalled = self.loop.call_later(self.stalled_seconds, self._give_up)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._forget_stalled()
        super().resume_writing()

    @property
    def idle(self) -> bool:
        """Whether nothing was asked that is not answered."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's type leaves None out
        return cycle is None or cycle.response_complete

    def end_after_this(self) -> None:
        """The answer that is being made is the connection's last."""
        if not self.idle:
            self.cycle.keep_alive = False

    def _await_request(self) -> None:
        if self._awaited is None:
            self._awaited = self.loop.call_later(self.request_seconds, self._give_up)

    def _forget_awaited(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _forget_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _give_up(self) -> None:
        """Not `close`, which would wait for the client to read what is buffered."""
        self.transport.abort()

    def _refuse_head(self) -> None:
        self._refused = True
        if not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
