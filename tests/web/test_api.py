"""The API: who may, what a refusal looks like, and the access policy's versions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from broker.adapters.store.schema import login_sessions
from broker.errors import AwsDenied
from broker.identity.sessions import Token, TokenKind
from broker.identity.throttle import CODE_PER_ADDRESS
from broker.issuance.sts import StsFailure
from broker.web import audit_proof, ci, container
from tests.web.conftest import ORIGIN, Running
from tests.web.journeys import (
    POLICY,
    LoggedIn,
    bearer,
    enrolled_browser,
    logged_in_admin,
    logged_in_person,
)
from tests.web.people import ADA, GRACE, Browser, Person

BOB = Person("bob")


async def apply(admin: LoggedIn, policy: str, *, version: int = 0) -> httpx.Response:
    condition = {"if-match": f'"{version}"'} if version else {"if-none-match": "*"}
    return await admin.api.put("/v1/access", content=policy, headers={**bearer(admin), **condition})


async def age_factor(broker: Running, who: LoggedIn, minutes: int = 6) -> None:
    """Make the factor of every login session of theirs older than it is."""
    me = (await who.api.get("/v1/me", headers=bearer(who))).json()
    database = broker.app.state.parts.people._database
    async with database.begin() as conn:
        await conn.execute(
            update(login_sessions)
            .where(login_sessions.c.principal_id == me["id"])
            .values(mfa_time=datetime.now(UTC) - timedelta(minutes=minutes))
        )


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) >= {"type", "title", "status", "code", "detail", "request_id"}
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, str(body["code"])


async def test_every_v1_route_wants_a_token_that_is_live_and_of_the_right_kind(
    broker: Running,
) -> None:
    ada = await logged_in_person(broker, ADA)
    presented = [
        None,
        "Bearer",
        "Basic YTpi",
        "Bearer x",
        f"Bearer {Token.new(TokenKind.ACCESS).text}",
        f"Bearer {ada.refresh_token}",
        f"Bearer {ada.token}x",
        f"Bearer {ada.token}, Bearer {ada.token}",
    ]
    public = {path.replace("{path}", "{path:path}") for path in audit_proof.PUBLIC}
    # The container endpoint answers in AWS's shape; its own tests hold it to the same.
    others = public | {container.PATH}
    routes = [(m, p) for m, p in broker.routes() if p.startswith("/v1/") and p not in others]
    assert len(routes) >= 12
    for method, template in routes:
        path = template.replace("{principal_id}", "p-" + "a" * 16)
        path = path.replace("{issuance_id}", "iss-abc").replace("{path:path}", "000.p/1")
        for header in presented:
            headers = {} if header is None else {"authorization": header}
            body = {"role": "data-reader"} if path == ci.PATH else None
            answer = await ada.api.request(method, path, headers=headers, json=body)
            status, code = problem(answer)
            assert status == 401, (method, path, header)
            # What is no token of ours may be a CI platform's there, and is refused as such.
            refusals = {"unauthenticated", "ci_token_rejected" if path == ci.PATH else ""}
            assert code in refusals, (method, path, header)
            assert answer.headers["www-authenticate"] == 'Bearer realm="broker"'


async def test_only_admins_change_and_only_auditors_read(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    bob = await logged_in_person(broker, BOB)
    # Before she is an auditor: those never enrol on the first factor alone.
    grace = await logged_in_person(broker, GRACE)
    assert (await apply(admin, POLICY)).status_code == 200
    enrolment = {"provider": "corp", "email": "new@example.com"}
    changes = [
        ("PUT", "/v1/access", {"content": POLICY}),
        ("PUT", "/v1/access?dry_run=true", {"content": POLICY}),
        ("POST", "/v1/enrolment-codes", {"json": enrolment}),
        ("POST", f"/v1/users/p-{'a' * 16}/mfa/reset", {}),
    ]
    for method, path, body in changes:
        for who in (bob, grace):
            answer = await who.api.request(method, path, headers=bearer(who), **body)  # type: ignore[arg-type]
            assert problem(answer) == (403, "forbidden"), path
    for path in ("/v1/access", "/v1/audit/records", "/v1/audit/export"):
        assert problem(await bob.api.get(path, headers=bearer(bob))) == (403, "forbidden")
        assert (await grace.api.get(path, headers=bearer(grace))).status_code == 200
        assert (await admin.api.get(path, headers=bearer(admin))).status_code == 200
    rights = (await grace.api.get("/v1/me", headers=bearer(grace))).json()["rights"]
    assert rights == ["auditor"]


async def test_an_admin_with_an_old_factor_steps_up_first(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    await age_factor(broker, admin)
    stale = await apply(admin, POLICY)
    assert problem(stale) == (403, "mfa_stale")
    assert stale.json()["step_up_url"] == f"{ORIGIN}/mfa?next=/"
    planned = await admin.api.put("/v1/access?dry_run=true", content=POLICY, headers=bearer(admin))
    assert planned.status_code == 200
    wrong = await admin.api.post("/v1/mfa/verify", json={"code": "000000"}, headers=bearer(admin))
    assert problem(wrong) == (422, "invalid_request")
    right = await admin.api.post(
        "/v1/mfa/verify", json={"code": admin.browser.code()}, headers=bearer(admin)
    )
    assert right.status_code == 200, right.text
    # The same token is good for it now.
    assert (await apply(admin, POLICY)).status_code == 200


async def test_policy_versions_follow_each_other_and_nobody_overwrites_unseen(
    broker: Running,
) -> None:
    admin = await logged_in_admin(broker)
    missing = await admin.api.get("/v1/access", headers=bearer(admin))
    assert problem(missing) == (404, "not_found")
    assert (await apply(admin, POLICY)).json()["version"] == 1
    changed = POLICY.replace("max_duration: 2h", "max_duration: 1h")
    for condition in ({}, {"if-none-match": "*"}, {"if-match": '"7"'}, {"if-match": "*"}):
        answer = await admin.api.put(
            "/v1/access", content=changed, headers={**bearer(admin), **condition}
        )
        assert problem(answer) == (412, "precondition_failed"), condition
    both = await asyncio.gather(
        apply(admin, changed, version=1), apply(admin, changed + "\n", version=1)
    )
    assert sorted(answer.status_code for answer in both) == [200, 412]
    stored = await admin.api.get("/v1/access", headers=bearer(admin))
    assert stored.headers["etag"] == '"2"'
    assert stored.json()["version"] == 2
    assert stored.json()["text"].rstrip("\n") == changed.rstrip("\n")


async def test_a_plan_tells_the_difference_and_stores_nothing(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    named = POLICY.replace(
        "admins: [{group: corp/platform}]",
        'admins: [{group: corp/platform}, {user: "Root@example.com"}, {user: "n@example.com"}]',
    )
    plan = await admin.api.put("/v1/access?dry_run=true", content=named, headers=bearer(admin))
    body = plan.json()
    assert "+ admin group corp/platform" in body["diff"]
    assert any("gains role data-reader" in line for line in body["diff"])
    assert body["self_granted"] is True
    me = (await admin.api.get("/v1/me", headers=bearer(admin))).json()
    assert body["plan"]["users"] == [
        {"user": "corp/n@example.com", "principal": "pending"},
        {"user": "corp/root@example.com", "principal": me["id"]},
    ]
    assert (await admin.api.get("/v1/access", headers=bearer(admin))).status_code == 404


async def test_a_refused_file_names_line_and_cure_and_changes_nothing(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    assert (await apply(admin, POLICY)).status_code == 200
    broken = POLICY.replace("mode: standing", "mode: sometimes").replace("version: 1", "version: 9")
    answer = await apply(admin, broken, version=1)
    assert problem(answer) == (422, "invalid_request")
    findings = answer.json()["findings"]
    assert {finding["line"] for finding in findings} == {1, 18}
    for finding in findings:
        assert set(finding) == {"level", "line", "column", "path", "message", "instead"}
    assert (await admin.api.get("/v1/access", headers=bearer(admin))).json()["version"] == 1
    ada = await logged_in_person(broker, ADA)
    linted = await ada.api.post("/v1/access/lint", content=broken, headers=bearer(ada))
    assert linted.json()["findings"] == findings
    for hostile in (b"\xff\xfe", b"", b"&a [*a]", b"[" * 5000, b"a: &x [1]\nb: [*x, *x]"):
        refused = await ada.api.post("/v1/access/lint", content=hostile, headers=bearer(ada))
        assert refused.status_code in (200, 422), hostile
        if refused.status_code == 200:
            assert refused.json()["findings"], hostile


async def test_a_new_policy_counts_for_the_very_next_request(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    await apply(admin, POLICY)
    ada = await logged_in_person(broker, ADA)
    assert (await ada.api.get("/v1/roles", headers=bearer(ada))).json()["roles"]
    await apply(admin, POLICY.replace("{group: analysts}", "{group: others}"), version=1)
    assert (await ada.api.get("/v1/roles", headers=bearer(ada))).json()["roles"] == []
    answer = await ada.api.post(
        "/v1/credentials", json={"role": "data-reader"}, headers=bearer(ada)
    )
    assert problem(answer) == (404, "not_found")
    assert broker.sts.calls == []


async def test_an_invitation_is_for_others_and_its_code_stands_in_one_answer(
    broker: Running,
) -> None:
    admin = await logged_in_admin(broker)
    me = (await admin.api.get("/v1/me", headers=bearer(admin))).json()
    url = "/v1/enrolment-codes"
    for oneself in (
        {"principal": me["id"]},
        {"provider": "corp", "email": "ROOT@example.com"},
    ):
        answer = await admin.api.post(url, json=oneself, headers=bearer(admin))
        assert problem(answer) == (403, "forbidden")
    for malformed in (
        {},
        {"principal": me["id"], "email": "a@b.c"},
        {"provider": "corp"},
        {"email": "a@b.c"},
        {"provider": "corp", "email": "not an address"},
        {"principal": "p-1"},
        {"provider": "corp", "email": "a@b.c", "admin": True},
    ):
        answer = await admin.api.post(url, json=malformed, headers=bearer(admin))
        assert problem(answer) == (422, "invalid_request"), malformed
    unknown = await admin.api.post(
        url, json={"provider": "nobody", "email": "a@b.c"}, headers=bearer(admin)
    )
    assert problem(unknown) == (404, "not_found")
    nobody = await admin.api.post(url, json={"principal": "p-" + "a" * 16}, headers=bearer(admin))
    assert problem(nobody) == (404, "not_found")
    given = await admin.api.post(
        url, json={"provider": "corp", "email": "a@b.c"}, headers=bearer(admin)
    )
    export = await admin.api.get("/v1/audit/export", headers=bearer(admin))
    assert "enrolment_code.created" in export.text
    assert given.json()["code"] not in export.text


async def test_a_reset_ends_a_persons_sessions_and_never_ones_own(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    ada = await logged_in_person(broker, ADA)
    ada_id = (await ada.api.get("/v1/me", headers=bearer(ada))).json()["id"]
    admin_id = (await admin.api.get("/v1/me", headers=bearer(admin))).json()["id"]
    own = await admin.api.post(f"/v1/users/{admin_id}/mfa/reset", headers=bearer(admin))
    assert problem(own) == (403, "forbidden")
    nobody = await admin.api.post(f"/v1/users/p-{'a' * 16}/mfa/reset", headers=bearer(admin))
    assert problem(nobody) == (404, "not_found")
    done = await admin.api.post(f"/v1/users/{ada_id}/mfa/reset", headers=bearer(admin))
    assert done.json() == {"reset": True}
    assert (await ada.api.get("/v1/me", headers=bearer(ada))).status_code == 401
    assert (await ada.browser.get("/")).status_code == 303


async def test_other_peoples_issuances_are_not_there(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    await apply(admin, POLICY)
    ada = await logged_in_person(broker, ADA)
    bob = await logged_in_person(broker, BOB)
    ids = []
    for _ in range(3):
        answer = await ada.api.post(
            "/v1/credentials",
            json={"role": "data-reader", "parameters": {"bucket": "logs"}},
            headers=bearer(ada),
        )
        ids.append(answer.json()["issuance_id"])
    assert (await bob.api.get("/v1/issuances", headers=bearer(bob))).json()["issuances"] == []
    foreign = await bob.api.get(f"/v1/issuances/{ids[0]}", headers=bearer(bob))
    assert problem(foreign) == (404, "not_found")
    assert (await ada.api.get(f"/v1/issuances/{ids[0]}", headers=bearer(ada))).status_code == 200

    page = await admin.api.get("/v1/issuances?limit=2", headers=bearer(admin))
    assert [one["id"] for one in page.json()["issuances"]] == [ids[2], ids[1]]
    rest = await admin.api.get(
        "/v1/issuances", params={"limit": 2, "after": page.json()["next"]}, headers=bearer(admin)
    )
    assert [one["id"] for one in rest.json()["issuances"]] == [ids[0]]
    assert rest.json()["next"] is None
    assert broker.sts.secret not in page.text


async def test_audit_records_are_filtered_and_paged(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    await apply(admin, POLICY)
    await logged_in_person(broker, ADA)
    url = "/v1/audit/records"
    everything: list[int] = []
    after: int | None = 0
    while after is not None:
        page = await admin.api.get(url, params={"after": after, "limit": 3}, headers=bearer(admin))
        everything += [record["seq"] for record in page.json()["records"]]
        after = page.json()["next"]
    assert everything == list(range(1, len(everything) + 1))
    applied = await admin.api.get(url, params={"type": "access.applied"}, headers=bearer(admin))
    assert [record["type"] for record in applied.json()["records"]] == ["access.applied"]
    assert applied.json()["records"][0]["detail"]["version"] == 1
    future = {"since": "2999-01-01T00:00:00Z"}
    assert (await admin.api.get(url, params=future, headers=bearer(admin))).json()["records"] == []
    for wrong in ({"limit": 0}, {"limit": 5000}, {"after": -1}, {"type": "x"}, {"since": "now"}):
        answer = await admin.api.get(url, params=wrong, headers=bearer(admin))
        assert problem(answer) == (422, "invalid_request"), wrong


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"role": 1}',
        b'{"role": "data-reader", "role_arn": "arn:aws:iam::1:role/Admin"}',
        b'{"role": "data-reader", "duration": "1h"}',
        b'{"role": "data-reader", "duration": true}',
        b'{"role": "data-reader", "duration": 1e400}',
        b'{"role": "data-reader", "restrict": [{"Effect": "Allow", "Action": "*"}]}',
        b'{"role": "data-reader", "reason": "a\\u0000b"}',
        b'{"role": "data-reader", "parameters": {"bucket": ["reports"]}}',
        b'{"role": "\xff"}',
        b'{"a":' * 20_000,
        b"[" * 60_000,
    ],
)
async def test_a_hostile_body_is_an_invalid_request_and_never_reaches_sts(
    broker: Running, body: bytes
) -> None:
    ada = await logged_in_person(broker, ADA)
    headers = {**bearer(ada), "content-type": "application/json"}
    answer = await ada.api.post("/v1/credentials", content=body[:65000], headers=headers)
    assert problem(answer) == (422, "invalid_request")
    assert broker.sts.calls == []


async def test_credentials_are_refused_by_their_own_codes(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    await apply(admin, POLICY)
    ada = await logged_in_person(broker, ADA)

    async def ask(**body: object) -> httpx.Response:
        return await ada.api.post(
            "/v1/credentials",
            json={"role": "data-reader", "parameters": {"bucket": "logs"}} | body,
            headers=bearer(ada),
        )

    assert problem(await ask(role="admin")) == (404, "not_found")
    assert problem(await ask(duration=899)) == (422, "invalid_request")
    assert problem(await ask(parameters={"bucket": "other"})) == (422, "invalid_request")
    lowered = await ask(duration=4 * 3600)
    assert lowered.json()["duration"]["bound_by"] == "entitlement"
    assert lowered.json()["duration"]["granted"] == 7200
    assert lowered.headers["cache-control"] == "no-store"
    typed = await ada.api.post(
        "/v1/credentials",
        content='{"role": "data-reader"}',
        headers={**bearer(ada), "content-type": "text/plain"},
    )
    assert problem(typed) == (422, "invalid_request")

    broker.sts.failure = StsFailure(AwsDenied("Ask the operator."), sts_code="AccessDenied")
    assert problem(await ask()) == (502, "aws_denied")
    kinds = [
        record["type"]
        for record in (
            await admin.api.get("/v1/audit/records?limit=1000", headers=bearer(admin))
        ).json()["records"]
    ]
    assert kinds.count("issuance.issued") == 1
    assert kinds.count("issuance.failed") == 1
    assert kinds.count("issuance.denied") >= 2


async def test_a_session_without_a_second_factor_gets_nothing(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)
    database = broker.app.state.parts.people._database
    async with database.begin() as conn:
        await conn.execute(update(login_sessions).values(mfa_time=None))
    for method, path in broker.routes():
        if not path.startswith("/v1/") or path == "/v1/mfa/verify" or "{" in path:
            continue
        if path in audit_proof.PUBLIC:
            continue
        answer = await ada.api.request(
            method, path, json={"role": "data-reader"}, headers=bearer(ada)
        )
        code = problem(answer)[1]
        if path == ci.PATH:
            assert code == "ci_token_rejected"
            continue
        assert code == "mfa_required", (method, path)
        assert answer.json()["step_up_url"] == f"{ORIGIN}/mfa?next=/"
    assert broker.sts.calls == []


async def test_codes_are_limited_by_address_over_all_accounts(broker: Running) -> None:
    ada = await logged_in_person(broker, ADA)

    async def verify() -> str:
        wrong = {"code": "000000"}
        answer = await ada.api.post("/v1/mfa/verify", json=wrong, headers=bearer(ada))
        return problem(answer)[1]

    # A window may end meanwhile, but not two.
    codes = [await verify() for _ in range(2 * CODE_PER_ADDRESS.count + 2)]
    assert set(codes) == {"invalid_request", "mfa_locked", "rate_limited"}


async def test_health_needs_nothing_and_readiness_the_database(broker: Running) -> None:
    client = broker.client()
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ok"}
    database = broker.app.state.parts.people._database
    async with database.begin() as conn:
        await conn.execute(text("UPDATE alembic_version SET version_num = 'other'"))
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert (await client.get("/healthz")).status_code == 200


async def test_openapi_tells_every_route_under_v1_and_its_security(broker: Running) -> None:
    schema = (await broker.client().get("/openapi.json")).json()
    told = {
        (method.upper(), path)
        for path, operations in schema["paths"].items()
        for method in operations
    }
    there = {
        (m, p.replace("{path:path}", "{path}"))
        for m, p in broker.routes()
        if p.startswith(("/v1/", "/oauth/token")) and (m, p) != ("HEAD", container.PATH)
    }
    assert there <= told
    for method, path in there:
        operation = schema["paths"][path][method.lower()]
        guarded = path.startswith("/v1/") and path not in audit_proof.PUBLIC
        assert (operation.get("security") == [{"bearer": []}]) is guarded, path
        assert "default" not in operation["responses"], "it would document whatever comes"
        refused = operation["responses"].get("422", operation["responses"]["429"])["content"]
        assert "HTTPValidationError" not in str(refused), "that is FastAPI's, not ours"
    body = schema["paths"]["/v1/credentials"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["required"] == ["role"]
    for docs in ("/docs", "/redoc"):
        assert (await broker.client().get(docs)).status_code == 404


async def test_the_home_page_and_the_api_tell_the_same_roles(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    await apply(admin, POLICY)
    ada: Browser = await enrolled_browser(broker, ADA)
    assert "data-reader" in (await ada.get("/")).text
    assert "Read one dataset" in (await ada.get("/")).text
