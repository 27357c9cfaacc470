"""A real HTTP server in STS's place that does, request by request, as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from broker.issuance.sts import AssumeRole

XMLNS = "https://sts.amazonaws.com/doc/2011-06-15/"
ROLE = "arn:aws:iam::111122223333:role/team/DataReader"
SESSION = "grace-iss-abcdefghijklmnopqrstuvwxyz"
BASE_ROLE = "arn:aws:sts::999988887777:assumed-role/Broker/i-0123"
BASE_USER = "arn:aws:iam::999988887777:user/broker"
POLICY = (
    '{"Version":"2012-10-17","Statement":'
    '[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/*"}]}'
)
SECRET = "canary/SecretAccessKey+0123456789abcdefg"  # 40 characters, as AWS's
TOKEN = "canary//SessionToken+=="


def a_call(**changes: object) -> AssumeRole:
    fields: dict[str, object] = {
        "partition": "aws",
        "region": "us-east-1",
        "role_arn": ROLE,
        "role_session_name": SESSION,
        "duration_seconds": 3600,
        "policy": POLICY,
        "policy_arns": (),
        "tags": (("broker:issuance", "iss-abc"),),
        "transitive_tag_keys": ("broker:issuance",),
        "source_identity": "p-abcdefghijklmnop",
        "external_id": "canary-external-id",
    }
    return AssumeRole(**(fields | changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Request:
    headers: dict[str, str]
    params: dict[str, str]
    connection: int

    @property
    def access_key_id(self) -> str:
        return self.headers["authorization"].split("Credential=")[1].split("/")[0]


Behaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def http(body: str | bytes, status: int = 200, **headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def replies(body: str | bytes, status: int = 200, **headers: str) -> Behaviour:
    async def reply(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(http(body, status, **headers))
        await writer.drain()

    return reply


def refuses(
    code: str, message: str = "Some words.", status: int = 400, **headers: str
) -> Behaviour:
    body = (
        f'<ErrorResponse xmlns="{XMLNS}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>req-1</RequestId></ErrorResponse>"
    )
    return replies(body, status, **headers)


def good_answer(
    *,
    session: str = SESSION,
    source_identity: str | None = "p-abcdefghijklmnop",
    arn: str | None = None,
    role_id: str | None = None,
    access_key_id: str = "ASIAEXAMPLE000000001",
    secret: str = SECRET,
    token: str = TOKEN,
    expiration: str | None = None,
    expires_in: int = 3600,
    extra: str = "<PackedPolicySize>12</PackedPolicySize>",
    xmlns: str = XMLNS,
) -> str:
    if arn is None:
        arn = f"arn:aws:sts::111122223333:assumed-role/DataReader/{session}"
    if role_id is None:
        role_id = f"AROAEXAMPLE0000000001:{session}"
    if expiration is None:
        moment = datetime.now(UTC) + timedelta(seconds=expires_in)
        expiration = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    source = (
        "" if source_identity is None else f"<SourceIdentity>{source_identity}</SourceIdentity>"
    )
    return (
        f'<AssumeRoleResponse xmlns="{xmlns}"><AssumeRoleResult>{source}'
        f"<AssumedRoleUser><AssumedRoleId>{role_id}</AssumedRoleId><Arn>{arn}</Arn>"
        f"</AssumedRoleUser><Credentials><AccessKeyId>{access_key_id}</AccessKeyId>"
        f"<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>"
        f"<Expiration>{expiration}</Expiration></Credentials>{extra}</AssumeRoleResult>"
        "<ResponseMetadata><RequestId>req-good</RequestId></ResponseMetadata></AssumeRoleResponse>"
    )


def identity_answer(arn: str) -> str:
    account = arn.split(":")[4]
    return (
        f'<GetCallerIdentityResponse xmlns="{XMLNS}"><GetCallerIdentityResult><Arn>{arn}</Arn>'
        f"<UserId>AIDAEXAMPLE</UserId><Account>{account}</Account></GetCallerIdentityResult>"
        "<ResponseMetadata><RequestId>req-id</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>"
    )


async def good(request: Request, writer: asyncio.StreamWriter) -> None:
    """AssumeRole as it was asked."""
    body = good_answer(
        session=request.params["RoleSessionName"],
        source_identity=request.params["SourceIdentity"],
        expires_in=int(request.params["DurationSeconds"]),
    )
    await replies(body)(request, writer)


async def hangs(_: Request, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def cuts(_: Request, writer: asyncio.StreamWriter) -> None:
    """The connection ends after the request was read, with no answer."""
    writer.close()


async def cuts_midway(_: Request, writer: asyncio.StreamWriter) -> None:
    whole = http(good_answer())
    writer.write(whole[: len(whole) // 2])
    await writer.drain()
    writer.close()


async def resets(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@dataclass
class Misbehaving:
    """`script` holds the behaviours of the coming AssumeRole calls; `identity_script` those of
    GetCallerIdentity. With nothing left in them it behaves well.
    """

    identity: str = BASE_ROLE
    script: list[Behaviour] = field(default_factory=list)
    identity_script: list[Behaviour] = field(default_factory=list)
    assumed: list[Request] = field(default_factory=list)
    identified: list[Request] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            # Cancelled by `stop` alone: to asyncio's streams a cancelled handler is an error.
            with contextlib.suppress(
                asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError
            ):
                while not writer.is_closing():
                    await self._one(await _read(reader, number), writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.params["Action"] == "GetCallerIdentity":
            self.identified.append(request)
            script, default = self.identity_script, replies(identity_answer(self.identity))
        else:
            self.assumed.append(request)
            script, default = self.script, good
        await (script.pop(0) if script else default)(request, writer)


async def _read(reader: asyncio.StreamReader, connection: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = {}
    for line in head.split("\r\n")[1:-2]:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    body = await reader.readexactly(int(headers["content-length"]))
    params = {k: v[0] for k, v in parse_qs(body.decode(), keep_blank_values=True).items()}
    return Request(headers, params, connection)
