"""One real server with everything switched on, after a day's events: what it counted, traced and
logged is what the tests here look at."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from broker.access.parse import parse_policy
from broker.access.versions import NewPolicy
from broker.adapters.migrations import migrate
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.engine import Database
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.devstack.aws import AwsStandIn, seed_demo
from broker.devstack.aws.faults import Fault
from broker.devstack.browser import ScriptedBrowser, ScriptedPerson
from broker.devstack.oidc import Client, Person, create_provider
from broker.devstack.terminal import Terminal
from broker.devstack.threads import listen, served
from tests.e2e.processes import Process, free_port, until
from tests.telemetry.collector import Collector, collecting

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = PARENT.split("-")[1]
CLIENT_SECRET = "canary-client-secret-4d1f"
COLLECTOR_KEY = "canary-collector-key-77aa"
PASSWORD = "canary-password-0b5e"
POLICY = """\
version: 1
accounts: {demo: {id: "111122223333"}}
admins: [{group: corp/platform}]
roles:
  data-reader:
    account: demo
    role_arn: arn:aws:iam::111122223333:role/DataReader
    external_id: canary-external-id-9c
    session_policy: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "s3:GetObject", Resource: "*"}]}
  missing:
    account: demo
    role_arn: arn:aws:iam::111122223333:role/NotThere
    session_policy: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "s3:GetObject", Resource: "*"}]}
entitlements:
  - {role: data-reader, to: {group: corp/analysts}, mode: standing}
  - {role: missing, to: {group: corp/analysts}, mode: standing}
