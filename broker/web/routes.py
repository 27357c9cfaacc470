"""Every route, its middleware, and what /openapi.json says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.routing import Route

from broker import __version__
from broker.errors import BrokerError
from broker.web import (
    access,
    access_changes,
    access_try,
    audit,
    audit_proof,
    ci,
    container,
    credentials,
    explain,
    grants,
    health,
    issuances,
    me,
    metrics,
    oauth,
    pages_device,
    pages_login,
    pages_mfa,
    people,
    roles,
    suspension,
    trust_policy,
    users,
)
from broker.web.address import Network
from broker.web.direct import Direct
from broker.web.middleware import BodyLimit, Edge, ResponseHeaders
from broker.web.problems import on_broker_error, on_http_exception, on_validation_error
from broker.web.render import Pages, static_file
from broker.web.telemetry import Telemetry

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build(
    lifespan: Lifespan,
    *,
    trusted_proxies: Sequence[Network],
    https: bool,
    with_metrics: bool,
    telemetry: Telemetry,
) -> FastAPI:
    """The application without its parts: `lifespan` sets `app.state.parts`. `with_metrics`:
    /metrics is served here and not on a port of its own.
    """
    app = FastAPI(
        title="broker",
        version=__version__,
        description="Temporary, scoped and recorded AWS credentials.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Its log records would hold exception messages, and its environment switch could send
        # them elsewhere.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.pages = Pages.load()
    app.router.routes += [
        Route(credentials.PATH, credentials.credentials, methods=["POST"], name="credentials"),
        Route(ci.PATH, ci.ci_credentials, methods=["POST"], name="ci_credentials"),
        Route(container.PATH, container.container, methods=["GET"], name="container"),
    ]
    for module in (
        me,
        roles,
        explain,
        issuances,
        audit,
        audit_proof,
        access,
        access_changes,
        access_try,
        trust_policy,
        people,
        users,
        suspension,
        grants,
        health,
    ):
        app.include_router(module.router)
    if with_metrics:
        app.include_router(metrics.router)
    app.include_router(oauth.endpoints)
    app.include_router(oauth.pages)
    app.include_router(pages_login.router)
    app.include_router(pages_mfa.router)
    app.include_router(pages_device.router)
    app.router.routes.append(
        Route("/static/{name}", static_file, methods=["GET"], include_in_schema=False)
    )

    app.add_exception_handler(BrokerError, on_broker_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    # The last added is the outermost.
    app.add_middleware(Direct, posts={credentials.PATH: credentials.credentials})
    app.add_middleware(BodyLimit)
    app.add_middleware(Edge, trusted_proxies=trusted_proxies, telemetry=telemetry)
    app.add_middleware(ResponseHeaders, https=https)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _openapi(app: FastAPI) -> dict[str, object]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema["paths"][credentials.PATH] = {"post": credentials.OPERATION}
        schema["paths"][ci.PATH] = {"post": ci.CI_OPERATION}
        schema["paths"][container.PATH] = {"get": container.OPERATION}
        _describe(schema)
        app.openapi_schema = schema
    return app.openapi_schema


def _describe(schema: dict[str, object]) -> None:
    """What holds for every operation under /v1: the bearer token, and problems as answers."""
    components = schema.setdefault("components", {})
    paths = schema["paths"]
    if not isinstance(components, dict) or not isinstance(paths, dict):
        raise TypeError("not an OpenAPI document")
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    schemas = components.setdefault("schemas", {})
    # The broker answers 422 as a problem, not in FastAPI's shape.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = _PROBLEM
    problem = {
        "description": "A problem (RFC 9457)",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    for path, operations in paths.items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = problem
            if path.startswith("/v1/") and path not in audit_proof.PUBLIC:
                operation["security"] = [{"bearer": []}]


_PROBLEM: dict[str, object] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "retry_after": {"type": "integer"},
        "step_up_url": {"type": "string"},
    },
}
