"""From a sign-in to scoped credentials and their record, in process, on real stores."""

from __future__ import annotations

import json

import pytest

from broker.audit.verify import verify
from tests.web.conftest import Running
from tests.web.journeys import POLICY, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA


@pytest.fixture
def broker_url(database_url: str) -> str:
    """Once on SQLite, once on PostgreSQL."""
    return database_url


async def test_a_person_gets_scoped_credentials_and_the_log_proves_it(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    applied = await admin.api.put(
        "/v1/access", content=POLICY, headers={**bearer(admin), "if-none-match": "*"}
    )
    assert applied.status_code == 200, applied.text
    assert applied.headers["etag"] == '"1"'

    ada = await logged_in_person(broker, ADA)
    offered = (await ada.api.get("/v1/roles", headers=bearer(ada))).json()["roles"]
    assert [role["name"] for role in offered] == ["data-reader"]
    assert offered[0]["availability"] == "standing"

    answer = await ada.api.post(
        "/v1/credentials",
        json={"role": "data-reader", "parameters": {"bucket": "reports"}, "reason": "look"},
        headers=bearer(ada),
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["credentials"]["secret_access_key"] == broker.sts.secret
    assert body["duration"]["granted"] == 3600
    (call,) = broker.sts.calls
    assert call.source_identity == body["source_identity"]
    assert json.loads(call.policy or "")["Statement"][0]["Resource"] == "arn:aws:s3:::reports/*"

    mine = (await ada.api.get("/v1/issuances", headers=bearer(ada))).json()
    assert [(one["id"], one["state"]) for one in mine["issuances"]] == [
        (body["issuance_id"], "issued")
    ]

    records = (
        await admin.api.get("/v1/audit/records", headers=bearer(admin), params={"limit": 1000})
    ).json()["records"]
    kinds = [record["type"] for record in records]
    assert [kind for kind in kinds if kind.startswith(("access", "issuance"))] == [
        "access.applied",
        "issuance.requested",
        "issuance.issued",
    ]
    export = await admin.api.get("/v1/audit/export", headers=bearer(admin))
    assert export.headers["content-type"] == "application/x-ndjson"
    report = verify([export.content])
    assert report.consistent
    assert report.count == len(records)
    # No secret of the run is in the log.
    for secret in (broker.sts.secret, "canary-session-token", ada.token, ada.browser.secret):
        assert secret not in export.text
    metrics = await ada.api.get("/metrics")
    assert 'broker_credential_requests_total{outcome="issued"} 1' in metrics.text
    assert "ada" not in metrics.text
