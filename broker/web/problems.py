"""How a refusal looks over HTTP: one table from error code to status.

Three shapes for three readers: problem+json (RFC 9457) under /v1, an HTML page
where a person is looking, RFC 6749 errors at the OAuth endpoints (`oauth`). A
client sees the constant message, the code, what helps it act, and a request id;
the log has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlencode

import msgspec
import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from broker.errors import BrokerError, InvalidRequest, NotFound
from broker.identity.login_flow import safe_next
from broker.web.context import request_context
from broker.web.parts import parts_of
from broker.web.render import page

log = structlog.get_logger("broker.web")

STATUS: Mapping[str, int] = {
    "unauthenticated": 401,
    "ci_token_rejected": 401,
    "ci_token_replayed": 401,
    "mfa_required": 403,
    "mfa_stale": 403,
    "not_entitled": 403,
    "approval_required": 403,
    "outside_network": 403,
    "outside_hours": 403,
    "duration_too_short": 403,
    "self_approval": 403,
    "forbidden": 403,
    "suspended": 403,
    "not_found": 404,
    "conflict": 409,
    "precondition_failed": 412,
    "invalid_request": 422,
    "reason_required": 422,
    "scope_too_large": 422,
    "mfa_locked": 429,
    "rate_limited": 429,
    "aws_throttled": 429,
    "internal_error": 500,
    "aws_denied": 502,
    "aws_unavailable": 502,
    "audit_unavailable": 503,
}

_STEP_UP = frozenset({"mfa_required", "mfa_stale", "mfa_locked"})
# Where a person is sent, by what is missing.
_BROWSER_STEPS = {
    "unauthenticated": ("/login", "Sign in"),
    "mfa_required": ("/mfa", "Verify"),
    "mfa_stale": ("/mfa", "Verify again"),
}
_JSON_PATHS = (
    "/v1/",
    "/oauth/device_authorization",
    "/oauth/token",
    "/oauth/revoke",
    "/.well-known/",
    "/healthz",
    "/readyz",
)


class InternalError(BrokerError):
    """What the client learns of a fault in the broker itself: nothing but where to look."""

    code = "internal_error"
    message = "Something broke in the broker; its log has the details under this request id."


def wants_page(request: Request) -> bool:
    """Whether a person is looking: every path but the API's, unless JSON is asked for."""
    path = request.url.path
    if path == "/v1" or path.startswith(_JSON_PATHS):
        return False
    accept = request.headers.get("accept", "")
    return "text/html" in accept or "json" not in accept


def problem(request: Request, error: BrokerError, status: int | None = None) -> Response:
    """RFC 9457. `type` is a URN: there is nothing to fetch behind it."""
    status = status or STATUS[error.code]
    body: dict[str, object] = {
        "type": f"urn:broker:error:{error.code}",
        "title": error.message,
        "status": status,
        "code": error.code,
        "detail": error.detail,
        "request_id": request_context(request).id,
    }
    if error.code in _STEP_UP:
        body["step_up_url"] = f"{parts_of(request).public_url}/mfa?next=/"
    for name, value in error.extra.items():
        body.setdefault(name, value)
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        headers=error_headers(error, status),
        media_type="application/problem+json",
    )


def error_page(
    request: Request,
    error: BrokerError,
    status: int | None = None,
    *,
    way_on: tuple[str, str] | None = None,
) -> Response:
    """The same refusal for a person. `way_on` is where a button leads, and what it says."""
    status = status or STATUS[error.code]
    response = page(
        request,
        "error.html",
        status=status,
        phrase=HTTPStatus(status).phrase,
        error=error,
        request_id=request_context(request).id,
        way_on=way_on or ("/", "Back to the start"),
    )
    response.headers.update(error_headers(error, status))
    return response


def error_headers(error: BrokerError, status: int) -> dict[str, str]:
    headers: dict[str, str] = {}
    retry_after = error.extra.get("retry_after")
    if isinstance(retry_after, int):
        headers["Retry-After"] = str(retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        # RFC 9110 section 11.6.1: a 401 must say which scheme would do.
        headers["WWW-Authenticate"] = 'Bearer realm="broker"'
    return headers


def respond(request: Request, error: BrokerError, status: int | None = None) -> Response:
    """A problem or a page, counted by its code, with the operator's share in the log."""
    parts_of(request).telemetry.denied(error.code)
    if error.log_detail is not None:
        log.info(
            "refused",
            request_id=request_context(request).id,
            code=error.code,
            detail=error.log_detail,
        )
    if not wants_page(request):
        return problem(request, error, status)
    step = _BROWSER_STEPS.get(error.code)
    if step is None:
        return error_page(request, error, status)
    path, text = step
    here = safe_next(_local_url(request)) if request.method == "GET" else "/"
    target = f"{path}?{urlencode({'next': here})}"
    if request.method == "GET":
        return RedirectResponse(target, 303)
    # A form is not redirected: its page's form-action would stop a redirect that goes on to an
    # identity provider, and what was typed is lost anyway.
    return error_page(request, error, status, way_on=(target, text))


def _local_url(request: Request) -> str:
    query = request.scope["query_string"].decode("latin-1")
    return f"{request.url.path}?{query}" if query else str(request.url.path)


# --- what FastAPI calls -----------------------------------------------------


async def on_broker_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, BrokerError):
        raise error
    return respond(request, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Refusals of routing and of body reading, in the broker's own shape."""
    if not isinstance(error, HTTPException):
        raise error
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            response = respond(request, NotFound("There is nothing at this address."))
        case HTTPStatus.METHOD_NOT_ALLOWED:
            refusal = InvalidRequest("This address does not take this method.")
            response = respond(request, refusal, error.status_code)
        case status if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            response = respond(request, InvalidRequest(str(error.detail)), status)
        case _:
            response = respond(request, InternalError())
    for name, value in (error.headers or {}).items():
        response.headers.setdefault(name, value)
    return response


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Names the members at fault; never echoes a value, which may be a secret."""
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [
        {"member": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
        for fault in error.errors()[:20]
    ]
    detail = "; ".join(f"{fault['member']}: {fault['message']}" for fault in faults)
    return respond(request, InvalidRequest(detail, extra={"errors": faults}))
