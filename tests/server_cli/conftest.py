"""A host that runs a broker: settings, keys, database, an OpenID provider and an AWS stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import Key, RSAKey

from broker.access.parse import parse_policy
from broker.access.versions import NewPolicy
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.engine import Database
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.devstack.aws import AwsStandIn, HubCredentials

ACCOUNT = "111122223333"
HUB = f"arn:aws:iam::{ACCOUNT}:role/BrokerHub"
READER = f"arn:aws:iam::{ACCOUNT}:role/DataReader"
EXTERNAL_ID = "canary-external-id"
KEY = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
POLICY = f"""\
version: 1
accounts:
  prod: {{id: "{ACCOUNT}"}}
admins: [{{group: corp/platform}}]
roles:
  data-reader:
    account: prod
    role_arn: {READER}
    external_id: {EXTERNAL_ID}
    role_maximum: 4h
    tags: {{team: web}}
    transitive_tags: [team]
    session_policy: {{Version: "2012-10-17", Statement: [{{Effect: Allow, Action: "s3:GetObject", Resource: "*"}}]}}
entitlements:
  - {{role: data-reader, to: {{group: corp/analysts}}, mode: standing}}
"""  # noqa: E501 - one line of YAML


class Provider:
    """Discovery and keys over HTTP, and what a test makes of them. `hold`: never answer."""

    def __init__(self) -> None:
        self.keys: list[object] = [KEY.as_dict(private=False)]
        self.replaced: dict[str, tuple[int, bytes]] = {}
        self.date: str | None = None
        self.hold = False
        self.released = threading.Event()
        provider = self

        class Connection(BaseHTTPRequestHandler):
            timeout = 20

            def do_GET(self) -> None:
                if provider.hold:
                    provider.released.wait(60)
                    return
                status, body = provider.answer(self.path)
                self.send_response_only(status)
                self.send_header("Date", provider.date or self.date_time_string())
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
        self.server.daemon_threads = True
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> tuple[int, bytes]:
        if path in self.replaced:
            return self.replaced[path]
        if path == "/jwks":
            return 200, json.dumps({"keys": self.keys}).encode()
        if path == "/.well-known/openid-configuration":
            return 200, self.document(self.issuer)
        return 404, b"{}"

    def document(self, issuer: str, /, **members: object) -> bytes:
        """The discovery document of `issuer`, with `members` in place of its own."""
        base = {
            "issuer": issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return json.dumps(base | members).encode()

    def publish(self, path: str, key: Key) -> None:
        """Its public part, as a key set."""
        self.replaced[path] = (200, json.dumps({"keys": [key.as_dict(private=False)]}).encode())


@contextmanager
def serving() -> Iterator[Provider]:
    provider = Provider()
    thread = threading.Thread(target=provider.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.released.set()
        provider.server.shutdown()
        provider.server.server_close()
        thread.join()


@dataclass
class Report:
    """What `broker doctor` said, as people and programs read it."""

    code: int
    out: str
    err: str

    @property
    def checks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.out)
        for check in found:
            assert list(check) == ["check", "status", "detail", "cure", "role"]
            assert check["status"] in ("ok", "warning", "failed")
            assert (check["cure"] is None) == (check["status"] == "ok")
        return found

    def of(self, name: str) -> dict[str, Any]:
        """The one finding of this name."""
        found = [check for check in self.checks if check["check"] == name]
        assert len(found) == 1, self.out
        return found[0]

    def wrong(self) -> list[tuple[str, str]]:
        """Every warning and failure: its status and name."""
        return [(one["status"], one["check"]) for one in self.checks if one["status"] != "ok"]


@dataclass
class Host:
    folder: Path
    provider: Provider
    aws: AwsStandIn
    settings: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def use(self, hub: HubCredentials) -> None:
        """The broker's own AWS credentials."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            self.environment.pop(name, None)
        self.environment |= hub.environment()

    def may(self, *statements: Mapping[str, object]) -> None:
        """What the broker's own role may do, in place of assuming any role."""
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        service = {"Service": "ec2.amazonaws.com"}
        trust = {"Effect": "Allow", "Principal": service, "Action": "sts:AssumeRole"}
        self.aws.put_role(
            HUB, {"Version": "2012-10-17", "Statement": [trust]}, policies={"hub": document}
        )

    def configured(self) -> Path:
        """The settings file, written once."""
        config = self.folder / "broker.toml"
        if not config.exists():
            config.write_text(toml(self.settings))
        return config

    def doctor(self, *words: str, as_json: bool = True) -> Report:
        self.configured()
        options = ("--json",) if as_json else ()
        done = subprocess.run(
            [sys.executable, "-m", "broker.entry", "doctor", *options, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return Report(done.returncode, done.stdout, done.stderr)

    def apply(self, text: str) -> None:
        """As the next version, straight into the database."""
        with_runner(self._apply(text))

    async def _apply(self, text: str) -> None:
        database = Database.open(str(self.settings["database"]["url"]))
        try:
            access = SqlAccessStore(database)
            policy = parse_policy(text, providers=frozenset({"corp"}))
            generated = {r.role_arn for r in policy.roles.values() if r.generates_external_id}
            workloads = frozenset((one.name, one.issuer) for one in policy.workloads.values())
            current = await access.current_policy()
            await access.apply_policy(
                NewPolicy(text, frozenset(), frozenset(generated), workloads),
                expected=0 if current is None else current.number,
                applied_by="system",
                event=Event(EventType.ACCESS_APPLIED, SYSTEM, Outcome.SUCCESS),
            )
        finally:
            await database.aclose()


def with_runner(work: Any) -> None:
    with asyncio.Runner() as runner:
        runner.run(work)


def toml(settings: dict[str, Any]) -> str:
    """JSON's strings, numbers and lists are TOML's too; a list of sections is written as such."""
    lines = []
    for name, value in settings.items():
        for section in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            lines += [f"{key} = {json.dumps(item)}" for key, item in section.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def _keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    FileKeyRing.create(folder / "sealing")
    SigningKeys.create(folder / "signing", "broker.example.com")
    return folder


@pytest.fixture
def host(tmp_path: Path, sqlite_url: str, _keys: Path) -> Iterator[Host]:
    """Everything right: `broker doctor` has nothing to say against it."""
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("sealing", "signing"):
        (keys / name).touch(0o600)
        (keys / name).write_bytes((_keys / name).read_bytes())
    Path(sqlite_url.partition(":///")[2]).chmod(0o600)
    with serving() as provider, AwsStandIn.start() as aws:
        settings: dict[str, Any] = {
            "server": {
                "public_url": "https://broker.example.com",
                "trusted_proxies": ["10.0.0.0/8"],
            },
            "database": {"url": sqlite_url},
            "oidc": [{"name": "corp", "issuer": provider.issuer, "client_id": "broker"}],
            "aws": [{"region": "us-east-1", "sts_endpoint_url": aws.url}],
            "keys": {"sealing": f"file:{keys}/sealing", "signing": f"file:{keys}/signing"},
        }
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = {
            **kept,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(tmp_path / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws-credentials"),
            # For IAM; STS has a setting of its own.
            "AWS_ENDPOINT_URL": aws.url,
            "PYTHONWARNINGS": "error",
        }
        made = Host(tmp_path, provider, aws, settings, environment)
        made.use(aws.hub_credentials("role"))
        made.apply(POLICY)
        yield made
