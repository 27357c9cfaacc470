"""A plain TCP balancer: bytes in, bytes out, each connection to the next server in turn.

Owns the choice of a server. It knows nothing of HTTP on the connections that it passes on. By
default it takes the next server where one refuses the connection, as balancers do; with `probing`
it goes by /readyz alone, and what is refused then is the client's error. Threads and blocking
sockets: nothing of it hangs on the tests' event loop.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable, Sequence

from tests.faults.relay import Relay, readable

PROBE_EVERY = 0.2  # seconds


class Balancer(Relay):
    """Use `running`."""

    def __init__(self, ports: Sequence[int], *, probing: bool = False) -> None:
        super().__init__()
        self._ports = list(ports)
        self._unready: set[int] = set()
        self._probing = probing
        self._turn = 0
        self.url = f"http://127.0.0.1:{self.port}"

    def takes(self, port: int) -> bool:
        """Whether new connections go there."""
        return port not in self._unready

    def _beside(self) -> tuple[Callable[[], None], ...]:
        return (self._probe,) if self._probing else ()

    def _probe(self) -> None:
        while not self._over.wait(PROBE_EVERY):
            for port in self._ports:
                (self._unready.discard if _is_ready(port) else self._unready.add)(port)

    def _connect(self) -> socket.socket | None:
        self._turn += 1
        candidates = [port for port in self._ports if self.takes(port)]
        for attempt in range(1 if self._probing else len(candidates)):
            port = candidates[(self._turn + attempt) % len(candidates)]
            with contextlib.suppress(ConnectionError):
                return socket.create_connection(("127.0.0.1", port))
        return None

    def _pass_on(self, client: socket.socket) -> None:
        with client:
            server = self._connect()
            if server is None:
                return
            with server, contextlib.suppress(ConnectionError):
                other = {client: server, server: client}
                while not self._over.is_set():
                    for source in readable(client, server):
                        data = source.recv(65536)
                        if not data:
                            return
                        other[source].sendall(data)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
