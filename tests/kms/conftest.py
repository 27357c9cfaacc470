"""A KMS over real HTTP, with signatures and policies checked, and a caller of few rights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from botocore import loaders, session

from broker.adapters.key_place import KmsReference
from broker.adapters.kms import KmsKey
from broker.devstack.aws import AwsStandIn
from broker.devstack.aws.kms import KmsKeyRecord, Spec

ACCOUNT = "111122223333"
_LOADER = loaders.create_loader()
_REGION = "us-east-1"


@dataclass
class Kms:
    """`grant` sets what the broker's own role may do."""

    aws: AwsStandIn

    def create(self, spec: Spec) -> tuple[KmsReference, KmsKeyRecord]:
        record = self.aws.kms.create_key(ACCOUNT, spec)
        return KmsReference.parse(f"awskms:{record.arn}"), record

    def signing(self) -> KmsReference:
        return self.create("ECC_NIST_EDWARDS25519")[0]

    def sealing(self) -> KmsReference:
        return self.create("SYMMETRIC_DEFAULT")[0]

    def grant(self, *statements: dict[str, object]) -> None:
        self.aws.put_role(
            f"arn:aws:iam::{ACCOUNT}:role/BrokerHub",
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "ec2.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                    }
                ],
            },
            policies={"hub": {"Version": "2012-10-17", "Statement": list(statements)}},
        )


def allow(*actions: str, on: KmsReference | None = None) -> dict[str, object]:
    return {
        "Effect": "Allow",
        "Action": [f"kms:{action}" for action in actions],
        "Resource": "*" if on is None else on.arn,
    }


@pytest.fixture(scope="module")
def standin() -> Iterator[AwsStandIn]:
    with AwsStandIn.start() as aws:
        yield aws


@pytest.fixture
def kms(standin: AwsStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kms]:
    """The broker's role may use every key, until a test says otherwise."""
    made = Kms(standin)
    hub = standin.hub_credentials("role")
    made.grant(allow("*"))
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in hub.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", standin.url)
    # Each session would read the same 1 MB of API models again: half of what these tests cost.
    monkeypatch.setattr(session, "create_loader", lambda _paths=None: _LOADER)
    yield made
    standin.faults.clear()


def opened(reference: KmsReference) -> KmsKey:
    return KmsKey.open(reference)
