"""How long it takes until somebody who was stopped is refused, on every replica.

Three `broker server` processes share one PostgreSQL, with its durability on. A person
asks each of them for credentials without a pause; then, through one of them, a grant
is revoked, the person is suspended, the access policy changes, or the person signs in
again without the group. A sample is the time from asking for that act until a replica
first refuses. From the act's answer on not one request may be served: that is counted.

    python bench/revocation.py [--quick]

Ratios: of each act, the 99th percentile of a second (`*_p99_vs_1s`, at most 1), and
`served_after`, the share of requests sent after the act's answer that were served (0).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from stage import people
from stage.postgresql import cluster
from stage.processes import HERE, Service, bare_environment, free_port

from broker.access.versions import NewPolicy
from broker.adapters.store.access import SqlAccessStore
from broker.adapters.store.engine import Database
from broker.adapters.store.principals import SqlPeople
from broker.audit.record import SYSTEM, Event, EventType, Outcome

REPLICAS = 3
PAUSE = 0.005  # between two requests of one poller: the machine also has to serve them
REFUSALS = 3  # each replica must refuse so often in a row
PATIENCE = 30.0
POLICY = people.POLICY.replace("role_maximum: 4h", "role_maximum: 4h\n    max_grant: 24h")
WITHOUT = POLICY.replace("group: corp/analysts", "group: corp/nobody")
ANALYSTS = frozenset({"corp/analysts"})
# The last is of requests that were in flight: their credentials are withheld.
REFUSED = frozenset({"unauthenticated", "suspended", "not_found", "not_entitled"})

Act = Callable[[], Awaitable[None]]


@dataclass
class Seen:
    """What one replica answered: when each request was sent, answered, and whether served."""

    answers: list[tuple[float, float, bool]] = field(default_factory=list)
    served: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False

    def add(self, sent: float, served: bool) -> None:
        self.answers.append((sent, time.perf_counter(), served))
        if served:
            self.served.set()
        last = [one for _, _, one in self.answers[-REFUSALS:]]
        self.over = len(last) == REFUSALS and not any(last)

    def first_refusal(self) -> float:
        """When the refusals began that lasted."""
        moment = self.answers[-1][1]
        for _, answered, served in reversed(self.answers):
            if served:
                break
            moment = answered
        return moment


@dataclass
class Samples:
    """Seconds until denial, one a replica and round."""

    seconds: list[float] = field(default_factory=list)
    asked_after: int = 0
    served_after: int = 0

    @property
    def p50(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


@dataclass
class Stage:
    """Replicas, a client of each, and the database that they share."""

    database: Database
    clients: list[httpx.AsyncClient]
    admin: str = ""
    made: int = 0

    async def person(self, groups: frozenset[str]) -> tuple[str, str, str]:
        """Somebody new: their name, principal id and access token."""
        self.made += 1
        name = f"person{self.made}"
        token = await people.log_in(self.database, name, groups)
        found = await SqlPeople(self.database).find_by_subject(people.ISSUER, name)
        if found is None:
            raise RuntimeError(f"{name} did not log in")
        return name, found.id, token

    async def ask(
        self, method: str, path: str, *, replica: int = 0, **options: object
    ) -> httpx.Response:
        """As the admin, who must be obeyed."""
        headers = {"authorization": f"Bearer {self.admin}"}
        headers |= options.pop("headers", {})  # type: ignore[call-overload]
        answer = await self.clients[replica].request(
            method,
            path,
            headers=headers,
            **options,  # type: ignore[arg-type]
        )
        if not answer.is_success:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    async def apply(self, text: str, replica: int) -> None:
        version = (await self.ask("GET", "/v1/access")).json()["version"]
        await self.ask(
            "PUT",
            "/v1/access",
            replica=replica,
            content=text,
            headers={"if-match": f'"{version}"'},
        )


async def grant_revoked(on: Stage, replica: int) -> tuple[str, Act]:
    _, principal, token = await on.person(frozenset())
    asked = {"principal": principal, "role": "data-reader", "duration": 7200, "reason": "bench"}
    grant = (await on.ask("POST", "/v1/grants", json=asked)).json()["id"]

    async def act() -> None:
        path = f"/v1/grants/{grant}/revoke"
        await on.ask("POST", path, replica=replica, json={"reason": "bench"})

    return token, act


async def suspended(on: Stage, replica: int) -> tuple[str, Act]:
    _, principal, token = await on.person(ANALYSTS)

    async def act() -> None:
        path = f"/v1/users/{principal}/suspend"
        await on.ask("POST", path, replica=replica, json={"reason": "bench"})

    return token, act


async def group_lost(on: Stage, _replica: int) -> tuple[str, Act]:
    """The next login says so; the logins there are learn of it too."""
    name, _, token = await on.person(ANALYSTS)

    async def act() -> None:
        await people.sign_in(on.database, name, frozenset())

    return token, act


async def policy_changed(on: Stage, replica: int) -> tuple[str, Act]:
    await on.apply(POLICY, replica)
    _, _, token = await on.person(ANALYSTS)

    async def act() -> None:
        await on.apply(WITHOUT, replica)

    return token, act


ACTS = {
    "grant_revoked": grant_revoked,
    "suspended": suspended,
    "group_lost": group_lost,
    "policy_changed": policy_changed,
}


async def measure(on: Stage, name: str, rounds: int) -> Samples:
    samples = Samples()
    # Admins act with a factor under five minutes old.
    on.admin = await people.log_in(on.database, f"admin-{name}", frozenset({"corp/platform"}))
    for number in range(rounds):
        token, act = await ACTS[name](on, number % REPLICAS)
        seen = [Seen() for _ in on.clients]
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for client, one in zip(on.clients, seen, strict=True):
                group.create_task(_poll(client, token, one))
            for one in seen:
                await one.served.wait()
            asked = time.perf_counter()
            await act()
            answered = time.perf_counter()
        for one in seen:
            samples.seconds.append(one.first_refusal() - asked)
            after = [served for sent, _, served in one.answers if sent > answered]
            samples.asked_after += len(after)
            samples.served_after += sum(after)
    if name == "policy_changed":
        await on.apply(POLICY, 0)
    return samples


async def _poll(client: httpx.AsyncClient, token: str, seen: Seen) -> None:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    while not seen.over:
        sent = time.perf_counter()
        answer = await client.post("/v1/credentials", content=people.REQUEST, headers=headers)
        if answer.status_code != 200 and answer.json()["code"] not in REFUSED:
            raise RuntimeError(f"{answer.status_code}: {answer.text}")
        seen.add(sent, answer.status_code == 200)
        await asyncio.sleep(PAUSE)


@contextmanager
def replicas() -> Iterator[tuple[str, list[Service]]]:
    """The database's URL, and the servers, started; stopped and deleted at the end."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="broker-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = stack.enter_context(cluster()).database("broker")
        port = free_port()
        sts = Service([sys.executable, str(HERE / "sts.py"), str(port)], port, folder / "sts.log")
        ports = [free_port() for _ in range(REPLICAS)]
        config = folder / "broker.toml"
        config.write_text(people.settings(url, ports[0], port, folder / "keys"))
        program = [sys.executable, "-m", "broker.entry"]
        aws = {
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        subprocess.run(
            [*program, "migrate", "--config", str(config)],
            env=bare_environment(),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        servers = [
            Service(
                [*program, "server", "--config", str(config)],
                one,
                folder / f"broker-{one}.log",
                bare_environment(BROKER_SERVER__PORT=str(one), **aws),
            )
            for one in ports
        ]
        for service in (sts, *servers):
            service.start()
            stack.callback(service.stop)
        yield url, servers


@asynccontextmanager
async def stage(url: str, servers: list[Service]) -> AsyncIterator[Stage]:
    database = Database.open(url, pool_size=4)
    clients = [
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{one.port}", timeout=30, trust_env=False)
        for one in servers
    ]
    try:
        await SqlAccessStore(database).apply_policy(
            NewPolicy(POLICY, frozenset()),
            expected=0,
            applied_by="system",
            event=Event(EventType.ACCESS_APPLIED, SYSTEM, Outcome.SUCCESS),
        )
        yield Stage(database, clients)
    finally:
        for client in clients:
            await client.aclose()
        await database.aclose()


async def run(url: str, servers: list[Service], rounds: int) -> dict[str, float]:
    ratios: dict[str, float] = {}
    asked = served = 0
    async with stage(url, servers) as on:
        for name in ACTS:
            found = await measure(on, name, rounds)
            print(
                f"{name:16} {len(found.seconds):5} samples"
                f"  p50 {found.p50 * 1000:7.1f} ms  p99 {found.p99 * 1000:7.1f} ms"
                f"  max {max(found.seconds) * 1000:7.1f} ms"
                f"  served after its answer: {found.served_after} of {found.asked_after}",
                flush=True,
            )
            ratios[f"{name}_p99_vs_1s"] = round(found.p99, 4)
            asked += found.asked_after
            served += found.served_after
    return ratios | {"served_after": served / asked}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time from a revocation to a refusal.")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    arguments = parser.parse_args()
    with replicas() as (url, servers):
        ratios = asyncio.run(run(url, servers, 8 if arguments.quick else 100))
    print(json.dumps({"name": "revocation", "ratios": ratios}))


if __name__ == "__main__":
    main()
