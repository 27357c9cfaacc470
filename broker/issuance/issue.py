"""The use case: from a request for a role to credentials, or to a refusal on record.

Read `issue` top to bottom: its six steps are the whole of it. What decides and
narrows is pure (`access/decide`, `scope`); what is durable is the journal's;
what talks to AWS is behind `Sts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import ParamSpec, TypeVar

from broker.access.decide import Address, Denied, Facts, decide
from broker.access.grant import Grant
from broker.access.policy import AccessPolicy, Role
from broker.audit.receipt import Receipt
from broker.audit.record import Actor
from broker.errors import (
    AuditUnavailable,
    BrokerError,
    NotEntitled,
    Suspended,
    Unauthenticated,
)
from broker.identity.principal import AuthContext
from broker.issuance.duration import DurationReport
from broker.issuance.events import Asking
from broker.issuance.journal import Concluded, Intent, Journal, Outcome, State
from broker.issuance.request import CredentialRequest, new_issuance_id
from broker.issuance.scope import Scoped, scope
from broker.issuance.sts import Credentials, Minted, Sts, StsFailure

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Issued:
    """What the caller gets. `credentials` hides its secrets from repr."""

    credentials: Credentials
    issuance_id: str
    role: Role
    assumed_role_arn: str
    source_identity: str
    session_name: str
    duration: DurationReport
    receipt: Receipt | None


def _to_the_end(
    use_case: Callable[_P, Coroutine[object, object, _T]],
) -> Callable[_P, Coroutine[object, object, _T]]:
    """Once begun, run to the end, whatever becomes of the caller; then let it be cancelled.

    A caller that goes away between STS's answer and its record would leave live
    credentials that nobody knows of. Every step is bounded by its own time-out,
    so this waits no longer than they do.
    """

    @wraps(use_case)
    async def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        task = asyncio.ensure_future(use_case(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # on record already; the caller is gone
            raise

    return run


@_to_the_end
async def issue(
    request: CredentialRequest,
    *,
    who: AuthContext,
    actor: Actor,
    address: Address | None,
    policy: AccessPolicy,
    grants: tuple[Grant, ...],
    now: datetime,
    request_id: str,
    journal: Journal,
    sts: Sts,
) -> Issued:
    """Credentials for `request`, narrowed and on record. `now` is the database's.

    Raises the BrokerError of the refusal, which is on record by then, or
    AuditUnavailable where something could not be recorded: then nothing is
    given out, whatever STS did.
    """
    asking = Asking(request, who, actor, policy.number, request_id)

    # 1. Decide.
    decision = decide(policy, who, request.role, grants, Facts(address, request.reason, now))
    if isinstance(decision, Denied):
        await journal.deny(asking.denied(decision.error, near_misses=decision.near_misses))
        raise decision.error

    # 2. Narrow it to the exact call.
    issuance_id = new_issuance_id()
    try:
        scoped = scope(
            decision,
            who,
            request,
            issuance_id=issuance_id,
            organization=policy.organization,
            chained=sts.chained(decision.role.account.partition),
            now=now,
        )
    except BrokerError as refusal:
        await journal.deny(asking.denied(refusal, allowed=decision))
        raise

    # 3. Record the intent. Without it STS is not asked.
    intent = Intent(
        id=issuance_id,
        principal_id=who.principal.id,
        login_session_id=who.login_session_id,
        grant_id=decision.by.id if isinstance(decision.by, Grant) else None,
        role=decision.role.name,
        role_arn=scoped.call.role_arn,
        account_id=decision.role.account.id,
        session_name=scoped.call.role_session_name,
        source_identity=scoped.source_identity,
        duration_seconds=scoped.duration.granted,
        policy_sha256=scoped.policy_sha256,
        event=asking.requested(issuance_id, decision, scoped),
    )
    await journal.request(intent)

    # 4. Ask STS. No transaction is open meanwhile.
    hops: list[Minted] = []
    try:
        minted = await _mint(sts, scoped, hops)
    except StsFailure as failure:
        await journal.fail(intent, asking.failed(issuance_id, decision, scoped, failure, hops))
        raise failure.error from failure

    # 5. Record the outcome; the journal rechecks that nothing was revoked meanwhile.
    concluded = await journal.conclude(
        Outcome(
            intent=intent,
            access_key_id=minted.credentials.access_key_id,
            expires_at=minted.credentials.expiration,
            assumed_role_arn=minted.assumed_role_arn,
            assumed_role_id=minted.assumed_role_id,
            sts_request_id=minted.request_id,
            event=asking.issued(issuance_id, decision, scoped, minted, hops),
        )
    )

    # 6. Answer.
    if concluded.state is not State.ISSUED:
        raise _withheld(concluded)
    return Issued(
        credentials=minted.credentials,
        issuance_id=issuance_id,
        role=decision.role,
        assumed_role_arn=minted.assumed_role_arn,
        source_identity=scoped.source_identity,
        session_name=scoped.call.role_session_name,
        duration=scoped.duration,
        receipt=concluded.receipt,
    )


async def _mint(sts: Sts, scoped: Scoped, hops: list[Minted]) -> Minted:
    """Each hop's credentials make the next call and nothing else: they are this issuance's own,
    and are dropped when it is done. `hops` is filled as they are passed. Raises StsFailure.
    """
    if not scoped.hops:
        return await sts.assume_role(scoped.call)
    hops.append(await sts.assume_role(scoped.hops[0]))
    for hop in scoped.hops[1:]:
        hops.append(await sts.assume_role(hop, hops[-1].credentials))
    return await sts.assume_role(scoped.call, hops[-1].credentials)


def answer(issued: Issued) -> dict[str, object]:
    """The body of `POST /v1/credentials`: JSON-ready, and secret."""
    credentials = issued.credentials
    body: dict[str, object] = {
        "credentials": {
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
            "session_token": credentials.session_token,
            # Whole seconds, rounded down: some SDKs parse no fraction.
            "expiration": credentials.expiration.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "issuance_id": issued.issuance_id,
        "role": issued.role.name,
        "role_arn": issued.role.role_arn,
        "assumed_role_arn": issued.assumed_role_arn,
        "account_id": issued.role.account.id,
        "region": issued.role.account.region,
        "source_identity": issued.source_identity,
        "session_name": issued.session_name,
        "duration": issued.duration.as_json(),
    }
    if issued.receipt is not None:
        body["receipt"] = issued.receipt.as_json()
    return body


def _withheld(concluded: Concluded) -> BrokerError:
    """The refusal for credentials that were minted and are not given out."""
    match concluded.reason:
        case "suspended":
            return Suspended()
        case "session_ended":
            return Unauthenticated("Your login session ended meanwhile; sign in again.")
        case "grant_revoked":
            return NotEntitled("Your grant of this role was revoked meanwhile.")
        case "grant_expired":
            return NotEntitled("Your grant of this role ended meanwhile.")
        case _:
            return AuditUnavailable("Recording took too long, so nothing is given out; try again.")
