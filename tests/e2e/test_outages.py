"""The database goes away at the two moments that matter most."""

from __future__ import annotations

import json
import threading
from urllib.parse import urlsplit

import httpx
import pytest

from broker.devstack.aws import Fault
from tests.e2e.processes import until

CREDENTIAL_FIELDS = ("credentials", "secret_access_key", "session_token")


class Outage:
    """Makes one database refuse and drop every connection, and come back."""

    def __init__(self, cluster, url: str) -> None:
        self._cluster = cluster
        self._name = urlsplit(url).path.lstrip("/")

    def begin(self) -> None:
        self._cluster.execute(
            f"ALTER DATABASE {self._name} WITH ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{self._name}'",
        )

    def end(self) -> None:
        self._cluster.execute(f"ALTER DATABASE {self._name} WITH ALLOW_CONNECTIONS true")


@pytest.fixture
def outage(postgresql, postgresql_url):
    outage = Outage(postgresql, postgresql_url)
    yield outage
    outage.end()


@pytest.fixture
def ready(deploy, postgresql_url):
    """A broker with a policy, its admin, and Alice's bearer token."""
    broker = deploy(postgresql_url, BROKER_AUDIT__ORPHAN_AFTER_SECONDS="15")
    grace = broker.enrolled("grace")
    broker.apply_policy(grace)
    alice = broker.enrolled("alice")
    return broker, grace, alice.access_token


def ask(broker, token: str) -> httpx.Response:
    return httpx.post(
        f"{broker.public_url}/v1/credentials",
        headers={"Authorization": f"Bearer {token}"},
        json={"role": "data-reader"},
        timeout=60,
        trust_env=False,
    )


def records(admin) -> list[dict[str, object]]:
    ran = admin.terminal.run("audit", "export")
    assert ran.code == 0, ran.err
    return [json.loads(json.loads(line)["record"]) for line in ran.out.splitlines()]


def test_without_a_database_nothing_is_asked_of_sts(ready, outage):
    broker, _, token = ready
    calls = len(broker.aws.calls)
    outage.begin()
    answer = ask(broker, token)
    assert answer.status_code == 503
    assert answer.json()["code"] == "audit_unavailable"
    assert not any(name in answer.text for name in CREDENTIAL_FIELDS)
    assert httpx.get(f"{broker.public_url}/healthz", trust_env=False).status_code == 200
    assert httpx.get(f"{broker.public_url}/readyz", trust_env=False).status_code == 503
    outage.end()
    until(lambda: ask(broker, token).status_code == 200, "issuing heals by itself")
    assert len(broker.aws.calls) == calls + 1


def test_an_outcome_that_can_not_be_recorded_is_not_handed_out(ready, outage):
    broker, grace, token = ready
    calls = len(broker.aws.calls)
    broker.aws.faults.add(Fault.DELAY, seconds=2)
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(ask(broker, token)))
    caller.start()
    until(lambda: len(broker.aws.calls) == calls + 1, "the call reaches STS")
    outage.begin()
    caller.join()
    assert answers[0].status_code == 503
    assert not any(name in answers[0].text for name in CREDENTIAL_FIELDS)
    outage.end()

    def orphaned() -> list[dict[str, object]]:
        return [r for r in records(grace) if r["type"] == "issuance.orphaned"]

    until(lambda: len(orphaned()) == 1, "the reaper closes the intent", seconds=60)
    log = records(grace)
    intents = {r["subject"]["issuance"] for r in log if r["type"] == "issuance.requested"}  # type: ignore[index]
    issued = {r["subject"]["issuance"] for r in log if r["type"] == "issuance.issued"}  # type: ignore[index]
    assert intents - issued == {orphaned()[0]["subject"]["issuance"]}  # type: ignore[index]
