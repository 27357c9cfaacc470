"""An OpenID provider over real HTTP that can be told to misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey, Key
from joserfc.jws import JWSRegistry

from broker.adapters.oidc import OidcProvider, ProviderConfig
from broker.adapters.outbound import new_client
from broker.identity.login import LoginBinding, ProviderIdentity

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
REDIRECT = "https://broker.example.com/login/callback"
Raw = Callable[[asyncio.StreamWriter], Awaitable[None]]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ec_key(seed: int) -> ECKey:
    raw = ec.derive_private_key(seed, ec.SECP256R1())
    return ECKey(raw, raw)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class Answer:
    """`body` is sent as JSON unless it is bytes already; `raw` takes the connection over."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: Raw | None = None


class HostileProvider:
    """Signs in one person with any code; every part of every answer can be replaced."""

    def __init__(self) -> None:
        self.issuer = ""
        self.keys: dict[str, Key] = {"k1": ec_key(1)}
        self.signing: tuple[str | None, Key] = ("k1", self.keys["k1"])
        self.metadata: dict[str, object] = {}
        self.header: dict[str, object] = {}
        self.claims: dict[str, object] = {}
        self.token_answer: dict[str, object] = {}
        self.userinfo: dict[str, object] = {"sub": "s1"}
        self.replaced: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self.challenge = ""
        self.nonce = ""
        self.abandoned = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.issuer = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    def replace(self, path: str, body: Any = None, **answer: Any) -> None:
        self.replaced[path] = Answer(body, **answer)

    def rotate(self, kid: str | None, seed: int) -> None:
        """Sign with a new key from now on, and publish it alone."""
        key = ec_key(seed)
        self.keys, self.signing = {kid or "": key}, (kid, key)

    @property
    def hits(self) -> Counter[str]:
        return Counter(request.path for request in self.requests)

    async def asked(self, path: str, times: int) -> None:
        """Returns once `path` was asked for so many times."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.hits[path] >= times)

    def document(self) -> dict[str, object]:
        base = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
        }
        merged = {**base, **self.metadata}
        return {name: value for name, value in merged.items() if value is not ...}

    def id_token(self) -> str:
        kid, key = self.signing
        header = {"alg": "ES256", **({} if kid is None else {"kid": kid}), **self.header}
        now = int(NOW.timestamp())
        claims = {
            "iss": self.issuer,
            "aud": "broker",
            "sub": "s1",
            "nonce": self.nonce,
            "iat": now,
            "exp": now + 300,
            "email": "ada@example.com",
            "email_verified": True,
            "groups": ["sre"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not ...}
        signing_input = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
        model = JWSRegistry.algorithms[str(header["alg"])]
        signature = b"" if header["alg"] == "none" else model.sign(signing_input.encode(), key)
        return f"{signing_input}.{b64(signature)}"

    def _answer(self, request: Request) -> Answer:
        if request.path in self.replaced:
            return self.replaced[request.path]
        match request.path:
            case "/.well-known/openid-configuration":
                return Answer(self.document())
            case "/jwks":
                return Answer(
                    {
                        "keys": [
                            {**key.as_dict(private=False), **({"kid": kid} if kid else {})}
                            for kid, key in self.keys.items()
                        ]
                    }
                )
            case "/token":
                digest = hashlib.sha256(request.form.get("code_verifier", "").encode()).digest()
                if b64(digest) != self.challenge:
                    return Answer({"error": "invalid_grant"}, 400)
                token = {"access_token": "at", "token_type": "Bearer", "id_token": self.id_token()}
                merged = {**token, **self.token_answer}
                return Answer({n: v for n, v in merged.items() if v is not ...})
            case "/userinfo" if request.headers.get("authorization") == "Bearer at":
                return Answer(self.userinfo)
            case _:
                return Answer({"error": "not_found"}, 404)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while request := await self._read(reader):
                async with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                answer = self._answer(request)
                if answer.raw is not None:
                    await answer.raw(writer)
                    break
                await self._write(writer, answer)
        except (ConnectionError, asyncio.CancelledError):
            self.abandoned += 1
        finally:
            self._connections.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.strip().split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split(" ")
        return Request(method, path, headers, dict(parse_qsl(body.decode())))

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **answer.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode() + body)
        await writer.drain()


@dataclass
class Clock:
    """Monotonic seconds that stand still until a test moves them."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Party:
    """The broker's side: one configured provider, and one browser going through a login."""

    idp: HostileProvider
    client: httpx.AsyncClient
    clock: Clock
    provider: OidcProvider

    def configure(self, **changes: Any) -> None:
        config: dict[str, Any] = {
            "name": "corp",
            "issuer": self.idp.issuer,
            "client_id": "broker",
            "client_secret": "s3cr3t",
        }
        self.provider = OidcProvider(
            ProviderConfig(**(config | changes)),
            self.client,
            now=lambda: NOW,
            monotonic=self.clock,
        )

    async def authorize(self, binding: LoginBinding) -> dict[str, str]:
        url = await self.provider.authorization_url(
            state=binding.state,
            nonce=binding.nonce,
            code_challenge=binding.code_challenge,
            redirect_uri=REDIRECT,
        )
        query = parse_qs(urlsplit(url).query, strict_parsing=True)
        assert all(len(values) == 1 for values in query.values())
        self.idp.nonce = query["nonce"][0]
        self.idp.challenge = query["code_challenge"][0]
        return {name: values[0] for name, values in query.items()} | {"": url}

    async def log_in(self, iss: str | None = None) -> ProviderIdentity:
        binding = LoginBinding.new()
        await self.authorize(binding)
        return await self.provider.identify(
            code="the-code",
            code_verifier=binding.code_verifier,
            nonce=binding.nonce,
            redirect_uri=REDIRECT,
            iss=iss,
        )


@pytest.fixture
async def idp() -> AsyncIterator[HostileProvider]:
    provider = HostileProvider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def party(idp: HostileProvider) -> AsyncIterator[Party]:
    async with new_client() as client:
        clock = Clock()
        party = Party(idp, client, clock, None)  # type: ignore[arg-type]  # set on the next line
        party.configure()
        yield party
