"""Issuing over hops: each one recorded, its keys used for the next call alone."""

from __future__ import annotations

from typing import Any

import pytest

from broker.audit.record import EventType
from broker.errors import AwsDenied
from broker.issuance.request import CredentialRequest
from tests.unit.issuance.issue_world import PERSON, SECRETS, World

FAR = CredentialRequest(role="far")


async def test_every_hop_is_in_the_record_and_its_keys_make_the_next_call_alone():
    world = World()
    issued = await world.issue(FAR)
    assert world.order == ["request", "sts", "sts", "sts", "conclude"]
    assert world.used == [None, "ASIAEXAMPLE000000001", "ASIAEXAMPLE000000002"]
    assert issued.credentials.access_key_id == "ASIAEXAMPLE000000003"
    assert issued.source_identity == PERSON.id
    (asked,) = world.of(EventType.ISSUANCE_REQUESTED)
    hops: Any = asked.detail["hops"]
    assert [hop["role_arn"].rpartition("/")[2] for hop in hops] == ["Hub", "Gate"]
    assert [hop["source_identity"] for hop in hops] == [PERSON.id, None]
    assert asked.detail["source_identity"] == PERSON.id
    (done,) = world.of(EventType.ISSUANCE_ISSUED)
    passed: Any = done.detail["hops"]
    assert [hop["access_key_id"] for hop in passed] == world.used[1:]
    for secret in SECRETS:
        assert secret not in str([event.detail for event in world.events])
    again = await world.issue(FAR)
    assert world.used[3:] == [None, "ASIAEXAMPLE000000004", "ASIAEXAMPLE000000005"]
    assert again.issuance_id != issued.issuance_id


@pytest.mark.parametrize(
    ("refuses", "passed"),
    [
        ("arn:aws:iam::999988887777:role/Hub", 0),
        ("arn:aws:iam::111122223333:role/Gate", 1),
        ("arn:aws:iam::111122223333:role/Far", 2),
    ],
)
async def test_a_refused_hop_ends_it_and_the_record_says_where(refuses, passed):
    world = World(refuses=refuses)
    with pytest.raises(AwsDenied):
        await world.issue(FAR)
    assert world.order == ["request", *["sts"] * (passed + 1), "fail"]
    (failed,) = world.of(EventType.ISSUANCE_FAILED)
    assert failed.detail["failed_at"] == refuses
    assert len(failed.detail.get("hops", ())) == passed  # type: ignore[arg-type]


async def test_a_direct_role_has_no_hops_in_its_record():
    world = World()
    await world.issue()
    assert all("hops" not in event.detail for event in world.events)


async def test_over_one_hop_its_keys_make_the_call():
    world = World()
    issued = await world.issue(CredentialRequest("beyond"))
    assert world.used == [None, "ASIAEXAMPLE000000001"]
    assert issued.credentials.access_key_id == "ASIAEXAMPLE000000002"
