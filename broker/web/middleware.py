"""What holds for every request, as plain ASGI: the edge, response headers, body limits.

Plain ASGI, since Starlette's BaseHTTPMiddleware costs several times a route.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from broker.errors import BrokerError, InvalidRequest, NotFound
from broker.web.address import Network
from broker.web.context import RequestContext, open_context
from broker.web.problems import InternalError, respond
from broker.web.telemetry import Telemetry

access_log = structlog.get_logger("broker.access")
log = structlog.get_logger("broker.web")

KIB = 1024
BODY_LIMIT = 64 * KIB
# The access policy of a large company.
POLICY_BODY_LIMIT = 2048 * KIB
_POLICY_PATHS = frozenset({"/v1/access", "/v1/access/lint"})

# Where two of these disagree, two parsers can be made to disagree (request smuggling,
# confused sessions): one of each.
_SINGLE_HEADERS = frozenset(
    {b"host", b"authorization", b"content-length", b"content-type", b"cookie", b"origin"}
)
# An address has one spelling. A proxy that keeps some paths to itself compares text: an escaped
# slash or dot, or the line break that a route's `$` lets pass, would be a way round it.
_ESCAPED = re.compile(rb"%(?:2[ef]|5c)", re.IGNORECASE)
_PATH_IN_LOG = 256
# For the log alone; the number that nginx made usual for it.
_CLIENT_CLOSED = 499


class Edge:
    """Outermost: names the request, logs its end, turns a crash into a constant 500.

    The log has the path without its query, which carries codes and states.
    """

    def __init__(
        self, app: ASGIApp, *, trusted_proxies: Sequence[Network], telemetry: Telemetry
    ) -> None:
        self._app = app
        self._trusted = tuple(trusted_proxies)
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            # No websocket is served: closing without accepting is a 403.
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        context = open_context(scope, self._trusted, self._telemetry)
        _name_in_log(context)
        started = time.perf_counter()
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", context.id.encode("ascii")))
            await send(message)

        try:
            refusal, refused_with = _misshapen(scope)
            if refusal is not None:
                response = respond(Request(scope, receive), refusal, refused_with)
                await response(scope, receive, observed)
            else:
                await self._app(scope, receive, observed)
        except ClientDisconnect:
            # Gone while sending its body: there is nobody to answer, and nothing was done.
            status = _CLIENT_CLOSED
        except Exception:
            log.exception("crashed", request_id=context.id)
            if status:
                # Half an answer is out; cutting the connection is all that tells the client.
                raise
            response = respond(Request(scope, receive), InternalError())
            await response(scope, receive, observed)
        finally:
            access_log.info(
                "request",
                request_id=context.id,
                method=scope["method"],
                path=scope["path"][:_PATH_IN_LOG],
                status=status,
                ms=round((time.perf_counter() - started) * 1000, 2),
                ip=context.ip,
            )
            context.telemetry.ended(status, _template(scope))


def _name_in_log(context: RequestContext) -> None:
    """Whatever is logged for this request, by whomever, can be found by its id. Each request is a
    task of its own, so that nothing need be taken back.
    """
    bind_contextvars(request_id=context.id)
    trace_id = context.telemetry.trace_id
    if trace_id is not None:
        bind_contextvars(trace_id=trace_id)


def _template(scope: Scope) -> str | None:
    """The route's path as it is declared: what was typed may hold anything."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


def _misshapen(scope: Scope) -> tuple[BrokerError | None, HTTPStatus]:
    """What no route need look at: the refusal and its status."""
    if not scope["path"].isprintable() or _ESCAPED.search(scope.get("raw_path") or b""):
        return NotFound("There is nothing at this address."), HTTPStatus.NOT_FOUND
    if b"%00" in scope["query_string"]:
        # PostgreSQL takes it in no text: each look-up would be a crash.
        return InvalidRequest("The query holds NUL."), HTTPStatus.BAD_REQUEST
    duplicate = _duplicated_header(scope)
    if duplicate is not None:
        refusal = InvalidRequest(f"The request has more than one {duplicate} header.")
        return refusal, HTTPStatus.BAD_REQUEST
    return None, HTTPStatus.OK


def _duplicated_header(scope: Scope) -> str | None:
    seen: set[bytes] = set()
    for name, _ in scope["headers"]:
        if name in _SINGLE_HEADERS:
            if name in seen:
                return str(name.decode("ascii"))
            seen.add(name)
    return None


class ResponseHeaders:
    """Security headers on every answer; a route may set its own CSP or caching first."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        defaults = {
            "cache-control": "no-store",
            "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
        }
        if https:
            defaults["strict-transport-security"] = "max-age=63072000; includeSubDomains"
        self._defaults = tuple((n.encode(), v.encode()) for n, v in defaults.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                present = {name.lower() for name, _ in headers}
                headers.extend(h for h in self._defaults if h[0] not in present)
            await send(message)

        await self._app(scope, receive, hardened)


class BodyLimit:
    """Refuses a long body before it is read where its length is told, else while it streams.

    A body is there as a whole before its route runs. Else a caller could be looked up, hold the
    last byte back until their right is gone, and be judged by what was true hours ago. The
    access policy alone streams, since nobody unknown may have 2 MiB of memory: its route looks
    at the caller again once it has read the body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        streams = scope["path"] in _POLICY_PATHS
        limit = POLICY_BODY_LIMIT if streams else BODY_LIMIT
        counted = _Counted(receive, limit, _declared_length(scope))
        await self._app(scope, counted if streams else await counted.whole(), send)


class _Counted:
    """A `receive` that raises 413 for more than `limit` bytes."""

    def __init__(self, receive: Receive, limit: int, declared: int) -> None:
        self._receive = receive
        self._limit = limit
        self._too_long = declared > limit
        self._received = 0

    async def __call__(self) -> Message:
        if self._too_long:
            raise _too_large(self._limit)
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._limit:
                self._too_long = True
                raise _too_large(self._limit)
        return message

    async def whole(self) -> Receive:
        """The same, with the body read already. What is wrong with it is raised where the route
        asks for it.
        """
        body = bytearray()
        try:
            while True:
                message = await self()
                if message["type"] != "http.request":
                    break
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    message = {"type": "http.request", "body": bytes(body), "more_body": False}
                    break
        except HTTPException:
            return self
        first: Message | None = message

        async def replayed() -> Message:
            nonlocal first
            if first is None:
                return await self._receive()
            told, first = first, None
            return told

        return replayed


def _declared_length(scope: Scope) -> int:
    """Content-Length; what is no length, or one of more digits than any limit, is beyond all."""
    declared = MutableHeaders(scope=scope).get("content-length", "0").lstrip("0") or "0"
    return int(declared) if declared.isdecimal() and len(declared) < 16 else 2**63


def _too_large(limit: int) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {limit // KIB} KiB.",
        headers={"Connection": "close"},
    )
