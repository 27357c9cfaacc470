"""Start, stop, seeding, several at once, and moto as it was afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import EndpointConnectionError
from moto.iam import models as iam_models
from moto.iam import responses as iam_responses
from moto.s3 import models as s3_models

from broker.devstack.aws import AwsStandIn, DemoAccount, seed_demo
from broker.devstack.aws.grammar import MalformedPolicy
from tests.devstack.asking import allow
from tests.missing import missing

Client = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def test_seeding_twice_changes_nothing_but_the_hub(
    standin: AwsStandIn, demo: DemoAccount, client: Client
) -> None:
    before = {arn: standin.world.role(arn) for arn in (demo.data_reader_arn, demo.admin_arn)}
    again = seed_demo(standin)
    assert {arn: standin.world.role(arn) for arn in before} == before
    assert again.hub_arn == demo.hub_arn
    assert again.hub.access_key_id != demo.hub.access_key_id
    assert client("sts", again.hub).get_caller_identity()
    assert client("sts", demo.hub).get_caller_identity()


@pytest.mark.parametrize("hub", ["role", "user"])
def test_every_demo_role_can_be_assumed_by_the_hub_alone(
    standin: AwsStandIn, client: Client, hub: Any
) -> None:
    demo = seed_demo(standin, hub=hub)
    sts = client("sts", demo.hub)
    for arn in (demo.data_reader_arn, demo.deployer_arn, demo.admin_arn):
        answer = sts.assume_role(
            RoleArn=arn,
            RoleSessionName="ada",
            ExternalId=demo.external_id,
            SourceIdentity="p-ada",
            Tags=[{"Key": "broker:issuance", "Value": "01J"}],
        )
        s3 = client("s3", answer["Credentials"])
        assert s3.get_object(Bucket="reports", Key="private/salaries.csv")["Body"].read()
    other = client("sts", standin.hub_credentials("user", name="other"))
    with pytest.raises(
        sts.exceptions.ClientError, match="not authorized to perform: sts:AssumeRole"
    ):
        other.assume_role(
            RoleArn=demo.admin_arn, RoleSessionName="eve", ExternalId=demo.external_id
        )


def test_hub_credentials_as_environment(standin: AwsStandIn) -> None:
    role, user = standin.hub_credentials("role"), standin.hub_credentials("user")
    assert set(role.environment()) == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
    assert "AWS_SESSION_TOKEN" not in user.environment()
    assert role.access_key_id.startswith("ASIA")
    assert user.access_key_id.startswith("AKIA")
    assert role.secret_access_key not in repr(role)
    assert str(role.session_token) not in repr(role)


def test_two_at_once_share_nothing(client: Client, standin: AwsStandIn, demo: DemoAccount) -> None:
    with AwsStandIn.start() as other:
        other_demo = seed_demo(other)
        other.put_object("reports", "public/q3.csv", b"other")
        assert other.url != standin.url
        for running, hub in ((standin, demo.hub), (other, other_demo.hub)):
            assert (running.keys.find(demo.hub.access_key_id) is None) is (running is other)
            assert (running.keys.find(other_demo.hub.access_key_id) is None) is (running is standin)
            assert running.world.role(demo.admin_arn) is not None
            assert hub.access_key_id
        first, second = standin.world.role(demo.admin_arn), other.world.role(demo.admin_arn)
        assert first is not None
        assert second is not None
        assert first.id != second.id
    answer = client("sts", demo.hub).assume_role(
        RoleArn=demo.data_reader_arn, RoleSessionName="ada", ExternalId=demo.external_id
    )
    s3 = client("s3", answer["Credentials"])
    assert s3.get_object(Bucket="reports", Key="public/q3.csv")["Body"].read() != b"other"


@pytest.fixture
def untouched() -> Iterator[None]:
    """moto is the same after the test as before."""
    parts = [
        (iam_models, "iam_backends"),
        (iam_responses, "iam_backends"),
        (s3_models, "s3_backends"),
        (s3_models.FakeBucket, "get_permission"),
    ]
    before = [getattr(owner, name) for owner, name in parts]
    yield
    assert all(
        getattr(owner, name) is was for (owner, name), was in zip(parts, before, strict=True)
    )


def test_moto_is_as_it_was_after_the_last_stop(untouched: None) -> None:
    one, two = AwsStandIn.start(), AwsStandIn.start()
    seed_demo(one)
    one.stop()
    one.stop()
    assert two.world.role("arn:aws:iam::111122223333:role/Admin") is None
    seed_demo(two)
    two.stop()


def test_after_the_stop_nothing_answers(
    demo: DemoAccount, standin: AwsStandIn, client: Client
) -> None:
    sts = client("sts", demo.hub)
    assert sts.get_caller_identity()  # leaves a connection open in the pool
    standin.stop()
    with pytest.raises(EndpointConnectionError):
        sts.get_caller_identity()


def test_a_taken_port_is_told(untouched: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        AwsStandIn.start(taken.getsockname()[1])


def test_seeding_refuses_malformed_policies(standin: AwsStandIn) -> None:
    with pytest.raises(MalformedPolicy):
        standin.put_role("arn:aws:iam::111122223333:role/R", {"Statement": []})
    with pytest.raises(MalformedPolicy):
        standin.put_bucket("b", policy={"Statement": [{"Effect": "Allow"}]})


def test_as_its_own_process(tmp_path: Path) -> None:
    ready = tmp_path / "aws.json"
    code = (
        "import pathlib, sys; from broker.devstack.aws import main;"
        " main(ready=pathlib.Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(ready)], cwd=ROOT)
    try:
        while not ready.exists():
            assert process.poll() is None
        told = json.loads(ready.read_text())
        assert stat.S_IMODE(ready.stat().st_mode) == 0o600
        assert told["environment"]["AWS_SESSION_TOKEN"]
        with socket.create_connection(("127.0.0.1", urlsplit(told["url"]).port or 0), timeout=5):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


AWS_CLI = ROOT / ".venv-awscli" / "bin" / "aws"


def test_the_aws_cli(standin: AwsStandIn, demo: DemoAccount, tmp_path: Path) -> None:
    if not AWS_CLI.exists():
        missing("the environment of the aws CLI is missing: run `make witnesses`")

    def aws(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(AWS_CLI), *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "AWS_ENDPOINT_URL": standin.url,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    policy = allow("s3:GetObject", "arn:aws:s3:::reports/public/*")
    assumed = aws(
        *("sts", "assume-role", "--role-arn", demo.data_reader_arn, "--role-session-name", "ada"),
        *("--external-id", demo.external_id, "--policy", json.dumps(policy)),
        **demo.hub.environment(),
    )
    assert assumed.returncode == 0, assumed.stderr
    credentials = json.loads(assumed.stdout)["Credentials"]
    session = {
        "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
        "AWS_SESSION_TOKEN": credentials["SessionToken"],
    }
    read = aws("s3", "cp", "s3://reports/public/q3.csv", "-", **session)
    assert read.stdout.startswith("region,revenue"), read.stderr
    refused = aws(
        "s3", "cp", "s3://reports/public/q3.csv", "s3://reports/public/copy.csv", **session
    )
    assert refused.returncode != 0
    assert "s3:PutObject" in refused.stderr
    assert "no session policy allows" in refused.stderr
