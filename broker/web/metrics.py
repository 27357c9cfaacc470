"""`GET /metrics`: counts for an operator's graphs, in Prometheus' text format.

Numbers alone, of this process: no names of people, roles or accounts, since
whoever reaches the port may read them. On a port of its own where
`server.metrics_port` says so, and then not on the public one.
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
async def metrics(request: Request) -> Response:
    return Response(parts_of(request).issuance_counts.text(), media_type=_MEDIA_TYPE)


def application(parts: Parts) -> Starlette:
    """`/metrics` alone, for a port of its own."""
    app = Starlette(routes=[Route("/metrics", metrics)])
    app.state.parts = parts
    return app
