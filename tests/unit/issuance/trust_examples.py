"""A role, the broker's identities, and trust policies around them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from broker.access.policy import Role
from broker.issuance.rehearsal import rehearse, varying_tags
from broker.issuance.sts import AssumeRole, CallerIdentity
from broker.issuance.trust_judgement import Verdict, judge
from broker.issuance.trust_policy import principal_behind, trust_policies
from tests.unit.access.examples import policy

ACCOUNT = "111122223333"
ROLE: Role = policy().roles["data-reader"]
HUB = f"arn:aws:iam::{ACCOUNT}:role/BrokerHub"
SESSION = CallerIdentity(ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/BrokerHub/i-0123456789")
USER = CallerIdentity(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/ops/broker")
ELSEWHERE = CallerIdentity("999988887777", "arn:aws:sts::999988887777:assumed-role/Hub/pod-1")
ALL = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
PASTE = "set the trust policy that `broker access trust-policy data-reader` prints"
EXTERNAL_ID = {"StringEquals": {"sts:ExternalId": "e-4711"}}


def statement(
    action: Any = ALL,
    principal: Any = HUB,
    condition: Any = None,
    effect: str = "Allow",
    **members: Any,
) -> dict[str, Any]:
    """`principal` is one of AWS's, or a whole Principal element."""
    named = principal if isinstance(principal, dict) else {"AWS": principal}
    found: dict[str, Any] = {"Effect": effect, "Principal": named, "Action": action}
    if condition is not None:
        found["Condition"] = condition
    found.update(members)
    return {key: value for key, value in found.items() if value is not ...}


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def with_external_id(condition: dict[str, Any]) -> dict[str, Any]:
    """Both conditions, also where they use one operator."""
    equals = {**EXTERNAL_ID["StringEquals"], **condition.get("StringEquals", {})}
    return {**condition, "StringEquals": equals}


def good(principal: Any = HUB) -> dict[str, Any]:
    """As people write it by hand: the ExternalId on AssumeRole alone."""
    return document(
        statement("sts:AssumeRole", principal, EXTERNAL_ID), statement(ALL[1:], principal)
    )


def judged(
    trust: Any,
    identity: CallerIdentity = SESSION,
    role: Role = ROLE,
    call: AssumeRole | None = None,
) -> Verdict:
    principal = call.after.role_arn if call and call.after else principal_behind(identity)[0]
    return judge(
        json.loads(json.dumps(trust)),
        call or rehearse(role).call,
        identity,
        principal=principal,
        varying=varying_tags(role),
        role_name=role.name,
    )


def written(identity: CallerIdentity = SESSION, role: Role = ROLE) -> Any:
    """The policy that `broker access trust-policy` prints for the role."""
    return trust_policies(rehearse(role), identity)[-1].document


def without_external_id(role: Role = ROLE) -> Role:
    return replace(role, external_id=None)
