"""Expired rows go, and nothing that still means something."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import insert

from broker.adapters.store.schema import (
    device_logins,
    enrolment_codes,
    login_attempts,
    login_sessions,
    oauth_codes,
    throttle_counters,
    tokens,
)
from broker.adapters.store.sweep import sweep
from broker.identity.oauth import Redeemed
from broker.identity.sessions import Refreshed, Token, TokenKind
from broker.identity.throttle import Limit
from tests.store.stores import Stores
from tests.store.test_devices import started

SWEPT = (
    throttle_counters,
    login_attempts,
    enrolment_codes,
    tokens,
    oauth_codes,
    device_logins,
    login_sessions,
)


async def one_of_each(stores: Stores) -> None:
    login = await stores.log_in()
    await stores.cli(login)
    await stores.logins.open_login_attempt(b"1", "corp", "/")
    await stores.invite(b"1", principal_id=login.principal.id)
    await stores.throttle.admit(Limit("l", 5, 1000), "key")
    await started(stores)


async def test_nothing_that_is_live_is_deleted(stores: Stores) -> None:
    await one_of_each(stores)
    before = await stores.everything()
    assert await sweep(stores.database) == 0
    assert await stores.everything() == before


async def test_what_expired_goes_and_people_and_records_stay(stores: Stores, ago: Any) -> None:
    await one_of_each(stores)
    for table in SWEPT:
        await stores.change(table, expires_at=ago(days=31))
    before = await stores.everything()
    # Two sessions, a cookie and the CLI's two tokens, and one of each of the others.
    assert await sweep(stores.database) == 2 + 3 + 5
    after = await stores.everything()
    swept = {table.name for table in SWEPT}
    assert {name for name in after if after[name] != before[name]} == swept
    assert all(after[name] == [] for name in swept)


async def test_showing_a_spent_code_or_an_old_refresh_token_is_still_noticed(
    stores: Stores, ago: Any
) -> None:
    login = await stores.log_in()
    _, refresh, _ = await stores.cli(login)
    second = Token.new(TokenKind.REFRESH)
    await stores.rotate(refresh, second)
    await stores.rotate(second, Token.new(TokenKind.REFRESH))
    code = await stores.code(login)
    await stores.redeem(code)
    await stores.change(oauth_codes, expires_at=ago(hours=11))
    await sweep(stores.database)
    assert (await stores.redeem(code))[0] is Redeemed.REUSED
    assert (await stores.rotate(refresh, Token.new(TokenKind.REFRESH)))[0] is Refreshed.REUSED


async def test_replicas_sweep_many_rows_together_in_small_transactions(
    replicas: tuple[Stores, Stores], ago: Any
) -> None:
    first, second = replicas
    gone = ago(seconds=1)
    async with first.database.begin() as conn:
        await conn.execute(
            insert(login_attempts),
            [
                {"binding_hash": b"%d" % n, "provider": "p", "next_path": "/", "expires_at": gone}
                for n in range(95)
            ],
        )
    deleted = await asyncio.gather(
        sweep(first.database, batch=10), sweep(second.database, batch=10)
    )
    assert await sweep(first.database, batch=10) + sum(deleted) == 95
    assert await first.rows(login_attempts) == []
