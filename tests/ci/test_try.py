"""`broker access try`: which entry admits a token, or which claim keeps it from the closest."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from broker.cli import server, tokens
from broker.cli.server import Server
from broker.cli.tokens import Tokens
from tests.ci.conftest import World
from tests.ci.runner import Job, listening
from tests.web.journeys import LoggedIn, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA


async def tried(world: World, admin: LoggedIn, token: str) -> dict[str, object]:
    answer = await admin.api.post("/v1/access/try", json={"token": token}, headers=bearer(admin))
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


async def test_what_admits_a_token_and_what_does_not(world: World) -> None:
    admin = await logged_in_admin(world.broker)
    token = world.issuer.mint()
    good = await tried(world, admin, token)
    assert good["verification"] == "good"
    assert good["audience_admitted"] is True
    entry = good["workloads"][0]  # type: ignore[index]  # a list, as JSON has it
    assert (entry["workload"], entry["roles"]) == ("github", ["reader", "tagged"])
    assert (await world.credentials(token)).status_code == 200, "trying uses nothing up"

    expired = world.issuer.mint(
        ref="refs/heads/dev", exp=int(time.time()) - 3000, iat=int(time.time()) - 3300
    )
    late = await tried(world, admin, expired)
    assert late["verification"] == "it has expired"
    assert late["workloads"] == []
    assert late["closest"] == [
        {
            "workload": "github",
            "failed": [
                {"claim": "ref", "expected": "'refs/heads/main'", "found": "refs/heads/dev"}
            ],
        }
    ]
    other = await tried(world, admin, world.issuer.mint(aud="https://other.test"))
    assert other["audience_admitted"] is False
    stranger = await tried(world, admin, world.issuer.mint(iss="https://evil.test"))
    assert stranger["closest"] == []
    assert (await tried(world, admin, "nonsense"))["verification"] == "it does not have three parts"
    assert await world.records("ci.rejected") == []


async def test_only_who_may_read_the_policy_may_try(world: World) -> None:
    ada = await logged_in_person(world.broker, ADA)
    answer = await ada.api.post("/v1/access/try", json={"token": "x"}, headers=bearer(ada))
    assert answer.json()["code"] == "forbidden"
    job = {"authorization": f"Bearer {await world.job_token('gitlab')}"}
    answer = await world.client.post("/v1/access/try", json={"token": "x"}, headers=job)
    assert answer.status_code == 401


async def test_the_command_says_it_in_words(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await logged_in_admin(world.broker)
    async with listening(world.broker.app) as origin:
        job = Job(tmp_path / "home", origin)
        _ = job.environment
        with monkeypatch.context() as patch:
            patch.setenv("BROKER_HOME", job.environment["BROKER_HOME"])
            held = Tokens(
                "login-1",
                admin.token,
                time.time() + 800,
                admin.refresh_token,
                "/oauth/token",
                "/oauth/revoke",
            )
            tokens.save_login(Server.parse(origin), held)
            server.remember(Server.parse(origin))
        job.variables["BROKER_KEYRING"] = "off"
        file = tmp_path / "token"
        file.write_text(world.issuer.mint(environment=None) + "\n")
        done = await job.broker("access", "try", "--token", str(file))
        assert done.code == 1
        assert done.out == (
            "token: good\nnot github:\n  environment is missing, wanted 'production'\n"
        )
        file.write_text(world.issuer.mint())
        done = await job.broker("access", "try", "--token", str(file))
        assert done.code == 0, done.err
        assert "admitted as github, roles: reader, tagged\n" in done.out
        assert (await job.broker("access", "try", "--token", "/nowhere")).code == 2
