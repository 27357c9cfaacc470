"""One world a test process; every attack leaves its providers and its AWS honest again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.devstack.aws import AwsStandIn, seed_demo
from tests.hostile.world import World


@pytest.fixture(scope="session")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with AwsStandIn.start() as aws:
        world = World(tmp_path_factory.mktemp("world"), aws, seed_demo(aws, hub="user"))
        try:
            world.start()
            yield world
        finally:
            world.close()


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    yield _world
    for provider in _world.providers.values():
        provider.be_honest()
    _world.aws.faults.clear()
