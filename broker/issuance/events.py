"""What the audit log keeps of an issuance: who and what decided, what was asked, what came.

Owns the `subject` and `detail` of issuance.* events. The issued event never
holds `reason`: the journal writes its own there where it withholds. No secret
is ever in them: no secret key, session token or external id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.access.decide import Allowed, NearMiss, entry_json
from broker.audit.record import Actor, Event, EventType, Outcome, rfc3339
from broker.errors import BrokerError
from broker.identity.principal import AuthContext
from broker.issuance.request import CredentialRequest
from broker.issuance.scope import Scoped
from broker.issuance.sts import Minted, StsFailure


@dataclass(frozen=True, slots=True)
class Asking:
    """One request, for its events: who asks for what, under which version of the policy."""

    request: CredentialRequest
    who: AuthContext
    actor: Actor
    policy_version: int
    request_id: str

    def denied(
        self,
        error: BrokerError,
        *,
        near_misses: tuple[NearMiss, ...] = (),
        allowed: Allowed | None = None,
    ) -> Event:
        """`allowed` where the right was there and the scope was refused."""
        return Event(
            EventType.ISSUANCE_DENIED,
            self.actor,
            Outcome.DENIED,
            subject={"principal": self.who.principal.id, "role": self.request.role},
            detail={
                "code": error.code,
                "detail": error.detail,
                "near_misses": [miss.as_json() for miss in near_misses],
                "decided_by": None if allowed is None else entry_json(allowed.by),
                "duration_requested": self.request.duration,
                **self._asked(),
            },
            request_id=self.request_id,
        )

    def requested(self, issuance_id: str, allowed: Allowed, scoped: Scoped) -> Event:
        call = scoped.call
        return self._event(
            EventType.ISSUANCE_REQUESTED,
            Outcome.SUCCESS,
            self._subject(issuance_id, allowed),
            {
                "decided_by": entry_json(allowed.by),
                "duration": scoped.duration.as_json(),
                "session_policy": call.policy,
                "session_policy_sha256": scoped.policy_sha256,
                "managed_policies": list(call.policy_arns),
                # Pairs, since AWS admits tag keys that are not ASCII and a record's keys are.
                "tags": [{"key": key, "value": value} for key, value in call.tags],
                "transitive_tags": list(call.transitive_tag_keys),
                "partition": call.partition,
                "region": call.region,
                **_hops_asked(scoped),
                **_session(scoped),
                **self._asked(),
            },
        )

    def issued(
        self,
        issuance_id: str,
        allowed: Allowed,
        scoped: Scoped,
        minted: Minted,
        hops: Sequence[Minted] = (),
    ) -> Event:
        return self._event(
            EventType.ISSUANCE_ISSUED,
            Outcome.SUCCESS,
            self._subject(issuance_id, allowed),
            {
                "access_key_id": minted.credentials.access_key_id,
                "expires_at": rfc3339(minted.credentials.expiration),
                "assumed_role_arn": minted.assumed_role_arn,
                "assumed_role_id": minted.assumed_role_id,
                "sts_request_id": minted.request_id,
                "session_policy_sha256": scoped.policy_sha256,
                "packed_policy_percent": minted.packed_policy_percent,
                **_hops_passed(hops),
                **_session(scoped),
            },
        )

    def failed(
        self,
        issuance_id: str,
        allowed: Allowed,
        scoped: Scoped,
        failure: StsFailure,
        hops: Sequence[Minted] = (),
    ) -> Event:
        """STS's message is not in it: it may name what the reader of the record may not see.
        `hops` are those that were passed before the call that failed.
        """
        failed_at = {"failed_at": scoped.calls[len(hops)].role_arn} if scoped.hops else {}
        return self._event(
            EventType.ISSUANCE_FAILED,
            Outcome.FAILURE,
            self._subject(issuance_id, allowed),
            {
                "code": failure.error.code,
                "sts_code": failure.sts_code,
                "sts_request_id": failure.request_id,
                "outcome_unknown": failure.outcome_unknown,
                "alarm": failure.alarm,
                **failed_at,
                **_hops_passed(hops),
                **_session(scoped),
            },
        )

    def _event(
        self,
        kind: EventType,
        outcome: Outcome,
        subject: dict[str, object],
        detail: dict[str, object],
    ) -> Event:
        return Event(kind, self.actor, outcome, subject, detail, self.request_id)

    def _subject(self, issuance_id: str, allowed: Allowed) -> dict[str, object]:
        return {
            "issuance": issuance_id,
            "principal": self.who.principal.id,
            "role": allowed.role.name,
            "role_arn": allowed.role.role_arn,
            "account_id": allowed.role.account.id,
        }

    def _asked(self) -> dict[str, object]:
        mfa_time = self.who.mfa_time
        return {
            "policy_version": self.policy_version,
            "reason": self.request.reason,
            "client": self.request.client,
            "parameters": dict(self.request.parameters),
            "login_session": self.who.login_session_id,
            "auth_time": rfc3339(self.who.auth_time),
            "mfa_time": None if mfa_time is None else rfc3339(mfa_time),
        }


def _session(scoped: Scoped) -> dict[str, object]:
    return {
        "session_name": scoped.call.role_session_name,
        "source_identity": scoped.source_identity,
    }


def _hops_asked(scoped: Scoped) -> dict[str, object]:
    """Each hop as it will be asked for; no member where there is none."""
    if not scoped.hops:
        return {}
    return {
        "hops": [
            {
                "role_arn": hop.role_arn,
                "duration_seconds": hop.duration_seconds,
                "session_policy": hop.policy,
                "tags": [{"key": key, "value": value} for key, value in hop.tags],
                "transitive_tags": list(hop.transitive_tag_keys),
                "source_identity": hop.source_identity,
            }
            for hop in scoped.hops
        ]
    }


def _hops_passed(hops: Sequence[Minted]) -> dict[str, object]:
    """Whose credentials the broker held on the way; no member where there were none."""
    if not hops:
        return {}
    return {
        "hops": [
            {
                "access_key_id": hop.credentials.access_key_id,
                "expires_at": rfc3339(hop.credentials.expiration),
                "assumed_role_arn": hop.assumed_role_arn,
                "assumed_role_id": hop.assumed_role_id,
                "sts_request_id": hop.request_id,
            }
            for hop in hops
        ]
    }
