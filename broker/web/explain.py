"""Why somebody may have a role now, or why not: `GET /v1/roles/{name}/explain`.

Everybody may ask about themselves, and about roles that an entry offers them.
Auditors and admins may ask about anybody, and about the jobs of a workload entry
without having a token of one. Nothing is recorded, counted or asked of AWS: it
reads, and decides as issuing would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from broker.access.decide import Address
from broker.errors import Forbidden, InvalidRequest, NotFound
from broker.identity.job import WORKLOAD_ISSUER
from broker.identity.people import email_key, split_user_name
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.identity.sessions import LOGIN_SESSION_LIFETIME
from broker.identity.trust import Workload
from broker.issuance.explain import answer, explain
from broker.issuance.observe import only_observed
from broker.issuance.request import CredentialRequest
from broker.issuance.supposed_job import entry_of, supposed_job
from broker.web.gate import ApiCaller, Caller
from broker.web.wire import instant

router = APIRouter(prefix="/v1", tags=["roles"])

_ROLE = _WORKLOAD = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_PRINCIPAL = r"^([pw]-[a-z2-7]{16}|[a-z0-9][a-z0-9-]{0,31}/[^\s@/]{1,128}@[^\s@/]{1,126})$"
_NOBODY_LOGGED_IN = "a login just now, with its second factor: there is no live one"


class ExplainedPrincipal(BaseModel):
    id: str
    kind: str
    handle: str
    groups: list[str]
    suspended: bool


class UnmetCondition(BaseModel):
    """`condition` is its key in the access policy, or subject, not_before, expires_at."""

    condition: str
    code: str
    detail: str
    satisfied_by: str


class NearMissView(BaseModel):
    """`condition` is the hardest of `failed` to cure, its first."""

    entry: dict[str, object]
    condition: str
    failed: list[UnmetCondition]


class ExplanationView(BaseModel):
    """`assumed` says what was supposed where it is not known. The ids in names and tags are a
    placeholder of zeros: each issuance has its own.
    """

    principal: ExplainedPrincipal
    address: str | None
    assumed: list[str]
    policy_version: int
    now: str | None
    role: str
    role_arn: str
    account_id: str
    account_name: str
    allowed: bool
    code: str | None
    detail: str | None
    matched: dict[str, object] | None
    near_misses: list[NearMissView]
    duration: dict[str, object] | None
    session_policy: dict[str, object] | None
    session_policy_characters: int | None
    managed_policies: list[str]
    tags: dict[str, str]
    transitive_tags: list[str]
    source_identity: str | None
    session_name: str | None
    via: list[str]


@dataclass(frozen=True, slots=True)
class _Explained:
    """Whose request is explained, as it would come in. `observed`: the entry only observes."""

    who: AuthContext
    address: Address | None
    assumed: tuple[str, ...] = ()
    observed: bool = False


@router.get("/roles/{name}/explain")
async def explained(
    caller: Caller,
    name: Annotated[str, Path(pattern=_ROLE)],
    *,
    principal: Annotated[str | None, Query(pattern=_PRINCIPAL)] = None,
    workload: Annotated[str | None, Query(pattern=_WORKLOAD)] = None,
    duration: Annotated[int | None, Query()] = None,
    reason: Annotated[str | None, Query()] = None,
    parameters: Annotated[list[str] | None, Query(alias="set")] = None,
    address: Annotated[IPv4Address | IPv6Address | None, Query()] = None,
) -> ExplanationView:
    """The decision as it would fall now, every limit, and what STS would be asked for.

    `set` is NAME=VALUE and may be repeated; `address` stands in for the client's; `workload` is an
    entry of the policy, of which a job is supposed. Raises Forbidden where others are not the
    caller's to ask about, NotFound for a person or workload that is not known, and for a role that
    is not in the policy or, to most, not offered.
    """
    asked = CredentialRequest.parse(
        {
            "role": name,
            "duration": duration,
            "reason": reason,
            "parameters": _parameters(parameters or []),
        }
    )
    sees_others = caller.is_admin or caller.is_auditor
    if workload is not None:
        if principal is not None:
            raise InvalidRequest("Ask about a principal or a workload, not both.")
        subject = await _as_job(caller, workload, name, sees_others=sees_others)
    else:
        subject = await _explained(caller, principal, name, sees_others=sees_others)
    address = address or subject.address
    found = explain(
        asked,
        who=subject.who,
        address=address,
        policy=caller.policy,
        grants=await caller.parts.grants.current_grants(subject.who.principal.id),
        now=caller.who.now,
        chained=caller.parts.sts.chained,
        sees_others=sees_others,
    )
    if subject.observed and found.error is None:
        found = replace(found, error=only_observed())
    return ExplanationView.model_validate(
        {
            "principal": _view(subject.who.principal),
            "address": None if address is None else str(address),
            "assumed": list(subject.assumed),
            "policy_version": caller.policy.number,
            "now": instant(caller.who.now),
            **answer(found),
        }
    )


def _parameters(given: list[str]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in parameters:
            raise InvalidRequest("set is NAME=VALUE, each name once.")
        parameters[name] = value
    return parameters


async def _explained(
    caller: ApiCaller, reference: str | None, role: str, *, sees_others: bool
) -> _Explained:
    own = _Explained(caller.who.context, _address(caller.context.ip))
    if reference is None or _means(reference, caller.principal):
        return own
    if not sees_others:
        raise Forbidden("Only auditors and admins may ask about others.")
    person = await _find(caller, reference)
    if person is None:
        raise NotFound("No such principal was ever seen here.")
    if person.id == caller.principal.id:
        return own
    if person.kind is not PrincipalKind.WORKLOAD:
        return await _as_logged_in(caller, person)
    entry = entry_of(caller.policy, person)
    if entry is None:
        raise NotFound("The access policy no longer has this principal's workload entry.")
    return _supposed(caller, entry, person, role)


async def _as_job(caller: ApiCaller, workload: str, role: str, *, sees_others: bool) -> _Explained:
    if not sees_others:
        raise Forbidden("Only auditors and admins may ask about others.")
    entry = caller.policy.workloads.get(workload)
    if entry is None:
        raise NotFound("The access policy has no workload of that name.")
    known = await caller.parts.people.find_by_subject(WORKLOAD_ISSUER, entry.subject)
    return _supposed(caller, entry, known, role)


def _supposed(caller: ApiCaller, entry: Workload, known: Principal | None, role: str) -> _Explained:
    job = supposed_job(entry, caller.policy.roles.get(role), known, caller.who.now)
    return _Explained(job.who, None, job.assumed, entry.observe)


def _means(reference: str, principal: Principal) -> bool:
    named = split_user_name(reference)
    if named is None:
        return reference == principal.id
    email = principal.email
    return email is not None and named == (principal.provider, email_key(email))


async def _find(caller: ApiCaller, reference: str) -> Principal | None:
    """Raises Conflict where several had the address."""
    named = split_user_name(reference)
    if named is None:
        return await caller.parts.people.principal(reference)
    return await caller.parts.people.find_by_email(*named)


async def _as_logged_in(caller: ApiCaller, person: Principal) -> _Explained:
    """By the person's newest live login, from where it was made."""
    login = await caller.parts.people.newest_login(person.id)
    now = caller.who.now
    if login is None:
        who = AuthContext(person, "none", now, now, now + LOGIN_SESSION_LIFETIME)
        return _Explained(who, None, (_NOBODY_LOGGED_IN, "no client address"))
    who = AuthContext(person, login.id, login.auth_time, login.mfa_time, login.expires_at)
    return _Explained(
        who, _address(login.ip), (f"their newest login, of {instant(login.created_at)}",)
    )


def _address(text: str | None) -> Address | None:
    return None if text is None else ip_address(text)


def _view(principal: Principal) -> dict[str, object]:
    return {
        "id": principal.id,
        "kind": principal.kind.value,
        "handle": principal.handle,
        "groups": sorted(principal.groups),
        "suspended": principal.suspended_at is not None,
    }
