"""What the faults happen to: three server processes on one PostgreSQL, people, and their load.

Owns the processes and their settings, the people (made through the stores), what the load asks
for, and what each caller was given. Does not own what must hold afterwards (`invariants`), nor
the faults.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from broker.access.versions import NewPolicy
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.engine import Database
from broker.audit.record import EventType
from broker.devstack.aws import AwsStandIn, seed_demo
from tests.e2e.processes import free_port
from tests.faults.prefork import PATIENCE, Fork, Prefork
from tests.hostile.world import Liar
from tests.store.stores import Stores, event

SERVERS = 3
ORIGIN = "broker.test"
# A caller waits for the journal (5 s), STS (12 s) and the journal once more.
ASKING = aiohttp.ClientTimeout(total=60)
POLICY = """\
version: 1
accounts:
  prod: {{id: "111122223333", name: Production, region: us-east-1}}
admins: [{{group: corp/platform}}]
roles:
  data-reader:
    account: prod
    role_arn: {role}
    external_id: {external_id}
    role_maximum: 4h
    max_grant: 24h
    session_policy:
      Version: "2012-10-17"
      Statement: [{{Effect: Allow, Action: ["s3:GetObject"], Resource: "arn:aws:s3:::reports/*"}}]
entitlements:
  - {{role: data-reader, to: {{group: corp/analysts}}, mode: standing, max_duration: 2h}}
