"""The STS stand-in: AssumeRole and GetCallerIdentity, refused where AWS documents a refusal.

Owns the order of the checks and the issuing of credentials. Parameters come
checked from sts_input.py; the caller comes verified from sigv4.py.

Sources: STS API reference (AssumeRole); IAM User Guide (role chaining, session
tags, source identity). The packed size is AWS's own and unpublished; the one
here is a rough measure, see `packed_percent`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from broker.devstack.aws.credentials import (
    Key,
    Keys,
    RoleSession,
    Root,
    caller_of,
    context_of,
    policies_of,
)
from broker.devstack.aws.evaluate import Resource, evaluate
from broker.devstack.aws.grammar import DENY_ALL, Kind, MalformedPolicy, Policy, parse
from broker.devstack.aws.sts_input import AssumeRoleInput
from broker.devstack.aws.wire import AwsError, timestamp
from broker.devstack.aws.world import RoleRecord, World

CHAINED_SECONDS = 3600
# Reported from real accounts: a policy of 1,690 characters with 42 actions took
# 157 %, one of 736 with three tags 82 %, six tags of 300 characters 74 %. Some
# 500 bytes after zlib is near those, on the lenient side.
_PACKED_BYTES = 500


@dataclass(frozen=True, slots=True)
class Issued:
    """What AssumeRole gives out."""

    key: Key
    session: RoleSession
    expires_at: float
    packed_percent: int

    def members(self) -> dict[str, object]:
        """The members of AssumeRoleResult, in the API's names."""
        token = self.key.session_token or ""
        return {
            "SourceIdentity": self.session.source_identity,
            "AssumedRoleUser": {
                "AssumedRoleId": self.session.assumed_role_id,
                "Arn": self.session.arn,
            },
            "Credentials": {
                "AccessKeyId": self.key.access_key_id,
                "SecretAccessKey": self.key.secret_access_key,
                "SessionToken": token,
                "Expiration": timestamp(self.expires_at),
            },
            "PackedPolicySize": self.packed_percent,
            "SessionTokenUtilization": self.packed_percent,
            "SessionTokenSize": len(token),
        }


def assume_role(
    call: AssumeRoleInput,
    caller: Key,
    *,
    keys: Keys,
    world: World,
    now: float,
    source_ip: str,
    region: str,
) -> Issued:
    """Check one AssumeRole and issue its credentials. Raises AwsError.

    Who may is settled before anything that would tell a stranger about the role.
    """
    if isinstance(caller.holder, Root):
        raise AwsError("AccessDenied", "Roles may not be assumed by root accounts.", 403)
    base = caller.holder if isinstance(caller.holder, RoleSession) else None
    inherited = _inherited_tags(call, base)
    role = world.role(call.role_arn)
    if role is None:
        raise _not_authorized(caller, "sts:AssumeRole", call.role_arn)
    context = {
        **context_of(caller, world, now=now, source_ip=source_ip, region=region),
        **_request_context(call, role),
    }
    _authorize(call, caller, base, role, bool(inherited), world, context)
    if base is not None and call.duration_seconds > CHAINED_SECONDS:
        raise AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by"
            " role chaining.",
        )
    if call.duration_seconds > role.max_session_duration:
        raise AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        )
    _check_policies(call, world)
    packed = packed_percent(call, inherited)
    session = RoleSession(
        role_arn=role.arn,
        role_id=role.id,
        session_name=call.session_name,
        policy=call.policy,
        policy_arns=call.policy_arns,
        tags={**inherited, **dict(call.tags)},
        transitive=frozenset(key.lower() for key in (*inherited, *call.transitive_tag_keys)),
        source_identity=call.source_identity or (base.source_identity if base else None),
        issued_at=float(int(now)),
    )
    expires_at = session.issued_at + call.duration_seconds
    key = keys.issue(session, expires_at=expires_at, token_size=call.token_size)
    return Issued(key, session, expires_at, packed)


def caller_identity(caller: Key) -> dict[str, object]:
    """GetCallerIdentity: needs no permission, and an explicit Deny does not stop it."""
    return {"Arn": caller.arn, "UserId": caller.user_id, "Account": caller.account}


