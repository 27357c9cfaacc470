from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.adapters.sts import StsClient, StsConfig, exchange, partition
from broker.adapters.sts.connection import Timeouts
from broker.adapters.sts.endpoint import from_url
from tests.sts.misbehaving import Misbehaving


@pytest.fixture(autouse=True)
def base_environment(monkeypatch, tmp_path):
    """A role session's keys in the environment, and nothing of this machine's own settings."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    set_base(monkeypatch, "ASIABASE000000000001", "base-token")


def set_base(monkeypatch, access_key_id: str, token: str | None) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-base-secret-key")
    if token is None:
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    else:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(exchange, "PAUSES", (0.01, 0.02))


@pytest.fixture
async def server() -> AsyncIterator[Misbehaving]:
    one = Misbehaving()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def client(server: Misbehaving) -> AsyncIterator[StsClient]:
    """Not started: a test says when."""
    one = StsClient(
        (StsConfig("aws", "us-east-1", sts_endpoint_url=server.url),),
        timeouts=Timeouts(connect=1.0, read=0.5),
    )
    yield one
    await one.aclose()


@pytest.fixture
async def started(client: StsClient, monkeypatch) -> StsClient:
    # botocore reads its data files for 60 ms, a hundred times, to find the URL that was given.
    with monkeypatch.context() as patch:
        patch.setattr(partition, "resolve", lambda c, region: from_url(c.sts_endpoint_url, region))
        await client.start()
    return client
