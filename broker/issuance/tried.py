"""What the access policy makes of a CI token: for people who write the policy.

Nothing is used up, issued or recorded. Claims that did not verify are compared
too, and the answer says so: it decides nothing.
"""

from __future__ import annotations

from datetime import datetime

from broker.access.policy import AccessPolicy, WorkloadRef
from broker.identity.ci_token import ALGORITHMS, unverified_issuer
from broker.identity.id_token import TokenRejected, UnverifiedToken
from broker.identity.job_store import Standing
from broker.identity.trust import closest, decisive, facts_of
from broker.issuance.exchange import JobGate, Rejection, entries_of

_MOST_ENTRIES = 10


async def tried(
    unverified_token: str, gate: JobGate, policy: AccessPolicy, now: datetime
) -> dict[str, object]:
    """JSON-ready: `verification`, `issuer`, `audience_admitted`, the `workloads` that admit the
    claims, and the `closest` others with the claims that failed.
    """
    try:
        unverified = UnverifiedToken.parse(unverified_token.strip(), ALGORITHMS)
        issuer = unverified_issuer(unverified)
    except TokenRejected as rejection:
        return {"verification": rejection.reason, "closest": []}
    entries = entries_of(policy, issuer)
    answer: dict[str, object] = {
        "verification": await _verification(unverified_token.strip(), gate, policy, now),
        "issuer": issuer,
    }
    if not entries:
        return {**answer, "closest": []}
    unverified_facts = facts_of(unverified.unverified_claims, entries[0].preset)
    near = closest(entries, unverified_facts, _MOST_ENTRIES)
    admitting = [one.workload for one in near if not one.mismatches]
    audience = unverified.unverified_claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    return {
        **answer,
        "audience_admitted": named in [[entry.audience] for entry in entries],
        "workloads": [
            {
                "workload": name,
                "observes": policy.workloads[name].observe,
                "roles": _roles(policy, name),
                "claims": decisive(policy.workloads[name], unverified_facts),
            }
            for name in admitting
        ],
        "closest": [one.as_json() for one in near if one.mismatches],
    }


async def _verification(
    unverified_token: str, gate: JobGate, policy: AccessPolicy, now: datetime
) -> str:
    try:
        await gate.verify(unverified_token, policy, Standing(now, policy.number))
    except Rejection as rejection:
        return rejection.reason
    return "good"


def _roles(policy: AccessPolicy, name: str) -> list[str]:
    subject = WorkloadRef(name, policy.workloads[name].issuer)
    return sorted({one.role for one in policy.entitlements if one.to == subject})
