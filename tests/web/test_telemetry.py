"""What the edge tells of requests: spans by the route's template, log lines by the request's id."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog

from broker.settings import Settings, Telemetry
from tests.telemetry.collector import Collector, collecting
from tests.web.conftest import Running, running
from tests.web.journeys import POLICY, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


@pytest.fixture
def traced(settings: Settings, collector: Collector) -> Settings:
    wanted = Telemetry(otlp_endpoint=collector.url, trace_ratio=1.0)
    return settings.model_copy(update={"telemetry": wanted})


async def test_a_span_is_named_by_the_route_and_never_by_what_was_typed(
    traced: Settings, collector: Collector
) -> None:
    async with running(traced) as broker:
        client = broker.client()
        for path in (
            "/v1/users/canary-person@example.com",
            "/canary-path",
            "/canary%2fescaped",
            "/login/callback?code=canary-code&state=canary-state",
            "/healthz",
        ):
            await client.get(path)
    names = sorted(span.name for span in collector.spans)
    assert names == [
        "GET",
        "GET",
        "GET /healthz",
        "GET /login/callback",
        "GET /v1/users/{principal_id}",
    ]
    assert "canary" not in str(collector.spans)


async def test_a_denial_is_a_trace_as_well(traced: Settings, collector: Collector) -> None:
    async with running(traced) as broker:
        await _apply_policy(broker)
        ada = await logged_in_person(broker, ADA)
        answer = await ada.api.post(
            "/v1/credentials", json={"role": "no-such-role"}, headers=bearer(ada)
        )
        assert answer.status_code == 404
    (request,) = collector.named("POST /v1/credentials")
    assert request.attributes["broker.code"] == "not_found"
    assert request.attributes["broker.outcome"] == "denied"
    assert "broker.role" not in request.attributes
    children = {span.name for span in collector.spans if span.parent_id == request.span_id}
    assert children == {"authenticate", "decide", "audit.denied"}
    # As a word: ids are random hex digits, which may spell it.
    assert not re.search(r"\bada\b", str(collector.spans))


async def test_the_public_metrics_name_nothing(broker: Running) -> None:
    await _apply_policy(broker)
    ada = await logged_in_person(broker, ADA)
    for role in ("data-reader", "no-such-role"):
        parameters = {"bucket": "reports"}
        await ada.api.post(
            "/v1/credentials",
            json={"role": role, "parameters": parameters, "reason": "look"},
            headers=bearer(ada),
        )
    text = (await broker.client().get("/metrics")).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        'broker_credential_requests_total{outcome="issued"} 1.0',
        'broker_credential_requests_total{outcome="not_found"} 1.0',
    ]


async def test_whatever_is_logged_within_a_request_bears_its_id(
    broker: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    parts = broker.app.state.parts

    async def complains() -> None:
        seen.append(structlog.contextvars.get_contextvars().get("request_id"))
        logging.getLogger("some.library").warning("slow")

    monkeypatch.setattr(broker.app.state, "parts", replace(parts, ready=complains))
    answer = await broker.client().get("/readyz")
    assert seen == [answer.headers["x-request-id"]]


async def _apply_policy(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    applied = await admin.api.put(
        "/v1/access", content=POLICY, headers={**bearer(admin), "if-none-match": "*"}
    )
    assert applied.status_code == 200, applied.text
