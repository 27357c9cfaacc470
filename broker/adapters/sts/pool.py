"""One form POST over a pool of kept-alive connections, and how exactly it broke.

The one question that matters after a fault is whether STS may have had the
request: `NotSent` says no, `LineCut` says maybe.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import truststore

from broker import __version__
from broker.adapters.sts.answer import OddAnswer, Reply
from broker.adapters.sts.endpoint import Endpoint
from broker.errors import StartupError

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
# One account and region get about 600 requests/s; at 50 ms each that is 30 connections.
MAX_CONNECTIONS = 128
# A connection that the peer closes while a request is on its way leaves the outcome unknown, so
# none is used again after idling nearly as long as servers wait before they close: 5 s is the
# shortest in common use (uvicorn, Node), AWS's front ends wait 20 s and more. A busy pool never
# idles, an idle one pays a handshake.
KEEPALIVE_SECONDS = 3.0
MAX_ANSWER_BYTES = 256 * 1024


class NotSent(Exception):
    """The request did not leave: no connection. Sending it again is safe."""


class LineCut(Exception):
    """The connection failed or timed out after the request may have been sent."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect` includes the wait for a free connection."""

    connect: float = CONNECT_SECONDS
    read: float = READ_SECONDS


class Pool:
    """Kept-alive connections to every endpoint, from `open()` to `aclose()`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Needs the running event loop. Raises StartupError for a bad AWS_CA_BUNDLE."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=_tls()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"credential-broker/{__version__}"},
            # Nothing compressed comes back then: the limit on the answer's size is its real size.
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
            # Proxies are looked up by `endpoint`: with trust_env a netrc file could replace the
            # signature.
            trust_env=False,
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(
        self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes, *, within: float
    ) -> Reply:
        """One attempt, never sent twice (aiohttp repeats idempotent methods only; POST is not).

        `within` is the most seconds that this attempt may take.
        Raises NotSent, LineCut, OddAnswer.
        """
        if self._session is None:
            raise RuntimeError("StsClient.start() comes first")
        limits = aiohttp.ClientTimeout(
            total=min(within, self._timeouts.connect + self._timeouts.read),
            connect=self._timeouts.connect,
            sock_connect=self._timeouts.connect,
            sock_read=self._timeouts.read,
        )
        try:
            async with self._session.post(
                endpoint.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=limits,
                proxy=endpoint.proxy,
            ) as response:
                return Reply(
                    status=response.status,
                    body=await _bounded(response),
                    request_id=response.headers.get("x-amzn-RequestId"),
                    date=response.headers.get("Date"),
                )
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientHttpProxyError,
        ) as error:
            raise NotSent(_named(error)) from error
        except aiohttp.ClientResponseError as error:
            raise OddAnswer(f"not HTTP: {type(error).__name__}", may_have_minted=True) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise LineCut(_named(error)) from error


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise OddAnswer(
                f"longer than {MAX_ANSWER_BYTES} bytes", may_have_minted=response.status < 300
            )
    return bytes(body)


def _tls() -> ssl.SSLContext:
    """The system's certificate authorities; AWS_CA_BUNDLE replaces them, as in every AWS tool."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle:
        try:
            return ssl.create_default_context(cafile=bundle)
        except OSError as error:  # ssl.SSLError is one
            raise StartupError(f"AWS_CA_BUNDLE={bundle} can't be used: {error}") from error
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
