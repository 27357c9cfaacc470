"""Every account's roles as plain documents, for other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence

from broker.issuance.aws_setup import AccountSetup, AwsSetup, IamRole

FILE = "broker.json"


def render(setup: AwsSetup, accounts: Sequence[AccountSetup]) -> str:
    """Accounts by their number, roles by their name; both in the order in which to make them."""
    document = {
        "version": 1,
        "partition": setup.partition,
        "hub": setup.hub_arn,
        "accounts": {
            account.id: {
                "name": account.name,
                "roles": {role.name: _role(role) for role in account.roles},
            }
            for account in accounts
        },
        "left_out": list(setup.left_out),
        "notes": list(setup.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _role(role: IamRole) -> dict[str, object]:
    """`policies` are the role's own: inline, or customer managed where `policies_are_managed`."""
    return {
        "arn": role.arn,
        "path": role.path,
        "existing": role.existing,
        "serves": list(role.serves),
        "description": role.description,
        "max_session_duration": role.max_session_duration,
        "trust_policy": role.trust,
        "policies": dict(role.policies),
        "policies_are_managed": role.policies_are_managed,
        "attached_policies": list(role.attached),
        "instance_profile": role.name if role.instance_profile else None,
        "after": list(role.after),
        "notes": list(role.notes),
    }
