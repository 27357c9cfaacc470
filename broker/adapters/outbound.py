"""HTTP requests that the broker makes of its own accord, with hard limits.

Owns: the one httpx client for OpenID providers: 5 s in all, bodies of at most
1 MiB, no redirects, no proxies and no cookies, the system's certificate
authorities (so a company's own are trusted). Does not own: what is asked.

The other side may be broken or hostile: it may drip bytes, never end, answer
with a redirect to a metadata service, or compress a bomb.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import truststore

from broker import __version__
from broker.identity.strict_json import MalformedJson, parse_object

TOTAL_SECONDS = 5.0
MAX_BODY_BYTES = 1024 * 1024

_JSON_SUFFIX = "+json"


class FetchFailed(Exception):
    """No usable answer. `reason` is for the log and the record: no URL query, no body."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _TooLarge(httpx.TransportError):
    pass


class BoundedTransport(httpx.AsyncBaseTransport):
    """Reads each answer whole, within the limits, or raises an httpx.TransportError."""

    def __init__(self, inner: httpx.AsyncBaseTransport, total_seconds: float) -> None:
        self._inner = inner
        self._total_seconds = total_seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            # One deadline over name look-up, connect, headers and body: httpx's own time-outs
            # start anew with every byte that drips in.
            async with asyncio.timeout(self._total_seconds):
                response = await self._inner.handle_async_request(request)
                try:
                    body = await _read(response, request)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx.ReadTimeout("the whole request took too long", request=request) from None
        headers = [
            (name, value)
            for name, value in response.headers.raw
            if name.lower() not in (b"set-cookie", b"content-length", b"transfer-encoding")
        ]
        return httpx.Response(response.status_code, headers=headers, content=body)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _read(response: httpx.Response, request: httpx.Request) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        # Nothing compressed was asked for; a small bomb would decode to gigabytes.
        raise httpx.DecodingError("the body is compressed", request=request)
    body = bytearray()
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("an async transport gives async streams")
    async for chunk in stream:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge("the body is over 1 MiB", request=request)
    return bytes(body)


def new_client(*, total_seconds: float = TOTAL_SECONDS) -> httpx.AsyncClient:
    """A client for the life of the process; the caller closes it."""
    inner = httpx.AsyncHTTPTransport(
        verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        limits=httpx.Limits(max_connections=50, max_keepalive_connections=10),
    )
    return httpx.AsyncClient(
        transport=BoundedTransport(inner, total_seconds),
        timeout=total_seconds,
        follow_redirects=False,
        trust_env=False,
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"credential-broker/{__version__}",
        },
    )


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    status: int
    body: Mapping[str, object]


async def fetch_json(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: str | None = None,
) -> JsonAnswer:
    """The JSON object that `url` answers, whatever its status (but never a redirect).

    Raises FetchFailed, and nothing else.
    """
    try:
        response = await client.request(method, url, headers=headers, content=content)
    except httpx.TimeoutException:
        raise FetchFailed("no answer in time") from None
    except (_TooLarge, httpx.DecodingError) as error:
        raise FetchFailed(str(error)) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchFailed(f"no connection ({type(error).__name__})") from error
    if response.is_redirect or response.has_redirect_location:
        raise FetchFailed("answered with a redirect, which is never followed")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith(_JSON_SUFFIX):
        raise FetchFailed(f"answered {response.status_code} with something other than JSON")
    try:
        return JsonAnswer(response.status_code, parse_object(response.content))
    except MalformedJson as error:
        raise FetchFailed(f"answered {response.status_code} with bad JSON: {error}") from None
