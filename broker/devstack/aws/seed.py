"""The demo account: a hub for the broker, three roles and two buckets.

Owns what `broker dev` and the end-to-end tests find in AWS. Idempotent: a second
run sets everything as the first did and gives fresh hub credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from broker.devstack.aws.server import AwsStandIn, Document, HubCredentials

EXTERNAL_ID = "broker-demo-4f6a1c"
BUCKETS: Mapping[str, Mapping[str, bytes]] = {
    "reports": {
        "public/q3.csv": b"region,revenue\nnorth,1200\nsouth,950\n",
        "public/q4.csv": b"region,revenue\nnorth,1310\nsouth,990\n",
        "private/salaries.csv": b"name,salary\nada,1\ngrace,1\n",
    },
    "logs": {
        "public/2026-11-23.log": b"GET /health 200\n",
        "private/audit.log": b"login ada\n",
    },
}


@dataclass(frozen=True, slots=True)
class DemoAccount:
    account_id: str
    hub: HubCredentials = field(repr=False)
    hub_arn: str  # the principal the roles trust
    data_reader_arn: str
    deployer_arn: str
    admin_arn: str
    external_id: str
    buckets: tuple[str, ...]


def seed_demo(
    standin: AwsStandIn, *, hub: Literal["role", "user"] = "role", external_id: str = EXTERNAL_ID
) -> DemoAccount:
    """Put the demo account into a stand-in.

    The hub is a role session by default, as on EC2, ECS or EKS: STS then gives
    3600 s at most. DataReader may also write in its own policy, so that a write
    refused by the broker's session policy alone can be shown.
    """
    account, partition = standin.account_id, standin.world.partition
    base = f"arn:{partition}:iam::{account}:"
    name = "BrokerHub" if hub == "role" else "broker-hub"
    hub_arn = f"{base}{hub}/{name}"
    objects = [f"arn:{partition}:s3:::{bucket}/*" for bucket in BUCKETS]
    buckets = [f"arn:{partition}:s3:::{bucket}" for bucket in BUCKETS]
    credentials = standin.hub_credentials(hub, name=name)
    trust = _trust(hub_arn, external_id)
    roles: Mapping[str, tuple[int, list[Document]]] = {
        "DataReader": (
            4 * 3600,
            [
                _allow(["s3:GetObject", "s3:PutObject"], objects),
                _allow(["s3:ListBucket"], buckets),
            ],
        ),
        "Deployer": (
            2 * 3600,
            [
                _allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], objects),
                _allow(["s3:ListBucket", "s3:ListAllMyBuckets"], ["*"]),
            ],
        ),
        "Admin": (12 * 3600, [_allow(["*"], ["*"])]),
    }
    for role, (longest, statements) in roles.items():
        document: Document = {"Version": "2012-10-17", "Statement": statements}
        standin.put_role(f"{base}role/{role}", trust, longest, {"access": document})
    for bucket, contents in BUCKETS.items():
        standin.put_bucket(bucket)
        for key, body in contents.items():
            standin.put_object(bucket, key, body)
    return DemoAccount(
        account_id=account,
        hub=credentials,
        hub_arn=hub_arn,
        data_reader_arn=f"{base}role/DataReader",
        deployer_arn=f"{base}role/Deployer",
        admin_arn=f"{base}role/Admin",
        external_id=external_id,
        buckets=tuple(BUCKETS),
    )


def _trust(principal: str, external_id: str) -> Document:
    """The hub alone, with its ExternalId; tags and source identity are the broker's to set."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": principal},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
            },
            {
                "Effect": "Allow",
                "Principal": {"AWS": principal},
                "Action": ["sts:TagSession", "sts:SetSourceIdentity"],
            },
        ],
    }


def _allow(actions: list[str], resources: list[str]) -> Document:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}
