"""The access policy over HTTP: read it, judge a file, plan it, put it in force.

The body of PUT and of lint is the file itself, YAML or JSON, as it stands in
its repository; what is stored and given back is exactly that text.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.access.diff import diff_json
from broker.access.four_eyes import Alone
from broker.access.lint import lint_policy
from broker.audit.record import Event, EventType, Outcome
from broker.errors import InvalidRequest, NotFound, PreconditionFailed
from broker.identity.throttle import LINT_PER_PRINCIPAL
from broker.web.access_judgement import Judged, judge_text, policy_in_force, version_json
from broker.web.gate import ApiCaller, PolicyAdmin, PolicyAuditor, PolicyCaller, policy_admin
from broker.web.wire import instant, json_response

log = structlog.get_logger("broker.web")

router = APIRouter(prefix="/v1/access", tags=["access"])

MAX_APPROVERS_SHOWN = 10
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
async def current(caller: PolicyAuditor) -> Response:
    """The policy in force, as it was written. Raises NotFound before the first."""
    stored = await caller.parts.access.current_policy()
    if stored is None:
        raise NotFound("No access policy was applied yet.")
    return json_response(
        {**version_json(stored), "text": stored.text}, headers=_etag(stored.number)
    )


@router.post("/lint", openapi_extra=_FILE_BODY)
async def lint(caller: PolicyCaller, request: Request) -> Response:
    """`findings` of a file, errors or else warnings; stores nothing."""
    parts = caller.parts
    await parts.throttle.admit(LINT_PER_PRINCIPAL, caller.principal.id)
    text = await _text(request)
    found = await asyncio.to_thread(
        lint_policy, text, parts.policies.providers, parts.analyse_policy
    )
    return json_response({"findings": [finding.as_json() for finding in found]})


@router.put("", openapi_extra=_FILE_BODY)
async def apply(
    caller: PolicyAdmin, request: Request, *, dry_run: Annotated[bool, Query()] = False
) -> Response:
    """Put the file in force as the next version, all or nothing; with `dry_run`, say what that
    would change. Where it adds rights to the caller and there is another admin, it waits: 202.

    Raises MfaStale unless the factor is fresh (not for a dry run), PreconditionFailed unless
    If-Match names the version in force, InvalidRequest with `findings`.
    """
    if not dry_run:
        caller.who.context.require_fresh_factor(caller.who.now)
    text = await _text(request)
    # Looked up anew: whoever holds the last byte of the file back may have lost the right to
    # apply it, and a code that was fresh then is not.
    caller = await policy_admin(request)
    if not dry_run:
        caller.who.context.require_fresh_factor(caller.who.now)
    before = await policy_in_force(caller)
    _require_match(request, before.number)
    judged = await judge_text(caller, text, before)
    if dry_run:
        return json_response(judged.plan())
    if judged.verdict.waits:
        return await _propose(caller, judged)
    stored = await caller.parts.access.apply_policy(
        judged.new,
        expected=before.number,
        applied_by=caller.principal.id,
        event=_event(EventType.ACCESS_APPLIED, caller, judged),
        alone=Alone(before, caller.principal.id) if judged.verdict.self_granted else None,
    )
    if judged.verdict.self_granted:
        log.warning(
            "an admin applied an access policy that adds rights to themselves",
            admin=caller.principal.id,
            version=stored.number,
            gains=list(judged.verdict.gains),
            request_id=caller.context.id,
        )
    return json_response({**version_json(stored), **judged.as_json()}, headers=_etag(stored.number))


async def _propose(caller: ApiCaller, judged: Judged) -> Response:
    """202: it waits for another admin."""
    proposed = await caller.parts.access_changes.propose_change(
        judged.new,
        expected=judged.before.number,
        author=caller.principal.id,
        gains=judged.verdict.gains,
        changes=diff_json(judged.changes),
        event=_event(EventType.ACCESS_PROPOSED, caller, judged),
    )
    answer = {
        "change_id": proposed.id,
        "base_version": proposed.base_version,
        "expires_at": instant(proposed.expires_at),
        "approvers": [one.handle for one in judged.verdict.approvers[:MAX_APPROVERS_SHOWN]],
        **judged.as_json(),
    }
    where = {"location": f"/v1/access/changes/{proposed.id}"}
    return json_response(answer, status=202, headers=where)


async def _text(request: Request) -> str:
    try:
        return (await request.body()).decode("utf-8")
    except UnicodeDecodeError as fault:
        raise InvalidRequest(f"The file is not UTF-8 at byte {fault.start}.") from None


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


def _event(event_type: EventType, caller: ApiCaller, judged: Judged) -> Event:
    return Event(
        event_type,
        caller.actor,
        Outcome.SUCCESS,
        detail={
            "changes": diff_json(judged.changes),
            "self_granted": judged.verdict.self_granted,
            "gains": list(judged.verdict.gains),
        },
        request_id=caller.context.id,
    )


def _etag(number: int) -> dict[str, str]:
    return {"etag": f'"{number}"'}
