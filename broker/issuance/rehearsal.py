"""The calls that issuing a role would make, for nobody in particular.

Owns: one stand-in for every person, and AssumeRole calls that are what `scope`
makes of the role, except that their credentials may do nothing. Trust policies
are written for these calls, judged by them, and tried with them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from broker.access.decide import Allowed, Ceiling
from broker.access.policy import (
    MIN_DURATION,
    Conditions,
    Entitlement,
    Mode,
    Organization,
    Role,
    User,
)
from broker.access.session_policy import compact
from broker.access.tags import ISSUANCE_TAG
from broker.access.template import TextTemplate
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.issuance.request import PLACEHOLDER_ID, CredentialRequest
from broker.issuance.scope import Scoped, scope

# No id has a zero in it: CloudTrail shows that this was nobody.
NOBODY = Principal(
    id="p-" + "0" * 16,
    kind=PrincipalKind.PERSON,
    issuer="",
    subject="",
    provider="",
    handle="broker-doctor",
)
# Stands for values that differ from person to person.
VARYING = "broker-doctor"
DENY_EVERYTHING = compact(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}],
    }
)
_ALWAYS_THERE = frozenset({"principal.id", "principal.handle", "issuance.id"})
_SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def rehearse(role: Role) -> Scoped:
    """The calls, each for 900 s, the last under a policy that denies everything."""
    bare = replace(
        role,
        session_policy=None,
        managed_policies=(),
        unscoped=True,
        parameters={},
        tags={key: _tag(template) for key, template in role.tags.items()},
        # One that is to be generated is not needed here: what is made of it is not issued.
        generates_external_id=False,
    )
    nobody = AuthContext(NOBODY, "", _SOME_TIME, _SOME_TIME, _SOME_TIME + timedelta(hours=12))
    entry = Entitlement(role.name, User(NOBODY.id), Mode.STANDING, None, Conditions(), line=0)
    scoped = scope(
        Allowed(bare, entry, Ceiling()),
        nobody,
        CredentialRequest(role.name, duration=MIN_DURATION),
        issuance_id=PLACEHOLDER_ID,
        organization=Organization(),
        chained=True,
        now=_SOME_TIME,
    )
    return replace(scoped, call=replace(scoped.call, policy=DENY_EVERYTHING))


def varying_tags(role: Role) -> frozenset[str]:
    """The tags whose values differ from one issuance to the next."""
    templated = (key for key, template in role.tags.items() if template.placeholders)
    return frozenset({ISSUANCE_TAG, *templated})


def _tag(template: TextTemplate) -> TextTemplate:
    return template if template.placeholders <= _ALWAYS_THERE else TextTemplate.parse(VARYING)