"""
_SECRETS = ("secret_access_key", "session_token")


@dataclass(eq=False)
class Person:
    """A terminal that is logged in. `refresh`: every refresh token it was given, newest last."""

    name: str
    principal_id: str
    address: str
    access: str
    refresh: list[str]
    ended: str | None = None


@dataclass(eq=False)
class Given:
    """What callers were told, by everybody."""

    issued: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    leaks: list[str] = field(default_factory=list)
    refreshed: int = 0
    granted: list[str] = field(default_factory=list)
    logins: int = 0

    @property
    def asked(self) -> int:
        return len(self.issued) + self.refreshed + self.refused.total() + self.unanswered


class World:
    """Use `open`. Servers are started by `start_servers`, or one by one."""

    def __init__(self, folder: Path, database_url: str, servers_url: str, aws: AwsStandIn) -> None:
        self.folder, self.database_url, self.aws = folder, database_url, aws
        self._servers_url = servers_url
        self.demo = seed_demo(aws, hub="user")
        self.ports = [free_port() for _ in range(SERVERS)]
        self.servers: dict[int, Fork] = {}
        self.given = Given()
        self.people: list[Person] = []
        self.admin: Person | None = None
        self.provider = Liar()
        self.settings: dict[str, str] = {}
        self._sign_in = asyncio.Lock()
        self._logs = 0
        self._prefork = Prefork(self._environment())

    @classmethod
    async def open(
        cls,
        folder: Path,
        database_url: str,
        aws: AwsStandIn,
        *,
        people: int = 6,
        servers_url: str | None = None,
    ) -> Self:
        """`servers_url`: where the servers find the database, if elsewhere."""
        world = cls(folder, database_url, servers_url or database_url, aws)
        try:
            await world.provider.start()
            world._configure()
            database = Database.open(database_url)
            try:
                await world._populate(Stores(database), people)
            finally:
                await database.aclose()
        except BaseException:
            await world.aclose()
            raise
        return world

    async def aclose(self) -> None:
        await asyncio.to_thread(self._prefork.close)
        await self.provider.stop()

    # --- servers ----------------------------------------------------------------------------

    async def start(self, port: int, crash: tuple[str, int] | None = None) -> Fork:
        """A server on that port, ready."""
        self._logs += 1
        fork = self._prefork.start(
            ["server", "--config", str(self.folder / "broker.toml")],
            environment={**self._environment(), "BROKER_SERVER__PORT": str(port)},
            folder=self.folder,
            log=self.folder / f"server-{self._logs}.log",
            crash=crash,
        )
        self.servers[port] = fork
        await self._wait_until_ready(port)
        # With a crash point, it may have passed that at the start.
        assert fork.alive or crash is not None, fork.output()
        return fork

    async def start_servers(self) -> None:
        await asyncio.gather(*(self.start(port) for port in self.ports))

    async def _wait_until_ready(self, port: int) -> None:
        fork = self.servers[port]
        async with asyncio.timeout(PATIENCE), self.client() as client:
            while await self._starting(fork, client, port):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)

    @staticmethod
    async def _starting(fork: Fork, client: aiohttp.ClientSession, port: int) -> bool:
        if not fork.alive:
            return False
        try:
            async with client.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status != 200
        except aiohttp.ClientError:
            return True

    async def stop(self, port: int, number: int) -> int:
        fork = self.servers.pop(port)
        fork.signal(number)
        return await asyncio.to_thread(fork.wait)

    @staticmethod
    def client() -> aiohttp.ClientSession:
        """Each request on a connection of its own."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0), timeout=ASKING
        )

    # --- people -----------------------------------------------------------------------------

    async def _populate(self, stores: Stores, count: int) -> None:
        text = POLICY.format(role=self.demo.data_reader_arn, external_id=self.demo.external_id)
        await stores.access.apply_policy(
            NewPolicy(text, frozenset(), frozenset()),
            expected=0,
            applied_by="p-test",
            event=event(EventType.ACCESS_APPLIED),
        )
        for number in range(count):
            self.people.append(await self._person(stores, f"person{number}", "corp/analysts"))
        self.admin = await self._person(stores, "root", "corp/platform")

    async def _person(self, stores: Stores, name: str, group: str) -> Person:
        number = len(self.people) + 1
        login = await stores.log_in(name, issuer=self.provider.issuer, groups=frozenset({group}))
        await stores.enrol(login)
        access, refresh, _ = await stores.cli(login)
        return Person(name, login.principal.id, f"198.18.0.{number}", access.text, [refresh.text])

    async def ask(
        self, client: aiohttp.ClientSession, url: str, who: Person, role: str = "data-reader"
    ) -> int | None:
        """One request for credentials. The answer's status; None where none came."""
        try:
            async with client.post(
                f"{url}/v1/credentials",
                data=json.dumps({"role": role}),
                headers={
                    "authorization": f"Bearer {who.access}",
                    "content-type": "application/json",
                    "x-forwarded-for": who.address,
                },
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self.given.unanswered += 1
            return None
        if answer.status == 200:
            self.given.issued.append(json.loads(body))
        else:
            self.given.refused[f"{answer.status} {json.loads(body)['code']}"] += 1
            if any(word.encode() in body for word in _SECRETS):
                self.given.leaks.append(body.decode())
        return answer.status

    async def refresh(self, client: aiohttp.ClientSession, url: str, who: Person) -> bool:
        """Rotate their tokens as the command line does. False where it has to be tried again;
        `who.ended` says why a session is lost.
        """
        try:
            async with client.post(
                f"{url}/oauth/token",
                data={
                    "grant_type": "refresh_token",
                    "client_id": "broker-cli",
                    "refresh_token": who.refresh[-1],
                },
                headers={"x-forwarded-for": who.address},
            ) as answer:
                body = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            self.given.unanswered += 1
            return False
        if answer.status == 200:
            who.access = body["access_token"]
            who.refresh.append(body["refresh_token"])
            self.given.refreshed += 1
            return True
        self.given.refused[f"{answer.status} {body['error']}"] += 1
        if answer.status == 400:
            who.ended = str(body)
        return False

    async def grant(self, client: aiohttp.ClientSession, url: str, to: Person) -> int | None:
        assert self.admin is not None
        try:
            async with client.post(
                f"{url}/v1/grants",
                json={
                    "principal": to.principal_id,
                    "role": "data-reader",
                    "duration": 3600,
                    "reason": "on call",
                },
                headers={
                    "authorization": f"Bearer {self.admin.access}",
                    "x-forwarded-for": "198.18.9.9",
                },
            ) as answer:
                body = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return None
        if answer.status == 201:
            self.given.granted.append(body["id"])
        return answer.status

    async def log_in(self, client: aiohttp.ClientSession, url: str) -> int | None:
        """Sign in at the provider, as somebody new; the status of what the callback answers."""
        name = f"visitor-{secrets.token_hex(6)}"
        headers = {"x-forwarded-for": f"198.18.{secrets.randbelow(200)}.{secrets.randbelow(200)}"}
        headers["host"] = f"127.0.0.1:{self.ports[0]}"
        async with self._sign_in:
            try:
                async with client.get(
                    f"{url}/login?provider=corp", headers=headers, allow_redirects=False
                ) as answer:
                    asked = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
                    cookies = {name: morsel.value for name, morsel in answer.cookies.items()}
                self.provider.nonce = asked["nonce"]
                self.provider.challenge = asked["code_challenge"]
                self.provider.claims = {"sub": name, "email": f"{name}@example.com"}
                async with client.get(
                    f"{url}/login/callback",
                    params={"state": asked["state"], "code": "any"},
                    headers={
                        **headers,
                        "cookie": "; ".join(f"{n}={v}" for n, v in cookies.items()),
                    },
                    allow_redirects=False,
                ) as answer:
                    await answer.read()
            except (aiohttp.ClientError, TimeoutError, KeyError):
                return None
        if answer.status == 303:
            self.given.logins += 1
        return answer.status

    # --- setting up -------------------------------------------------------------------------

    def _configure(self) -> None:
        FileKeyRing.create(self.folder / "keys" / "sealing")
        signing = SigningKeys.create(self.folder / "keys" / "signing", ORIGIN)
        self.log_keys = signing.log.keys
        (self.folder / "broker.toml").write_text(
            f'[server]\npublic_url = "http://127.0.0.1:{self.ports[0]}"\n'
            'trusted_proxies = ["127.0.0.0/8"]\n'
            f"[database]\nurl = {json.dumps(self._servers_url)}\n"
            f'[[oidc]]\nname = "corp"\nissuer = "{self.provider.issuer}"\nclient_id = "broker"\n'
            'client_secret = "client-secret"\n'
            f'[[aws]]\nregion = "us-east-1"\nsts_endpoint_url = "{self.aws.url}"\n'
            f'[keys]\nsealing = "file:{self.folder}/keys/sealing"\n'
            f'signing = "file:{self.folder}/keys/signing"\n'
            # The tests' PostgreSQL syncs nothing: these are faults of processes and lines.
            "[audit]\nallow_unsafe_durability = true\ncheckpoint_seconds = 0.5\n"
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        hub = self.demo.hub.environment()
        return {**kept, **hub, "AWS_EC2_METADATA_DISABLED": "true", **self.settings}
