"""A whole access policy file, and values made by hand around it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broker.access.grant import Grant
from broker.access.parse import parse_policy
from broker.access.policy import AccessPolicy
from broker.identity.principal import AuthContext, Principal, PrincipalKind

PROVIDERS = frozenset({"corp"})
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday, 13:00 in Berlin

FILE = """\
version: 1
accounts:
  prod: {id: "111122223333", name: Production, region: eu-west-1, partition: aws}
  test: {id: "444455556666"}
admins: [{group: corp/platform}]
auditors: [{group: audit}, {user: "Grace@example.com"}]
roles:
  data-reader:
    description: Read one dataset
    account: prod
    role_arn: arn:aws:iam::111122223333:role/service/DataReader
    external_id: "e-4711"
    role_maximum: 4h
    default_duration: 45m
    max_grant: 24h
    parameters: {bucket: {allowed: [reports, logs]}, prefix: {pattern: "[a-z0-9-]{1,40}", default: public}}
    session_policy: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: ["s3:GetObject"], Resource: "arn:aws:s3:::{{bucket}}/{{prefix}}/*"}]}
    managed_policies: []
    tags: {team: "{{principal.claims.team}}"}
    transitive_tags: [team]
    revocable: true
  admin: {account: test, role_arn: "arn:aws:iam::444455556666:role/Admin", unscoped: true}
entitlements:
  - {role: data-reader, to: {group: corp/analysts}, mode: standing, max_duration: 2h, require: {mfa_within: 8h, networks: [10.0.0.0/8, "2001:db8::/32"], hours: "Mon-Fri 08:00-20:00 Europe/Berlin", reason: true}}
  - {role: admin, to: {group: sre}, mode: standing}
organization: {maximum_duration: 8h, allowed_accounts: [prod, "444455556666"], deny: [{Effect: Deny, Action: "iam:*", Resource: "*"}]}
"""  # noqa: E501 - the file of the interface, as people write it


def policy(text: str = FILE) -> AccessPolicy:
    return parse_policy(text, providers=PROVIDERS)


def person(**changes: object) -> Principal:
    members: dict[str, object] = {
        "id": "p-aaaabbbbccccdddd",
        "kind": PrincipalKind.PERSON,
        "issuer": "https://id.example.com",
        "subject": "42",
        "provider": "corp",
        "handle": "ada@example.com",
        "email": "ada@example.com",
        "groups": frozenset({"corp/analysts"}),
        "claims": {"team": "web"},
    }
    return Principal(**{**members, **changes})  # type: ignore[arg-type]


def context(
    principal: Principal | None = None,
    *,
    mfa_age: int | None = 60,
    session_left: int = 12 * 3600,
    now: datetime = NOW,
) -> AuthContext:
    return AuthContext(
        principal=principal or person(),
        login_session_id="ls-1",
        auth_time=now - timedelta(seconds=120),
        mfa_time=None if mfa_age is None else now - timedelta(seconds=mfa_age),
        login_session_expires_at=now + timedelta(seconds=session_left),
    )


def grant(role: str = "admin", *, begins: int = -60, ends: int = 7200, **changes: str) -> Grant:
    """Times in seconds from NOW."""
    return Grant(
        id=changes.get("id", "g-1"),
        principal_id=changes.get("principal_id", "p-aaaabbbbccccdddd"),
        role=role,
        not_before=NOW + timedelta(seconds=begins),
        expires_at=NOW + timedelta(seconds=ends),
        granted_by="p-eeeeffffgggghhhh",
        reason="incident 7",
    )
