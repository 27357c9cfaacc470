"""What a job gets: credentials, or a job token, as one principal for ever, and on record."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json

import pytest
from sqlalchemy import update

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import principals
from broker.identity.sessions import Token
from tests.ci.conftest import World
from tests.ci.issuer import PLATFORMS, policy_text, rsa_key
from tests.web.journeys import bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_each_platforms_token_gives_credentials(world: World, platform: str) -> None:
    token = world.issuer.mint(platform)
    answer = await world.credentials(token, duration=1800)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["source_identity"].startswith("w-")
    assert body["duration"]["granted"] == 1800
    record = (await world.records("ci.exchanged"))[0]
    assert record["subject"] == {"principal": body["source_identity"], "workload": platform}
    assert record["actor"]["kind"] == "workload"
    assert record["detail"]["token_sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert record["detail"]["reused"] is False
    issued = (await world.records("issuance.issued"))[0]
    assert issued["subject"]["principal"] == body["source_identity"]


async def test_the_record_has_the_claims_that_decided_and_never_the_token(world: World) -> None:
    token = world.issuer.mint()
    assert (await world.credentials(token)).status_code == 200
    record = (await world.records("ci.exchanged"))[0]
    assert record["detail"]["claims"] == {
        "environment": "production",
        "event_name": "push",
        "ref": "refs/heads/main",
        "ref_protected": "true",
        "repository": "octo/repo",
        "repository_id": "42",
        "repository_owner_id": "7",
        "run_id": "1658821493",
    }
    for kind in ("ci.exchanged", "issuance.requested", "issuance.issued"):
        assert token.split(".")[2] not in str(await world.records(kind))


async def test_claims_reach_the_session_name_the_tags_and_the_policy(world: World) -> None:
    text = policy_text(world.issuer).replace("ref: refs/heads/main", 'ref: {glob: "refs/heads/*"}')
    await world.apply(text)
    token = world.issuer.mint(ref="refs/heads/fix#1=é", run_id="99")
    answer = await world.credentials(token, "tagged")
    assert answer.status_code == 200, answer.text
    call = world.broker.sts.calls[0]
    assert dict(call.tags)["repository"] == "octo/repo"
    assert dict(call.tags)["ref"] == "refs/heads/fix=231=3D=C3=A9"
    assert call.role_session_name.startswith("repo-99-fix-1=")
    assert len(call.role_session_name) <= 64
    assert call.policy is not None
    assert "arn:aws:s3:::b/42/*" in call.policy
    assert call.source_identity == answer.json()["source_identity"]


async def test_a_workload_is_the_same_principal_over_policies_and_another_under_another_issuer(
    world: World,
) -> None:
    first = (await world.credentials(world.issuer.mint())).json()["source_identity"]
    await world.apply(policy_text(world.issuer, more=", max_job: 2h"))
    second = (await world.credentials(world.issuer.mint())).json()["source_identity"]
    moved = policy_text(world.issuer).replace(
        repr(world.issuer.issuer("github")), repr(world.issuer.issuer("moved"))
    )
    await world.apply(moved)
    token = world.issuer.mint(iss=world.issuer.issuer("moved"))
    third = (await world.credentials(token)).json()["source_identity"]
    assert first == second != third


async def test_the_jobs_time_limits_the_duration_and_says_so(world: World) -> None:
    await world.apply(policy_text(world.issuer, more=", max_job: 30m"))
    body = (await world.credentials(world.issuer.mint(), duration=7200)).json()
    assert body["duration"]["bound_by"] == "job_remaining"
    assert 1700 < body["duration"]["granted"] <= 1785


async def test_a_token_is_used_once(world: World) -> None:
    token = world.issuer.mint()
    answers = await asyncio.gather(*(world.credentials(token) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
    refused = {answer.json()["code"] for answer in answers if answer.status_code == 401}
    assert refused == {"ci_token_replayed"}
    assert (await world.exchange(token)).json()["code"] == "ci_token_replayed"
    assert len(await world.records("ci.exchanged")) == 1
    assert len(await world.records("issuance.issued")) == 1
    assert (await world.records("ci.rejected"))[0]["detail"]["code"] == "ci_token_replayed"


async def test_a_token_without_an_id_is_used_once_whatever_its_signature_is_spelt_like(
    world: World,
) -> None:
    token = world.issuer.mint("circleci", jti=None)
    assert (await world.credentials(token)).status_code == 200
    body, _, signature = token.rpartition(".")
    other = _malleated(signature)
    assert other != signature
    answer = await world.credentials(f"{body}.{other}")
    assert answer.json()["code"] == "ci_token_replayed"


def _malleated(signature: str) -> str:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    s = order - int.from_bytes(raw[32:], "big")
    return base64.urlsafe_b64encode(raw[:32] + s.to_bytes(32, "big")).rstrip(b"=").decode()


async def test_reuse_is_allowed_where_the_entry_says_so_and_recorded(world: World) -> None:
    await world.apply(policy_text(world.issuer, more=", reuse: true"))
    token = world.issuer.mint("gitlab")
    answers = await asyncio.gather(*(world.credentials(token) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    details = [record["detail"] for record in await world.records("ci.exchanged")]
    assert sorted(detail["reused"] for detail in details) == [False, True, True, True, True]


async def test_a_slip_in_the_body_costs_no_token(world: World) -> None:
    token = world.issuer.mint()
    assert (await world.credentials(token, rol="x")).status_code == 422
    assert (await world.credentials(token)).status_code == 200


# --- Job tokens ----------------------------------------------------------------------------


async def test_a_job_token_fetches_credentials_again_and_again(world: World) -> None:
    answer = await world.exchange(world.issuer.mint())
    body = answer.json()
    assert answer.status_code == 200
    assert body["token_type"] == "Bearer"
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert body["expires_in"] == 3600
    assert body["access_token"].startswith("bkj_")
    headers = {"authorization": f"Bearer {body['access_token']}"}
    for _ in range(2):
        issued = await world.client.post(
            "/v1/credentials", json={"role": "reader"}, headers=headers
        )
        assert issued.status_code == 200, issued.text
    for header in (headers["authorization"], body["access_token"]):
        fetched = await world.client.get("/v1/container/reader", headers={"authorization": header})
        assert fetched.status_code == 200, fetched.text
        assert {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"} <= fetched.json().keys()
    refused = await world.client.get("/v1/container/other", headers=headers)
    assert refused.status_code == 404
    assert refused.json().keys() == {"code", "message"}
    names = {one["detail"]["source_identity"] for one in await world.records("issuance.issued")}
    assert len(names) == 1


@pytest.mark.parametrize("more", [{}, {"client_id": "broker-cli"}])
async def test_the_jobs_last_step_ends_it(world: World, more: dict[str, str]) -> None:
    token = await world.job_token()
    revoked = await world.client.post("/oauth/revoke", data={"token": token, **more})
    assert revoked.status_code == 200
    for path in ("/v1/container/reader", "/v1/access"):
        answer = await world.client.get(path, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401
    assert [record["type"] for record in await world.records("session.revoked")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/me"),
        ("GET", "/v1/roles"),
        ("GET", "/v1/issuances"),
        ("GET", "/v1/users"),
        ("GET", "/v1/audit/records"),
        ("POST", "/v1/mfa/verify"),
        ("POST", "/v1/enrolment-codes"),
    ],
)
async def test_a_job_token_reaches_nothing_of_peoples(world: World, method: str, path: str) -> None:
    token = await world.job_token("gitlab")  # whose workload is even an admin
    answer = await world.client.request(
        method, path, headers={"authorization": f"Bearer {token}"}, json={}
    )
    assert answer.status_code in (401, 404, 405), answer.text
    assert answer.status_code != 404 or path == "/v1/users"


async def test_a_narrowed_entry_ends_the_jobs_it_no_longer_admits(world: World) -> None:
    token = await world.job_token()
    headers = {"authorization": f"Bearer {token}"}
    narrowed = policy_text(world.issuer).replace("environment: production", "environment: staging")
    await world.apply(narrowed)
    answer = await world.client.post("/v1/credentials", json={"role": "reader"}, headers=headers)
    assert answer.status_code == 401
    await world.apply(policy_text(world.issuer))
    answer = await world.client.post("/v1/credentials", json={"role": "reader"}, headers=headers)
    assert answer.status_code == 200


async def test_people_and_jobs_show_their_own_tokens_alone(world: World) -> None:
    ada = await logged_in_person(world.broker, ADA)
    answer = await world.credentials(ada.token)
    assert answer.json()["code"] == "ci_token_rejected"
    assert (await world.exchange(ada.token)).json()["code"] == "ci_token_rejected"
    job_token = await world.job_token()
    assert (await world.credentials(job_token)).json()["code"] == "ci_token_rejected"
    token = world.issuer.mint()
    for path in ("/v1/credentials", "/v1/me", "/v1/container/reader"):
        method = "POST" if path == "/v1/credentials" else "GET"
        refused = await world.client.request(
            method, path, headers={"authorization": f"Bearer {token}"}, json={"role": "reader"}
        )
        assert refused.status_code == 401, path
        assert refused.json()["code"] == "unauthenticated"
    assert (await world.credentials(token)).status_code == 200
    assert ada.token not in str(await world.records("ci.rejected"))


async def test_a_policy_repositorys_job_applies_what_was_merged(world: World) -> None:
    token = await world.job_token("gitlab")
    headers = {"authorization": f"Bearer {token}"}
    current = await world.client.get("/v1/access", headers=headers)
    assert current.status_code == 200
    text = policy_text(world.issuer).replace("role_maximum: 4h", "role_maximum: 3h")
    applied = await world.client.put(
        "/v1/access", content=text, headers={**headers, "if-match": current.headers["etag"]}
    )
    assert applied.status_code == 200, applied.text
    assert applied.json()["applied_by"].startswith("w-")
    other = {"authorization": f"Bearer {await world.job_token('github')}"}
    refused = await world.client.put("/v1/access", content=text, headers=other)
    assert refused.json()["code"] == "forbidden"


async def test_suspending_a_workload_ends_it(world: World) -> None:
    job_token = await world.job_token()
    database: Database = world.broker.app.state.parts.jobs._database
    async with database.begin() as conn:
        await conn.execute(
            update(principals)
            .where(principals.c.kind == "workload")
            .values(suspended_at=await database.now(conn))
        )
    answer = await world.credentials(world.issuer.mint())
    assert answer.json()["code"] == "suspended"
    headers = {"authorization": f"Bearer {job_token}"}
    answer = await world.client.post("/v1/credentials", json={"role": "reader"}, headers=headers)
    assert answer.json()["code"] == "suspended"
    assert len(await world.records("issuance.issued")) == 0


async def test_an_observing_entry_records_and_issues_nothing(world: World) -> None:
    await world.apply(policy_text(world.issuer, more=", mode: observe"))
    answer = await world.credentials(world.issuer.mint(), "tagged")
    assert answer.status_code == 401
    assert "observes" in answer.json()["detail"]
    assert (await world.exchange(world.issuer.mint("gitlab"))).status_code == 400
    assert world.broker.sts.calls == []
    assert await world.records("ci.exchanged") == []
    records = {
        record["subject"]["workload"]: record for record in await world.records("ci.observed")
    }
    would = records["github"]["detail"]
    assert would["would_be"] == "issued"
    assert would["role_arn"] == "arn:aws:iam::111122223333:role/T"
    assert {"key": "ref", "value": "refs/heads/main"} in would["tags"]
    assert records["gitlab"]["detail"]["roles"] == ["reader"]


async def test_of_several_entries_the_one_with_the_role_is_meant(world: World) -> None:
    wide = (
        f"  wide: {{issuer: {world.issuer.issuer('github')!r}, audience: 'https://broker.test',"
        ' preset: github, claims: {repository_id: "42", repository_owner_id: "7"}}'
    )
    text = policy_text(world.issuer, extra_entries=wide)
    await world.apply(f"{text}  - {{role: other, to: {{workload: wide}}, mode: standing}}\n")
    reader = await world.credentials(world.issuer.mint(), "reader")
    other = await world.credentials(world.issuer.mint(), "other")
    assert (reader.status_code, other.status_code) == (200, 200)
    assert reader.json()["source_identity"] != other.json()["source_identity"]
    unclear = await world.exchange(world.issuer.mint())
    assert unclear.json()["code"] == "ci_token_rejected"
    assert (await world.exchange(world.issuer.mint(), scope="role:other")).status_code == 200


async def test_rs256_and_key_rotation(world: World) -> None:
    assert (await world.credentials(world.issuer.mint())).status_code == 200
    world.issuer.keys["k2"] = world.issuer.published["k2"] = rsa_key()
    token = world.issuer.sign(json.dumps(world.issuer.claims()), key_id="k2")
    assert (await world.credentials(token)).status_code == 200


async def test_an_admin_sees_the_jobs_as_any_issuance(world: World) -> None:
    assert (await world.credentials(world.issuer.mint())).status_code == 200
    admin = await logged_in_admin(world.broker)
    listed = (await admin.api.get("/v1/issuances", headers=bearer(admin))).json()
    assert listed["issuances"][0]["principal_id"].startswith("w-")


async def test_head_issues_nothing(world: World) -> None:
    token = await world.job_token()
    answer = await world.client.head("/v1/container/reader", headers={"authorization": token})
    assert answer.status_code == 405
    assert await world.records("issuance.requested") == []


async def test_a_right_that_went_while_waiting_in_line_is_gone(world: World) -> None:
    token = await world.job_token()
    held = Token.parse(token)
    assert held is not None
    async with world.broker.app.state.parts.in_flight.turn(held.hash):
        waiting = asyncio.create_task(
            world.client.get("/v1/container/reader", headers={"authorization": token})
        )
        await asyncio.sleep(0)
        revoked = await world.client.post("/oauth/revoke", data={"token": token})
        assert revoked.status_code == 200
    assert (await waiting).status_code == 401
    assert await world.records("issuance.requested") == []
