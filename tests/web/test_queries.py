"""Queries at the edge of what a database takes, on PostgreSQL, which takes less than SQLite."""

from __future__ import annotations

import pytest

from broker.identity.throttle import LINT_PER_PRINCIPAL
from tests.web.conftest import Running
from tests.web.journeys import POLICY, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA
from tests.web.test_api import problem


@pytest.fixture
def broker_url(postgresql_url: str) -> str:
    return postgresql_url


async def test_no_query_crashes_a_reader(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    for query in (
        "audit/records?principal=%00",
        "audit/records?principal=%ff",
        "audit/records?since=0001-01-01T00:00:00%2B14:00",
        "audit/records?until=9999-12-31T23:59:59-14:00",
        "audit/records?since=1e300",
        "audit/records?after=9007199254740991",
        "audit/proof/inclusion?seq=9007199254740991&size=9007199254740991",
        "users?q=%00",
        "users?q=%25_%5C",
        "users?group=a%00b",
        "roles/data-reader/explain?principal=%00",
        "issuances?after=iss-%00",
    ):
        answer = await admin.api.get(f"/v1/{query}", headers=bearer(admin))
        assert answer.status_code < 500, (query, answer.text)


async def test_no_body_crashes_an_admins_route(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    for path, body in (
        ("enrolment-codes", {"group": "corp/a\0b"}),
        ("enrolment-codes", {"provider": "co\0rp", "email": "a@example.com"}),
        ("enrolment-codes", {"provider": "corp", "email": "a\0@example.com"}),
        ("grants", {"user": "corp/a\0b@example.com", "role": "data-reader", "duration": 60}),
    ):
        answer = await admin.api.post(
            f"/v1/{path}",
            json={"reason": "x", **body} if path == "grants" else body,
            headers=bearer(admin),
        )
        assert answer.status_code in (404, 422), (body, answer.text)


async def test_lint_is_no_way_to_make_work_without_end(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)
    # Windows are fixed minutes: two of them may be touched.
    for _ in range(2 * LINT_PER_PRINCIPAL.count + 1):
        answer = await ada.api.post("/v1/access/lint", content=POLICY, headers=bearer(ada))
        if answer.status_code != 200:
            break
    assert problem(answer) == (429, "rate_limited")
