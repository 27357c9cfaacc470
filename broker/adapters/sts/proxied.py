"""The same as `pool`, for endpoints behind an HTTPS proxy: over aiohttp, which speaks to one."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp

from broker.adapters.sts.answer import OddAnswer, Reply
from broker.adapters.sts.connection import (
    KEEPALIVE_SECONDS,
    MAX_ANSWER_BYTES,
    MAX_CONNECTIONS,
    USER_AGENT,
    LineCut,
    NotSent,
    Timeouts,
)
from broker.adapters.sts.endpoint import Endpoint


class ProxiedPool:
    """Kept-alive connections through HTTPS proxies, from `open()` to `aclose()`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None

    def open(self, tls: ssl.SSLContext) -> None:
        """Needs the running event loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=tls
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=USER_AGENT,
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


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