def packed_percent(call: AssumeRoleInput, inherited: Mapping[str, str]) -> int:
    """How much of the packed space policies and tags take. Raises AwsError above 100."""
    tags = [*inherited.items(), *call.tags]
    policies = [call.policy or "", *call.policy_arns]
    tag_bytes = _packed(tags) if tags else 0
    total = tag_bytes + (_packed(policies) if any(policies) else 0)
    percent = -(-100 * total // _PACKED_BYTES)
    if percent > 100:
        if 2 * tag_bytes > total:
            text = f"Packed size of session tags consumes {percent}% of allotted space."
        else:
            text = (
                f"Packed policy consumes {percent}% of allotted space, please use smaller policy."
            )
        raise AwsError("PackedPolicyTooLarge", text)
    return percent


def _packed(value: object) -> int:
    return len(zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 9))


def _inherited_tags(call: AssumeRoleInput, base: RoleSession | None) -> dict[str, str]:
    """The caller's transitive tags, in the case they were first passed. Raises AwsError."""
    if base is None:
        return {}
    inherited = {key: value for key, value in base.tags.items() if key.lower() in base.transitive}
    if {key.lower() for key in inherited} & {key.lower() for key, _ in call.tags}:
        raise AwsError(
            "InvalidParameterValue",
            "One of the specified transitive tag keys can't be set because it conflicts with a"
            " transitive tag key from the calling session.",
        )
    return inherited


def _request_context(call: AssumeRoleInput, role: RoleRecord) -> dict[str, tuple[str, ...]]:
    context: dict[str, tuple[str, ...]] = {"sts:rolesessionname": (call.session_name,)}
    if call.external_id is not None:
        context["sts:externalid"] = (call.external_id,)
    if call.source_identity is not None:
        context["sts:sourceidentity"] = (call.source_identity,)
    if call.tags:
        context["aws:tagkeys"] = tuple(key for key, _ in call.tags)
    if call.transitive_tag_keys:
        context["sts:transitivetagkeys"] = call.transitive_tag_keys
    for key, value in call.tags:
        context[f"aws:requesttag/{key.lower()}"] = (value,)
    for key, value in role.tags.items():
        context[f"aws:resourcetag/{key.lower()}"] = (value,)
        context[f"iam:resourcetag/{key.lower()}"] = (value,)
    return context


def _authorize(
    call: AssumeRoleInput,
    caller: Key,
    base: RoleSession | None,
    role: RoleRecord,
    inherits_tags: bool,
    world: World,
    context: Mapping[str, tuple[str, ...]],
) -> None:
    """The caller's policies and the role's trust policy, for each action the call implies."""
    policies = policies_of(caller, world)
    target = Resource(role.arn, role.account, _trust(role), policy_decides=True)
    actions = ["sts:AssumeRole"]
    if call.tags or inherits_tags:
        actions.append("sts:TagSession")
    carried = base.source_identity if base is not None else None
    if call.source_identity is not None or carried is not None:
        actions.append("sts:SetSourceIdentity")
    for action in actions:
        if not evaluate(action, target, caller_of(caller), policies, context).allowed:
            raise _not_authorized(caller, action, role.arn)
    if carried is not None and call.source_identity not in (None, carried):
        # It stays what the first hop set, through the whole chain.
        raise _not_authorized(caller, "sts:SetSourceIdentity", role.arn)
    if actions[-1] == "sts:SetSourceIdentity" and base is not None:
        # Along a chain the caller's own policies must allow it too, whatever the trust says.
        alone = Resource(role.arn, caller.account)
        if not evaluate(actions[-1], alone, caller_of(caller), policies, context).allowed:
            raise _not_authorized(caller, "sts:SetSourceIdentity", role.arn)


def _trust(role: RoleRecord) -> Policy:
    try:
        return parse(role.trust, Kind.TRUST)
    except MalformedPolicy:
        return DENY_ALL


def _check_policies(call: AssumeRoleInput, world: World) -> None:
    if call.policy is not None:
        try:
            parse(call.policy, Kind.IDENTITY)
        except MalformedPolicy as error:
            raise AwsError("MalformedPolicyDocument", str(error)) from error
    if any(world.managed_policy(arn) is None for arn in call.policy_arns):
        raise AwsError(
            "ValidationError",
            "At least one Policy ARN in the PolicyArns parameter does not match an existing IAM"
            " Managed Policy ARN.",
        )


def _not_authorized(caller: Key, action: str, role_arn: str) -> AwsError:
    # The same for a role that is not there: AWS does not tell the two apart.
    return AwsError(
        "AccessDenied",
        f"User: {caller.arn} is not authorized to perform: {action} on resource: {role_arn}",
        403,
    )
