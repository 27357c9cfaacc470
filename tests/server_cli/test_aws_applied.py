"""What `broker aws bootstrap` prints, put into AWS: then doctor is content, and issuing works."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from broker.access.parse import parse_policy
from broker.devstack.aws import AwsStandIn
from broker.issuance.rehearsal import rehearse
from broker.server_cli import main
from tests.ci.issuer import AUDIENCE, LocalIssuer
from tests.devstack.test_trust_policies import arguments
from tests.e2e.processes import Process, free_port
from tests.server_cli.aws_code import Written, apply, read
from tests.server_cli.conftest import ACCOUNT, Host

FAR = "444455556666"
FILES = {"terraform": "broker.tf", "cloudformation": "broker.yaml", "json": "broker.json"}
HUB = f"arn:aws:iam::{ACCOUNT}:role/TheHub"
HOST = f"arn:aws:iam::{ACCOUNT}:role/TheHost"
POLICY = f"""\
version: 1
accounts:
  prod: {{id: "{ACCOUNT}"}}
  far: {{id: "{FAR}"}}
admins: [{{group: corp/platform}}]
roles:
  near:
    account: prod
    role_arn: arn:aws:iam::{ACCOUNT}:role/team/Near
    external_id: {{generate: true}}
    role_maximum: 4h
    managed_policies: ["arn:aws:iam::{ACCOUNT}:policy/ReadReports"]
    tags: {{team: web, who: "{{{{principal.handle}}}}"}}
    transitive_tags: [team]
  away:
    account: far
    role_arn: arn:aws:iam::{FAR}:role/Away
    external_id: canary-away
    unscoped: true
  behind:
    account: far
    role_arn: arn:aws:iam::{FAR}:role/Behind
    via: [arn:aws:iam::{ACCOUNT}:role/Gate]
    external_id: canary-behind
    unscoped: true
    tags: {{stage: prod, team: web}}
    transitive_tags: [stage]
