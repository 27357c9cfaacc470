"""Floor A: a bare Starlette route that makes one row durable in PostgreSQL, and nothing else.

`floor_row.py PORT` with the database in FLOOR_DSN. Served as the broker is: uvicorn
with uvloop and httptools, one process. What a web service that writes costs at least
in Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["FLOOR_DSN"], min_size=16, max_size=16) as pool:
        await pool.execute(
            "CREATE TABLE IF NOT EXISTS rows (id bigserial PRIMARY KEY,"
            " at timestamptz NOT NULL DEFAULT now(), body bytea NOT NULL)"
        )
        app.state.pool = pool
        yield


async def _insert(request: Request) -> Response:
    body = await request.body()
    number = await request.app.state.pool.fetchval(
        "INSERT INTO rows (body) VALUES ($1) RETURNING id", body
    )
    return Response(b'{"id": %d}' % number, media_type="application/json")


def main() -> None:
    app = Starlette(
        routes=[Route("/v1/credentials", _insert, methods=["POST"])], lifespan=_lifespan
    )
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        backlog=2048,
    )


if __name__ == "__main__":
    main()
