"""What is counted as what, and that counting has bounds."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from broker.adapters.metrics import ISSUANCE_DURATION, METRICS, Metric
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.telemetry import instruments as counting
from broker.adapters.telemetry import server
from broker.adapters.telemetry.accumulators import Spreads
from broker.adapters.telemetry.instruments import Instruments
from broker.adapters.telemetry.issuance import IssuanceWatch
from broker.adapters.telemetry.server import ServerTelemetry
from broker.audit.record import Appended
from broker.errors import AuditUnavailable, AwsDenied
from broker.issuance.journal import Concluded, State
from broker.issuance.sts import StsFailure
from tests.telemetry.test_running_server import value, values

APPENDED = Appended(1, b"leaf")


def exposed(instruments: Instruments) -> str:
    return instruments.exposition().decode()


class Journal:
    """Answers, or fails, as it is told."""

    def __init__(self, answer: object = APPENDED) -> None:
        self.answer = answer

    async def request(self, intent: object) -> Any:
        return self._told()

    fail = conclude = deny = lambda self, *_: self._later()

    async def _later(self) -> Any:
        return self._told()

    def _told(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Sts:
    async def assume_role(self, call: object, credentials: object = None) -> Any:
        raise StsFailure(AwsDenied(), sts_code="AccessDenied")


INTENT: Any = type("Intent", (), {"id": "iss-1"})
Steps = Callable[[IssuanceWatch], Awaitable[object]]


@pytest.mark.parametrize(
    ("journal", "steps", "expected"),
    [
        (Journal(), lambda w: w.deny(INTENT), "denied"),
        (Journal(AuditUnavailable()), lambda w: w.deny(INTENT), "unrecorded"),
        (Journal(AuditUnavailable()), lambda w: w.request(INTENT), "unrecorded"),
        # The intent is on record and nothing came after it: a fault of ours.
        (Journal(), lambda w: w.request(INTENT), "error"),
        (Journal(), lambda w: w.fail(INTENT, INTENT), "failed"),
        (Journal(AuditUnavailable()), lambda w: w.fail(INTENT, INTENT), "unrecorded"),
        (
            Journal(Concluded(State.ISSUED, None, APPENDED)),
            lambda w: w.conclude(INTENT),
            "issued",
        ),
        (
            Journal(Concluded(State.WITHHELD, "suspended", APPENDED)),
            lambda w: w.conclude(INTENT),
            "withheld",
        ),
        (Journal(AuditUnavailable()), lambda w: w.conclude(INTENT), "unrecorded"),
    ],
)
async def test_a_request_counts_by_what_became_of_it(journal: Any, steps: Steps, expected: str):
    instruments = Instruments()
    watch = IssuanceWatch(instruments, None)
    watch.known("data-reader", journal, Sts())  # type: ignore[arg-type]  # of assume_role alone
    try:
        await steps(watch)
    except AuditUnavailable:
        watch.ended("audit_unavailable")
    else:
        watch.ended(None)
    scrape = exposed(instruments)
    assert value(scrape, "broker_issuances_total", role="data-reader", outcome=expected) == 1


async def test_the_time_at_sts_is_taken_when_it_refuses_too():
    instruments = Instruments()
    watch = IssuanceWatch(instruments, None)
    watch.known(None, Journal(), Sts())  # type: ignore[arg-type]  # as above
    with pytest.raises(StsFailure):
        await watch.assume_role(INTENT)
    name = "broker_issuance_stage_duration_seconds_count"
    assert value(exposed(instruments), name, stage="sts") == 1


async def test_a_stranger_is_counted_without_a_role():
    instruments = Instruments()
    IssuanceWatch(instruments, None).ended("unauthenticated")
    scrape = exposed(instruments)
    assert value(scrape, "broker_credential_requests_total", outcome="unauthenticated") == 1
    assert not [key for key in values(scrape) if key[0] == "broker_issuances_total"]


def test_roles_without_end_are_counted_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counting, "_MOST_ROLES", 2)
    instruments = Instruments()
    for number in range(100):
        instruments.issuance(f"role-{number}", "issued")
        instruments.issuance("role-0", "denied")
    scrape = exposed(instruments)
    series = {key: n for key, n in values(scrape).items() if key[0] == "broker_issuances_total"}
    assert len(series) < 2 * len(counting.ISSUANCE_OUTCOMES) + 2
    assert sum(series.values()) == 200
    assert value(scrape, "broker_issuances_total", role="(other)", outcome="issued") > 50


def test_codes_that_aws_does_not_document_are_counted_together():
    instruments = Instruments()
    for number in range(100):
        instruments.sts_attempt("refused", f"Made{number}Up")
    instruments.sts_attempt("throttled", "SlowDown")
    scrape = exposed(instruments)
    assert value(scrape, "broker_sts_errors_total", code="other") == 100
    assert value(scrape, "broker_sts_errors_total", code="SlowDown") == 1
    assert "Made1Up" not in scrape


def test_an_alert_sees_the_first_event_as_an_increase():
    """So every series that a rule watches is there from the start, at nought."""
    scrape = exposed(Instruments())
    assert value(scrape, "broker_denials_total", code="audit_unavailable") == 0
    assert value(scrape, "broker_issuances_orphaned_total") == 0
    assert value(scrape, "broker_sts_requests_total", result="odd") == 0
    assert value(scrape, "broker_second_factor_locks_total") == 0


def test_what_anybody_may_read_names_nothing():
    instruments = Instruments()
    instruments.issuance("data-reader", "issued")
    instruments.credentials_answered("issued")
    public = instruments.public_exposition().decode()
    assert {name for name, _ in values(public)} == {"broker_credential_requests_total"}
    assert "data-reader" not in public


def test_our_histograms_say_what_prometheus_clients_would():
    metric = Metric("broker_x_seconds", "histogram", "X.", ("stage",), ISSUANCE_DURATION.buckets)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spreads = Spreads(metric)
    ours.register(spreads)
    oracle = Histogram(
        metric.name, metric.help, metric.labels, registry=theirs, buckets=metric.buckets
    )
    draw = random.Random(7)
    for _ in range(500):
        seen = draw.choice([*metric.buckets, 0.0, 99.0, draw.expovariate(3), draw.random() / 1000])
        spreads.at("sts").observe(seen)
        oracle.labels("sts").observe(seen)
    expected = values(generate_latest(theirs).decode())
    assert values(generate_latest(ours).decode()) == {
        key: found for key, found in expected.items() if not key[0].endswith("_created")
    }


def test_metrics_are_named_as_prometheus_asks():
    for metric in METRICS:
        assert (metric.type == "counter") == metric.name.endswith("_total"), metric.name
        assert metric.help.endswith("."), metric.name
        assert (metric.type == "histogram") == bool(metric.buckets), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
    assert len({metric.name for metric in METRICS}) == len(METRICS)


async def _fails() -> None:
    raise AuditUnavailable(log_detail="the database is out")


@pytest.fixture
async def watched(sqlite_url: str) -> Any:
    database = Database.open(sqlite_url)
    telemetry = ServerTelemetry()
    yield telemetry, database, GroupCommitJournal(database)
    await telemetry.unwatch()
    await database.aclose()


async def test_while_the_database_is_out_the_rest_is_shown(watched: Any):
    telemetry, database, journal = watched
    telemetry.watch(database, journal, ready=_fails, unreachable=lambda: ("provider corp",))
    telemetry.instruments.issuance("data-reader", "issued")
    scrape = (await telemetry.exposition()).decode()
    assert value(scrape, "broker_ready") == 0
    assert math.isnan(value(scrape, "broker_audit_head_sequence"))
    assert value(scrape, "broker_dependencies_unreachable") == 1
    assert value(scrape, "broker_issuances_total", role="data-reader", outcome="issued") == 1


async def test_a_database_that_hangs_holds_no_scrape_and_is_asked_once(
    watched: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "_READING_SECONDS", 0.05)
    telemetry, database, journal = watched
    released, asked = asyncio.Event(), 0

    async def hangs() -> None:
        nonlocal asked
        asked += 1
        await released.wait()

    telemetry.watch(database, journal, ready=hangs, unreachable=tuple)
    for _ in range(3):
        assert value((await telemetry.exposition()).decode(), "broker_ready") == 0
    assert asked == 1
    released.set()
    monkeypatch.setattr(server, "_READING_SECONDS", 60.0)
    scrape = (await telemetry.exposition()).decode()
    assert value(scrape, "broker_ready") == 1
    assert value(scrape, "broker_audit_checkpoint_timestamp_seconds") == 0


async def test_a_wait_for_a_connection_is_seen(sqlite_url: str):
    instruments = Instruments()
    database = Database.open(sqlite_url, pool_size=2, on_wait=instruments.waited_for_connection)
    assert database.capacity == 2
    try:
        async with database.read(), database.read():
            assert database.in_use == 2
            third = asyncio.ensure_future(_read(database))
            await asyncio.sleep(0)
            assert not third.done()
        await third
        assert database.in_use == 0
        await _read(database)
    finally:
        await database.aclose()
    name = "broker_database_pool_wait_duration_seconds_count"
    assert value(exposed(instruments), name) == 1


async def _read(database: Database) -> None:
    async with database.read():
        pass