"""
READS = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::reports/*"}
    ],
}
_SESSION = boto3.Session(
    aws_access_key_id="unused", aws_secret_access_key="unused", region_name="us-east-1"
)
Client = Callable[..., Any]


@pytest.fixture
def client(host: Host) -> Iterator[Client]:
    made: list[Any] = []

    def make(service: str, **arguments: Any) -> Any:
        s3 = {"addressing_style": "path"}
        config = Config(retries={"total_max_attempts": 1}, s3=s3)
        made.append(_SESSION.client(service, endpoint_url=host.aws.url, config=config, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def bootstrapped(host: Host, kind: str, monkeypatch, *words: str) -> dict[str, list[Written]]:
    """By account, in the order in which stderr says to apply them."""
    monkeypatch.delenv("BROKER_CONFIG", raising=False)
    out = host.folder / "made"
    command = ["aws", "bootstrap", "--config", str(host.configured()), "--account", "prod"]
    command += ["--hub-name", "TheHub", "--format", kind, "--output", str(out), *words]
    assert main(command) == 0
    return {
        number: read(kind, (out / number / FILES[kind]).read_text("ascii"))
        for number in (ACCOUNT, FAR)
    }


def put(host: Host, client: Client, accounts: dict[str, list[Written]]) -> None:
    def exists(arn: str) -> bool:
        return host.aws.world.role(arn) is not None

    for number, roles in accounts.items():
        root = host.aws.hub_credentials("root", account_id=number)
        apply(client("iam", **root.client_arguments()), roles, exists)


@pytest.mark.parametrize("kind", list(FILES))
def test_doctor_is_content_with_what_each_format_makes(
    host: Host, client: Client, monkeypatch, kind: str
) -> None:
    """The host has a role of its own, and assumes the hub with it."""
    host.apply(POLICY)
    host.aws.put_managed_policy("ReadReports", READS)
    may = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": HUB}
    own = {"Version": "2012-10-17", "Statement": [may]}
    of_host = host.aws.hub_credentials("role", name="TheHost", policy=own)
    words = ("--hub-trust", HOST, "--with-doctor", "--with-revocation")
    put(host, client, bootstrapped(host, kind, monkeypatch, *words))
    hub = client("sts", **of_host.client_arguments()).assume_role(
        RoleArn=HUB, RoleSessionName="broker-1"
    )["Credentials"]
    host.environment |= {
        "AWS_ACCESS_KEY_ID": hub["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": hub["SecretAccessKey"],
        "AWS_SESSION_TOKEN": hub["SessionToken"],
    }
    report = host.doctor()
    assert report.wrong() == []
    assert report.code == 0
    assert report.of("aws identity")["detail"].startswith(
        f"arn:aws:sts::{ACCOUNT}:assumed-role/TheHub"
    )
    for name in ("near", "away", "behind"):
        assert "ExternalId, TagSession and SetSourceIdentity" in report.of(f"role {name}")["detail"]
    assert "MaxSessionDuration is 4h, as written" in report.of("role near")["detail"]

    # With the least that it has, and no more.
    sts = client("sts", **_credentials(hub))
    iam = client("iam", **_credentials(hub))
    for call, asked in (
        (iam.create_access_key, {"UserName": "somebody"}),
        (iam.get_role, {"RoleName": "TheHost"}),
        (iam.put_role_policy, {"RoleName": "Near", "PolicyName": "x", "PolicyDocument": "{}"}),
        (sts.assume_role, {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/team/Near",
                           "RoleSessionName": "somebody"}),
    ):  # fmt: skip
        with pytest.raises(ClientError) as refused:
            call(**asked)
        assert refused.value.response["Error"]["Code"] == "AccessDenied"


def _credentials(found: dict[str, Any]) -> dict[str, str]:
    return {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["SessionToken"],
    }


def without(role: Written, place: int, key: str) -> None:
    """Take one condition out of the trust policy's statement at `place`."""
    assert role.trust is not None
    condition = role.trust["Statement"][place]["Condition"]
    del condition["StringEquals"][key]
    if not condition["StringEquals"]:
        del condition["StringEquals"]


def test_doctor_names_each_piece_that_is_taken_away(
    host: Host, client: Client, monkeypatch
) -> None:
    host.apply(POLICY)
    host.aws.put_managed_policy("ReadReports", READS)
    accounts = bootstrapped(host, "terraform", monkeypatch, "--hub-trust", "ec2", "--with-doctor")
    found = {role.name: role for roles in accounts.values() for role in roles}
    without(found["Near"], 0, "sts:ExternalId")
    trust = found["Away"].trust
    assert trust is not None
    trust["Statement"] = [
        one for one in trust["Statement"] if one["Action"] != "sts:SetSourceIdentity"
    ]
    onward = found["Gate"].inline["Gate-assume-roles"]
    onward["Statement"] = [
        one for one in onward["Statement"] if one["Action"] != ["sts:TagSession"]
    ]
    put(host, client, accounts)
    host.use(host.aws.hub_credentials("role", name="TheHub"))
    report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [
        ("warning", "role near"),
        ("failed", "role away"),
        ("failed", "role behind"),
    ]
    said = {one["role"]: one["detail"] for one in report.checks if one["status"] != "ok"}
    assert "does not ask for the ExternalId" in said["near"]
    assert "AWS refuses sts:SetSourceIdentity" in said["away"]
    assert "sts:TagSession" in said["behind"]


