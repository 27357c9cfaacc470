"""A strict witness and a broker that it watches; the fixtures of a whole broker in process are
the web tests' own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from broker.adapters.store.engine import Database
from tests.web.conftest import broker_url, settings
from tests.witness.scene import SIGNER, Broker, Scene
from tests.witness.strict import StrictWitness, serving

__all__ = ["broker_url", "settings"]


@pytest.fixture
def strict() -> Iterator[tuple[StrictWitness, str]]:
    witness = StrictWitness(SIGNER.key)
    with serving(witness) as url:
        yield witness, url


@pytest.fixture
async def scene(strict: tuple[StrictWitness, str]) -> AsyncIterator[Scene]:
    made = Scene(*strict)
    yield made
    await made.client.aclose()


@pytest.fixture
async def broker(scene: Scene, sqlite_database: Database) -> AsyncIterator[Broker]:
    made = scene.broker(sqlite_database)
    await made.journal.start()
    yield made
    await made.publisher.aclose()
    await made.journal.aclose()
