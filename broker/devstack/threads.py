"""Serving an ASGI stand-in on loopback from a thread of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_START_SECONDS = 15


def listen(port: int = 0) -> socket.socket:
    """A bound loopback socket, so that the port is known before the application is made."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


@contextmanager
def served(app: ASGIApp, bound: socket.socket) -> Iterator[None]:
    """Serve `app` on the socket until the block ends."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            started.set()

    server = Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    if not started.wait(_START_SECONDS):
        raise TimeoutError("a stand-in did not start")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