@pytest.mark.parametrize(
    ("partition", "region"), [("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1")]
)
def test_other_partitions(partition: str, region: str, tmp_path: Path, monkeypatch) -> None:
    """Every call that issuing would make gets in, there too."""
    monkeypatch.delenv("BROKER_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    text = POLICY.replace("arn:aws:", f"arn:{partition}:").replace(
        "{generate: true}", "canary-near"
    )
    for number in (ACCOUNT, FAR):
        where = f'"{number}", partition: {partition}, region: {region}}}'
        text = text.replace(f'"{number}"}}', where)
    Path("access.yaml").write_text(text)
    command = ["aws", "bootstrap", "--policy", "access.yaml", "--account", "prod"]
    assert main([*command, "--hub-trust", "ec2", "--output", "made"]) == 0
    with AwsStandIn.start(region=region) as aws, ExitStack() as stack:

        def client(service: str, credentials: Mapping[str, str | None]) -> Any:
            made = _SESSION.client(service, region, endpoint_url=aws.url, **credentials)
            stack.callback(made.close)
            return made

        aws.put_managed_policy("ReadReports", READS)
        for number in (ACCOUNT, FAR):
            root = aws.hub_credentials("root", account_id=number)
            roles = read("terraform", Path("made", number, "broker.tf").read_text("ascii"))
            iam = client("iam", root.client_arguments())
            apply(iam, roles, lambda arn: aws.world.role(arn) is not None)
        hub = aws.hub_credentials("role", name="BrokerHub")
        for role in parse_policy(text, providers=frozenset({"corp"})).roles.values():
            credentials: Mapping[str, str | None] = hub.client_arguments()
            for call in rehearse(role).calls:
                asked = client("sts", credentials).assume_role(**arguments(call))
                credentials = _credentials(asked["Credentials"])


async def test_a_broker_issues_with_what_was_made(host: Host, client: Client, monkeypatch) -> None:
    issuer = LocalIssuer()
    await issuer.start()
    entry = (
        f"workloads:\n  deploy: {{issuer: {issuer.issuer('github')!r}, audience: {AUDIENCE!r}, "
        'preset: github, claims: {repository_id: "42", repository_owner_id: "7", '
        "ref: refs/heads/main}}\n"
        "entitlements:\n"
        + "".join(
            f"  - {{role: {name}, to: {{workload: deploy}}, mode: standing}}\n"
            for name in ("near", "behind")
        )
    )
    server: Process | None = None
    try:
        await asyncio.to_thread(host.apply, POLICY + entry)
        host.aws.put_managed_policy("ReadReports", READS)
        host.aws.put_bucket("reports")
        host.aws.put_object("reports", "q3.csv", b"north,1200\n")
        port = free_port()
        host.settings["server"] = {"public_url": f"http://127.0.0.1:{port}", "port": port}
        words = ("--hub-trust", "ecs")
        made = await asyncio.to_thread(bootstrapped, host, "cloudformation", monkeypatch, *words)
        put(host, client, made)
        host.use(host.aws.hub_credentials("role", name="TheHub"))
        command = [sys.executable, "-m", "broker.entry", "server", "--config", "broker.toml"]
        server = Process(command, host.folder / "server.log", host.environment, host.folder)
        await asyncio.to_thread(server.wait_for, f"http://127.0.0.1:{port}/readyz")
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            issued = {}
            for name in ("near", "behind"):
                answer = await http.post(
                    f"http://127.0.0.1:{port}/v1/ci/credentials",
                    json={"role": name},
                    headers={"authorization": f"Bearer {issuer.mint()}"},
                )
                assert answer.status_code == 200, answer.text + server.output()
                issued[name] = answer.json()
        assert issued["near"]["role_arn"] == f"arn:aws:iam::{ACCOUNT}:role/team/Near"
        assert issued["behind"]["account_id"] == FAR
        keys = issued["near"]["credentials"]
        s3 = client(
            "s3",
            aws_access_key_id=keys["access_key_id"],
            aws_secret_access_key=keys["secret_access_key"],
            aws_session_token=keys["session_token"],
        )
        assert s3.get_object(Bucket="reports", Key="q3.csv")["Body"].read() == b"north,1200\n"
        with pytest.raises(ClientError):
            s3.put_object(Bucket="reports", Key="q4.csv", Body=b"")
    finally:
        if server is not None:
            await asyncio.to_thread(server.stop)
        await issuer.stop()
