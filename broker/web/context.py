"""What is known of a request before anybody looks at who sent it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.types import Scope

from broker.web.address import Network, client_address
from broker.web.telemetry import RequestTelemetry, Telemetry

_USER_AGENT_LIMIT = 256
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_KEY = "broker.request"


@dataclass(frozen=True, slots=True)
class RequestContext:
    """`id` is ours, never the caller's, so that a record names one request alone."""

    id: str
    ip: str | None
    user_agent: str | None
    telemetry: RequestTelemetry = field(repr=False)


def new_request_id() -> str:
    return f"req-{secrets.token_hex(10)}"


def open_context(scope: Scope, trusted: Sequence[Network], telemetry: Telemetry) -> RequestContext:
    """Made once, at the edge."""
    forwarded: list[str] = []
    user_agent = None
    for name, value in scope["headers"]:
        if name == b"x-forwarded-for":
            forwarded.append(value.decode("latin-1"))
        elif name == b"user-agent" and user_agent is None:
            user_agent = _UNPRINTABLE.sub("?", value.decode("latin-1"))[:_USER_AGENT_LIMIT] or None
    peer = scope.get("client")
    request_id = new_request_id()
    context = RequestContext(
        request_id,
        client_address(peer[0] if peer else None, forwarded, trusted),
        user_agent,
        telemetry.begin(scope["headers"], request_id, scope["method"]),
    )
    scope[_KEY] = context
    return context


def request_context(connection: HTTPConnection) -> RequestContext:
    context = connection.scope[_KEY]
    if not isinstance(context, RequestContext):
        raise TypeError("the request never passed the edge")
    return context
