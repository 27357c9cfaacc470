"""A broker whose access policy trusts a local issuer, and the jobs that talk to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from broker.access.parse import parse_policy
from broker.access.versions import NewPolicy
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.settings import Settings
from tests.ci.issuer import LocalIssuer, policy_text
from tests.web.conftest import Running, running, settings

__all__ = ["settings"]

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


@dataclass
class World:
    broker: Running
    issuer: LocalIssuer
    client: httpx.AsyncClient

    async def apply(self, text: str) -> None:
        """Put a policy in force, as an admin would."""
        policy = parse_policy(text, providers=frozenset({"corp"}))
        access = self.broker.app.state.parts.access
        current = await access.current_policy()
        await access.apply_policy(
            NewPolicy(
                text,
                frozenset(),
                frozenset(),
                frozenset((one.name, one.issuer) for one in policy.workloads.values()),
            ),
            expected=0 if current is None else current.number,
            applied_by="system",
            event=Event(EventType.ACCESS_APPLIED, SYSTEM, Outcome.SUCCESS),
        )

    async def credentials(self, token: str, role: str = "reader", **body: object) -> httpx.Response:
        return await self.client.post(
            "/v1/ci/credentials",
            json={"role": role, **body},
            headers={"authorization": f"Bearer {token}"},
        )

    async def exchange(self, token: str, **fields: str) -> httpx.Response:
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": token,
            "subject_token_type": JWT,
            **fields,
        }
        return await self.client.post("/oauth/token", data=form)

    async def records(self, kind: str) -> list[dict[str, Any]]:
        stored = await self.broker.app.state.parts.audit.records(limit=1000, type=kind)
        return [json.loads(one.record) for one in stored]

    async def job_token(self, platform: str = "github", **changes: object) -> str:
        answer = await self.exchange(self.issuer.mint(platform, **changes))
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token


@pytest.fixture
def broker_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
async def issuer() -> AsyncIterator[LocalIssuer]:
    local = LocalIssuer()
    await local.start()
    yield local
    await local.stop()


@pytest.fixture
async def world(settings: Settings, issuer: LocalIssuer) -> AsyncIterator[World]:
    async with running(settings) as broker:
        world = World(broker, issuer, broker.client())
        await world.apply(policy_text(issuer))
        yield world
