"""What the attacks are made against: a broker as real server processes, on SQLite unless told
otherwise, OpenID providers that lie on request, an AWS stand-in, and a look into the database.

One world serves all attacks of a test process: each attacker has an address of their own, so
that limits on one do not stop the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx
import pyotp
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from broker.devstack.aws import AwsStandIn, DemoAccount
from tests.e2e.processes import Process, free_port
from tests.hostile.inside import Inside, PostgresInside, SqliteInside
from tests.oidc.conftest import HostileProvider, b64

T = TypeVar("T")
# Made once: reading the certificate authorities for each client would be most of the time.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

POLICY = """\
version: 1
accounts:
  prod: {{id: "111122223333", name: Production, region: us-east-1}}
admins: [{{group: corp/platform}}]
auditors: [{{group: corp/audit}}]
roles:
  data-reader:
    description: Read one prefix
    account: prod
    role_arn: {data_reader}
    external_id: {external_id}
    role_maximum: 4h
    default_duration: 1h
    max_grant: 8h
    parameters:
      bucket: {{allowed: [reports, logs], default: reports}}
      prefix: {{pattern: "[a-z0-9-]{{1,40}}", default: public}}
    session_policy:
      Version: "2012-10-17"
      Statement:
        - Effect: Allow
          Action: ["s3:GetObject"]
          Resource: "arn:aws:s3:::{{{{bucket}}}}/{{{{prefix}}}}/*"
  by-team:
    account: prod
    role_arn: {data_reader}
    external_id: {external_id}
    session_policy:
      Version: "2012-10-17"
      Statement:
        - Effect: Allow
          Action: ["s3:GetObject"]
          Resource: "arn:aws:s3:::reports/{{{{principal.claims.team}}}}/*"
entitlements:
  - {{role: data-reader, to: {{group: corp/analysts}}, mode: standing, max_duration: 2h}}
  - {{role: by-team, to: {{group: corp/analysts}}, mode: standing}}
