"""Access policies for setting up AWS: a hub's account, another one, and roles in both."""

from __future__ import annotations

import json

from broker.access.policy import AccessPolicy
from broker.issuance import hub_trust
from broker.issuance.aws_setup import AwsSetup, Hub, IamRole
from tests.unit.access.examples import policy

NEAR, FAR = "111122223333", "444455556666"
HUB_ARN = f"arn:aws:iam::{NEAR}:role/ops/BrokerHub"
HUB = Hub(HUB_ARN, hub_trust.ec2("aws"))


def arn(name: str, account: str = NEAR) -> str:
    return f"arn:aws:iam::{account}:role/{name}"


def entry(name: str, role_arn: str, **more: object) -> dict[str, object]:
    account = {NEAR: "near", FAR: "far"}[role_arn.split(":")[4]]
    return {name: {"account": account, "role_arn": role_arn, "unscoped": True, **more}}


def of(*entries: dict[str, object], **accounts: object) -> AccessPolicy:
    roles = {name: role for one in entries for name, role in one.items()}
    known = {"near": {"id": NEAR}, "far": {"id": FAR}, **accounts}
    return policy(json.dumps({"version": 1, "accounts": known, "roles": roles}))


def by_arn(setup: AwsSetup) -> dict[str, IamRole]:
    return {role.arn: role for account in setup.accounts for role in account.roles}
