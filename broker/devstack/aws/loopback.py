"""HTTP/1.1 on a loopback port: requests in, answers out, one thread a connection.

Owns sockets and framing, keep-alive included, so that a client's connection pool
is really used. Does not own what is answered (server.py).
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from broker.devstack.aws.sts_service import Dropped
from broker.devstack.aws.wire import Request, Response

_MAX_BODY = 64 * 1024 * 1024
_OWN_HEADERS = ("content-length", "connection", "server", "date")


class LoopbackServer(ThreadingHTTPServer):
    """Calls `answer` for each request, on that connection's thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, answer: Callable[[Request], Response]) -> None:
        self.answer = answer
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that went away is no event; anything else is a fault of this stand-in's."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        super().finish()

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body()
        if body is None or not path.startswith("/"):
            self.close_connection = True
            self.send_error(400)
            return
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            low = name.lower()
            headers[low] = f"{headers[low]},{value}" if low in headers else value
        request = Request(self.command, path, query, headers, body, str(self.client_address[0]))
        try:
            response = self.server.answer(request)
        except Dropped:
            self.close_connection = True
            return
        self._send(response)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 - its names

    def _body(self) -> bytes | None:
        """The request's body; None when its length is not given in a way that is understood."""
        coding = self.headers.get("Transfer-Encoding")
        if coding is not None:
            return self._chunks() if coding.lower() == "chunked" else None
        length = self.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > _MAX_BODY:
            return None
        return self.rfile.read(int(length))

    def _chunks(self) -> bytes | None:
        whole = bytearray()
        while True:
            size = self.rfile.readline(64).strip().split(b";")[0]
            try:
                length = int(size, 16)
            except ValueError:
                return None
            if length < 0 or len(whole) + length > _MAX_BODY:
                return None
            whole += self.rfile.read(length)
            self.rfile.readline(2)
            if length == 0:
                return bytes(whole)

    def _send(self, response: Response) -> None:
        declared = {name.lower(): value for name, value in response.headers}
        head = self.command == "HEAD"
        length = declared.get("content-length", "0") if head else str(len(response.body))
        lines = [
            f"HTTP/1.1 {response.status} {self.responses.get(response.status, ('',))[0]}",
            f"Date: {self.date_time_string()}",
            *(f"{n}: {v}" for n, v in response.headers if n.lower() not in _OWN_HEADERS),
            f"Content-Length: {length}",
            "",
            "",
        ]
        # Head and body in one segment: in two, a delayed acknowledgement adds 40 ms.
        self.wfile.write("\r\n".join(lines).encode("latin-1") + (b"" if head else response.body))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Nothing is logged: request lines hold session tokens."""
