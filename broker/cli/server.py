"""Which broker is meant: its address, checked, and how it is remembered."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from broker.cli import paths
from broker.cli.failure import NotLoggedIn, WrongUsage

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?/?"
)
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Server(NamedTuple):
    """A broker's origin. https, or http on the loopback interface."""

    scheme: str
    host: str  # IPv6 in brackets
    port: int

    @property
    def origin(self) -> str:
        """`https://broker.example.com`, normalised: what its issuer must equal."""
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"

    @classmethod
    def parse(cls, text: str) -> Server:
        """Raises WrongUsage, which says what to write instead."""
        match = _ORIGIN.fullmatch(text.strip().lower())
        if match is None:
            raise WrongUsage(
                "the server is not a broker's address; write https://broker.example.com, "
                "without user, path or query"
            )
        scheme, host = match["scheme"], match["host"]
        if scheme == "http" and not _LOOPBACK.fullmatch(host):
            raise WrongUsage(f"http is for a broker on this machine alone; write https://{host}")
        port = int(match["port"] or _DEFAULT_PORTS[scheme])
        if not 0 < port < 65536:
            raise WrongUsage(f"{port} is not a port number (1 to 65535)")
        return cls(scheme, host, port)


def find(given: str | None = None) -> Server:
    """`--server`, else BROKER_SERVER, else the one of the last login. Raises NotLoggedIn."""
    chosen = given or os.environ.get("BROKER_SERVER")
    if not chosen:
        remembered = paths.read_private(paths.server_file())
        chosen = remembered.decode("utf-8", "replace") if remembered else None
    if not chosen:
        raise NotLoggedIn(
            "no broker is known yet: run `broker login --server https://broker.example.com`, "
            "or set BROKER_SERVER"
        )
    return Server.parse(chosen)


def remember(server: Server) -> None:
    """The next command needs no address."""
    paths.write_private(paths.server_file(), f"{server.origin}\n".encode("ascii"))
