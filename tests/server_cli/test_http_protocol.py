"""Connections of clients that take their time or more room than a request has, over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
import uvicorn

from broker.server_cli.http_protocol import MAX_HEAD_BYTES, BoundedHttp
from broker.server_cli.server import _Server, _uvicorn_config

SECONDS = 10.0
SHORT = 0.3
HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Hasty(BoundedHttp):
    request_seconds = SHORT
    stalled_seconds = SHORT


class App:
    """Answers with the names of the headers it saw, or with a body without end."""

    def __init__(self) -> None:
        self.abandoned = asyncio.Event()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        if message["type"] == "http.disconnect":
            self.abandoned.set()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/endless":
            with contextlib.suppress(asyncio.CancelledError):
                while scope["path"] and not self.abandoned.is_set():
                    await send(
                        {"type": "http.response.body", "body": b"x" * 65536, "more_body": True}
                    )
                    await asyncio.sleep(0)
            return
        seen = b",".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.body", "body": b"saw " + seen + b" end"})


class Serving:
    def __init__(self, port: int, app: App, server: uvicorn.Server) -> None:
        self.port, self.app, self.server = port, app, server

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    app = App()
    config = uvicorn.Config(
        app, http=Hasty, ws="none", lifespan="off", log_config=None, timeout_keep_alive=2
    )
    server = _Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    yield Serving(listener.getsockname()[1], app, server)
    app.abandoned.set()
    server.should_exit = True
    await task


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What came until the server closed the connection."""
    async with asyncio.timeout(SECONDS):
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                received += data
        return received


def test_the_server_speaks_it() -> None:
    assert _uvicorn_config(App()).http is BoundedHttp


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        HELLO + b"\r\n\r\n",
        HELLO + b"GET / HTTP/1.1\r\n",
    ],
    ids=["nothing", "blank", "half a head", "half a body", "blank after", "half a second head"],
)
async def test_who_does_not_finish_a_request_is_let_go(serving: Serving, sent: bytes) -> None:
    reader, writer = await serving.connect()
    writer.write(sent)
    received = await closed(reader)
    assert received.count(b"HTTP/1.1 200") == (1 if sent.startswith(HELLO) else 0)
    writer.close()


async def test_a_byte_now_and_then_gains_no_time(serving: Serving) -> None:
    reader, writer = await serving.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    ended = asyncio.create_task(closed(reader))
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(ConnectionError):
            while not ended.done():
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(SHORT / 10)
    assert await ended == b""
    writer.close()


async def test_who_leaves_the_answer_unread_is_let_go(serving: Serving) -> None:
    reader, writer = await serving.connect()
    writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readexactly(12)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's is a socket's
    async with asyncio.timeout(SECONDS):
        while serving.server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.02)
    writer.close()


@pytest.mark.parametrize("pieces", [1, 200])
@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 2 * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * (MAX_HEAD_BYTES // 4) + b"\r\n",
    ],
    ids=["target", "one header", "many headers"],
)
async def test_a_huge_head_is_refused_before_it_is_held(
    serving: Serving, head: bytes, pieces: int
) -> None:
    reader, writer = await serving.connect()
    ended = asyncio.create_task(closed(reader))
    step = len(head) // pieces + 1
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(head), step):
            writer.write(head[start : start + step])
            await writer.drain()
    received = await ended
    assert b" 200 " not in received
    assert received == b"" or received.startswith((b"HTTP/1.1 431", b"HTTP/1.1 414"))
    writer.close()


async def test_trailers_join_no_header(serving: Serving) -> None:
    reader, writer = await serving.connect()
    writer.write(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: authorization\r\n"
        b"Connection: close\r\n\r\n1\r\na\r\n0\r\nAuthorization: Bearer late\r\n\r\n"
    )
    received = await closed(reader)
    assert b"saw host,transfer-encoding,trailer,connection end" in received
    writer.close()


async def test_requests_that_are_whole_are_answered_one_after_the_other(serving: Serving) -> None:
    reader, writer = await serving.connect()
    whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    for _ in range(3):
        writer.write(whole * 2)
        for _ in range(2):
            await reader.readuntil(b"end")
        await asyncio.sleep(SHORT * 1.5)  # idle longer than a request may take
    writer.close()
