"""Narrowed to what: the exact AssumeRole inputs of one issuance, hops included.

Owns: the values that fill a role's templates, the Deny statements added to its
session policy, session name, source identity and tags, and AWS's limits on all
of them (AssumeRole, API reference), since botocore checks minimums only. Pure.
Does not own: who may have the role (`access/decide`), or the call (`sts`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from broker.access.decide import Allowed
from broker.access.parameter import problem
from broker.access.policy import MIN_DURATION, Organization, Role
from broker.access.session_policy import MAX_POLICY, assemble, denials, hop_policy, size
from broker.access.tags import ISSUANCE_TAG, MAX_VALUE, is_tag_text
from broker.access.template import TextTemplate, ValueRefused
from broker.errors import InvalidRequest, NotEntitled, ScopeTooLarge
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.issuance.duration import DurationReport, report
from broker.issuance.request import CredentialRequest
from broker.issuance.sts import AssumeRole, Predecessor

MAX_SESSION_NAME = 64

_SESSION_LIMIT = {
    PrincipalKind.PERSON: "login_session_remaining",
    PrincipalKind.WORKLOAD: "job_remaining",
}

_ISSUANCE_ID = re.compile(r"[A-Za-z0-9_-]{20,40}", re.ASCII)
_NOT_IN_SESSION_NAME = re.compile(r"[^A-Za-z0-9_+=,.@-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scoped:
    """`call` is the one whose credentials are given out; `hops` come before it, each made with
    the credentials of the one before. `policy_sha256`: hex, of the inline policy of `call` exactly
    as it is sent; None where none is.
    """

    call: AssumeRole
    duration: DurationReport
    policy_sha256: str | None
    source_identity: str
    hops: tuple[AssumeRole, ...] = ()

    @property
    def calls(self) -> tuple[AssumeRole, ...]:
        return (*self.hops, self.call)


def scope(
    allowed: Allowed,
    who: AuthContext,
    request: CredentialRequest,
    *,
    issuance_id: str,
    organization: Organization,
    chained: bool,
    now: datetime,
) -> Scoped:
    """The call that gives `request` under `allowed`, and nothing wider.

    `issuance_id` is `request.new_issuance_id()`: its randomness is what makes
    the session name unguessable. Raises InvalidRequest (a parameter or
    duration), NotEntitled (the caller's login lacks a value that the role's
    scope is made of), DurationTooShort, ScopeTooLarge.
    """
    if not _ISSUANCE_ID.fullmatch(issuance_id):
        raise ValueError("an issuance id is 20 to 40 letters, digits, - and _")
    role = allowed.role
    duration = duration_report(
        allowed, who, request, organization=organization, chained=chained, now=now
    )
    if role.generates_external_id and role.external_id is None:
        raise ValueError("the role's external id was not filled in from the store")
    values = _values(role, who.principal, request.parameters, issuance_id)
    policy = _policy(role, values, organization, request.restrict)
    call = AssumeRole(
        partition=role.account.partition,
        region=role.account.region,
        role_arn=role.role_arn,
        role_session_name=session_name(who.principal.handle, issuance_id),
        duration_seconds=duration.granted,
        policy=policy,
        policy_arns=role.managed_policies,
        tags=(*_tags(role, values), (ISSUANCE_TAG, issuance_id)),
        transitive_tag_keys=(*role.transitive_tags, ISSUANCE_TAG),
        source_identity=who.principal.id,
        external_id=role.external_id,
    )
    digest = None if policy is None else hashlib.sha256(policy.encode("ascii")).hexdigest()
    hops, last = _chain(role.via, call, who.principal.id)
    return Scoped(last, duration, digest, who.principal.id, hops)


def duration_report(
    allowed: Allowed,
    who: AuthContext,
    request: CredentialRequest,
    *,
    organization: Organization,
    chained: bool,
    now: datetime,
) -> DurationReport:
    """For how long, whatever it is narrowed to. Raises InvalidRequest, DurationTooShort."""
    return report(
        allowed.role,
        allowed.ceiling,
        requested=request.duration,
        organization_maximum=organization.maximum_duration,
        login_session_expires_at=who.login_session_expires_at,
        session_limit=_SESSION_LIMIT[who.principal.kind],
        # What a hop's credentials assume is chained, whatever the broker's own are.
        chained=chained or bool(allowed.role.via),
        now=now,
    )


def session_name(handle: str, issuance_id: str) -> str:
    """`grace@example.com-iss-…`: readable, legal, at most 64 characters.

    A resource policy that names a role-session ARN is not limited by the
    session policy, so nobody may know the name beforehand.
    """
    fragment = _NOT_IN_SESSION_NAME.sub("-", handle)[: MAX_SESSION_NAME - len(issuance_id) - 1]
    return f"{fragment}-{issuance_id}"


def _chain(
    via: tuple[str, ...], call: AssumeRole, source_identity: str
) -> tuple[tuple[AssumeRole, ...], AssumeRole]:
    """The hops to `call`, and `call` as the last of them makes it.

    Source identity and transitive tags are set at the first hop: sessions carry them on, and
    AWS refuses a call that passes them again (IAM User Guide, "Pass session tags in STS").
    """
    if not via:
        return (), call
    transitive = frozenset(call.transitive_tag_keys)
    hops: list[AssumeRole] = []
    for place, arn in enumerate(via):
        first = place == 0
        following = via[place + 1] if place + 1 < len(via) else call.role_arn
        hops.append(
            AssumeRole(
                partition=call.partition,
                region=call.region,
                role_arn=arn,
                role_session_name=call.role_session_name,
                duration_seconds=MIN_DURATION,
                policy=hop_policy(following),
                policy_arns=(),
                tags=tuple(tag for tag in call.tags if first and tag[0] in transitive),
                transitive_tag_keys=call.transitive_tag_keys if first else (),
                source_identity=source_identity if first else None,
                after=None if first else Predecessor(via[place - 1], source_identity),
            )
        )
    last = replace(
        call,
        tags=tuple(tag for tag in call.tags if tag[0] not in transitive),
        transitive_tag_keys=(),
        source_identity=None,
        after=Predecessor(via[-1], source_identity),
    )
    return tuple(hops), last


def _policy(
    role: Role,
    values: Mapping[str, str],
    organization: Organization,
    restrict: tuple[Mapping[str, object], ...],
) -> str | None:
    try:
        own = None if role.session_policy is None else role.session_policy.render(values)
    except ValueRefused as refusal:
        raise _refused(refusal) from refusal
    policy = assemble(role, own, denials(role, organization, restrict))
    characters = size(policy, role.managed_policies)
    if characters > MAX_POLICY:
        advice = (
            "shorten --restrict"
            if restrict
            else "ask an admin for a narrower role, or fewer values"
        )
        raise ScopeTooLarge(
            f"The session policy has {characters} characters; AWS takes {MAX_POLICY}: {advice}.",
            extra={"characters": characters, "maximum": MAX_POLICY},
        )
    return policy


def _values(
    role: Role, principal: Principal, given: Mapping[str, str], issuance_id: str
) -> dict[str, str]:
    """Every placeholder's value. What the login doesn't have is absent, and denies where used."""
    values = {
        "principal.id": principal.id,
        "principal.handle": principal.handle,
        "issuance.id": issuance_id,
    }
    if principal.email is not None:
        values["principal.email"] = principal.email
    for claim, text in principal.claims.items():
        values[f"principal.claims.{claim}"] = text
    unknown = sorted(set(given) - set(role.parameters))
    if unknown:
        known = ", ".join(role.parameters) or "none"
        raise InvalidRequest(f"Role {role.name} has no parameter {unknown[0]}; it has: {known}.")
    for name, parameter in role.parameters.items():
        value = given.get(name, parameter.default)
        if value is None:
            raise InvalidRequest(f"Role {role.name} needs parameter {name}: --set {name}=…")
        if fault := problem(parameter, value):
            raise InvalidRequest(f"Parameter {name} {fault}.")
        values[name] = value
    return values


def _tags(role: Role, values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, _tag(key, template, values)) for key, template in role.tags.items())


def _tag(key: str, template: TextTemplate, values: Mapping[str, str]) -> str:
    try:
        text = template.render(values)
    except ValueRefused as refusal:
        raise _refused(refusal) from refusal
    if len(text) > MAX_VALUE:
        raise ScopeTooLarge(
            f"Tag {key} has {len(text)} characters; AWS takes {MAX_VALUE}.",
            extra={"characters": len(text), "maximum": MAX_VALUE},
        )
    if not is_tag_text(text):
        problem = "holds a character that AWS takes in no tag"
        raise _refused(ValueRefused(_blamed(template), problem))
    return text


def _blamed(template: TextTemplate) -> str:
    """The placeholder to name where a whole tag is wrong: a parameter, if there is one."""
    names = sorted(template.placeholders, key=lambda name: name.startswith("principal."))
    return names[0]


def _refused(refusal: ValueRefused) -> InvalidRequest | NotEntitled:
    """A caller can change a parameter, but not what their identity provider says of them."""
    if refusal.name.startswith(("principal.", "issuance.")):
        name = refusal.name.removeprefix("principal.").removeprefix("claims.")
        return NotEntitled(
            f"This role's scope is made of your login's {name}, which {refusal.problem}."
        )
    return InvalidRequest(f"Parameter {refusal.name} {refusal.problem}.")
