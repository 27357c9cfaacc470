"""What stands between two parties: a listener on loopback, with a thread for each connection."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

LOOK_UP_EVERY = 0.2  # seconds


def readable(*sides: socket.socket) -> list[socket.socket]:
    """Those on which something came, after LOOK_UP_EVERY at the latest. Not by `select`, which
    knows no descriptor over 1,023: other tests of this process may hold as many.
    """
    with selectors.PollSelector() as selector:
        for side in sides:
            selector.register(side, selectors.EVENT_READ)
        return [cast("socket.socket", key.fileobj) for key, _ in selector.select(LOOK_UP_EVERY)]


class Relay:
    """Use `running`. Subclasses say in `_pass_on` what becomes of a connection; it ends by itself
    once `_over` is set.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(LOOK_UP_EVERY)
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[threading.Thread] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=work) for work in (self._accept, *self._beside())]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in (*threads, *self._connections):
                thread.join()
            self._listener.close()

    def _beside(self) -> tuple[Callable[[], None], ...]:
        """What else goes on meanwhile."""
        return ()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            thread = threading.Thread(target=self._pass_on, args=(client,))
            thread.start()
            self._connections.append(thread)

    def _pass_on(self, client: socket.socket) -> None:
        raise NotImplementedError
