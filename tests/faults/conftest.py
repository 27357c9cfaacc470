"""A world of server processes on PostgreSQL for each test that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.devstack.aws import AwsStandIn
from tests.faults.invariants import Outside
from tests.faults.world import World


@pytest.fixture
async def world(tmp_path: Path, postgresql_url: str) -> AsyncIterator[World]:
    with AwsStandIn.start() as aws:
        opened = await World.open(tmp_path, postgresql_url, aws)
        try:
            yield opened
        finally:
            await opened.aclose()


@pytest.fixture
async def outside(world: World) -> AsyncIterator[Outside]:
    """A look into the world's database."""
    looking = Outside(world)
    yield looking
    await looking.database.aclose()