"""  # noqa: E501 - one line of YAML


def person(name: str, *groups: str) -> Person:
    return Person(name, PASSWORD, f"{name}-1", f"{name}@example.com", name, groups)


@dataclass
class Day:
    """What is left when it is over. The server still runs."""

    folder: Path
    url: str
    metrics_url: str
    collector: Collector
    aws: AwsStandIn
    server: Process
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    issuance: dict[str, str] = field(default_factory=dict, repr=False)

    def scrape(self) -> str:
        answer = httpx.get(self.metrics_url, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.text

    @property
    def log(self) -> list[str]:
        return self.server.output().splitlines()


@pytest.fixture(scope="package")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    folder = tmp_path_factory.mktemp("day")
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        aws = stack.enter_context(AwsStandIn.start())
        demo = seed_demo(aws, external_id="canary-external-id-9c")
        port, metrics_port, oidc = free_port(), free_port(), listen()
        url, issuer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{oidc.getsockname()[1]}"
        client = Client("broker", CLIENT_SECRET, f"{url}/login/callback")
        people = (person("alice", "analysts"), person("bob"))
        stack.enter_context(served(create_provider(issuer, client, people), oidc))
        FileKeyRing.create(folder / "sealing")
        SigningKeys.create(folder / "signing", "broker.test")
        database = f"sqlite+aiosqlite:///{folder}/broker.db"
        asyncio.run(_migrate_and_apply(database))
        provider = {"name": "corp", "issuer": issuer, "client_id": "broker"}
        sink = {"name": "siem", "kind": "file", "path": str(folder / "sink.jsonl")}
        copies = [f"file:{folder}/outside/checkpoint", "file:/proc/broker/checkpoint"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_EC2_METADATA_DISABLED": "true",
            **demo.hub.environment(),
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={COLLECTOR_KEY}",
            "BROKER_SERVER__PUBLIC_URL": url,
            "BROKER_SERVER__PORT": str(port),
            "BROKER_SERVER__METRICS_PORT": str(metrics_port),
            "BROKER_SERVER__LOG_LEVEL": "debug",
            "BROKER_DATABASE__URL": database,
            "BROKER_OIDC": json.dumps([{**provider, "client_secret": CLIENT_SECRET}]),
            "BROKER_AWS": json.dumps([{"region": "us-east-1", "sts_endpoint_url": aws.url}]),
            "BROKER_KEYS__SEALING": f"file:{folder}/sealing",
            "BROKER_KEYS__SIGNING": f"file:{folder}/signing",
            "BROKER_MFA__ENROLMENT": "open",
            "BROKER_AUDIT__CHECKPOINT_SECONDS": "0.5",
            "BROKER_AUDIT__CHECKPOINT_COPIES": json.dumps(copies),
            "BROKER_AUDIT__SINKS": json.dumps([sink]),
            "BROKER_TELEMETRY__OTLP_ENDPOINT": collector.url,
            "BROKER_TELEMETRY__TRACE_RATIO": "0",
        }
        server = Process(
            [sys.executable, "-m", "broker.entry", "server"],
            folder / "server.log",
            environment,
            folder,
        )
        stack.callback(server.stop)
        server.wait_for(f"{url}/readyz")
        metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        today = Day(folder, url, metrics_url, collector, aws, server)
        today.secrets |= {
            "client secret": CLIENT_SECRET,
            "collector's key": COLLECTOR_KEY,
            "password": PASSWORD,
            "external id": "canary-external-id-9c",
            "hub secret": demo.hub.secret_access_key,
            "hub token": demo.hub.session_token or "none",
        }
        _passes(today)
        yield today


async def _migrate_and_apply(url: str) -> None:
    await migrate(url)
    database = Database.open(url)
    try:
        parse_policy(POLICY, providers=frozenset({"corp"}))
        await SqlAccessStore(database).apply_policy(
            NewPolicy(POLICY, frozenset(), frozenset()),
            expected=0,
            applied_by="system",
            event=Event(EventType.ACCESS_APPLIED, SYSTEM, Outcome.SUCCESS),
        )
    finally:
        await database.aclose()


def _passes(day: Day) -> None:
    """A login, an issuance, and everything that goes wrong on an ordinary day."""
    alice, terminal = ScriptedPerson("alice", PASSWORD), Terminal(day.url, day.folder / "alice")
    with ScriptedBrowser() as browser:
        alice.sign_in(browser, f"{day.url}/login")
        terminal.log_in(alice, browser)
        cookies = [cookie.value or "" for cookie in browser.cookies.jar if cookie.domain]
    issued = _run(terminal, "creds", "data-reader", "--format", "json", TRACEPARENT=PARENT)
    assert issued.returncode == 0, issued.stderr
    credentials = json.loads(issued.stdout)
    day.issuance |= {"access_key_id": credentials["AccessKeyId"]}
    day.aws.faults.add(Fault.THROTTLE)
    assert _run(terminal, "creds", "missing").returncode == 1
    assert _run(terminal, "creds", "no-such-role").returncode == 1
    _wrong_codes(day)
    with httpx.Client(base_url=day.url, trust_env=False) as anybody:
        anybody.get("/login/callback", params={"code": "canary-code-1", "state": "canary-state-1"})
        anybody.post(
            "/v1/ci/credentials",
            json={"role": "data-reader"},
            headers={"authorization": "Bearer canary-ci-token-55"},
        )
        # Thirty a minute; a minute may end in between.
        asking = {"url": "/oauth/device_authorization", "data": {"client_id": "broker-cli"}}
        assert any(anybody.post(**asking).status_code == 429 for _ in range(100))  # type: ignore[arg-type]
    kept = "".join(f.read_text("utf-8", "replace") for f in terminal.home.rglob("*") if f.is_file())
    tokens = re.findall(r"bk[ar]_[A-Za-z0-9_-]{43}", kept)
    assert len(tokens) >= 2
    day.secrets |= {f"token {n}": token for n, token in enumerate(tokens)}
    day.secrets |= {f"cookie {n}": c for n, c in enumerate(cookies) if len(c) > 20}
    day.secrets |= {
        "totp secret": alice.totp_secret or "",
        "recovery code": alice.recovery_codes[0],
        "issued secret": credentials["SecretAccessKey"],
        "issued token": credentials["SessionToken"],
        "login code": "canary-code-1",
        "login state": "canary-state-1",
        "ci token": "canary-ci-token-55",
    }


def _run(
    terminal: Terminal, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        terminal.command(arguments),
        env={**terminal.environment, **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def _wrong_codes(day: Day) -> None:
    """Bob enrols, and then types what is wrong until he is locked out."""
    bob = ScriptedPerson("bob", PASSWORD)
    with ScriptedBrowser() as browser:
        bob.sign_in(browser, f"{day.url}/login")
    with ScriptedBrowser() as browser:
        page = browser.open(f"{day.url}/login")
        while (form := page.form_with("code")) is None:
            answered = bob.answer(browser, page, "")
            assert answered is not None, page.html
            page = answered
        for _ in range(5):
            form = page.form_with("code")
            assert form is not None, page.html
            page = browser.submit(page, form, {"code": "000000"})


def wait_for(day: Day, what: str) -> str:
    """The scrape once a series' name begins with `what`."""
    seen = ""

    def there() -> bool:
        nonlocal seen
        seen = day.scrape()
        return any(line.startswith(what) for line in seen.splitlines())

    until(there, f"{what} in the scrape", 60)
    return seen
