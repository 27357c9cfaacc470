"""HTTP to one broker: verified TLS, bounded answers, no redirects, plain failures.

Owns the wire. Does not own tokens (`session`) or what an answer means
(`answers`). http.client, since a process makes one or two requests and httpx
takes 100 ms to import. A request is sent once: whether to ask again is for
someone who knows what a second time would do.
"""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import atexit
import base64
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from broker import __version__
from broker.cli.failure import Failure, Unreachable
from broker.cli.server import Server
from broker.cli.terminal import clean, note
from broker.cli.trace_context import TraceContext

USER_AGENT = f"broker/{__version__}"
CONNECT_SECONDS = 10.0
# The broker itself gives AWS 5 s an attempt; an answer that takes longer than this is none.
ANSWER_SECONDS = 45.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_CHUNK = 64 * 1024
# A server closes idle connections after about 5 s; a request sent meanwhile would be lost.
_REUSE_SECONDS = 2.0


class Answer(NamedTuple):
    """A complete response. `content_type` is lower case and without parameters."""

    status: int
    content_type: str
    etag: str | None
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.content_type}, {len(self.body)} bytes)"

    def json(self) -> object:
        """Raises ValueError where the body is not plain JSON."""
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class Transport:
    """Requests to one server, over one connection where it lasts."""

    def __init__(self, server: Server, *, debug: bool = False) -> None:
        self._server = server
        self._debug = debug
        self._trace_context = TraceContext()
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0
        atexit.register(self.forget_connection)

    def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send, and read the whole answer. Raises Unreachable for all that is not an answer:
        no connection, no trust, a redirect, too large, too slow.
        """
        started = time.monotonic()
        with self._failures(method, target), _Watchdog(self._connect(), ANSWER_SECONDS) as dog:
            response = self._send(dog.connection, method, target, body, headers)
            content = self._whole(response)
            dog.check()
        self._used_at = time.monotonic()
        self._trace(method, target, response.status, started)
        return _answer(response, content)

    def stream(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None
    ) -> tuple[Answer, Iterator[bytes]]:
        """Send, and read the body in pieces: for a 200 the answer's body is empty and the
        pieces follow, for anything else the body is whole and there are no pieces.
        """
        started = time.monotonic()
        with self._failures(method, target):
            connection = self._connect()
            response = self._send(connection, method, target, None, headers)
            content = b"" if response.status == 200 else self._whole(response)
        self._trace(method, target, response.status, started)
        pieces = self._pieces(method, target, response) if response.status == 200 else iter(())
        return _answer(response, content), pieces

    def _whole(self, response: http.client.HTTPResponse) -> bytes:
        content = response.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise self._unusable(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return content

    def _pieces(
        self, method: str, target: str, response: http.client.HTTPResponse
    ) -> Iterator[bytes]:
        with self._failures(method, target):
            if not response.chunked and response.length is None:
                raise self._unusable("the answer does not say where it ends")
            while piece := response.read1(_CHUNK):
                yield piece
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> http.client.HTTPResponse:
        sent = {
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "traceparent": self._trace_context.header(),
            **(headers or {}),
        }
        connection.request(method, target, body=body, headers=sent)
        response = connection.getresponse()
        if 300 <= response.status < 400:
            raise self._unusable(
                f"it redirects to {clean(response.headers.get('Location', 'nowhere'), 200)}, "
                "which is not followed: use the broker's own address"
            )
        return response

    def _connect(self) -> http.client.HTTPConnection:
        """The open connection, or a new one."""
        connection = self._connection
        if connection is not None and time.monotonic() - self._used_at < _REUSE_SECONDS:
            return connection
        if connection is not None:
            connection.close()
        self._connection = connection = _open(self._server)
        connection.connect()
        connection.sock.settimeout(ANSWER_SECONDS)
        return connection

    def _failures(self, method: str, target: str) -> _Failures:
        return _Failures(self, f"{method} {self._server.origin}{target.partition('?')[0]}")

    def _unusable(self, what: str) -> Unreachable:
        return Unreachable(f"{self._server.origin}: {what}")

    def forget_connection(self) -> None:
        """After a failure its state is unknown; at the end of the process it is closed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _trace(self, method: str, target: str, status: int, started: float) -> None:
        if self._debug:
            # Never the query: it may hold what a log must not.
            taken = (time.monotonic() - started) * 1000
            note(
                f"broker: debug: {method} {target.partition('?')[0]} -> {status} ({taken:.0f} ms, "
                f"trace {self._trace_context.trace_id})"
            )


