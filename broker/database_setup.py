"""The database, from the settings: opened, at this broker's schema, durable, and swept."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack

import structlog

from broker.adapters.migrations import check_schema
from broker.adapters.store.durability import examine
from broker.adapters.store.engine import Database
from broker.adapters.store.grants import record_expired
from broker.adapters.store.sweep import sweep
from broker.adapters.telemetry.instruments import Instruments
from broker.errors import AuditUnavailable, StartupError
from broker.settings import Settings

log = structlog.get_logger("broker.app")

_SWEEP_EVERY = 300.0  # seconds


async def open_database(settings: Settings, stack: AsyncExitStack, meters: Instruments) -> Database:
    database = Database.open(
        settings.database.url.get_secret_value(),
        pool_size=settings.database.pool_size,
        on_wait=meters.waited_for_connection,
    )
    stack.push_async_callback(database.aclose)
    try:
        await check_schema(database)
    except AuditUnavailable as fault:
        raise StartupError(f"the database can't be reached: {fault.log_detail}") from fault
    await _require_durability(database, allow_unsafe=settings.audit.allow_unsafe_durability)
    return database


async def _require_durability(database: Database, *, allow_unsafe: bool) -> None:
    found = await examine(database)
    if found.refusals and not allow_unsafe:
        lines = "\n".join(found.refusals)
        raise StartupError(
            f"{lines}\nTo run so all the same, for tests: [audit] allow_unsafe_durability = true"
        )
    for line in (*found.refusals, *found.warnings):
        log.warning("the log is less safe than it could be", detail=line)


async def start_sweeping(database: Database, stack: AsyncExitStack) -> None:
    task = asyncio.create_task(_sweep(database), name="sweep")

    async def stop() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)


async def _sweep(database: Database) -> None:
    """Drop what expired, and record the grants that did. Nothing trusts a row for being there,
    so being late harms nobody.
    """
    while True:
        await asyncio.sleep(_SWEEP_EVERY)
        try:
            await sweep(database)
            await record_expired(database)
        except AuditUnavailable as fault:
            log.warning("sweep put off", detail=fault.log_detail)
