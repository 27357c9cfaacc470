"""Reading grants and issuances."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import insert

from broker.access.grant import Grant
from broker.adapters.store.issuances import SqlIssuances
from broker.adapters.store.schema import grants, issuances
from broker.issuance.journal import State
from tests.store.stores import Stores


async def put_grant(
    stores: Stores,
    principal_id: str,
    id_: str,
    ago: Any,
    *,
    begins: int = 60,
    ends: int = -60,
    **values: Any,
) -> Grant:
    row = {
        "id": id_,
        "principal_id": principal_id,
        "role": "reader",
        "not_before": ago(seconds=begins),
        "expires_at": ago(seconds=ends),
        "granted_by": "p-admin",
        "reason": "why",
        "created_at": ago(),
    }
    async with stores.database.begin() as conn:
        await conn.execute(insert(grants).values(**(row | values)))
    return Grant(
        id_, principal_id, "reader", row["not_before"], row["expires_at"], "p-admin", "why"
    )


async def test_grants_in_force_or_to_come_the_longest_first(stores: Stores, ago: Any) -> None:
    grace = (await stores.log_in()).principal.id
    ada = (await stores.log_in("ada")).principal.id
    short = await put_grant(stores, grace, "g1", ago)
    long = await put_grant(stores, grace, "g2", ago, ends=-600)
    early = await put_grant(stores, grace, "early", ago, begins=-30, ends=-90)
    await put_grant(stores, grace, "late", ago, ends=1)
    await put_grant(stores, grace, "revoked", ago, revoked_at=ago())
    await put_grant(stores, ada, "other", ago)
    assert await stores.grants.current_grants(grace) == (long, early, short)
    assert await stores.grants.current_grants("p-unknown") == ()


async def put_issuance(
    stores: Stores, id_: str, principal_id: str, requested_at: datetime, **values: Any
) -> None:
    row = {
        "id": id_,
        "principal_id": principal_id,
        "login_session_id": "ls-1",
        "role": "reader",
        "role_arn": "arn:aws:iam::111122223333:role/Reader",
        "account_id": "111122223333",
        "session_name": "grace-x",
        "source_identity": principal_id,
        "duration_seconds": 3600,
        "state": "requested",
        "requested_at": requested_at,
    }
    async with stores.database.begin() as conn:
        await conn.execute(insert(issuances).values(**(row | values)))


async def ids(reader: SqlIssuances, *args: Any, **options: Any) -> list[str]:
    return [one.id for one in await reader.issuances(*args, **options)]


async def test_issuances_newest_first_page_by_page(stores: Stores, ago: Any) -> None:
    same = ago(minutes=1)
    await put_issuance(stores, "i1", "p-grace", ago(minutes=5))
    await put_issuance(stores, "i2", "p-grace", same)
    await put_issuance(stores, "i3", "p-ada", same)
    await put_issuance(stores, "i4", "p-grace", same)
    reader = stores.issuances
    assert await ids(reader, None) == ["i4", "i3", "i2", "i1"]
    assert await ids(reader, "p-grace") == ["i4", "i2", "i1"]
    assert await ids(reader, None, limit=2) == ["i4", "i3"]
    assert await ids(reader, None, after="i3", limit=2) == ["i2", "i1"]
    assert await ids(reader, "p-grace", after="i4") == ["i2", "i1"]
    assert await ids(reader, None, limit=-1) == []


async def test_another_persons_issuance_is_no_place_on_ones_list(stores: Stores, ago: Any) -> None:
    await put_issuance(stores, "i1", "p-grace", ago(minutes=5))
    await put_issuance(stores, "i2", "p-ada", ago(minutes=1))
    assert await ids(stores.issuances, "p-grace", after="i2") == []
    assert await ids(stores.issuances, None, after="unknown") == []


async def test_an_issuance_as_it_was_concluded(stores: Stores, ago: Any) -> None:
    await put_issuance(
        stores,
        "i1",
        "p-grace",
        ago(minutes=5),
        state="issued",
        concluded_at=ago(minutes=4),
        expires_at=ago(minutes=-55),
        access_key_id="ASIAEXAMPLE",
        assumed_role_arn="arn:aws:sts::111122223333:assumed-role/Reader/grace-x",
        assumed_role_id="AROAEXAMPLE:grace-x",
        sts_request_id="r-9",
        policy_sha256="ab",
        grant_id="g1",
    )
    one = await stores.issuances.issuance("i1")
    assert one.state is State.ISSUED
    assert one.access_key_id == "ASIAEXAMPLE"
    assert one.assumed_role_id == "AROAEXAMPLE:grace-x"
    assert one.grant_id == "g1"
    assert one.detail["sts_request_id"] == "r-9"
    assert one.detail["concluded_at"].endswith("Z")
    assert await stores.issuances.issuance("unknown") is None
