"""The access policy over HTTP: read it, judge a file, plan it, put it in force.

The body of PUT and of lint is the file itself, YAML or JSON, as it stands in
its repository; what is stored and given back is exactly that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.access.diff import Change, diff_json, diff_lines, diff_policies
from broker.access.finding import Finding, Level
from broker.access.lint import lint_policy
from broker.access.parse import parse_policy
from broker.access.policy import AccessPolicy, User
from broker.access.versions import StoredPolicy
from broker.audit.record import Event, EventType, Outcome
from broker.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed
from broker.identity.people import email_key, split_user_name
from broker.web.gate import Admin, ApiCaller, Auditor, Caller
from broker.web.wire import instant, json_response

router = APIRouter(prefix="/v1/access", tags=["access"])

_VERSION = re.compile(r'"(0|[1-9][0-9]{0,15})"', re.ASCII)

# For /openapi.json: FastAPI does not see a body that is read raw.
_FILE_BODY: dict[str, object] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}


@router.get("", responses={200: {"description": '`version`, `text`, `sha256`; ETag `"version"`'}})
async def current(caller: Auditor) -> Response:
    """The policy in force, as it was written. Raises NotFound before the first."""
    stored = await caller.parts.access.current_policy()
    if stored is None:
        raise NotFound("No access policy was applied yet.")
    return json_response({**_version(stored), "text": stored.text}, headers=_etag(stored.number))


@router.post("/lint", openapi_extra=_FILE_BODY)
async def lint(caller: Caller, request: Request) -> Response:
    """`findings` of a file, errors or else warnings; stores nothing."""
    found = lint_policy(await _text(request), caller.parts.policies.providers)
    return json_response({"findings": [finding.as_json() for finding in found]})


@router.put("", openapi_extra=_FILE_BODY)
async def apply(
    caller: Admin, request: Request, *, dry_run: Annotated[bool, Query()] = False
) -> Response:
    """Put the file in force as the next version, all or nothing; with `dry_run`, say what that
    would change.

    Raises MfaStale unless the factor is fresh (not for a dry run), PreconditionFailed unless
    If-Match names the version in force, InvalidRequest with `findings`.
    """
    if not dry_run:
        caller.who.context.require_fresh_factor(caller.who.now)
    text = await _text(request)
    before = await _policy_in_force(caller)
    _require_match(request, before.number)
    findings = lint_policy(text, caller.parts.policies.providers)
    if any(finding.level is Level.ERROR for finding in findings):
        raise _refused(findings)
    after = parse_policy(text, providers=caller.parts.policies.providers)
    changes = diff_policies(before, after)
    judged = {
        "diff": list(diff_lines(changes)),
        "changes": diff_json(changes),
        "warnings": [finding.as_json() for finding in findings],
        "self_granted": _gives_to_self(changes, caller),
    }
    if dry_run:
        users = await _resolved(caller, after)
        return json_response({**judged, "plan": {"base_version": before.number, "users": users}})
    stored = await caller.parts.access.apply_policy(
        text,
        expected=before.number,
        user_names=frozenset(_user_names(after)),
        applied_by=caller.principal.id,
        event=_applied(caller, changes, self_granted=bool(judged["self_granted"])),
    )
    return json_response({**_version(stored), **judged}, headers=_etag(stored.number))


async def _text(request: Request) -> str:
    try:
        return (await request.body()).decode("utf-8")
    except UnicodeDecodeError as fault:
        raise InvalidRequest(f"The file is not UTF-8 at byte {fault.start}.") from None


async def _policy_in_force(caller: ApiCaller) -> AccessPolicy:
    """The newest one, which may be newer than this request's look at its caller."""
    stored = await caller.parts.access.current_policy()
    return await caller.parts.policies.at_least(0 if stored is None else stored.number)


def _require_match(request: Request, number: int) -> None:
    """The writer must have seen what it replaces; two admins never overwrite each other unseen."""
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if number == 0 and none_match is not None and none_match.strip() == "*":
        return
    if match is None:
        if number == 0 and none_match is None:
            return
        raise PreconditionFailed(
            f'The access policy is at version {number}: read it, then send If-Match: "{number}".'
        )
    named = _VERSION.fullmatch(match.strip())
    if named is None or int(named[1]) != number:
        raise PreconditionFailed(f"The access policy is at version {number} now; read it again.")


def _refused(findings: Sequence[Finding]) -> InvalidRequest:
    count = len(findings)
    return InvalidRequest(
        f"The file is not an access policy: {count} finding{'s' if count > 1 else ''}, "
        f"the first at {findings[0]}",
        extra={"findings": [finding.as_json() for finding in findings]},
    )


def _gives_to_self(changes: Iterable[Change], caller: ApiCaller) -> bool:
    """Whether a change of rights is about the caller: the record says so, and others are told.

    Compares what the file writes, since names of the new file are not bound to people yet.
    """
    principal = caller.principal
    mine = {f"user {name}" for name in (principal.id, *principal.user_names)}
    mine |= {f"group {name}" for name in principal.groups}
    if principal.email is not None:
        mine.add(f"user {principal.provider}/{email_key(principal.email)}")
    return any(
        change.sign != "-" and (change.subject or change.name) in mine
        for change in changes
        if change.kind in ("right", "admin", "auditor")
    )


def _user_names(policy: AccessPolicy) -> Iterable[str]:
    """Every `provider/e-mail` that the policy writes; principal ids need no binding."""
    subjects = [*policy.admins, *policy.auditors]
    subjects += [entitlement.to for entitlement in policy.entitlements]
    for subject in subjects:
        if isinstance(subject, User) and split_user_name(subject.name) is not None:
            yield subject.name


async def _resolved(caller: ApiCaller, policy: AccessPolicy) -> list[dict[str, object]]:
    """Who each user name means: a principal id, or nobody yet, bound at their first login."""
    resolved: list[dict[str, object]] = []
    for name in sorted(set(_user_names(policy))):
        provider, email = split_user_name(name) or ("", "")
        try:
            found = await caller.parts.people.find_by_email(provider, email)
        except Conflict:
            # The address was passed on: its next login shows whose it is.
            found = None
        resolved.append({"user": name, "principal": "pending" if found is None else found.id})
    return resolved


def _applied(caller: ApiCaller, changes: tuple[Change, ...], *, self_granted: bool) -> Event:
    return Event(
        EventType.ACCESS_APPLIED,
        caller.actor,
        Outcome.SUCCESS,
        detail={"changes": diff_json(changes), "self_granted": self_granted},
        request_id=caller.context.id,
    )


def _version(stored: StoredPolicy) -> dict[str, object]:
    return {
        "version": stored.number,
        "sha256": stored.sha256,
        "applied_at": instant(stored.applied_at),
        "applied_by": stored.applied_by,
    }


def _etag(number: int) -> dict[str, str]:
    return {"etag": f'"{number}"'}
