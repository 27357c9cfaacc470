"""`broker server`: one server process. Run several for more; they share the database."""

from __future__ import annotations

import argparse
import asyncio
import os

import structlog
import uvicorn

from broker.app import create_app
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.settings import Settings

_log = structlog.get_logger()


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "server",
        help="run the broker",
        description="Run one broker process in the foreground. SIGTERM lets requests finish.",
        epilog="example: broker server --config /etc/broker/broker.toml",
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings))
    return 0


def _loop_factory() -> type[asyncio.AbstractEventLoop]:
    import uvloop  # absent on some platforms' wheels; a failure to import names itself

    return uvloop.Loop


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartupError before anything listens.

    The lifespan is entered here and not by uvicorn, which would hide the one plain
    line of a StartupError behind a traceback.
    """
    app = create_app(settings)
    server = uvicorn.Server(uvicorn_config(app, settings))
    async with app.router.lifespan_context(app):
        _log.info(
            "serving",
            host=settings.server.host,
            port=settings.server.port,
            public_url=settings.server.public_url,
            pid=os.getpid(),
        )
        await server.serve()


def uvicorn_config(app: object, settings: Settings) -> uvicorn.Config:
    """uvicorn with our own access log and our own reading of forwarded addresses."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application; uvicorn's alias is wider than ours
        host=settings.server.host,
        port=settings.server.port,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=25,
    )
