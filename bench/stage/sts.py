"""AWS STS as far as a load needs it: AssumeRole and GetCallerIdentity from prepared text.

A process of its own: `sts.py PORT`. It checks nothing and signs nothing, so that it
costs little beside what is measured; the role, session name, source identity and
duration in an answer are those of the request. `POST /_control?delay_ms=30&errors=0.01`
sets how long it thinks and which share of the calls it throttles.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
import urllib.request
from typing import cast
from urllib.parse import parse_qs, unquote_plus

import uvloop

_FIELD = {
    name: re.compile(rb"(?:^|&)" + name.encode() + rb"=([^&]*)")
    for name in ("RoleArn", "RoleSessionName", "SourceIdentity", "DurationSeconds")
}
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)

_ASSUMED = (
    '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
    "%s<AssumedRoleUser><AssumedRoleId>AROAEXAMPLEEXAMPLE00:%s</AssumedRoleId>"
    "<Arn>arn:aws:sts::%s:assumed-role/%s/%s</Arn></AssumedRoleUser><Credentials>"
    "<AccessKeyId>ASIA%016d</AccessKeyId>"
    "<SecretAccessKey>wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00</SecretAccessKey><SessionToken>"
    + "IQoJb3JpZ2luX2VjEXAMPLE"
    * 30
    + "</SessionToken><Expiration>%s</Expiration></Credentials>"
    "<PackedPolicySize>11</PackedPolicySize></AssumeRoleResult><ResponseMetadata>"
    "<RequestId>00000000-0000-4000-8000-%012d</RequestId></ResponseMetadata></AssumeRoleResponse>"
)
_CALLER = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
    "<GetCallerIdentityResult><UserId>AIDAEXAMPLEEXAMPLE00</UserId><Account>111122223333</Account>"
    "<Arn>arn:aws:iam::111122223333:user/bench</Arn></GetCallerIdentityResult><ResponseMetadata>"
    "<RequestId>00000000-0000-4000-8000-000000000000</RequestId></ResponseMetadata>"
    "</GetCallerIdentityResponse>"
)
_THROTTLED = (
    '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
    "<Code>Throttling</Code><Message>Rate exceeded</Message></Error>"
    "<RequestId>00000000-0000-4000-8000-000000000000</RequestId></ErrorResponse>"
)


class Behaviour:
    """How the stand-in answers; one for all connections."""

    delay_seconds = 0.0
    errors = 0.0
    served = 0

    def set(self, query: str) -> None:
        asked = parse_qs(query)
        self.delay_seconds = float(asked.get("delay_ms", ["0"])[0]) / 1000
        self.errors = float(asked.get("errors", ["0"])[0])


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time, as AWS clients send it."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended:
            return
        length = _LENGTH.search(head)
        wanted = 0 if length is None else int(length[1])
        if len(body) < wanted:
            return
        self._received = body[wanted:]
        if head.startswith(b"POST /_control?"):
            self._behaviour.set(head[15 : head.index(b" ", 15)].decode())
            self._send(_http(200, "ok"))
            return
        answer = self._answer(body[:wanted])
        if self._behaviour.delay_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self._behaviour.delay_seconds, self._send, answer)
        else:
            self._send(answer)

    def _answer(self, body: bytes) -> bytes:
        if self._behaviour.errors and random.random() < self._behaviour.errors:
            return _http(400, _THROTTLED)
        if b"GetCallerIdentity" in body:
            return _http(200, _CALLER)
        self._behaviour.served += 1
        return _http(200, _assumed(body, self._behaviour.served))

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _assumed(body: bytes, number: int) -> str:
    role_arn, session, source, seconds = (_field(body, name) for name in _FIELD)
    account, role = role_arn.split(":", 5)[4:]
    identity = f"<SourceIdentity>{source}</SourceIdentity>" if source else ""
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + int(seconds or 3600)))
    name = role.rpartition("/")[2]
    return _ASSUMED % (identity, session, account, name, session, number, expires, number)


def _field(body: bytes, name: str) -> str:
    found = _FIELD[name].search(body)
    return "" if found is None else unquote_plus(found[1].decode("ascii"))


def _http(status: int, text: str) -> bytes:
    body = text.encode("ascii")
    return (
        b"HTTP/1.1 %d X\r\ncontent-type: text/xml\r\ncontent-length: %d\r\n\r\n"
        % (status, len(body))
    ) + body


def control(port: int, *, delay_ms: float = 0, errors: float = 0) -> None:
    """Set the behaviour of a running stand-in."""
    url = f"http://127.0.0.1:{port}/_control?delay_ms={delay_ms}&errors={errors}"
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, b"", timeout=5).close()


async def _serve(port: int) -> None:
    behaviour = Behaviour()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(behaviour), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
