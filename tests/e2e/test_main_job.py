"""The main job with real processes: canaille signs in, stock AWS clients use what is issued."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from broker.devstack.terminal import Terminal
from tests.e2e.deployment import User
from tests.missing import missing

ROOT = Path(__file__).resolve().parents[2]
STOCK = ROOT / ".venv-awscli" / "bin"

READ = """
import sys, boto3
s3 = boto3.Session(profile_name="data-reader").client("s3")
print(s3.get_object(Bucket="reports", Key=sys.argv[1])["Body"].read().decode(), end="")
"""


@pytest.fixture
def stock() -> Path:
    """The environment with the aws CLI and boto3, without any of our packages."""
    if not (STOCK / "aws").exists():
        missing("the environment of the aws CLI is missing: run `make witnesses`")
    return STOCK


def aws_environment(terminal: Terminal, folder: Path, endpoint: str) -> dict[str, str]:
    """A profile as the README writes it, and nothing else that could give credentials."""
    launcher = folder / "broker"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m broker.entry "$@"\n')
    launcher.chmod(0o755)
    config = folder / "aws-config"
    config.write_text(
        "[profile data-reader]\n"
        "credential_process = broker credential-process data-reader\n"
        "region = us-east-1\n"
        "s3 =\n  addressing_style = path\n"
    )
    return {
        **terminal.environment,
        "PATH": f"{folder}:/usr/bin:/bin",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
    }


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def issued_record(admin: User, access_key_id: str) -> dict[str, object]:
    ran = admin.terminal.run("audit", "export")
    assert ran.code == 0, ran.err
    for line in ran.out.splitlines():
        record: dict[str, object] = json.loads(json.loads(line)["record"])
        if record["type"] == "issuance.issued" and access_key_id in json.dumps(record):
            return record
    raise AssertionError(f"no issuance.issued names {access_key_id}")


def test_stock_aws_clients_read_what_is_allowed_and_nothing_else(
    deploy, database_url, stock, tmp_path
):
    broker = deploy(database_url)
    grace = broker.enrolled("grace")
    broker.apply_policy(grace)
    alice = broker.enrolled("alice")
    environment = aws_environment(alice.terminal, tmp_path, broker.aws.url)

    allowed = run([str(stock / "python"), "-c", READ, "public/q3.csv"], environment)
    assert allowed.returncode == 0, allowed.stderr
    assert allowed.stdout.startswith("region,revenue")
    refused = run([str(stock / "python"), "-c", READ, "private/salaries.csv"], environment)
    assert refused.returncode != 0
    assert "AccessDenied" in refused.stderr

    copy = ["s3", "cp", "--profile", "data-reader"]
    aws = str(stock / "aws")
    allowed = run([aws, *copy, "s3://reports/public/q3.csv", "-"], environment)
    assert allowed.returncode == 0, allowed.stderr
    assert allowed.stdout.startswith("region,revenue")
    refused = run([aws, *copy, "s3://reports/private/salaries.csv", "-"], environment)
    assert refused.returncode != 0
    written = run([aws, *copy, __file__, "s3://reports/public/new.csv"], environment)
    assert written.returncode != 0
    assert "AccessDenied" in written.stderr


def test_the_record_tells_who_got_what_and_verifies_offline(deploy, database_url, tmp_path):
    broker = deploy(database_url)
    grace = broker.enrolled("grace")
    broker.apply_policy(grace)
    alice = broker.enrolled("alice")

    ran = alice.terminal.run("creds", "data-reader", "--duration", "12h", "--format", "json")
    assert ran.code == 0, ran.err
    credentials = json.loads(ran.out)
    record = issued_record(grace, credentials["AccessKeyId"])
    assert record["actor"]["handle"] == "alice@example.com"  # type: ignore[index]
    assert record["subject"]["role"] == "data-reader"  # type: ignore[index]
    assert credentials["SecretAccessKey"] not in json.dumps(record)
    assert credentials["SessionToken"] not in json.dumps(record)

    export = tmp_path / "audit.jsonl"
    assert grace.terminal.run("audit", "export", "-o", str(export)).code == 0
    verified = grace.terminal.run("audit", "verify", str(export))
    assert verified.code == 0
    assert "internally consistent" in verified.out + verified.err

    lines = export.read_bytes().splitlines(keepends=True)
    spoilt = lines[4].replace(b'\\"seq\\":5', b'\\"seq\\":6', 1)
    assert spoilt != lines[4]
    export.write_bytes(b"".join([*lines[:4], spoilt, *lines[5:]]))
    refused = grace.terminal.run("audit", "verify", str(export))
    assert refused.code == 1
    assert "seq 5" in refused.out + refused.err


def test_people_without_a_right_are_refused_and_sts_is_never_asked(deploy, sqlite_url):
    broker = deploy(sqlite_url)
    grace = broker.enrolled("grace")
    broker.apply_policy(grace)
    bob = broker.enrolled("bob")
    calls = len(broker.aws.calls)

    ran = bob.terminal.run("creds", "data-reader")
    assert ran.code == 1
    assert "not_found" in ran.err
    assert bob.terminal.run("access", "export").code == 1
    assert bob.terminal.run("audit", "tail").code == 1
    assert len(broker.aws.calls) == calls

    assert bob.terminal.run("logout").code == 0
    assert bob.terminal.run("creds", "data-reader").code == 3
