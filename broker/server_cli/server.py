"""`broker server`: one server process. Run several for more; they share the database."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from broker.app import create_app
from broker.errors import StartupError
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.server_cli.http_protocol import BoundedHttp
from broker.settings import Settings
from broker.web import metrics

_log = structlog.get_logger()

# Requests in flight at SIGTERM may wait for STS (5 s a try) and for the log; orchestrators
# commonly kill after 30 s.
_DRAIN_SECONDS = 25
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


class _Server(uvicorn.Server):
    """uvicorn, with an event for the moment it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

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
    server = _Server(_uvicorn_config(app))
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
