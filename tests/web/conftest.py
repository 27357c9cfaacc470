"""The whole application in process: real stores on SQLite, a provider and an STS that are told
what to say, and browsers and terminals that talk to it over ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.app import create_app
from broker.settings import Settings
from tests.web.people import ADMIN
from tests.web.standins import StandInProvider, StandInSts

ORIGIN = "https://broker.test"
ADDRESS = "203.0.113.9"


@dataclass
class Running:
    """A started broker, and what stands around it."""

    app: FastAPI
    provider: StandInProvider
    sts: StandInSts
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def routes(self) -> list[tuple[str, str]]:
        """Method and path of every route there is."""
        found = []
        for route in iter_route_contexts(self.app.routes):
            assert route.path is not None
            assert route.methods, f"{route} is no plain route: walks over the table would miss it"
            found += [(method, route.path) for method in sorted(route.methods)]
        return found

    def client(
        self, *, address: str = ADDRESS, origin: str = ORIGIN, raises: bool = True
    ) -> httpx.AsyncClient:
        """A client with a cookie jar of its own, that follows no redirect by itself."""
        transport = httpx.ASGITransport(
            self.app, client=(address, 4711), raise_app_exceptions=raises
        )
        client = httpx.AsyncClient(transport=transport, base_url=origin)
        self.clients.append(client)
        return client


@pytest.fixture
def broker_url(sqlite_url: str) -> str:
    """The database of the broker under test; a module may choose another."""
    return sqlite_url


@pytest.fixture
def settings(tmp_path: Path, broker_url: str) -> Settings:
    keys = tmp_path / "sealing"
    FileKeyRing.create(keys)
    SigningKeys.create(tmp_path / "signing", "broker.test")
    return Settings(
        server={"public_url": ORIGIN, "trusted_proxies": ["10.9.0.0/16"]},  # type: ignore[arg-type]
        database={"url": broker_url},  # type: ignore[arg-type]
        oidc=[{"name": "corp", "issuer": "https://idp.test", "client_id": "broker"}],  # type: ignore[arg-type]
        keys={"sealing": f"file:{keys}", "signing": f"file:{tmp_path}/signing"},  # type: ignore[arg-type]
        mfa={"enrolment": "open"},  # type: ignore[arg-type]
        audit={"allow_unsafe_durability": True},  # type: ignore[arg-type]  # PostgreSQL here syncs nothing
        bootstrap={"admins": [{"issuer": ADMIN.issuer, "subject": ADMIN.subject}]},  # type: ignore[arg-type]
    )


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Running]:
    """A broker with open enrolment (never for admins) and an admin named in the settings."""
    async with running(settings) as started:
        yield started


class running:  # noqa: N801 -- reads as what it is where it is used
    """`async with running(settings) as broker`: started, and stopped at the end."""

    def __init__(self, settings: Settings, providers: tuple[str, ...] = ("corp",)) -> None:
        self._settings = settings
        self._providers = {name: StandInProvider(name) for name in providers}

    async def __aenter__(self) -> Running:
        sts = StandInSts()
        app = create_app(self._settings, providers=self._providers, sts=sts)
        self._lifespan = app.router.lifespan_context(app)
        await self._lifespan.__aenter__()
        self._running = Running(app, self._providers["corp"], sts)
        return self._running

    async def __aexit__(self, *fault: object) -> None:
        for client in self._running.clients:
            await client.aclose()
        await self._lifespan.__aexit__(None, None, None)
