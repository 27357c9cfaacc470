"""Access policies that wait for another admin: list, look at, approve, withdraw."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from starlette.responses import Response

from broker.access.diff import diff_json
from broker.access.versions import PolicyChange
from broker.audit.record import Event, EventType, Outcome
from broker.errors import Forbidden, NotFound, SelfApproval
from broker.identity.principal import PrincipalKind
from broker.web.access_judgement import judge_text, policy_in_force, version_json
from broker.web.gate import ApiCaller, Auditor, FreshAdmin, FreshPrincipal
from broker.web.paging import DEFAULT_LIMIT, Limit
from broker.web.wire import instant, json_response

router = APIRouter(prefix="/v1/access/changes", tags=["access"])

_ID = r"^chg-[a-z2-7]{26}$"
ChangeId = Annotated[str, Path(pattern=_ID)]


class ChangeView(BaseModel):
    """`state`: pending, approved, withdrawn or expired. `gains`: why it waits, in words.
    `outdated`: another version was applied since; it can't be approved any more.
    """

    id: str
    state: str
    base_version: int
    outdated: bool
    sha256: str
    author: str
    author_handle: str | None
    gains: list[str]
    changes: list[dict[str, object]]
    created_at: str | None
    expires_at: str | None
    decided_by: str | None
    decided_at: str | None
    applied_version: int | None


class Changes(BaseModel):
    """Newest first. `next` where more may follow."""

    changes: list[ChangeView]
    next: str | None


class WholeChange(ChangeView):
    """With the file's text, exactly as it was sent."""

    text: str


@router.get("")
async def changes(
    caller: Auditor,
    *,
    after: Annotated[str | None, Query(pattern=_ID)] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Changes:
    found = await caller.parts.access_changes.changes(after=after, limit=limit)
    handles = await _handles(caller, found)
    return Changes(
        changes=[ChangeView.model_validate(_members(caller, one, handles)) for one in found],
        next=found[-1].id if len(found) == limit else None,
    )


@router.get("/{change_id}")
async def change(caller: Auditor, change_id: ChangeId) -> WholeChange:
    found = await _find(caller, change_id)
    handles = await _handles(caller, (found,))
    members = _members(caller, found, handles)
    return WholeChange.model_validate({**members, "text": found.text})


@router.post("/{change_id}/approve")
async def approve(caller: FreshAdmin, change_id: ChangeId) -> Response:
    """Put it in force. Never by its author; only on the version that it was planned on.

    Raises NotFound, SelfApproval, Conflict, PreconditionFailed, InvalidRequest with `findings`.
    """
    if caller.principal.kind is not PrincipalKind.PERSON:
        raise Forbidden("A person approves a change: a job can't look at it.")
    found = await _find(caller, change_id)
    if found.author == caller.principal.id:
        raise SelfApproval("Another admin approves this; you proposed it.")
    # The settings may have changed since: what no longer reads must not come in force.
    judged = await judge_text(caller, found.text, await policy_in_force(caller))
    detail: dict[str, object] = {
        "base_version": found.base_version,
        "sha256": found.sha256,
        "gains": list(found.gains),
    }
    stored = await caller.parts.access_changes.approve_change(
        change_id,
        judged.new,
        approver=caller.principal.id,
        approved=_event(EventType.ACCESS_APPROVED, caller, detail),
        applied=_event(
            EventType.ACCESS_APPLIED,
            caller,
            {
                "changes": diff_json(judged.changes),
                "self_granted": False,
                "author": found.author,
                "approved_by": caller.principal.id,
            },
        ),
    )
    headers = {"etag": f'"{stored.number}"'}
    return json_response({**version_json(stored), "change_id": change_id}, headers=headers)


@router.post("/{change_id}/withdraw")
async def withdraw(caller: FreshPrincipal, change_id: ChangeId) -> ChangeView:
    """By its author, also one who is no admin any more, or by any admin.

    Raises NotFound, or Conflict unless it is pending.
    """
    found = await _find(caller, change_id)
    if not (caller.is_admin or found.author == caller.principal.id):
        raise NotFound
    detail: dict[str, object] = {"sha256": found.sha256}
    withdrawn = await caller.parts.access_changes.withdraw_change(
        change_id,
        by=caller.principal.id,
        event=_event(EventType.ACCESS_WITHDRAWN, caller, detail),
    )
    handles = await _handles(caller, (withdrawn,))
    return ChangeView.model_validate(_members(caller, withdrawn, handles))


async def _find(caller: ApiCaller, change_id: str) -> PolicyChange:
    found = await caller.parts.access_changes.change(change_id)
    if found is None:
        raise NotFound
    return found


async def _handles(caller: ApiCaller, found: tuple[PolicyChange, ...]) -> dict[str, str]:
    handles: dict[str, str] = {}
    for author in {one.author for one in found}:
        principal = await caller.parts.people.principal(author)
        if principal is not None:
            handles[author] = principal.handle
    return handles


def _members(caller: ApiCaller, change: PolicyChange, handles: dict[str, str]) -> dict[str, object]:
    return {
        "id": change.id,
        "state": change.state.value,
        "base_version": change.base_version,
        "outdated": change.base_version != caller.policy.number,
        "sha256": change.sha256,
        "author": change.author,
        "author_handle": handles.get(change.author),
        "gains": list(change.gains),
        "changes": [dict(one) for one in change.changes],
        "created_at": instant(change.created_at),
        "expires_at": instant(change.expires_at),
        "decided_by": change.decided_by,
        "decided_at": instant(change.decided_at),
        "applied_version": change.applied_version,
    }


def _event(event_type: EventType, caller: ApiCaller, detail: dict[str, object]) -> Event:
    return Event(
        event_type, caller.actor, Outcome.SUCCESS, detail=detail, request_id=caller.context.id
    )
