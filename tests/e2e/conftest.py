"""One canaille and one AWS stand-in a test process; a fresh broker for each test that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.devstack.aws import AwsStandIn, DemoAccount, seed_demo
from tests.e2e import canaille as third_party
from tests.e2e.canaille import Canaille
from tests.e2e.deployment import Deployment, free_ports
from tests.missing import missing

_PORTS = 2


@pytest.fixture(scope="session")
def ports() -> tuple[int, ...]:
    """The provider must know the redirect URI before any broker starts."""
    return free_ports(_PORTS)


@pytest.fixture(scope="session")
def canaille(tmp_path_factory: pytest.TempPathFactory, ports) -> Iterator[Canaille]:
    if not (third_party.BIN / "canaille").exists():
        missing("the environment of canaille is missing: run `make witnesses`")
    redirects = tuple(f"http://127.0.0.1:{port}/login/callback" for port in ports)
    running = third_party.start(tmp_path_factory.mktemp("canaille"), redirects)
    yield running
    running.process.stop()


@pytest.fixture(scope="session")
def aws() -> Iterator[AwsStandIn]:
    with AwsStandIn.start() as standin:
        yield standin


@pytest.fixture(scope="session")
def demo(aws: AwsStandIn) -> DemoAccount:
    return seed_demo(aws, external_id="broker-demo")


@pytest.fixture
def deploy(
    tmp_path: Path, canaille: Canaille, aws: AwsStandIn, demo: DemoAccount, ports: tuple[int, ...]
) -> Iterator[Callable[..., Deployment]]:
    """Start a broker of `processes` servers on a database URL."""
    deployments: list[Deployment] = []

    def start(database_url: str, processes: int = 1, **extra: str) -> Deployment:
        deployment = Deployment(
            tmp_path, database_url, canaille, aws, demo.hub, ports[:processes], extra
        )
        deployments.append(deployment)
        deployment.start()
        return deployment

    yield start
    for deployment in deployments:
        deployment.stop()
