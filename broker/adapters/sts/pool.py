"""One form POST over a pool of kept-alive connections, and how exactly it broke.

The one question that matters after a fault is whether STS may have had the
request: `NotSent` says no, `LineCut` says maybe. Endpoints behind an HTTPS proxy
are reached through aiohttp, which knows how to speak to one; all others over
connections of our own (`connection`).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import urlsplit

import truststore

from broker.adapters.sts.answer import Reply
from broker.adapters.sts.connection import (
    KEEPALIVE_SECONDS,
    MAX_CONNECTIONS,
    USER_AGENT,
    Connection,
    NotSent,
    Timeouts,
    request_bytes,
)
from broker.adapters.sts.endpoint import Endpoint
from broker.adapters.sts.proxied import ProxiedPool
from broker.errors import StartupError


class Pool:
    """Kept-alive connections to every endpoint, from `open()` to `aclose()`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._tls: ssl.SSLContext | None = None
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        # By URL, the one used last at the end: so the others idle out.
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)
        self._proxied = ProxiedPool(timeouts)

    def open(self) -> None:
        """Needs the running event loop. Raises StartupError for a bad AWS_CA_BUNDLE."""
        self._tls = tls_context()
        self._proxied.open(self._tls)

    async def aclose(self) -> None:
        for connection in (one for idle in self._idle.values() for one in idle):
            connection.close()
        self._idle.clear()
        await self._proxied.aclose()

    async def post(
        self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes, *, within: float
    ) -> Reply:
        """One attempt, never sent twice. `within` is the most seconds that it may take.

        Raises NotSent, LineCut, OddAnswer.
        """
        if self._tls is None:
            raise RuntimeError("StsClient.start() comes first")
        if endpoint.proxy is not None:
            return await self._proxied.post(endpoint, headers, body, within=within)
        deadline = time.monotonic() + within
        request = request_bytes(endpoint.path, {**headers, **USER_AGENT}, body)
        await self._wait_for_a_place(min(within, self._timeouts.connect))
        try:
            connection = self._idle_connection(endpoint.url)
            if connection is None:
                connection = await self._connect(endpoint, deadline)
            try:
                left = deadline - time.monotonic()
                return await connection.exchange(request, min(left, self._timeouts.read))
            finally:
                if connection.usable:
                    connection.idle_since = time.monotonic()
                    self._idle[endpoint.url].append(connection)
        finally:
            self._places.release()

    async def reach(self, endpoint: Endpoint) -> None:
        """Connect, and send nothing. Behind a proxy nothing is tried. Raises NotSent."""
        if endpoint.proxy is None:
            connection = await self._connect(endpoint, time.monotonic() + self._timeouts.connect)
            connection.close()

    async def _wait_for_a_place(self, seconds: float) -> None:
        if not self._places.locked():
            await self._places.acquire()  # at once
            return
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise NotSent(f"{MAX_CONNECTIONS} requests are under way already") from error

    def _idle_connection(self, url: str) -> Connection | None:
        idle = self._idle[url]
        oldest = time.monotonic() - KEEPALIVE_SECONDS
        while idle:
            connection = idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self, endpoint: Endpoint, deadline: float) -> Connection:
        parts = urlsplit(endpoint.url)
        secure = parts.scheme == "https"
        within = min(deadline - time.monotonic(), self._timeouts.connect)
        try:
            async with asyncio.timeout(within):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection,
                    parts.hostname or "",
                    parts.port or (443 if secure else 80),
                    ssl=self._tls if secure else None,
                )
        except OSError as error:  # TimeoutError and ssl.SSLError are some
            raise NotSent(f"{type(error).__name__}: {error}") from error
        return connection


def tls_context() -> ssl.SSLContext:
    """The system's certificate authorities; AWS_CA_BUNDLE replaces them, as in every AWS tool.

    Raises StartupError for a bad AWS_CA_BUNDLE.
    """
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle:
        try:
            return ssl.create_default_context(cafile=bundle)
        except OSError as error:  # ssl.SSLError is one
            raise StartupError(f"AWS_CA_BUNDLE={bundle} can't be used: {error}") from error
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
