"""Every refusal the broker can give, as one tree of exceptions.

Owns: the stable `code` of each refusal, and the constant message a client may
see. Does not own: HTTP (the statuses are in `web/problems.py`) nor the wording
of pages.

A raised error carries three kinds of text, for three readers:

- `message`: constant per class; safe for anybody.
- `detail`: what the person asking can act on; never secrets, never facts about
  other people's objects.
- `log_detail`: for the operator's log alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class BrokerError(Exception):
    """A refusal with a stable code. `extra` holds JSON-ready members that help the client."""

    code: ClassVar[str]
    message: ClassVar[str]

    def __init__(
        self,
        detail: str | None = None,
        *,
        log_detail: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail or self.message)
        self.detail = detail or self.message
        self.log_detail = log_detail
        self.extra: dict[str, object] = dict(extra or {})


class _Retryable(BrokerError):
    """A refusal that passes by itself after `retry_after` seconds."""

    def __init__(
        self, detail: str | None = None, *, retry_after: int, log_detail: str | None = None
    ) -> None:
        super().__init__(detail, log_detail=log_detail, extra={"retry_after": retry_after})
        self.retry_after = retry_after


class Unauthenticated(BrokerError):
    code = "unauthenticated"
    message = "Sign in first."


class MfaRequired(BrokerError):
    code = "mfa_required"
    message = "A second factor is needed for this."


class MfaStale(BrokerError):
    code = "mfa_stale"
    message = "The second factor is too old for this; verify it again."


class MfaLocked(_Retryable):
    code = "mfa_locked"
    message = "Too many wrong codes; wait before the next one."


class NotEntitled(BrokerError):
    code = "not_entitled"
    message = "No entitlement allows this."


class ApprovalRequired(BrokerError):
    code = "approval_required"
    message = "This role is given on request; someone else approves it."


class ReasonRequired(BrokerError):
    code = "reason_required"
    message = "This role asks for a reason."


class OutsideNetwork(BrokerError):
    code = "outside_network"
    message = "This role is not given to your network address."


class OutsideHours(BrokerError):
    code = "outside_hours"
    message = "This role is not given at this time of day."


class DurationTooShort(BrokerError):
    code = "duration_too_short"
    message = "Less than 900 seconds remain, the least AWS gives."


class InvalidRequest(BrokerError):
    code = "invalid_request"
    message = "The request is not well-formed."


class NotFound(BrokerError):
    code = "not_found"
    message = "There is no such thing, or it is not yours to see."


class Conflict(BrokerError):
    code = "conflict"
    message = "This is no longer possible; someone was first."


class RateLimited(_Retryable):
    code = "rate_limited"
    message = "Too many attempts; wait before the next one."


class ScopeTooLarge(BrokerError):
    code = "scope_too_large"
    message = "The session policy and tags are larger than AWS takes."


class AwsDenied(BrokerError):
    code = "aws_denied"
    message = "AWS refused to let the broker assume this role."


class AwsThrottled(_Retryable):
    code = "aws_throttled"
    message = "AWS is throttling the broker; try again shortly."


class AwsUnavailable(BrokerError):
    code = "aws_unavailable"
    message = "AWS did not give a usable answer."


class AuditUnavailable(BrokerError):
    """The database or its audit log can't be written: nothing is issued (fail closed)."""

    code = "audit_unavailable"
    message = "The broker can't record anything now, so it gives nothing out."


class CiTokenRejected(BrokerError):
    code = "ci_token_rejected"
    message = "The CI job's token was not accepted."


class CiTokenReplayed(BrokerError):
    code = "ci_token_replayed"
    message = "The CI job's token was used before."


class SelfApproval(BrokerError):
    code = "self_approval"
    message = "Nobody decides on their own request."


class Forbidden(BrokerError):
    code = "forbidden"
    message = "You don't have the right to do this."


class Suspended(BrokerError):
    code = "suspended"
    message = "This account is suspended."


class PreconditionFailed(BrokerError):
    code = "precondition_failed"
    message = "It changed since you read it; read it again."


class StartupError(Exception):
    """A fault in settings, keys, database or environment that stops a server command.

    Its text is one plain line that says what is wrong and what to do.
    """
