"""`broker ci` as jobs run it: the platform's token is found, exchanged once, and kept private."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ci.conftest import World
from tests.ci.issuer import AUDIENCE, RUNNER_SECRET
from tests.ci.runner import Done, Job, listening

SECRET = "canary-secret-access-key"


@pytest.fixture
async def job(world: World, tmp_path: Path) -> AsyncIterator[Job]:
    async with listening(world.broker.app) as origin:
        yield Job(tmp_path / "home", origin)


def on_github(job: Job, world: World) -> Path:
    job.home.mkdir(exist_ok=True)
    file = job.home / "github-env"
    file.touch()
    job.variables |= {
        "GITHUB_ACTIONS": "true",
        "GITHUB_ENV": str(file),
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{world.issuer.origin}/runner/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": RUNNER_SECRET,
    }
    return file


async def ci(job: Job, *words: str) -> Done:
    return await job.broker("ci", "reader", "--audience", AUDIENCE, *words)


async def test_on_github_later_steps_get_masked_credentials(world: World, job: Job) -> None:
    file = on_github(job, world)
    done = await ci(job)
    assert done.code == 0, done.err
    assert f"::add-mask::{SECRET}\n" in done.out
    assert all(line.startswith("::add-mask::") for line in done.out.splitlines())
    assert SECRET not in done.err
    variables = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert variables["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert variables["AWS_REGION"] == "us-east-1"


async def test_a_job_exchanges_once_and_its_token_is_private(world: World, job: Job) -> None:
    on_github(job, world)
    for _ in range(2):
        assert (await ci(job, "--format", "env")).code == 0
    assert len(await world.records("ci.exchanged")) == 1
    assert len(await world.records("issuance.issued")) == 2
    (kept,) = (job.home / "broker").rglob("jobs/*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    token = json.loads(kept.read_text())["token"]
    assert token.startswith("bkj_")


async def test_another_job_on_the_same_machine_does_not_find_the_token(
    world: World, job: Job
) -> None:
    job.variables["BROKER_CI_TOKEN"] = world.issuer.mint("gitlab")
    assert (await ci(job)).code == 0
    job.variables["BROKER_CI_TOKEN"] = world.issuer.mint("gitlab", project_id="21")
    other = await ci(job)
    assert other.code == 1
    assert "ci_token_rejected" in other.err


async def test_the_last_step_ends_the_job(world: World, job: Job) -> None:
    on_github(job, world)
    assert (await ci(job, "--format", "json")).code == 0
    (kept,) = (job.home / "broker").rglob("jobs/*.json")
    token = json.loads(kept.read_text())["token"]
    assert (await ci(job, "--end")).code == 0
    assert not kept.exists()
    refused = await world.client.get("/v1/container/reader", headers={"authorization": token})
    assert refused.status_code == 401
    assert (await ci(job, "--end")).code == 0


async def test_a_revoked_job_token_is_replaced_where_the_platform_gives_another(
    world: World, job: Job
) -> None:
    on_github(job, world)
    assert (await ci(job)).code == 0
    (kept,) = (job.home / "broker").rglob("jobs/*.json")
    await world.client.post("/oauth/revoke", data={"token": json.loads(kept.read_text())["token"]})
    assert (await ci(job)).code == 0
    assert len(await world.records("ci.exchanged")) == 2


def minted_by(world: World, platform: str, job: Job) -> None:
    """What each platform sets or runs."""
    token = world.issuer.mint(platform)
    file = job.home / "token"
    job.home.mkdir(exist_ok=True)
    file.write_text(f"{token}\n")
    match platform:
        case "gitlab":
            job.variables |= {"GITLAB_CI": "true", "BROKER_CI_TOKEN": token}
        case "bitbucket":
            job.variables |= {"BITBUCKET_STEP_OIDC_TOKEN": token}
        case "terraform-cloud":
            job.variables |= {"TFC_WORKLOAD_IDENTITY_TOKEN": token}
        case "kubernetes":
            job.variables |= {"BROKER_CI_TOKEN_FILE": str(file)}
        case "buildkite":
            job.variables |= {"BUILDKITE": "true", "BUILDKITE_JOB_ID": "1"}
            log = job.home / "redacted"
            job.tool(
                "buildkite-agent",
                f'if [ "$1" = redactor ]; then cat >> {log}; exit; fi\n'
                f'echo "$@" > {job.home}/asked\ncat {file}',
            )
        case "circleci":
            job.variables |= {"CIRCLECI": "true", "CIRCLE_OIDC_TOKEN_V2": "x.y.z"}
            job.tool("circleci", f'echo "$@" > {job.home}/asked\ncat {file}')


@pytest.mark.parametrize(
    "platform",
    ["gitlab", "bitbucket", "terraform-cloud", "kubernetes", "buildkite", "circleci"],
)
async def test_each_platforms_token_is_found(world: World, job: Job, platform: str) -> None:
    minted_by(world, platform, job)
    done = await ci(job)
    assert done.code == 0, done.err
    assert f"export AWS_SECRET_ACCESS_KEY='{SECRET}'" in done.out
    asked = job.home / "asked"
    if asked.exists():
        assert AUDIENCE in asked.read_text()
    if platform == "buildkite":
        assert "--claim organization_id --claim pipeline_id" in asked.read_text()
        assert SECRET in (job.home / "redacted").read_text()


async def test_on_circleci_later_steps_get_the_credentials(world: World, job: Job) -> None:
    minted_by(world, "circleci", job)
    job.variables["BASH_ENV"] = str(job.home / "bash-env")
    done = await ci(job)
    assert done.code == 0, done.err
    assert done.out == ""
    assert SECRET in (job.home / "bash-env").read_text()


async def test_one_token_used_twice_says_what_to_write(world: World, job: Job) -> None:
    token = world.issuer.mint("bitbucket")
    job.variables["BITBUCKET_STEP_OIDC_TOKEN"] = token
    assert (await world.exchange(token)).status_code == 200
    done = await ci(job)
    assert done.code == 1
    assert "ci_token_replayed" in done.err
    assert "reuse: true" in done.err


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({}, 3, "no CI token is here"),
        ({"GITHUB_ACTIONS": "true"}, 3, "id-token: write"),
        ({"BROKER_CI_TOKEN": "no token"}, 2, "holds no OIDC token"),
        ({"BROKER_CI_TOKEN_FILE": "/nowhere/token"}, 1, "No such file"),
        ({"BUILDKITE": "true"}, 1, "buildkite-agent is not on PATH"),
        ({"CIRCLECI": "true"}, 3, "has no OIDC token"),
    ],
)
async def test_what_is_missing_is_said(
    job: Job, variables: dict[str, str], code: int, said: str
) -> None:
    job.variables |= variables
    done = await ci(job)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


async def test_no_token_is_shown(world: World, job: Job) -> None:
    token = world.issuer.mint("gitlab", ref_protected="false")
    job.variables["BROKER_CI_TOKEN"] = token
    done = await ci(job, "--debug")
    assert done.code == 1
    assert token.split(".")[2] not in done.out + done.err
    assert "bkj_" not in done.out + done.err


FETCH = """\
import json, os, sys, urllib.request
request = urllib.request.Request(
    os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
    headers={"Authorization": os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]},
)
with urllib.request.urlopen(request) as answer:
    print(json.dumps(json.load(answer)))
