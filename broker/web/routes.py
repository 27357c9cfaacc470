"""Every route and its middleware."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
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
    openapi,
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
    # Whoever runs the application sets it, before they stop it.
    app.state.draining = False
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
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app
