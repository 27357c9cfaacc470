"""`GET /v1/access/trust-policy/{role}`: for admins, and for the identity that AWS says."""

from __future__ import annotations

from broker.errors import AwsUnavailable
from broker.issuance.sts import StsFailure
from tests.web.conftest import Running
from tests.web.journeys import POLICY, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA, GRACE
from tests.web.test_api import apply, problem

PATH = "/v1/access/trust-policy/data-reader"
GUARDED = POLICY.replace(
    "role_maximum: 4h", "external_id: canary-external-id\n    role_maximum: 4h"
)
HOP = "arn:aws:iam::444455556666:role/Hop"


async def test_an_admin_gets_what_to_paste(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    assert (await apply(admin, GUARDED)).status_code == 200
    answer = await admin.api.get(PATH, headers=bearer(admin))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["role"] == "data-reader"
    assert body["role_arn"] == "arn:aws:iam::111122223333:role/DataReader"
    assert body["principal"] == "arn:aws:iam::999988887777:role/BrokerHub"
    assert body["hops"] == []
    statements = body["policy"]["Statement"]
    assert [one["Action"] for one in statements] == [
        "sts:AssumeRole",
        "sts:TagSession",
        "sts:SetSourceIdentity",
    ]
    assert {one["Principal"]["AWS"] for one in statements} == {body["principal"]}
    assert statements[0]["Condition"]["StringEquals"] == {"sts:ExternalId": "canary-external-id"}
    assert any("path" in note for note in body["notes"])
    assert broker.sts.calls == []


async def test_nobody_else_does(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    grace = await logged_in_person(broker, GRACE)
    ada = await logged_in_person(broker, ADA)
    assert (await apply(admin, GUARDED)).status_code == 200
    for who in (ada, grace):
        assert problem(await who.api.get(PATH, headers=bearer(who))) == (403, "forbidden")
    for name in ("no-such-role", "NAME"):
        answer = await admin.api.get(f"/v1/access/trust-policy/{name}", headers=bearer(admin))
        assert problem(answer)[0] in (404, 422)


async def test_a_user_is_named_as_it_is_and_root_not_at_all(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    assert (await apply(admin, GUARDED)).status_code == 200
    broker.sts.arn = "arn:aws:iam::999988887777:user/ops/broker"
    body = (await admin.api.get(PATH, headers=bearer(admin))).json()
    assert body["principal"] == "arn:aws:iam::999988887777:user/ops/broker"
    assert not any("path" in note for note in body["notes"])
    for arn in (
        "arn:aws:iam::999988887777:root",
        "arn:aws:sts::999988887777:federated-user/broker",
    ):
        broker.sts.arn = arn
        refused = await admin.api.get(PATH, headers=bearer(admin))
        assert problem(refused) == (409, "conflict")
        assert arn in refused.json()["detail"]


async def test_every_hop_has_its_own(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    behind = GUARDED.replace("    role_maximum", f"    via: [{HOP}]\n    role_maximum")
    assert (await apply(admin, behind)).status_code == 200
    body = (await admin.api.get(PATH, headers=bearer(admin))).json()
    assert body["principal"] == HOP
    [hop] = body["hops"]
    assert hop["role_arn"] == HOP
    assert hop["principal"] == "arn:aws:iam::999988887777:role/BrokerHub"
    assert "canary-external-id" not in str(hop)


async def test_an_sts_that_does_not_answer_is_said(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    assert (await apply(admin, GUARDED)).status_code == 200
    broker.sts.failure = StsFailure(AwsUnavailable("The broker can't reach AWS STS."))
    answer = await admin.api.get(PATH, headers=bearer(admin))
    assert problem(answer) == (502, "aws_unavailable")


async def test_a_role_of_several_entries_lets_in_each(broker: Running) -> None:
    """Pasting one entry's policy must not shut another out."""
    admin = await logged_in_admin(broker)
    arn = "arn:aws:iam::111122223333:role/DataReader"
    twin = (
        f"roles:\n  twin: {{account: prod, role_arn: {arn}, unscoped: true, "
        f"external_id: twins-id}}\n"
        f"  through: {{account: prod, role_arn: {arn}2, unscoped: true, via: [{arn}]}}\n"
    )
    assert (await apply(admin, GUARDED.replace("roles:\n", twin, 1))).status_code == 200
    body = (await admin.api.get(PATH, headers=bearer(admin))).json()
    asked = [one["Condition"].get("StringEquals") for one in body["policy"]["Statement"]]
    assert {"sts:ExternalId": "canary-external-id"} in asked
    assert {"sts:ExternalId": "twins-id"} in asked
    sids = [one["Sid"] for one in body["policy"]["Statement"]]
    assert sids[:3] == ["BrokerAssumeRole", "BrokerTagSession", "BrokerSetSourceIdentity"]
    assert len(set(sids)) == len(sids)