print("AWS_ACCESS_KEY_ID" in os.environ, os.environ["AWS_REGION"])
request = urllib.request.Request(request.full_url, headers={"Authorization": "other"})
try:
    urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    print(error.code)
sys.exit(7)
"""


async def test_a_command_has_an_endpoint_as_long_as_it_lives(world: World, job: Job) -> None:
    on_github(job, world)
    job.variables |= {"AWS_ACCESS_KEY_ID": "another", "AWS_PROFILE": "another"}
    done = await ci(job, "--", sys.executable, "-W", "ignore", "-c", FETCH)
    assert done.code == 7, done.err
    first, kept, refused = done.out.splitlines()
    assert json.loads(first)["SecretAccessKey"] == SECRET
    assert kept == "False us-east-1"
    assert refused == "401"
    assert not re.search("secret|bkj_", done.err)


async def test_stock_boto3_takes_credentials_from_the_endpoint(world: World, job: Job) -> None:
    on_github(job, world)
    script = (
        "import botocore.session; c = botocore.session.Session().get_credentials();"
        "print(c.method, c.get_frozen_credentials().secret_key)"
    )
    done = await ci(job, "--end", "--", sys.executable, "-c", script)
    assert done.code == 0, done.err
    assert done.out == f"container-role {SECRET}\n"
    assert not list((job.home / "broker").rglob("jobs/*.json"))


async def test_a_refusal_is_told_before_the_command_runs(world: World, job: Job) -> None:
    job.variables["BROKER_CI_TOKEN"] = world.issuer.mint("gitlab")
    done = await job.broker(
        "ci", "other", "--audience", AUDIENCE, "--", sys.executable, "-c", "print('ran')"
    )
    assert (done.code, done.out) == (1, "")
    assert "not_found" in done.err
    done = await ci(job, "--", "no-such-program")
    assert done.code == 127
