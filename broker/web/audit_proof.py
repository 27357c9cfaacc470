"""What anybody may read of the log: signed heads, keys, proofs, and tiles of hashes.

Nothing here tells what a record says: hashes of records that hold random ids
can't be guessed. The records themselves, as entry bundles, are for auditors.
Tiles are served in the layout of C2SP's tlog-tiles, under /v1/audit.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.audit.tiles import BadTile, Tile
from broker.errors import NotFound
from broker.web.gate import Auditor
from broker.web.parts import parts_of
from broker.web.wire import json_response

router = APIRouter(prefix="/v1/audit", tags=["audit"])

_MAX_SIZE = 2**53 - 1
_FOR_EVER = "max-age=31536000, immutable"

Seq = Annotated[int, Query(ge=1, le=_MAX_SIZE)]
Size = Annotated[int, Query(ge=0, le=_MAX_SIZE)]

# The paths of this router that need no token.
PUBLIC = frozenset(
    {
        "/v1/audit/checkpoint",
        "/v1/audit/keys",
        "/v1/audit/proof/inclusion",
        "/v1/audit/proof/consistency",
        "/v1/audit/tile/{path}",
    }
)


@router.get(
    "/checkpoint",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "A signed note"}},
)
async def checkpoint(request: Request) -> Response:
    """The newest signed head of the log (C2SP tlog-checkpoint)."""
    note = await parts_of(request).checkpoints.latest()
    if note is None:
        raise NotFound("Nothing is signed yet.")
    headers = {"Cache-Control": "public, max-age=1"}
    return Response(note, media_type="text/plain; charset=utf-8", headers=headers)


@router.get(
    "/keys",
    responses={200: {"description": "`origin`, `keys` (oldest first), `successions`, `delegates`"}},
)
async def keys(request: Request) -> Response:
    """The log's verifier keys, and the notes by which each named the next. `delegates`:
    certificates of what signs receipts in its place now, on the process that answers.
    """
    log = parts_of(request).log_keys
    delegate = parts_of(request).delegate()
    body = {
        "origin": log.origin,
        "keys": [str(key) for key in log.keys],
        "successions": list(log.successions),
        "delegates": [] if delegate is None else [delegate],
    }
    return json_response(body)


@router.get(
    "/proof/inclusion",
    responses={200: {"description": "`seq`, `size`, `leaf`, `hashes` (RFC 9162, in hex)"}},
)
async def inclusion(request: Request, seq: Seq, size: Size) -> Response:
    """That record `seq` is in the log of `size` records."""
    leaf, path = await parts_of(request).tree.inclusion(seq, size)
    hashes = [one.hex() for one in path]
    body = {"seq": seq, "size": size, "leaf": leaf.hex(), "hashes": hashes}
    return json_response(body, headers={"Cache-Control": f"public, {_FOR_EVER}"})


@router.get(
    "/proof/consistency",
    responses={200: {"description": "`from`, `to`, `hashes` (RFC 9162, in hex)"}},
)
async def consistency(
    request: Request, old: Annotated[Size, Query(alias="from")], to: Size
) -> Response:
    """That the log of `to` records begins with that of `from` records."""
    path = await parts_of(request).tree.consistency(old, to)
    body = {"from": old, "to": to, "hashes": [one.hex() for one in path]}
    return json_response(body, headers={"Cache-Control": f"public, {_FOR_EVER}"})


@router.get(
    "/tile/entries/{path:path}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def entries(caller: Auditor, path: str) -> Response:
    """An entry bundle: up to 256 records as they are."""
    data = await caller.parts.tree.tile(_tile(f"entries/{path}"))
    return _binary(data, f"private, {_FOR_EVER}")


@router.get(
    "/tile/{path:path}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def tile(request: Request, path: str) -> Response:
    """Up to 256 hashes of one level of the tree."""
    wanted = _tile(path)
    if wanted.level is None:
        raise NotFound
    return _binary(await parts_of(request).tree.tile(wanted), f"public, {_FOR_EVER}")


def _tile(path: str) -> Tile:
    try:
        return Tile.parse(path)
    except BadTile:
        raise NotFound("There is no such tile.") from None


def _binary(data: bytes, cache_control: str) -> Response:
    return Response(
        data,
        media_type="application/octet-stream",
        headers={"Cache-Control": cache_control, "Vary": "Authorization"},
    )
