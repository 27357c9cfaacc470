"""Two server processes on one database, and a crowd that asks both at the same moment."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from broker.devstack.aws import AwsStandIn, seed_demo
from tests.conftest import PostgresCluster
from tests.hostile.world import Person, World


@dataclass(frozen=True)
class Ask:
    """One request of a crowd, as somebody with an address of their own."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def api(cls, who: Person, method: str, path: str, **options: Any) -> Ask:
        given = options.pop("headers", {})
        return cls(method, path, {"authorization": f"Bearer {who.token}", **given}, options)

    @classmethod
    def form(cls, who: Person, path: str, fields: dict[str, str]) -> Ask:
        """A page's form, with the browser's cookies."""
        cookies = "; ".join(f"{name}={value}" for name, value in who.http.cookies.items())
        headers = {"cookie": cookies, "origin": who.world.url}
        return cls("POST", path, headers, {"data": fields})


@dataclass(frozen=True)
class Arena:
    """`callers` at once, `rounds` times over."""

    world: World
    callers: int
    rounds: int
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def at_once(self, asked: Sequence[Ask]) -> list[httpx.Response]:
        """Every answer, in the order asked. Both processes get every second request, on
        connections that are open already.
        """
        return self.world.run(self._at_once(asked))

    def all_of(self, ask: Ask) -> list[httpx.Response]:
        """The same from every caller."""
        return self.at_once([ask] * self.callers)

    def under_way(self, asked: Sequence[Ask], then: Ask) -> list[httpx.Response]:
        """The same, and `then` as soon as the first of them has its answer; that of `then` last."""
        return self.world.run(self._at_once(asked, then))

    async def _at_once(self, asked: Sequence[Ask], then: Ask | None = None) -> list[httpx.Response]:
        async with ClientsOfEach(self.world.processes(2), self.callers + 2) as clients:
            await asyncio.gather(
                *(clients[n % 2].get("/healthz") for n in range(2 * min(self.callers, 40)))
            )
            sent = [
                asyncio.create_task(self._send(clients[n % 2], ask)) for n, ask in enumerate(asked)
            ]
            if then is not None:
                await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
                sent.append(asyncio.create_task(self._send(clients[0], then)))
            return await asyncio.gather(*sent)

    async def _send(self, client: httpx.AsyncClient, ask: Ask) -> httpx.Response:
        number = next(self._numbers)
        address = f"198.19.{number // 250 % 250}.{number % 250 + 1}"
        headers = {**ask.headers, "x-forwarded-for": address}
        return await client.request(ask.method, ask.path, headers=headers, **ask.options)


class ClientsOfEach:
    """A client for each process; none keeps cookies for the next request."""

    def __init__(self, urls: Sequence[str], callers: int) -> None:
        limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
        self._clients = [
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=120, limits=limits)
            for url in urls
        ]

    async def __aenter__(self) -> list[httpx.AsyncClient]:
        return self._clients

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.aclose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def arena(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arena]:
    """Once on each database. A hundred callers and a hundred rounds with --long."""
    with ExitStack() as stack:
        url = None
        if request.param == "postgresql":
            cluster: PostgresCluster = request.getfixturevalue("postgresql")
            url = stack.enter_context(cluster.database("template0"))
        aws = stack.enter_context(AwsStandIn.start())
        world = World(tmp_path_factory.mktemp("arena"), aws, seed_demo(aws, hub="user"), url)
        stack.callback(world.close)
        world.start()
        long = request.config.getoption("--long")
        yield Arena(world, *((100, 100) if long else (24, 3)))
