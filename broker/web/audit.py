"""Reading the audit log: pages for a screen, an export for a verifier.

Records are handed on as the exact bytes that were hashed, never re-serialised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from broker.audit.record import EventType
from broker.audit.verify import export_line
from broker.web.gate import Auditor
from broker.web.paging import DEFAULT_LIMIT, Limit
from broker.web.readers import AuditReader
from broker.web.wire import Moment, json_response

router = APIRouter(prefix="/v1/audit", tags=["audit"])

_MAX_SEQ = 2**53 - 1
_CHUNK_BYTES = 64 * 1024

After = Annotated[int, Query(ge=0, le=_MAX_SEQ)]


@router.get(
    "/records",
    responses={200: {"description": "`records`, oldest first, and `next` where more follow"}},
)
async def records(
    caller: Auditor,
    *,
    after: After = 0,
    limit: Limit = DEFAULT_LIMIT,
    event_type: Annotated[EventType | None, Query(alias="type")] = None,
    principal: Annotated[str | None, Query(max_length=64)] = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> Response:
    """`principal` matches who acted and whom it was about; `since` is included, `until` not."""
    found = await caller.parts.audit.records(
        after=after,
        limit=limit,
        type=None if event_type is None else event_type.value,
        principal=principal,
        since=since,
        until=until,
    )
    more = found[-1].seq if len(found) == limit else None
    return json_response({"records": [msgspec.Raw(one.record) for one in found], "next": more})


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "JSON Lines"}},
)
async def export(caller: Auditor, after: After = 0) -> Response:
    """`{"record", "leaf", "chain"}` a line, up to the head as it is now: what
    `broker audit verify` reads. A broken stream is seen by its missing end.
    """
    lines = _lines(caller.parts.audit, after)
    # The first is read before the answer begins, so that an outage is a 503 and not an empty log.
    first = await anext(lines, b"")
    return StreamingResponse(_rest(first, lines), media_type="application/x-ndjson")


async def _rest(first: bytes, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in lines:
        yield chunk


async def _lines(reader: AuditReader, after: int) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for one in reader.export(after=after):
        buffer += export_line(one.record, one.leaf, one.chain)
        if len(buffer) >= _CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)
