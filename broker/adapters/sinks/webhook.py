"""Batches of records posted to an HTTP(S) address, signed.

Owns the request (body, signature, headers) and what each answer means. The
connection's limits and rules are those of everything the broker asks for of its
own accord (`broker.adapters.outbound`): no redirects, no proxies, bounded
answers, the system's certificate authorities.

The signature is HMAC-SHA256 over the timestamp, a dot and the body, so that
neither can be changed nor an old request sent again:

    Broker-Timestamp: 1789000000
    Broker-Signature: v1=<64 hexadecimal digits>

Only a 2xx means that the batch was taken. Nothing is skipped for any answer: what
is refused for good (any 4xx but 408, 425 and 429; a redirect) is asked again at
the longest interval until somebody repairs it or moves the sink on.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import httpx

from broker.adapters.outbound import new_client
from broker.adapters.sinks.sink import Batch, DeliveryFailed

Body = Literal["lines", "array"]
_MEDIA_TYPES: dict[Body, str] = {"lines": "application/x-ndjson", "array": "application/json"}
_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """`secret` signs; `authorization` is a whole header's value, for receivers that want one."""

    url: str
    seconds: float
    body: Body = "lines"
    secret: bytes | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)


class WebhookSink:
    def __init__(self, config: WebhookConfig) -> None:
        self._config = config
        self._client = new_client(total_seconds=config.seconds)

    async def deliver(self, batch: Batch) -> None:
        """Raises DeliveryFailed."""
        body = batch.json_lines
        if self._config.body == "array":
            body = b"[" + b",".join(batch.lines) + b"]"
        try:
            response = await self._client.post(
                self._config.url, content=body, headers=self._headers(batch, body)
            )
        except httpx.TimeoutException:
            raise DeliveryFailed("no answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DeliveryFailed(f"no usable answer ({type(error).__name__})") from error
        _judge(response)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _headers(self, batch: Batch, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": _MEDIA_TYPES[self._config.body],
            # The same for every repeat of this batch: what a receiver may drop duplicates by.
            "Idempotency-Key": f"{batch.first}-{batch.last}-{batch.records[-1].chain.hex()}",
            "Broker-Timestamp": timestamp,
        }
        if self._config.secret is not None:
            headers["Broker-Signature"] = signature(self._config.secret, timestamp, body)
        if self._config.authorization is not None:
            headers["Authorization"] = self._config.authorization
        return headers


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """The value of `Broker-Signature`."""
    signed = timestamp.encode("ascii") + b"." + body
    return "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def _judge(response: httpx.Response) -> None:
    """Raises DeliveryFailed for whatever is not a plain yes."""
    status = response.status_code
    if response.is_success:
        return
    if response.has_redirect_location or 300 <= status < 400:
        raise DeliveryFailed("answered with a redirect, which is never followed", refused=True)
    if status in _PASSING or status >= 500:
        wait = _retry_after(response.headers.get("retry-after"))
        raise DeliveryFailed(f"answered {status}", retry_after=wait)
    raise DeliveryFailed(f"refused with {status}", refused=True, too_large=status == 413)


def _retry_after(value: str | None) -> float | None:
    """Seconds, from either form (RFC 9110 section 10.2.3); None for anything else."""
    if value is None or len(value) > 64:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
