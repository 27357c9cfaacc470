"""`POST /v1/credentials`: the one path that matters, as a raw route.

No framework between the request and the use case: the body is decoded with
msgspec, the caller is looked up once, the answer is bytes. Everything that
decides is in `issuance/issue.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from broker.access.grant import Grant
from broker.audit.record import Actor
from broker.errors import BrokerError, InvalidRequest, RateLimited
from broker.identity.authenticate import CREDENTIALS, authenticate, bearer
from broker.identity.principal import AuthContext
from broker.identity.throttle import ISSUANCE_PER_PRINCIPAL
from broker.issuance.events import Asking
from broker.issuance.exchange import still_admitted
from broker.issuance.issue import Issued, answer, issue
from broker.issuance.request import CredentialRequest
from broker.web.address import parse_address
from broker.web.browser import actor_of
from broker.web.context import request_context
from broker.web.current_grants import current_grants
from broker.web.parts import parts_of
from broker.web.telemetry import CredentialWatch

PATH = "/v1/credentials"


async def credentials(request: Request) -> Response:
    """Raises the BrokerError of any refusal; of a known caller's, each is on record by then."""
    issued = await watched(request, _issue)
    return Response(msgspec.json.encode(answer(issued)), media_type="application/json")


async def watched(
    request: Request, issue_for: Callable[[Request, CredentialWatch], Awaitable[Issued]]
) -> Issued:
    """What `issue_for` issues, timed and counted by its outcome. Raises what it raises."""
    watch = request_context(request).telemetry.credential_request()
    outcome: str | None = None
    try:
        issued = await issue_for(request, watch)
        outcome = "issued"
    except BrokerError as refusal:
        outcome = refusal.code
        raise
    finally:
        watch.ended(outcome)
    return issued


async def _issue(request: Request, watch: CredentialWatch) -> Issued:
    parts, context = parts_of(request), request_context(request)
    token = bearer(request.headers.get("authorization"))
    who = await authenticate(parts.sessions, token, CREDENTIALS)
    asked = CredentialRequest.parse(await read_object(request))
    if who.job is not None:
        policy = await parts.policies.at_least(who.access_version)
        who = replace(who, context=still_admitted(who, policy))
    return await issue_as(
        request,
        asked,
        who=who.context,
        actor=actor_of(who, context),
        policy_version=who.access_version,
        grants=await current_grants(parts, who),
        now=who.now,
        watch=watch,
    )


async def issue_as(
    request: Request,
    asked: CredentialRequest,
    *,
    watch: CredentialWatch,
    who: AuthContext,
    actor: Actor,
    policy_version: int,
    grants: tuple[Grant, ...],
    now: datetime,
) -> Issued:
    """Issue to whoever was authenticated. `policy_version` is the newest version at that time,
    and `now` the database's clock. `grants`: theirs, in force or to come.
    """
    parts, context = parts_of(request), request_context(request)
    policy = await parts.policies.at_least(policy_version)
    role = asked.role if asked.role in policy.roles else None
    watch.known(role, parts.journal, parts.sts)
    try:
        await parts.throttle.admit(ISSUANCE_PER_PRINCIPAL, who.principal.id)
    except RateLimited as refusal:
        asking = Asking(asked, who, actor, policy.number, context.id)
        await watch.deny(asking.denied(refusal))
        raise
    return await issue(
        asked,
        who=who,
        actor=actor,
        address=None if context.ip is None else parse_address(context.ip),
        policy=policy,
        grants=grants,
        now=now,
        request_id=context.id,
        journal=watch,
        sts=watch,
    )


async def read_object(request: Request) -> dict[str, object]:
    """The JSON object in the body. Raises InvalidRequest, which never quotes it."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidRequest("Send a JSON object as application/json.")
    try:
        value = msgspec.json.decode(await request.body(), type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("The body is not a JSON object.") from None
    return value


# What /openapi.json says of the route, which FastAPI does not see.
OPERATION: dict[str, object] = {
    "tags": ["credentials"],
    "summary": "Get temporary AWS credentials for a role",
    "operationId": "credentials",
    "security": [{"bearer": []}],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["role"],
                    "additionalProperties": False,
                    "properties": {
                        "role": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
                        "duration": {"type": "integer", "minimum": 900, "maximum": 43200},
                        "reason": {"type": "string", "maxLength": 500},
                        "parameters": {
                            "type": "object",
                            "additionalProperties": {"type": "string"},
                        },
                        "restrict": {
                            "type": "array",
                            "items": {"type": "object"},
                            "description": "Deny statements to add to the session policy",
                        },
                        "client": {"type": "string", "maxLength": 128},
                    },
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "Issued and recorded",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": [
                            "credentials",
                            "issuance_id",
                            "role",
                            "role_arn",
                            "assumed_role_arn",
                            "account_id",
                            "region",
                            "source_identity",
                            "session_name",
                            "duration",
                        ],
                        "properties": {
                            "credentials": {
                                "type": "object",
                                "properties": {
                                    "access_key_id": {"type": "string"},
                                    "secret_access_key": {"type": "string"},
                                    "session_token": {"type": "string"},
                                    "expiration": {"type": "string", "format": "date-time"},
                                },
                            },
                            "issuance_id": {"type": "string"},
                            "role": {"type": "string"},
                            "role_arn": {"type": "string"},
                            "assumed_role_arn": {"type": "string"},
                            "account_id": {"type": "string"},
                            "region": {"type": "string"},
                            "source_identity": {"type": "string"},
                            "session_name": {"type": "string"},
                            "duration": {
                                "type": "object",
                                "properties": {
                                    "requested": {"type": ["integer", "null"]},
                                    "granted": {"type": "integer"},
                                    "bound_by": {"type": "string"},
                                    "limits": {"type": "array", "items": {"type": "object"}},
                                    "chained": {"type": "boolean"},
                                },
                            },
                            "receipt": {
                                "type": "object",
                                "description": "The proof that the log holds this issuance",
                                "properties": {
                                    "version": {"type": "integer"},
                                    "seq": {"type": "integer"},
                                    "record": {"type": "string"},
                                    "path": {"type": "array", "items": {"type": "string"}},
                                    "checkpoint": {"type": "string"},
                                },
                            },
                        },
                    }
                }
            },
        }
    },
}
