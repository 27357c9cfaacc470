"""What is copied into CI systems runs: scripts, snippets, and the entries that the pages show."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from broker.access.lint import lint_policy
from broker.access.parse import parse_policy
from tests.ci.conftest import World
from tests.ci.issuer import AUDIENCE, PLATFORMS, policy_text
from tests.ci.runner import Job, listening
from tests.ci.test_client import SECRET, on_github

ROOT = Path(__file__).parents[2]
INTEGRATIONS = ROOT / "integrations"
PAGES = sorted((ROOT / "docs" / "ci").glob("*.md"))
FENCE = re.compile(r"(?:<!-- runs: (\w+) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)


@pytest.fixture
async def job(world: World, tmp_path: Path) -> AsyncIterator[Job]:
    async with listening(world.broker.app) as origin:
        # The scripts leave the audience to be the broker's own address.
        text = policy_text(world.issuer).replace(repr(AUDIENCE), repr(origin))
        await world.apply(
            text.replace("reader:", "data-reader:").replace("role: reader", "role: data-reader")
        )
        yield Job(tmp_path / "home", origin)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    return [(runs or "", kind, text) for runs, kind, text in FENCE.findall(page.read_text())]


async def test_the_github_action(world: World, job: Job) -> None:
    file = on_github(job, world)
    action = yaml.safe_load((INTEGRATIONS / "github" / "action.yml").read_text())
    (step,) = action["runs"]["steps"]
    assert set(step["env"]) == {
        "BROKER_SERVER",
        "BROKER_HOME",
        "BROKER_ROLE",
        "BROKER_DURATION",
        "BROKER_END",
        "BROKER_COMMAND",
    }
    assert "${{" not in step["run"], "an input in a script is a command line of its writer's"
    job.variables |= {
        "BROKER_ROLE": "data-reader",
        "BROKER_DURATION": "30m",
        "BROKER_COMMAND": "broker",
        "GITHUB_ACTION_PATH": str(INTEGRATIONS / "github"),
    }
    done = await job.run("bash", "-c", step["run"])
    assert done.code == 0, done.err
    assert f"AWS_SECRET_ACCESS_KEY={SECRET}" in file.read_text()
    assert world.broker.sts.calls[0].duration_seconds == 1800
    job.variables["BROKER_END"] = "true"
    assert (await job.run("bash", "-c", step["run"])).code == 0
    assert await world.records("session.revoked")


async def test_the_gitlab_component(world: World, job: Job) -> None:
    header, template = (INTEGRATIONS / "gitlab" / "template.yml").read_text().split("\n---\n")
    inputs = yaml.safe_load(header)["spec"]["inputs"]
    given = {"server": job.server, "role": "data-reader", "command": "broker"}
    assert inputs.keys() == given.keys()
    for name, value in given.items():
        template = template.replace(f"$[[ inputs.{name} ]]", value)
    component = yaml.safe_load(template)[".broker"]
    (audience,) = component["id_tokens"]["BROKER_CI_TOKEN"].values()
    job.variables |= component["variables"] | {
        "BROKER_HOME": str(job.home / "broker"),
        "BROKER_CI_TOKEN": world.issuer.mint("gitlab", aud=audience),
    }
    script = "\n".join([*component["before_script"], 'echo "$AWS_SECRET_ACCESS_KEY"'])
    done = await job.run("bash", "-ec", script)
    assert (done.code, done.out) == (0, f"{SECRET}\n"), done.err
    done = await job.run("bash", "-ec", component["after_script"][0])
    assert done.code == 0, done.err
    assert await world.records("session.revoked")


async def test_the_kubernetes_sidecar(world: World, job: Job) -> None:
    pod = yaml.safe_load((INTEGRATIONS / "kubernetes" / "deployment.yaml").read_text())
    (sidecar,) = pod["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    shared, token = job.home / "shared", job.home / "token"
    shared.mkdir(parents=True)
    token.write_text(world.issuer.mint("kubernetes", aud=[job.server]))
    named = {one["name"]: one["value"] for one in sidecar["env"]}
    job.variables |= named | {
        "BROKER_SERVER": job.server,
        "BROKER_CI_TOKEN_FILE": str(token),
        "BROKER_HOME": str(job.home / "broker"),
        "BROKER_SHARED": str(shared),
        "BROKER_ONCE": "true",
    }
    done = await job.run("sh", str(INTEGRATIONS / "kubernetes" / "sidecar.sh"))
    assert done.code == 0, done.err
    file = shared / "credentials"
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"aws_secret_access_key = {SECRET}\n" in file.read_text()
    assert done.out == ""


@pytest.mark.parametrize("name", ["curl", "exchange"])
async def test_the_calls_with_curl(world: World, job: Job, name: str) -> None:
    (script,) = [text for runs, _, text in blocks(ROOT / "docs/ci/README.md") if runs == name]
    job.variables["CI_TOKEN"] = world.issuer.mint(aud=job.server)
    done = await job.run("bash", "-ec", script)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert answer.get("credentials") or answer["access_token"].startswith("bkj_")


async def test_the_github_workflow(world: World, job: Job) -> None:
    (text,) = [text for runs, _, text in blocks(ROOT / "docs/ci/github.md") if runs == "github"]
    workflow = yaml.safe_load(text)
    assert workflow["permissions"]["id-token"] == "write"
    (step,) = workflow["jobs"]["deploy"]["steps"]
    on_github(job, world)
    line = step["run"].replace("pipx run --spec credential-broker broker", "broker")
    fetch = "import os; print(os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI'])"
    assert line.endswith(" -- aws s3 ls")
    line = line.replace("aws s3 ls", f'{sys.executable} -c "{fetch}"')
    done = await job.run("bash", "-ec", line)
    assert done.code == 0, done.err
    assert done.out.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_entries_that_a_page_shows_are_accepted(page: Path) -> None:
    shown = [text for _, kind, text in blocks(page) if kind == "yaml" and "workloads:" in text]
    assert shown
    for text in shown:
        name = next(iter(yaml.safe_load(text)["workloads"]))
        rights = (
            ""
            if "entitlements:" in text
            else (
                f"entitlements: [{{role: data-reader, to: {{workload: {name}}}, mode: standing}}]\n"
            )
        )
        file = (
            'version: 1\naccounts: {prod: {id: "111122223333"}}\n'
            "admins: [{group: corp/platform}]\n"
            "roles: {data-reader: {account: prod, unscoped: true, "
            'role_arn: "arn:aws:iam::111122223333:role/R"}}\n' + text + rights
        )
        policy = parse_policy(file, providers=frozenset({"corp"}))
        assert policy.workloads[name].preset is not None
        errors = [one for one in lint_policy(file, frozenset({"corp"})) if one.level == "error"]
        assert errors == []


def test_every_platform_has_a_page() -> None:
    assert {page.stem for page in PAGES} == {"README", *PLATFORMS}
