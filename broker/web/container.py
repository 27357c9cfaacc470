"""`GET /v1/container/{role}`: credentials as AWS SDKs fetch them from a container endpoint.

Owns: that protocol's shapes. The token stands verbatim in Authorization, with
or without `Bearer`; answers have AWS's four members, errors `code` and
`message`. Of each token one issuance is in flight at a time, the others wait in
line: an SDK with many threads must not become a burst of sessions.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from broker.errors import BrokerError, NotFound
from broker.identity.authenticate import CONTAINER, authenticate, bearer
from broker.identity.sessions import Authenticated
from broker.issuance.exchange import still_admitted
from broker.issuance.issue import Issued, answer
from broker.issuance.request import CredentialRequest
from broker.web.browser import actor_of
from broker.web.context import request_context
from broker.web.credentials import issue_as, watched
from broker.web.current_grants import current_grants
from broker.web.parts import parts_of
from broker.web.problems import STATUS, error_headers
from broker.web.telemetry import CredentialWatch

PATH = "/v1/container/{role}"


async def container(request: Request) -> Response:
    parts = parts_of(request)
    if request.method != "GET":
        # Starlette routes HEAD with GET; here it would issue credentials that nobody receives.
        return _json(405, {"code": "invalid_request", "message": "Only GET is served here."})
    try:
        issued = await watched(request, _issue)
    except BrokerError as refusal:
        parts.telemetry.denied(refusal.code)
        return _error(refusal)
    credentials = answer(issued)["credentials"]
    if not isinstance(credentials, dict):
        raise TypeError("an answer holds credentials")
    return _json(
        200,
        {
            "AccessKeyId": credentials["access_key_id"],
            "SecretAccessKey": credentials["secret_access_key"],
            "Token": credentials["session_token"],
            "Expiration": credentials["expiration"],
            "AccountId": issued.role.account.id,
        },
    )


async def _issue(request: Request, watch: CredentialWatch) -> Issued:
    parts, context = parts_of(request), request_context(request)
    header = request.headers.get("authorization")
    who = await authenticate(parts.sessions, bearer(header) or header, CONTAINER)
    asked = CredentialRequest.parse(
        {"role": request.path_params["role"], "client": "container endpoint"}
    )
    if who.role is not None and who.role != asked.role:
        raise NotFound("This token is for another role.")
    async with parts.in_flight.turn(who.token_hash):
        # Looked up anew: minutes may pass in line, and a right that went meanwhile is gone.
        who = await authenticate(parts.sessions, bearer(header) or header, CONTAINER)
        who = await _as_of_now(request, who)
        return await issue_as(
            request,
            asked,
            who=who.context,
            actor=actor_of(who, context),
            policy_version=who.access_version,
            grants=await current_grants(parts_of(request), who),
            now=who.now,
            watch=watch,
        )


async def _as_of_now(request: Request, who: Authenticated) -> Authenticated:
    if who.job is None:
        return who
    policy = await parts_of(request).policies.at_least(who.access_version)
    return replace(who, context=still_admitted(who, policy))


def _error(refusal: BrokerError) -> Response:
    status = STATUS[refusal.code]
    response = _json(status, {"code": refusal.code, "message": refusal.detail})
    response.headers.update(error_headers(refusal, status))
    return response


def _json(status: int, body: dict[str, object]) -> Response:
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


# What /openapi.json says of the route, which FastAPI does not see.
OPERATION: dict[str, object] = {
    "tags": ["credentials"],
    "summary": "Get credentials as AWS SDKs fetch them from a container endpoint",
    "operationId": "container",
    "parameters": [
        {"name": "role", "in": "path", "required": True, "schema": {"type": "string"}},
    ],
    "responses": {
        "200": {
            "description": "Issued and recorded",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"],
                        "properties": {
                            "AccessKeyId": {"type": "string"},
                            "SecretAccessKey": {"type": "string"},
                            "Token": {"type": "string"},
                            "Expiration": {"type": "string", "format": "date-time"},
                            "AccountId": {"type": "string"},
                        },
                    }
                }
            },
        }
    },
}
