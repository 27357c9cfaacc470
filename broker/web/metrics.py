"""`GET /metrics`: what an operator graphs and is woken by, in Prometheus' text format.

Everything is served on a port of its own alone, where `server.metrics_port` says so:
it names roles, providers and places. Without one the public port gives what names
nothing. People are in neither.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.web.parts import Parts, parts_of

router = APIRouter(include_in_schema=False)

_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics")
async def public_metrics(request: Request) -> Response:
    return Response(parts_of(request).telemetry.public_exposition(), media_type=_MEDIA_TYPE)


async def _metrics(request: Request) -> Response:
    return Response(await parts_of(request).telemetry.exposition(), media_type=_MEDIA_TYPE)


def application(parts: Parts) -> Starlette:
    """`/metrics` alone, for a port of its own."""
    app = Starlette(routes=[Route("/metrics", _metrics)])
    app.state.parts = parts
    return app