"""
_BY_ITSELF = frozenset({"audit.checkpoint", "audit.suppressed"})
VERIFIER = "v" * 43
CHALLENGE = b64(hashlib.sha256(VERIFIER.encode()).digest())
REDIRECT_URI = "http://127.0.0.1:49152/callback"
# Rows that every attempt may leave: the log itself, counters, and attempts that expire.
_PASSING = re.compile(r"audit_|throttle_counters|login_attempts|alembic|sqlite_|denial|checkpoint")


class Liar(HostileProvider):
    """A provider whose ID token any attack can make up. `alter` changes header and claims;
    `forge` makes the whole token.
    """

    alter: Callable[[dict[str, Any], dict[str, Any]], None] | None = None
    forge: Callable[[dict[str, Any]], str] | None = None

    def be_honest(self) -> None:
        self.alter = self.forge = None
        self.metadata, self.token_answer, self.replaced = {}, {}, {}
        self.claims, self.header, self.userinfo = {}, {}, {"sub": "s1"}

    def honest_claims(self) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.issuer,
            "aud": "broker",
            "sub": "s1",
            "nonce": self.nonce,
            "iat": now,
            "exp": now + 300,
            "email": "ada@example.com",
            "email_verified": True,
            "groups": [],
            **self.claims,
        }

    def id_token(self) -> str:
        claims = self.honest_claims()
        if self.forge is not None:
            return self.forge(claims)
        kid, key = self.signing
        header: dict[str, Any] = {"alg": "ES256", **({} if kid is None else {"kid": kid})}
        if self.alter is not None:
            self.alter(header, claims)
        return signed(header, claims, key)


def signed(header: Any, claims: Any, key: Key | None, algorithm: str | None = None) -> str:
    """A compact JWS of what is given; bytes are taken as the JSON text they are."""
    texts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)
    ]
    signing_input = ".".join(b64(text) for text in texts)
    if key is None:
        return f"{signing_input}."
    name = algorithm or header["alg"]
    return f"{signing_input}.{b64(JWSRegistry.algorithms[name].sign(signing_input.encode(), key))}"


@dataclass
class Person:
    """A browser, what it holds, and the authenticator beside it."""

    http: httpx.Client
    world: World
    secret: str = ""
    id: str = ""
    codes: list[str] = field(default_factory=list)
    token: str = ""
    refresh_token: str = ""

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, fields: Mapping[str, str], **options: Any) -> httpx.Response:
        headers = {"origin": self.world.url, **options.pop("headers", {})}
        return self.http.post(path, data=dict(fields), headers=headers, **options)

    def submit(self, path: str, **fields: str) -> httpx.Response:
        """The form of the page at `path`, as its own page sends it."""
        return self.post(urlsplit(path).path, {"csrf_token": self.csrf(path), **fields})

    def csrf(self, path: str = "/mfa") -> str:
        return field_of(self.get(path), "csrf_token")

    def code(self, steps: int = 0) -> str:
        """The code of now, or of some steps from now."""
        return pyotp.TOTP(self.secret).at(int(time.time()) + 30 * steps)

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return self.world.client().request(method, path, headers=headers, **options)

    def ask(self, **body: Any) -> httpx.Response:
        return self.api("POST", "/v1/credentials", json={"role": "data-reader", **body})

    def consent(self, **changes: str) -> httpx.Response:
        asked = {**authorization(), **changes}
        page = self.get("/oauth/authorize", params=asked)
        assert page.status_code == 200, page.text
        return self.post(
            "/oauth/authorize",
            {**asked, "csrf_token": field_of(page, "csrf_token"), "decision": "allow"},
        )

    def authorization_code(self) -> str:
        return query_of(self.consent())["code"]

    def log_the_terminal_in(self) -> None:
        answer = redeem(self.world.client(), self.authorization_code())
        assert answer.status_code == 200, answer.text
        self.token, self.refresh_token = (
            answer.json()["access_token"],
            answer.json()["refresh_token"],
        )


def authorization() -> dict[str, str]:
    return {
        "response_type": "code",
        "client_id": "broker-cli",
        "redirect_uri": REDIRECT_URI,
        "state": "xyz",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }


def redeem(client: httpx.Client, code: str, **changes: str) -> httpx.Response:
    form = {
        "grant_type": "authorization_code",
        "client_id": "broker-cli",
        "code": code,
        "redirect_uri": REDIRECT_URI,
        "code_verifier": VERIFIER,
        **changes,
    }
    return client.post("/oauth/token", data=form)


def refresh(client: httpx.Client, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "client_id": "broker-cli", "refresh_token": token}
    return client.post("/oauth/token", data=form)


def query_of(answer: httpx.Response) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def field_of(page: httpx.Response, name: str) -> str:
    found = re.search(rf'name="{re.escape(name)}" value="([^"]*)"', page.text)
    assert found is not None, f"no field {name} at {page.url} ({page.status_code})"
    return unescape(found[1])


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


class World:
    """Everything, started; `close` ends it."""

    admin: Person

    def __init__(
        self, folder: Path, aws: AwsStandIn, demo: DemoAccount, url: str | None = None
    ) -> None:
        """`url`: of an empty database on PostgreSQL; None: SQLite in the folder."""
        self.folder, self.aws, self.demo = folder, aws, demo
        self.database_url = url or f"sqlite+aiosqlite:///{folder / 'broker.db'}"
        self.inside: Inside = (
            SqliteInside(folder / "broker.db") if url is None else PostgresInside(url, self.run)
        )
        self.providers: dict[str, Liar] = {}
        self.servers: list[Process] = []
        self.ports: list[int] = []
        self._residents: dict[str, Person] = {}
        self._addresses = itertools.count(1)
        self._clients: list[httpx.Client] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for name in ("corp", "other", "keyless", "hollow"):
            self.providers[name] = Liar()
            self.run(self.providers[name].start())
        self._public_port = free_port()
        self.url = f"http://127.0.0.1:{self._public_port}"
        self._configure()

    def start(self) -> None:
        self.command("migrate")
        self.add_server(self._public_port)
        self.admin = self._first_admin()

    @property
    def corp(self) -> Liar:
        return self.providers["corp"]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for server in self.servers:
            server.stop()
        for provider in self.providers.values():
            self.run(provider.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- the broker ---------------------------------------------------------------------

    def add_server(self, port: int | None = None) -> str:
        """One more process on the same database; its address."""
        port = port or free_port()
        process = Process(
            [sys.executable, "-m", "broker.entry", "server", "--config", str(self._config)],
            self.folder / f"server-{port}.log",
            {**self._environment(), "BROKER_SERVER__PORT": str(port)},
            self.folder,
        )
        self.servers.append(process)
        process.wait_for(f"http://127.0.0.1:{port}/readyz")
        self.ports.append(port)
        return f"http://127.0.0.1:{port}"

    def processes(self, count: int) -> list[str]:
        """The addresses of so many processes."""
        while len(self.ports) < count:
            self.add_server()
        return [f"http://127.0.0.1:{port}" for port in self.ports[:count]]

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "broker.entry", *words, "--config", str(self._config)],
            capture_output=True,
            text=True,
            env=self._environment(),
            cwd=self.folder,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client_command(self, *words: str) -> str:
        """What a command of the client says, which must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "broker.entry", *words],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "BROKER_HOME": str(self.folder / "home")},
            cwd=self.folder,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def log(self) -> str:
        return "".join(server.output() for server in self.servers)

    # --- people -------------------------------------------------------------------------

    def client(self, url: str | None = None, address: str | None = None) -> httpx.Client:
        """Somebody with an address of their own, who follows no redirect."""
        number = next(self._addresses)
        address = address or f"198.18.{number // 250}.{number % 250 + 1}"
        client = httpx.Client(
            base_url=url or self.url,
            headers={"x-forwarded-for": address},
            trust_env=False,
            timeout=30,
            verify=_NO_TLS,
            # Hundreds of people live as long as this process: none keeps a connection.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._clients.append(client)
        return client

    def visitor(self, url: str | None = None) -> Person:
        return Person(self.client(url), self)

    def begin(self, who: Person, provider: str = "corp", **query: str) -> dict[str, str]:
        """Out to the provider; what the browser carries there."""
        answer = who.get("/login", params={"provider": provider, **query})
        assert answer.status_code == 303, answer.text
        asked = query_of(answer)
        idp = self.providers[provider]
        idp.nonce, idp.challenge = asked["nonce"], asked["code_challenge"]
        return asked

    def back(self, who: Person, **query: str) -> httpx.Response:
        return who.get("/login/callback", params=query)

    def sign_in(
        self, subject: str, provider: str = "corp", *, who: Person | None = None, **claims: Any
    ) -> Person:
        """Past the first factor."""
        who = who or self.visitor()
        idp = self.providers[provider]
        idp.claims = {"sub": subject, "email": f"{subject}@example.com", **claims}
        asked = self.begin(who, provider)
        answer = self.back(who, state=asked["state"], code="any")
        assert answer.status_code == 303, answer.text
        idp.claims = {}
        rows = self.rows(
            "SELECT id FROM principals WHERE issuer = ? AND subject = ?", idp.issuer, subject
        )
        who.id = rows[0][0]
        return who

    def enrol(self, who: Person, enrolment_code: str = "") -> httpx.Response:
        page = who.get("/mfa/enroll")
        assert page.status_code == 200, page.text
        who.secret = re.search(r'id="totp-secret">([A-Z2-7]+)<', page.text)[1]  # type: ignore[index]
        answer = who.post(
            "/mfa/enroll",
            {
                "csrf_token": field_of(page, "csrf_token"),
                "code": who.code(),
                "enrolment_code": enrolment_code,
            },
        )
        who.codes = re.findall(r"<li>([a-z2-7-]{27})</li>", answer.text)
        return answer

    def person(self, subject: str, *groups: str, **claims: Any) -> Person:
        """Past both factors, with a terminal."""
        who = self.sign_in(subject, groups=list(groups), **claims)
        answer = self.enrol(who)
        assert answer.status_code == 200, answer.text
        who.log_the_terminal_in()
        return who

    def resident(self, subject: str, *groups: str) -> Person:
        """The same person for every test that asks: made once in a world."""
        if subject not in self._residents:
            self._residents[subject] = self.person(subject, *groups)
        return self._residents[subject]

    def forget_steps(self, who: Person) -> None:
        """Some minutes later: no code of now was shown yet, and nobody is locked."""
        self.change("UPDATE factors SET last_step = -1 WHERE principal_id = ?", who.id)
        self.change("DELETE FROM mfa_failures WHERE principal_id = ?", who.id)

    def stepped_up_admin(self) -> Person:
        """The admin, minutes later, with a second factor shown just now."""
        self.admin.log_the_terminal_in()  # an access token lives for 15 minutes
        self.forget_steps(self.admin)
        shown = self.admin.api("POST", "/v1/mfa/verify", json={"code": self.admin.code()})
        assert shown.status_code == 200, shown.text
        return self.admin

    # --- looking into it ----------------------------------------------------------------

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.inside.rows(query, *values)

    def change(self, statement: str, *values: object) -> None:
        self.inside.change(statement, *values)

    def head(self) -> int:
        return int(self.rows("SELECT seq FROM audit_head")[0][0])

    def records(self, after: int = 0) -> list[dict[str, Any]]:
        """The log after a sequence number, but for what it writes by itself."""
        found = self.rows("SELECT record FROM audit_records WHERE seq > ? ORDER BY seq", after)
        records = [json.loads(row[0]) for row in found]
        return [one for one in records if one["type"] not in _BY_ITSELF]

    def state(self) -> dict[str, str]:
        """A digest of each table whose rows are somebody's: equal where nothing changed."""
        return {
            table: hashlib.sha256(
                repr(sorted(map(repr, self.rows(f"SELECT * FROM {table}")))).encode()
            ).hexdigest()
            for table in self.inside.tables()
            if not _PASSING.match(table)
        }

    # --- setting up ---------------------------------------------------------------------

    @property
    def _config(self) -> Path:
        return self.folder / "broker.toml"

    def _configure(self) -> None:
        providers = "".join(
            f'[[oidc]]\nname = "{name}"\nissuer = "{idp.issuer}"\nclient_id = "broker"\n'
            'client_secret = "client-secret"\n'
            for name, idp in self.providers.items()
        )
        self._config.write_text(
            f'[server]\npublic_url = "{self.url}"\ntrusted_proxies = ["127.0.0.0/8"]\n'
            f"[database]\nurl = {json.dumps(self.database_url)}\n"
            # The tests' PostgreSQL need not survive a power cut.
            "[audit]\nallow_unsafe_durability = true\n"
            f'{providers}[mfa]\nenrolment = "open"\n'
            f'[[aws]]\nregion = "us-east-1"\nsts_endpoint_url = "{self.aws.url}"\n'
            f'[keys]\nsealing = "file:{self.folder}/keys/sealing"\n'
            f'signing = "file:{self.folder}/keys/signing"\n'
            f'[bootstrap]\nadmins = [{{issuer = "{self.corp.issuer}", subject = "root"}}]\n'
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        hub = self.demo.hub.environment()
        return {**kept, **hub, "AWS_EC2_METADATA_DISABLED": "true"}

    def _first_admin(self) -> Person:
        root = self.sign_in("root", groups=["platform", "audit"])
        code = self.command("recover", "--issuer", self.corp.issuer, "--subject", "root")
        assert self.enrol(root, code.splitlines()[0]).status_code == 200
        root.log_the_terminal_in()
        policy = POLICY.format(
            data_reader=self.demo.data_reader_arn, external_id=self.demo.external_id
        )
        answer = root.api("PUT", "/v1/access", content=policy.encode())
        assert answer.status_code == 200, answer.text
        return root
