"""What a job would get, where its entry only observes: decided and scoped, and never asked of STS.

Owns: the detail of ci.observed. Does not own: its record, and who the job is (`exchange`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from broker.access.decide import Address, Denied, Facts, decide, entry_json, offers
from broker.access.policy import AccessPolicy
from broker.errors import BrokerError, CiTokenRejected
from broker.identity.job import job_context
from broker.identity.principal import Principal
from broker.identity.trust import Workload
from broker.issuance.request import CredentialRequest, new_issuance_id
from broker.issuance.scope import scope


def only_observed() -> CiTokenRejected:
    """What such a job is told."""
    return CiTokenRejected("The access policy only observes this job: nothing is issued.")


def observed(
    request: CredentialRequest | None,
    *,
    workload: Workload,
    principal: Principal,
    policy: AccessPolicy,
    address: Address | None,
    now: datetime,
    chained: Callable[[str], bool],
) -> dict[str, object]:
    """JSON-ready. Without a request: the roles that the job could have asked for."""
    who = job_context(
        principal,
        login_session_id="none",
        began_at=now,
        ends_at=now + timedelta(seconds=workload.max_job),
    )
    if request is None:
        return {"code": "observed", "roles": [one.name for one in offers(policy, who, (), now)]}
    decision = decide(policy, who, request.role, (), Facts(address, request.reason, now))
    if isinstance(decision, Denied):
        return {"code": decision.error.code, "would_be": "denied"}
    try:
        scoped = scope(
            decision,
            who,
            request,
            issuance_id=new_issuance_id(),
            organization=policy.organization,
            chained=chained(decision.role.account.partition),
            now=now,
        )
    except BrokerError as refusal:
        return {"code": refusal.code, "would_be": "denied"}
    return {
        "code": "observed",
        "would_be": "issued",
        "decided_by": entry_json(decision.by),
        "role_arn": scoped.call.role_arn,
        "duration": scoped.duration.as_json(),
        "session_policy": scoped.call.policy,
        "managed_policies": list(scoped.call.policy_arns),
        "tags": [{"key": key, "value": value} for call in scoped.calls for key, value in call.tags],
        "source_identity": scoped.source_identity,
    }
