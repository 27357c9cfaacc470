"""Why, or why not: the decision on a request as it would fall now, without acting on it.

Owns what an explanation holds and how it reads as JSON. It decides and narrows
by the very functions that `issue` calls, and does nothing else: no record, no
STS call, no counter. Does not own: who may ask about whom (`web/explain`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broker.access.decide import (
    Address,
    Denied,
    Entry,
    Facts,
    NearMiss,
    decide,
    entries_for_others,
    entry_json,
)
from broker.access.grant import Grant
from broker.access.policy import AccessPolicy, Role
from broker.errors import BrokerError, DurationTooShort, MfaRequired, NotFound, Suspended
from broker.identity.principal import AuthContext
from broker.issuance.request import PLACEHOLDER_ID, CredentialRequest
from broker.issuance.scope import Scoped, duration_report, scope

MAX_NEAR_MISSES = 20


@dataclass(frozen=True, slots=True)
class Explanation:
    """`error` is None where the request would be allowed; else it is what the caller would get.
    `matched` is the entry that gives the role, also where its scope is then refused. `duration` is
    the member of the answer to a request; its `granted` is None where too little is left.
    """

    role: Role
    error: BrokerError | None
    matched: Entry | None
    near_misses: tuple[NearMiss, ...]
    duration: dict[str, object] | None
    scoped: Scoped | None


def explain(
    request: CredentialRequest,
    *,
    who: AuthContext,
    address: Address | None,
    policy: AccessPolicy,
    grants: tuple[Grant, ...],
    now: datetime,
    chained: Callable[[str], bool],
    sees_others: bool,
) -> Explanation:
    """What `issue` would do with the same arguments. `chained` is that of `Sts`.

    `sees_others`: the reader may know of roles that no entry offers to `who`, and whom they are
    given to. Raises the refusal itself where it must not tell that there is such a role, and
    NotFound for a role that is not in the policy.
    """
    facts = Facts(address, request.reason, now)
    decision = decide(policy, who, request.role, grants, facts)
    if isinstance(decision, Denied):
        return _denied(decision, request, who, policy, facts, sees_others=sees_others)
    is_chained = chained(decision.role.account.partition)
    duration: dict[str, object] | None = None
    try:
        duration = duration_report(
            decision,
            who,
            request,
            organization=policy.organization,
            chained=is_chained,
            now=now,
        ).as_json()
        scoped = scope(
            decision,
            who,
            request,
            issuance_id=PLACEHOLDER_ID,
            organization=policy.organization,
            chained=is_chained,
            now=now,
        )
    except DurationTooShort as refusal:
        duration = {"requested": request.duration, "granted": None, **refusal.extra}
        return Explanation(decision.role, refusal, decision.by, (), duration, None)
    except BrokerError as refusal:
        return Explanation(decision.role, refusal, decision.by, (), duration, None)
    return Explanation(decision.role, None, decision.by, (), duration, scoped)


def _denied(
    decision: Denied,
    request: CredentialRequest,
    who: AuthContext,
    policy: AccessPolicy,
    facts: Facts,
    *,
    sees_others: bool,
) -> Explanation:
    # These come before any look at the role: they tell nobody that there is one.
    if not sees_others and isinstance(decision.error, NotFound | Suspended | MfaRequired):
        raise decision.error
    misses = decision.near_misses
    if isinstance(decision.error, NotFound):
        misses = entries_for_others(policy, who, request.role, facts)
    role = policy.roles.get(request.role)
    if role is None:
        raise NotFound("The access policy has no role of that name.")
    return Explanation(role, decision.error, None, misses, None, None)


def answer(explanation: Explanation) -> dict[str, object]:
    """The explanation, JSON-ready. Never holds the role's external id."""
    role, error, scoped = explanation.role, explanation.error, explanation.scoped
    return {
        "role": role.name,
        "role_arn": role.role_arn,
        "account_id": role.account.id,
        "account_name": role.account.title,
        "allowed": error is None,
        "code": None if error is None else error.code,
        "detail": None if error is None else error.detail,
        "matched": None if explanation.matched is None else entry_json(explanation.matched),
        "near_misses": [miss.as_json() for miss in explanation.near_misses[:MAX_NEAR_MISSES]],
        "duration": explanation.duration,
        **(_nothing_sent() if scoped is None else _sent(scoped)),
    }


def _sent(scoped: Scoped) -> dict[str, object]:
    """What STS would be asked for. Transitive tags and source identity are the first call's."""
    first, last = scoped.calls[0], scoped.call
    return {
        "session_policy": None if last.policy is None else json.loads(last.policy),
        "session_policy_characters": 0 if last.policy is None else len(last.policy),
        "managed_policies": list(last.policy_arns),
        "tags": dict(last.tags) | dict(first.tags),
        "transitive_tags": list(first.transitive_tag_keys),
        "source_identity": scoped.source_identity,
        "session_name": last.role_session_name,
        "via": [hop.role_arn for hop in scoped.hops],
    }


def _nothing_sent() -> dict[str, object]:
    return {
        "session_policy": None,
        "session_policy_characters": None,
        "managed_policies": [],
        "tags": {},
        "transitive_tags": [],
        "source_identity": None,
        "session_name": None,
        "via": [],
    }
