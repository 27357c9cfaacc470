"""The line between the servers and PostgreSQL, which can be cut where it hurts.

Owns the TCP connections to it and what is done to them. It reads so much of PostgreSQL's protocol
as it takes to see a COMMIT go by and to know its answer. Threads and blocking sockets: nothing of
it hangs on the tests' event loop.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import threading

from sqlalchemy import make_url

from tests.faults.relay import Relay, readable


class Cut(enum.Enum):
    """Where the line breaks, by the name that `listing` has for it."""

    MESSAGE = "line cut"
    BEFORE_COMMIT = "line cut before COMMIT"
    AFTER_COMMIT = "line cut after COMMIT"


class DatabaseLine(Relay):
    """Use `running`. `url` is what the servers connect to."""

    def __init__(self, database_url: str) -> None:
        super().__init__()
        url = make_url(database_url)
        self._target = f"{url.query['host']}/.s.PGSQL.5432"
        self.url = f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{url.database}?ssl=disable"
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self._every = 1
        self._left = 0
        self._passed = 0

    def plan(self, cut: Cut, *, every: int, times: int) -> None:
        """Cut the line at each `every`th such place, so many times."""
        with self._lock:
            self._cut, self._every, self._left, self._passed = cut, every, times, 0

    @property
    def left(self) -> int:
        """How many of the planned cuts are still to come."""
        return self._left

    def _is_here(self, cut: Cut) -> bool:
        with self._lock:
            if self._cut is not cut or self._left == 0:
                return False
            self._passed += 1
            if self._passed % self._every:
                return False
            self._left -= 1
            return True

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._target)
            self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Until one side ends, or the line is cut."""
        waiting, greeted = b"", False
        while not self._over.is_set():
            for source in readable(client, server):
                data = source.recv(65536)
                if not data:
                    return
                if source is server:
                    client.sendall(data)
                    continue
                waiting += data
                while message := _first_message(waiting, greeted=greeted):
                    waiting = waiting[len(message) :]
                    if greeted and not self._forward(message, server):
                        return
                    if not greeted:
                        server.sendall(message)
                        greeted = True

    def _forward(self, message: bytes, server: socket.socket) -> bool:
        """False where the line is cut here."""
        if self._is_here(Cut.MESSAGE):
            return False
        # A simple query, as both the journal and SQLAlchemy's driver send it.
        commits = message[:1] == b"Q" and message[5:].startswith(b"COMMIT")
        if commits and self._is_here(Cut.BEFORE_COMMIT):
            return False
        server.sendall(message)
        if commits and self._is_here(Cut.AFTER_COMMIT):
            # Whatever it is: with an answer, the transaction is over.
            server.recv(65536)
            return False
        return True


def _first_message(data: bytes, *, greeted: bool) -> bytes:
    """Empty while it is not there as a whole. The first of a connection has no type."""
    start = 1 if greeted else 0
    if len(data) < start + 4:
        return b""
    end = start + int.from_bytes(data[start : start + 4], "big")
    return data[:end] if len(data) >= end else b""
