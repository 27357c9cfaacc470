"""One token, shown many times at once to two broker processes: one of them lets it in."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import httpx

from broker.access.versions import NewPolicy
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.engine import Database
from broker.adapters.store.records import AuditRecords
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from tests.ci.conftest import JWT, TOKEN_EXCHANGE
from tests.ci.issuer import LocalIssuer, policy_text
from tests.e2e.processes import Process, free_port

SHOWN = 50


def configure(folder: Path, url: str) -> Path:
    FileKeyRing.create(folder / "sealing")
    SigningKeys.create(folder / "signing", "broker.test")
    config = folder / "broker.toml"
    config.write_text(
        f"[database]\nurl = {json.dumps(url)}\n"
        '[[oidc]]\nname = "corp"\nissuer = "https://idp.test"\nclient_id = "broker"\n'
        f'[keys]\nsealing = "file:{folder}/sealing"\nsigning = "file:{folder}/signing"\n'
        '[[aws]]\nregion = "us-east-1"\nsts_endpoint_url = "http://127.0.0.1:9"\n'
        "[audit]\nallow_unsafe_durability = true\n"
    )
    return config


async def apply(database: Database, text: str) -> None:
    await SqlAccessStore(database).apply_policy(
        NewPolicy(text, frozenset()),
        expected=0,
        applied_by="system",
        event=Event(EventType.ACCESS_APPLIED, SYSTEM, Outcome.SUCCESS),
    )


async def test_exactly_one_success_and_none_after(
    postgresql_database: Database, postgresql_url: str, issuer: LocalIssuer, tmp_path: Path
) -> None:
    database = postgresql_database
    await apply(database, policy_text(issuer))
    config = configure(tmp_path, postgresql_url)
    servers = []
    environment = {
        "PATH": "/usr/bin:/bin",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    ports = (free_port(), free_port())
    try:
        for port in ports:
            command = [sys.executable, "-m", "broker.entry", "server", "--config", str(config)]
            settings = {
                **environment,
                "BROKER_SERVER__PORT": str(port),
                "BROKER_SERVER__PUBLIC_URL": f"http://127.0.0.1:{ports[0]}",
            }
            servers.append(Process(command, tmp_path / f"{port}.log", settings, tmp_path))
        for server, port in zip(servers, ports, strict=True):
            await asyncio.to_thread(server.wait_for, f"http://127.0.0.1:{port}/readyz")
        token = issuer.mint()
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:

            async def show(number: int) -> str:
                answer = await client.post(
                    f"http://127.0.0.1:{ports[number % 2]}/oauth/token",
                    data={
                        "grant_type": TOKEN_EXCHANGE,
                        "subject_token": token,
                        "subject_token_type": JWT,
                    },
                )
                body = answer.json()
                return "let in" if answer.status_code == 200 else str(body.get("code"))

            at_once = Counter(await asyncio.gather(*map(show, range(SHOWN))))
            after = Counter([await show(number) for number in range(4)])
        assert at_once == {"let in": 1, "ci_token_replayed": SHOWN - 1}
        assert after == {"ci_token_replayed": 4}
        exchanged = await AuditRecords(database).records(type="ci.exchanged", limit=10)
        assert len(exchanged) == 1
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)