def _answer(response: http.client.HTTPResponse, body: bytes) -> Answer:
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Answer(response.status, content_type, response.headers.get("ETag"), body)


def _open(server: Server) -> http.client.HTTPConnection:
    """Direct, or through the proxy of the environment for https (RFC 9110 section 9.3.6)."""
    host = server.host.strip("[]")
    if server.scheme == "http":  # the loopback interface alone: never through a proxy
        return http.client.HTTPConnection(host, server.port, timeout=CONNECT_SECONDS)
    context = _trust()
    proxy = _proxy_for(host)
    if proxy is None:
        return http.client.HTTPSConnection(
            host, server.port, timeout=CONNECT_SECONDS, context=context
        )
    proxy_host, proxy_port, authorization = proxy
    connection = http.client.HTTPSConnection(
        proxy_host, proxy_port, timeout=CONNECT_SECONDS, context=context
    )
    headers = {"Proxy-Authorization": authorization} if authorization else {}
    connection.set_tunnel(host, server.port, headers)
    return connection


def _trust() -> ssl.SSLContext:
    """The operating system's trust store, where a company's own CA is installed."""
    try:
        import truststore
    except ImportError:  # not CPython
        return ssl.create_default_context()
    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context


def _proxy_for(host: str) -> tuple[str, int, str | None] | None:
    """Host, port and Proxy-Authorization of the proxy to use; None for a direct connection."""
    if sys.platform not in ("darwin", "win32") and not any(
        name.lower() in ("https_proxy", "all_proxy") for name in os.environ
    ):
        return None
    import urllib.parse
    import urllib.request

    proxies = urllib.request.getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address or urllib.request.proxy_bypass(host):
        return None
    parts = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme != "http" or not parts.hostname:
        raise Unreachable("HTTPS_PROXY must be an http:// proxy, such as http://proxy:3128")
    authorization = None
    if parts.username:
        pair = (
            f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        )
        authorization = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
    return parts.hostname, parts.port or 3128, authorization


class _Watchdog:
    """Ends a request that takes too long in all. A socket's own time-out counts from the last
    byte, so a server that sends one now and then would hold the client for ever.
    """

    def __init__(self, connection: http.client.HTTPConnection, seconds: float) -> None:
        self.connection = connection
        self._timer = threading.Timer(seconds, self._bite)
        self._timer.daemon = True
        self._bitten = False

    def _bite(self) -> None:
        self._bitten = True
        if self.connection.sock is not None:
            try:
                # Not SSLSocket's own shutdown, which pulls the session from under its reader.
                socket.socket.shutdown(self.connection.sock, socket.SHUT_RDWR)
            except OSError:
                return  # closed already

    def check(self) -> None:
        if self._bitten:
            raise TimeoutError

    def __enter__(self) -> _Watchdog:
        self._timer.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        if error is not None and not isinstance(error, Failure):
            self.check()


class _Failures:
    """Turns what the network throws into Unreachable: what was tried, what happened, the cure."""

    def __init__(self, transport: Transport, tried: str) -> None:
        self._transport = transport
        self._tried = tried

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._transport.forget_connection()
        if isinstance(error, OSError | http.client.HTTPException):
            raise Unreachable(f"{self._tried}: {_explain(error)}") from error


def _explain(error: OSError | http.client.HTTPException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted ({clean(error.verify_message, 200)}): add your "
                "company's CA to the system's trust store, or name it in SSL_CERT_FILE"
            )
        case ssl.SSLError():
            return f"TLS failed ({clean(error.reason or 'no reason given', 200)}): is it https?"
        case socket.gaierror():
            return "the name is not known: check the address and your network or VPN"
        case ConnectionRefusedError():
            return "nothing listens there: check the address, and that the broker runs"
        case TimeoutError():
            return "no answer in time: check your network, VPN or proxy"
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return "the connection was closed without an answer: try again"
        case http.client.IncompleteRead():
            return "the answer broke off: try again"
        case http.client.HTTPException():
            return f"what answers does not speak HTTP ({type(error).__name__})"
        case _:
            # A proxy's refusal has no number, only words.
            reason = error.strerror or str(error) or type(error).__name__
            return f"no connection ({clean(reason, 200)})"
