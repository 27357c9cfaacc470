"""CI jobs at the API: `POST /v1/ci/credentials`, and token exchange (RFC 8693) at /oauth/token.

Owns: how a job's OIDC token comes in, and how what it gets goes out. Everything
that decides is in `issuance/exchange.py`. A broker's own token is no CI token,
and is refused here as any other that no configured issuer signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from broker.errors import BrokerError, Unauthenticated
from broker.identity.authenticate import bearer
from broker.identity.throttle import CI_PER_ADDRESS
from broker.identity.token_exchange import ISSUED_TOKEN_TYPE, TokenExchange
from broker.issuance.exchange import Admitted, Presented
from broker.issuance.issue import Issued, answer
from broker.issuance.request import CredentialRequest
from broker.web.address import throttle_key
from broker.web.context import request_context
from broker.web.credentials import OPERATION, issue_as, read_object, watched
from broker.web.parts import parts_of
from broker.web.telemetry import CredentialWatch

PATH = "/v1/ci/credentials"
CI_OPERATION: dict[str, object] = {
    **OPERATION,
    "tags": ["ci"],
    "summary": "Get temporary AWS credentials with a CI job's OIDC token as the bearer",
    "operationId": "ci_credentials",
}


async def ci_credentials(request: Request) -> Response:
    """Raises the BrokerError of any refusal; one of the token's is on record by then."""
    issued = await watched(request, _issue)
    return Response(msgspec.json.encode(answer(issued)), media_type="application/json")


async def _issue(request: Request, watch: CredentialWatch) -> Issued:
    # The whole request is read before the token is used up: a slip must not cost a job its token.
    unverified_token = bearer(request.headers.get("authorization"))
    if unverified_token is None:
        raise Unauthenticated("Show the CI job's OIDC token: Authorization: Bearer …")
    asked = CredentialRequest.parse(await read_object(request))
    admitted = await _let_in(request, unverified_token, asked.role, asked, wants_token=False)
    return await issue_as(
        request,
        asked,
        who=admitted.context,
        actor=admitted.actor,
        policy_version=admitted.policy_version,
        grants=(),  # those are people's
        now=admitted.context.auth_time,
        watch=watch,
    )


async def exchange_token(request: Request, pairs: Iterable[tuple[str, str]]) -> dict[str, object]:
    """The members of RFC 8693 section 2.2.1: a job token. Raises OAuthError, BrokerError."""
    asked = TokenExchange.parse(pairs)
    admitted = await _let_in(request, asked.unverified_token, asked.role, None, wants_token=True)
    if admitted.job_token is None:
        raise TypeError("a token was asked for")
    context = admitted.context
    lifetime = context.login_session_expires_at - context.auth_time
    return {
        "access_token": admitted.job_token.text,
        "issued_token_type": ISSUED_TOKEN_TYPE,
        "token_type": "Bearer",
        "expires_in": int(lifetime.total_seconds()),
    }


async def _let_in(
    request: Request,
    unverified_token: str,
    role: str | None,
    asked: CredentialRequest | None,
    *,
    wants_token: bool,
) -> Admitted:
    parts, context = parts_of(request), request_context(request)
    await parts.throttle.admit(CI_PER_ADDRESS, throttle_key(context.ip))
    standing = await parts.jobs.standing()
    policy = await parts.policies.at_least(standing.access_version)
    presented = Presented(
        unverified_token=unverified_token,
        role=role,
        request=asked,
        wants_token=wants_token,
        address=None if context.ip is None else ip_address(context.ip),
        ip=context.ip,
        user_agent=context.user_agent,
        request_id=context.id,
    )
    try:
        admitted = await parts.job_gate.admit(presented, policy, standing)
    except BrokerError as refusal:
        parts.telemetry.ci_exchange(refusal.code)
        raise
    parts.telemetry.ci_exchange("admitted")
    return admitted
