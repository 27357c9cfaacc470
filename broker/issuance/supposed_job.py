"""A job that a workload entry lets in, supposed from the entry alone: no token is at hand.

Owns: which values its claims are given. Does not own: the decision on what it
asks for (`explain`), and comparing a real token with the entries (`tried`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.access.policy import AccessPolicy, Role
from broker.identity.job import Job, job_context
from broker.identity.presets import Claim
from broker.identity.principal import AuthContext, Principal
from broker.identity.trust import Exactly, Glob, Matcher, Scalar, Workload

# No id has a zero in it: an entry that no applied policy has named yet is nobody.
UNNAMED = "w-" + "0" * 16
_CLAIM = "principal.claims."


@dataclass(frozen=True, slots=True)
class SupposedJob:
    """`assumed` says what was supposed, one sentence each, for the reader of an explanation."""

    who: AuthContext
    assumed: tuple[str, ...]


def supposed_job(
    workload: Workload, role: Role | None, known: Principal | None, now: datetime
) -> SupposedJob:
    """A job that began at `now`. `known` is the entry's principal, None where it has none yet.

    A claim has the entry's value; what the entry leaves open is `any-NAME`, so that templates of
    `role` read as they would, and nobody takes the value for a real one.
    """
    facts: dict[str, Scalar] = {}
    assumed = [f"a job of workload {workload.name} that began just now", "no client address"]
    for name, matcher in workload.claims.items():
        facts[name] = _example(name, matcher)
        if not isinstance(matcher, Exactly) or len(matcher.values) > 1:
            assumed.append(f"{name} is {facts[name]!r}: the entry admits {matcher}")
    if workload.preset is not None:
        for claim in workload.preset.claims.values():
            facts.setdefault(claim.name, _open(claim))
    principal = Job(workload.name, workload.issuer, workload.audience, facts).principal(
        UNNAMED if known is None else known.id, workload
    )
    others = _claims_of(role) - principal.claims.keys()
    claims = {**principal.claims, **{name: f"any-{name}" for name in others}}
    assumed.append("claims that the entry leaves open have the value any-NAME")
    suspended_at = None if known is None else known.suspended_at
    who = job_context(
        replace(principal, claims=claims, suspended_at=suspended_at),
        login_session_id="none",
        began_at=now,
        ends_at=now + timedelta(seconds=workload.max_job),
    )
    return SupposedJob(who, tuple(assumed))


def entry_of(policy: AccessPolicy, principal: Principal) -> Workload | None:
    """The entry that a workload's principal stands for; None once the policy dropped it."""
    for workload in policy.workloads.values():
        if workload.subject == principal.subject:
            return workload
    return None


def _example(name: str, matcher: Matcher) -> Scalar:
    if isinstance(matcher, Exactly):
        return matcher.values[0]
    if isinstance(matcher, Glob):
        return matcher.pattern.replace("*", "any")
    return f"any-{name}"


def _open(claim: Claim) -> Scalar:
    if claim.type is bool:
        return True
    return 0 if claim.type is int else f"any-{claim.name}"


def _claims_of(role: Role | None) -> set[str]:
    """The claims that a role's templates use: which ones an issuer without a preset sends is only
    told by a token.
    """
    if role is None:
        return set()
    used: Iterable[frozenset[str]] = (tag.placeholders for tag in role.tags.values())
    named = set().union(*used)
    if role.session_policy is not None:
        named |= role.session_policy.placeholders
    return {name.removeprefix(_CLAIM) for name in named if name.startswith(_CLAIM)}
