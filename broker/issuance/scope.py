"""Narrowed to what: the exact AssumeRole input of one issuance.

Owns: the values that fill a role's templates, the Deny statements added to its
session policy, session name, source identity and tags, and AWS's limits on all
of them (AssumeRole, API reference), since botocore checks minimums only. Pure.
Does not own: who may have the role (`access/decide`), or the call (`sts`).

Several session policies are OR-ed before they are intersected with the role,
and only an explicit Deny narrows a union: so what is added is Deny, never Allow.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.access.decide import Allowed
from broker.access.grammar import VERSION
from broker.access.parameter import problem
from broker.access.policy import Organization, Role
from broker.access.template import TextTemplate, ValueRefused
from broker.errors import InvalidRequest, NotEntitled, ScopeTooLarge
from broker.identity.principal import AuthContext, Principal
from broker.issuance.duration import DurationReport, report
from broker.issuance.request import CredentialRequest, compact
from broker.issuance.sts import AssumeRole

ISSUANCE_TAG = "broker:issuance"
MAX_POLICY = 2048  # characters, inline and managed together
MAX_TAGS = 50
MAX_TAG_VALUE = 256
MAX_SESSION_NAME = 64

# May the session's credentials assume another role? Then they would leave the
# scope, the tags and the revocation that were put on this session.
NO_CHAINING: Mapping[str, object] = {
    "Effect": "Deny",
    "Action": ["sts:AssumeRole", "sts:AssumeRoot"],
    "Resource": "*",
}
# An inline policy of Deny statements alone would leave an unscoped role nothing.
EVERYTHING: Mapping[str, object] = {"Effect": "Allow", "Action": "*", "Resource": "*"}

_ISSUANCE_ID = re.compile(r"[A-Za-z0-9_-]{20,40}", re.ASCII)
_NOT_IN_SESSION_NAME = re.compile(r"[^A-Za-z0-9_+=,.@-]", re.ASCII)
_TAG_PUNCTUATION = frozenset("_.:/=+-@")


@dataclass(frozen=True, slots=True)
class Scoped:
    """`policy_sha256`: hex, of the inline policy exactly as it is sent; None where none is."""

    call: AssumeRole
    duration: DurationReport
    policy_sha256: str | None


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
    duration = report(
        role,
        allowed.ceiling,
        requested=request.duration,
        organization_maximum=organization.maximum_duration,
        login_session_expires_at=who.login_session_expires_at,
        chained=chained,
        now=now,
    )
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
    return Scoped(call, duration, digest)


def session_name(handle: str, issuance_id: str) -> str:
    """`grace@example.com-iss-…`: readable, legal, at most 64 characters.

    A resource policy that names a role-session ARN is not limited by the
    session policy, so nobody may know the name beforehand.
    """
    fragment = _NOT_IN_SESSION_NAME.sub("-", handle)[: MAX_SESSION_NAME - len(issuance_id) - 1]
    return f"{fragment}-{issuance_id}"


def session_policy_size(policy: str | None, managed: tuple[str, ...]) -> int:
    """What AWS counts against MAX_POLICY, as far as it is known here: of managed policies the
    broker sees the ARNs alone.
    """
    return len(policy or "") + sum(len(arn) for arn in managed)


def added_denials(
    role: Role, organization: Organization, restrict: tuple[Mapping[str, object], ...] = ()
) -> list[Mapping[str, object]]:
    """The Deny statements that stand in this role's session policy beside its own."""
    chaining = [] if role.may_chain else [NO_CHAINING]
    return [*organization.deny, *chaining, *restrict]


def assemble(
    role: Role, own: Mapping[str, object] | None, denials: list[Mapping[str, object]]
) -> str | None:
    """The inline policy: the role's own (rendered), and the denials. None where there is neither:
    the managed policies, or the role's unscoped rights, then stand alone.
    """
    if own is None and not denials:
        return None
    statements: list[object] = []
    document: dict[str, object] = {"Version": VERSION}
    if own is not None:
        document.update(own)
        written = own["Statement"]
        statements.extend(written if isinstance(written, list) else [written])
    elif role.unscoped:
        statements.append(EVERYTHING)
    document["Statement"] = [*statements, *denials]
    return compact(document)


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
    policy = assemble(role, own, added_denials(role, organization, restrict))
    size = session_policy_size(policy, role.managed_policies)
    if size > MAX_POLICY:
        advice = (
            "shorten --restrict"
            if restrict
            else "ask an admin for a narrower role, or fewer values"
        )
        raise ScopeTooLarge(
            f"The session policy has {size} characters; AWS takes {MAX_POLICY}: {advice}.",
            extra={"characters": size, "maximum": MAX_POLICY},
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
    if len(text) > MAX_TAG_VALUE:
        raise ScopeTooLarge(
            f"Tag {key} has {len(text)} characters; AWS takes {MAX_TAG_VALUE}.",
            extra={"characters": len(text), "maximum": MAX_TAG_VALUE},
        )
    if not is_tag_text(text):
        problem = "holds a character that AWS takes in no tag"
        raise _refused(ValueRefused(_blamed(template), problem))
    return text


def _blamed(template: TextTemplate) -> str:
    """The placeholder to name where a whole tag is wrong: a parameter, if there is one."""
    names = sorted(template.placeholders, key=lambda name: name.startswith("principal."))
    return names[0]


def is_tag_text(text: str) -> bool:
    r"""AWS's pattern of tag keys and values: `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`."""
    return all(
        character in _TAG_PUNCTUATION or unicodedata.category(character)[0] in "LZN"
        for character in text
    )


def _refused(refusal: ValueRefused) -> InvalidRequest | NotEntitled:
    """A caller can change a parameter, but not what their identity provider says of them."""
    if refusal.name.startswith(("principal.", "issuance.")):
        name = refusal.name.removeprefix("principal.").removeprefix("claims.")
        return NotEntitled(
            f"This role's scope is made of your login's {name}, which {refusal.problem}."
        )
    return InvalidRequest(f"Parameter {refusal.name} {refusal.problem}.")
