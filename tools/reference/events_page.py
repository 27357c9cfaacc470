"""`reference/events.md`: every type of audit event, when it is recorded, and what it holds."""

from __future__ import annotations

from typing import NamedTuple

from broker.audit.record import EventType
from tools.reference.markdown import code, page, require_same, table

_INTRODUCTION = """
Each thing that happens is one record in [the log](../audit.md), committed together with what it tells of. Every
record has `seq`, `time`, `type`, `outcome` (`success`, `failure`, `denied`), `request_id`, and an `actor` with
`id`, `kind`, `handle`, `ip` and `user_agent`; the bytes are described in [the format](../audit-format.md). What
differs from type to type is who or what it is about (`subject`) and what more is known (`detail`). Not every member
is in every record. A detail too large for a record stands beside it, and the record names it by its hash.

No record holds a secret: no password, token, code, secret key or session token.
"""


class Event(NamedTuple):
    when: str
    subject: str
    detail: str

    @property
    def members(self) -> set[str]:
        """Of the subject and the detail."""
        return set(f"{self.subject} {self.detail}".split())


_WHERE = "issuance principal role role_arn account_id"
_ASKED = "policy_version reason client parameters login_session auth_time mfa_time"
EVENTS = {
    "login.succeeded": Event(
        "A person signed in with the first factor, or a client got its tokens",
        "principal login_session provider device_login",
        "client email email_verified groups first_login user_names_bound device "
        "login_sessions_ended",
    ),
    "login.failed": Event(
        "A sign-in was refused; `reason` says at which check",
        "provider principal login_session",
        "reason client device_login device_ip device",
    ),
    "device.approved": Event(
        "A person allowed a login that another machine began",
        "principal login_session device_login",
        "device",
    ),
    "device.denied": Event(
        "A person refused one", "principal login_session device_login", "device reason"
    ),
    "mfa.enrolled": Event("A second factor was confirmed", "principal login_session", "factor"),
    "mfa.verified": Event(
        "A second factor was shown; `method` is `recovery_code` where it was one",
        "principal login_session",
        "factor method",
    ),
    "mfa.failed": Event("A wrong code", "principal login_session", "reason failures"),
    "mfa.locked": Event(
        "So many wrong codes that the next waits", "principal login_session", "failures seconds"
    ),
    "mfa.reset": Event("Somebody's second factors were dropped", "principal", "by os_user"),
    "session.refreshed": Event("A client renewed its tokens", "principal login_session", ""),
    "session.revoked": Event(
        "A login session ended before its time; `reason` says why",
        "principal login_session",
        "reason login_sessions",
    ),
    "ci.exchanged": Event(
        "A CI job's token was accepted",
        "principal workload",
        "issuer audience claims token_sha256 token_has_id reuse_allowed reused job_token max_job "
        "policy_version",
    ),
    "ci.observed": Event(
        "A job matched an entry that only observes: what it would have got",
        "principal workload role",
        "code would_be role_arn decided_by duration session_policy managed_policies tags "
        "source_identity roles claims token_sha256 policy_version",
    ),
    "ci.rejected": Event(
        "A CI job's token was refused",
        "role principal workload",
        "code reason token_sha256 claims near",
    ),
    "issuance.requested": Event(
        "The intent, before STS is asked",
        _WHERE,
        "decided_by duration session_policy session_policy_sha256 managed_policies tags "
        f"transitive_tags partition region hops session_name source_identity {_ASKED}",
    ),
    "issuance.issued": Event(
        "Credentials were handed out",
        _WHERE,
        "access_key_id expires_at assumed_role_arn assumed_role_id sts_request_id "
        "session_policy_sha256 packed_policy_percent hops session_name source_identity",
    ),
    "issuance.failed": Event(
        "STS gave none, or `outcome_unknown`: it may have, and nobody has them",
        _WHERE,
        "code sts_code sts_request_id outcome_unknown alarm failed_at hops session_name "
        "source_identity",
    ),
    "issuance.withheld": Event(
        "STS gave credentials and the broker dropped them: the person, login or grant was revoked "
        "meanwhile, or it was too late",
        _WHERE,
        "reason access_key_id expires_at assumed_role_arn assumed_role_id sts_request_id "
        "session_policy_sha256 packed_policy_percent hops session_name source_identity",
    ),
    "issuance.denied": Event(
        "The access policy refused, or a limit did",
        "principal role",
        f"code detail near_misses decided_by duration_requested {_ASKED}",
    ),
    "issuance.orphaned": Event(
        "An intent got no outcome: a server died between asking and recording. Credentials may "
        "exist; look for `session_name` in CloudTrail",
        _WHERE,
        "session_name source_identity requested_at login_session",
    ),
    "audit.suppressed": Event(
        "How many refusals of one kind and minute followed the one on record",
        "principal role source type",
        "code count minute various",
    ),
    "audit.checkpoint": Event("The log's head was signed", "origin", "size root key"),
    "audit.rollback_accepted": Event(
        "An operator started the broker on a database that is behind what was signed",
        "origin",
        "copy expected_size expected_root found_size",
    ),
    "audit.sinks_changed": Event(
        "The settings send the log elsewhere than before", "sink", "change before after position"
    ),
    "access.applied": Event(
        "An access policy came into force",
        "principal change",
        "version changes gains self_granted author approved_by",
    ),
    "access.proposed": Event(
        "One waits for a second admin", "principal change", "changes gains self_granted"
    ),
    "access.approved": Event(
        "A second admin approved it", "principal change", "base_version gains sha256"
    ),
    "access.withdrawn": Event("It was withdrawn", "principal change", "sha256"),
    "grant.created": Event(
        "A person got a role for a time",
        "grant principal role",
        "not_before expires_at max_grant reason",
    ),
    "grant.revoked": Event(
        "A grant was taken back", "grant principal role", "reason would_expire_at"
    ),
    "grant.expired": Event("A grant ran out", "grant principal role", "expires_at granted_by"),
    "revocation.requested": Event(
        "A person was suspended",
        "principal",
        "effect handle reason live_issuances live_roles login_sessions_ended",
    ),
    "revocation.lifted": Event(
        "And let back in",
        "principal",
        "effect reason suspended_at suspended_for lifted_at",
    ),
    "enrolment_code.created": Event(
        "A code to enrol a second factor with was made",
        "principal provider email",
        "group by os_user",
    ),
    "admin.bootstrapped": Event(
        "The settings made somebody the first admin",
        "principal login_session provider",
        "rule issuer subject",
    ),
    "keys.rotated": Event("A key was replaced", "origin purpose", "key previous"),
    "keys.resealed": Event(
        "Stored secrets were sealed again, under the current key", "purpose", "key secrets"
    ),
}


def render() -> str:
    require_same("audit events", (kind.value for kind in EventType), EVENTS)
    rows = [
        [
            f'<span id="{kind.value}"></span>`{kind.value}`',
            EVENTS[kind.value].when,
            _listed(EVENTS[kind.value].subject),
            _listed(EVENTS[kind.value].detail),
        ]
        for kind in EventType
    ]
    return page(
        "Audit events", _INTRODUCTION, table(["Type", "When", "`subject`", "`detail`"], rows)
    )


def _listed(members: str) -> str:
    return ", ".join(code(member) for member in members.split())
