"""`reference/errors.md`: every code with which the broker refuses, its status, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from broker import errors
from broker.errors import BrokerError
from broker.web.problems import STATUS, InternalError
from tools.reference.markdown import code, page, require_same, table

_INTRODUCTION = """
Under `/v1` a refusal is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with `type`,
`title`, `status`, `code`, `detail` and `request_id`, and where they help `retry_after` (seconds), `step_up_url` or
`limits`. The code is stable, the words are not. The command line prints the code on stderr and exits 1, or 3 for
`unauthenticated` and 5 for a missing or old second factor. `/oauth/...` answers as RFC 6749 says, and
`/v1/container/...` as AWS SDKs expect.

The server's log has more under the same `request_id`.
"""
WHAT_TO_DO = {
    "unauthenticated": "`broker login`. A script: its token is missing, expired or ended.",
    "ci_token_rejected": "`broker access try` with the token says which claim does not fit, and "
    "[CI jobs](../ci/README.md) what each platform sends. The record `ci.rejected` has the nearest "
    "entries.",
    "ci_token_replayed": "Ask the platform for a new token in each job, or say `reuse: true` in "
    "the entry where the platform gives one a job.",
    "mfa_required": "`broker mfa verify`, or sign in again in a browser and show the code there.",
    "mfa_stale": "`broker mfa verify`: this takes a factor under five minutes old.",
    "mfa_locked": "Wait `retry_after` seconds. After 100 wrong codes an admin resets the factor: "
    "`broker mfa reset`.",
    "not_entitled": "`broker why ROLE` shows which entry comes nearest and what it lacks.",
    "approval_required": "Ask an admin for a grant: `broker grant PERSON ROLE --for 2h`.",
    "outside_network": "Ask from a network that the entry names. Behind a proxy: is it in "
    "`trusted_proxies`?",
    "outside_hours": "Wait for the hours that the entry names, or ask for a grant.",
    "duration_too_short": "What bounds it (grant, login session, hours, job) ends within 15 "
    "minutes: renew that.",
    "self_approval": "Another admin has to do it.",
    "forbidden": "An admin or auditor may do this; a login by a code from another device never "
    "may.",
    "suspended": "An admin lifts it: `broker reinstate`.",
    "not_found": "Look at the name. What is not yours looks the same as what is not there.",
    "conflict": "Read it again: somebody was first, or it is over.",
    "precondition_failed": "Read the version in force again, and apply to that.",
    "invalid_request": "`detail` says which field.",
    "reason_required": "Add `--reason`.",
    "scope_too_large": "Shorten the role's session policy, tags or `--restrict`; `broker access "
    "lint` computes the worst case.",
    "rate_limited": "Wait `retry_after` seconds.",
    "aws_throttled": "Wait `retry_after` seconds. All brokers of an account and region share some "
    "600 requests a second.",
    "internal_error": "A fault of the broker: its log has the request id. Please report it.",
    "aws_denied": "`broker doctor` says what is missing: trust policy, external id, or the "
    "broker's own rights.",
    "aws_unavailable": "Try again; see [STS down](../operations/incidents.md#sts-down).",
    "audit_unavailable": "The database can't be written, so nothing is given out: see [the "
    "database is lost](../operations/incidents.md#the-database-is-lost).",
}


def classes() -> Iterator[type[BrokerError]]:
    for _, found in inspect.getmembers(errors, inspect.isclass):
        if issubclass(found, BrokerError) and hasattr(found, "code"):
            yield found
    yield InternalError


def render() -> str:
    messages = {found.code: found.message for found in classes()}
    require_same("error codes with a status", messages, STATUS)
    require_same("what to do about error codes", messages, WHAT_TO_DO)
    rows = [
        [
            f'<span id="{name}"></span>{code(name)}',
            str(status),
            messages[name],
            WHAT_TO_DO[name],
        ]
        for name, status in STATUS.items()
    ]
    return page(
        "Error codes", _INTRODUCTION, table(["Code", "Status", "It says", "What to do"], rows)
    )
