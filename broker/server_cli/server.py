"""`broker server`: one server process. Run several for more; they share the database."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from types import FrameType

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from broker.app import create_app
from broker.errors import StartupError
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.server_cli.http_protocol import BoundedHttp, Connections
from broker.settings import Settings
from broker.web import metrics

_log = structlog.get_logger()

# Requests in flight at SIGTERM may wait for STS (5 s a try) and for the log; orchestrators
# commonly kill after 30 s.
_DRAIN_SECONDS = 25
# A connection that was kept open may have a request under way to us: it gets its answer.
_LINGER_SECONDS = 1.0
_BACKLOG = 2048


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "server",
        help="run the broker",
        description="Run one broker process in the foreground. SIGTERM lets requests finish.",
        epilog="example: broker server --config /etc/broker/broker.toml",
    )
    parser.add_argument(
        "--accept-rollback",
        action="store_true",
        help="start on a database that is behind what the log's key has signed; recorded",
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_signalled(settings, accept_rollback=arguments.accept_rollback))
    return 0


async def _serve_until_signalled(settings: Settings, *, accept_rollback: bool) -> None:
    async with serving(settings, accept_rollback=accept_rollback) as finished:
        await finished


def _ignore() -> None:
    pass


class _Server(uvicorn.Server):
    """uvicorn, with an event for the moment it listens, and an end that loses no request.

    It ends in this order. `on_drain` tells /readyz, and from then on every answer says that its
    connection closes. After SIGTERM it goes on accepting for `drain_seconds`, until whoever sends
    requests has noticed. Then it takes what waits to be accepted, and listens no more. Whatever is
    under way is answered, for _DRAIN_SECONDS at most. A second signal cuts the waiting short.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_seconds: float = 0.0,
        on_drain: Callable[[], None] = _ignore,
    ) -> None:
        super().__init__(config)
        self.server_state: Connections = Connections()
        self.listening = asyncio.Event()
        self._drain_seconds = drain_seconds
        self._on_drain = on_drain
        self._hurried = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_drain()
        self.server_state.drain()
        if signal.SIGTERM in self._captured_signals:
            await self._hurried_within(self._drain_seconds)
        await self._stop_listening(sockets or [])
        deadline = asyncio.get_running_loop().time() + _LINGER_SECONDS
        while self.server_state.idle and asyncio.get_running_loop().time() < deadline:
            if await self._hurried_within(0.02):
                break
        await super().shutdown(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._hurried.set()
        super().handle_exit(sig, frame)

    async def _hurried_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        return self._hurried.is_set()

    async def _stop_listening(self, sockets: Sequence[socket.socket]) -> None:
        """Closing the socket would reset what the kernel has accepted and we have not."""
        accepted = [connection for one in sockets for connection in _accept_all(one)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            await loop.connect_accepted_socket(self._new_protocol, connection)

    def _new_protocol(self) -> BoundedHttp:
        return BoundedHttp(self.config, self.server_state, self.lifespan.state)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal again once it has stopped: that would end the process before
        the lifespan has closed the journal, with what waits there.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


@asynccontextmanager
async def serving(
    settings: Settings, *, accept_rollback: bool = False
) -> AsyncIterator[asyncio.Task[None]]:
    """The broker, listening. Yields the task that ends when a signal has stopped it; leaving
    the block stops it too, after what is in flight.

    Raises StartupError before anything listens: the lifespan is entered here and not by
    uvicorn, which would hide its one plain line behind a traceback.
    """
    app = create_app(settings, accept_rollback=accept_rollback)
    server = _Server(
        _uvicorn_config(app),
        drain_seconds=settings.server.drain_seconds,
        on_drain=partial(setattr, app.state, "draining", True),
    )
    async with app.router.lifespan_context(app), _serving_metrics(app, settings):
        bound = _bind(settings.server.host, settings.server.port)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            await server.listening.wait()
            _log.info(
                "serving",
                host=settings.server.host,
                port=settings.server.port,
                public_url=settings.server.public_url,
                pid=os.getpid(),
            )
            yield task
        finally:
            server.should_exit = True
            await task


class _MetricsServer(_Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the broker's: this one stops when its block ends."""
        yield


@asynccontextmanager
async def _serving_metrics(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """`/metrics` on its own port, where the settings name one, on the broker's own address."""
    port = settings.server.metrics_port
    if port is None:
        yield
        return
    server = _MetricsServer(_uvicorn_config(metrics.application(app.state.parts)))
    bound = _bind(settings.server.host, port)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        await server.listening.wait()
        yield
    finally:
        server.should_exit = True
        await task


def _bind(host: str, port: int) -> socket.socket:
    """The listening socket. uvicorn would end the process itself where the port is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as fault:
        raise StartupError(f"can't listen on {host} port {port}: {fault.strerror}") from None


def _accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as fault:  # reset before it was accepted, or no descriptor left
            _log.warning("a connection was not accepted", detail=fault.strerror)
            return
        connection.setblocking(False)
        yield connection


def _uvicorn_config(app: object) -> uvicorn.Config:
    """uvicorn with our own access log and our own reading of forwarded addresses."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application; uvicorn's alias is wider than ours
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
