"""Whether the process runs, and whether it can do its work."""

from __future__ import annotations

import structlog
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from broker.errors import BrokerError, StartupError
from broker.web.parts import parts_of
from broker.web.wire import json_response

log = structlog.get_logger("broker.web")

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


@router.get("/healthz")
async def healthz() -> Health:
    """The event loop turns. A failing database is no reason to kill the process."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"description": "Nothing can be issued now"}})
async def readyz(request: Request) -> Response:
    """The database answers with the schema this version needs; the cause of a no is in the log.
    `degraded` names the providers and partitions of AWS that can't be reached, and the log's
    copies and sinks that are behind: no reason to take the process out, as everybody is served.
    `draining`: it is about to stop.
    """
    if request.app.state.draining:
        return json_response({"status": "unavailable", "detail": "draining"}, status=503)
    try:
        await parts_of(request).ready()
    except StartupError as fault:
        log.warning("not ready", detail=str(fault))
        return json_response({"status": "unavailable", "detail": "schema"}, status=503)
    except BrokerError as fault:
        log.warning("not ready", detail=fault.log_detail or fault.detail)
        return json_response({"status": "unavailable", "detail": "database"}, status=503)
    unreachable = parts_of(request).unreachable()
    if unreachable:
        return json_response({"status": "degraded", "detail": ", ".join(unreachable)})
    return json_response({"status": "ok"})
