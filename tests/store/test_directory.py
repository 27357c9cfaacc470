"""Who is known, page by page, and ending login sessions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.access.policy import EMPTY
from broker.audit.record import EventType
from broker.identity.login import BootstrapAdmin
from broker.identity.principal import PrincipalKind
from broker.identity.sessions import Token, TokenKind
from tests.store.stores import ISSUER, Stores


async def handles(stores: Stores, **options: Any) -> list[str]:
    chosen = {"kind": PrincipalKind.PERSON} | options
    found = await stores.directory.known_principals(**chosen)
    return [one.principal.handle.partition("@")[0] for one in found]


async def test_people_by_handle_page_by_page(stores: Stores) -> None:
    for name in ("cleo", "ada", "bob"):
        await stores.log_in(name)
    assert await handles(stores) == ["ada", "bob", "cleo"]
    first = await stores.directory.known_principals(kind=PrincipalKind.PERSON, limit=2)
    assert await handles(stores, after=first[-1].principal.id) == ["cleo"]
    assert await handles(stores, after="p-unknown") == []
    assert await handles(stores, kind=PrincipalKind.WORKLOAD) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ADA", ["ada"]),
        ("@example.com", ["ada", "b%b"]),
        ("b%b", ["b%b"]),
        ("%", ["b%b"]),
        ("_da", []),
        ("'; DROP TABLE principals; --", []),
    ],
)
async def test_a_text_is_looked_for_as_it_is(stores: Stores, text: str, found: list[str]) -> None:
    await stores.log_in("ada")
    await stores.log_in("b%b")
    assert await handles(stores, text=text) == found


async def test_the_filters_and_what_each_entry_says(stores: Stores) -> None:
    bootstrap = (BootstrapAdmin(issuer=ISSUER, subject="ada"),)
    await stores.apply("corp/ada@example.com")
    ada = await stores.log_in("ada", bootstrap=bootstrap)
    await stores.enrol(ada)
    await stores.log_in("ada")
    bob = (await stores.log_in("bob", groups=frozenset({"corp/x"}))).principal.id
    await stores.suspend_all(bob, await policy_of(stores))
    assert await handles(stores, group="corp/sre") == ["ada"]
    assert await handles(stores, group="corp/sr") == []
    assert await handles(stores, has_confirmed_factor=True) == ["ada"]
    assert await handles(stores, has_confirmed_factor=False) == ["bob"]
    assert await handles(stores, suspended=True) == ["bob"]
    assert await handles(stores, suspended=False) == ["ada"]
    known = await stores.directory.known_principal(ada.principal.id)
    assert (known.has_confirmed_factor, known.pinned_admin, known.live_sessions) == (True, True, 2)
    assert known.principal.user_names == {"corp/ada@example.com"}
    known = await stores.directory.known_principal(bob)
    assert (known.suspended_reason, known.live_sessions) == ("stolen laptop", 0)
    assert known.principal.suspended_at is not None
    assert await stores.directory.known_principal("p-unknown") is None


async def policy_of(stores: Stores) -> Any:
    return replace(EMPTY, number=(await stores.access.current_policy()).number)


async def test_one_session_or_all_but_one_ends(stores: Stores, make_event: Any) -> None:
    cookies = [Token.new(TokenKind.BROWSER) for _ in range(4)]
    ids = [(await stores.log_in(cookie=cookie)).session.id for cookie in cookies]
    stranger = Token.new(TokenKind.BROWSER)
    other = await stores.log_in("ada", cookie=stranger)
    me = (await stores.people.find_by_subject(ISSUER, "grace")).id
    listed = await stores.directory.live_sessions(me)
    assert [one.id for one in listed] == ids[::-1]
    assert [one.id for one in await stores.directory.live_sessions(me, limit=2)] == ids[:1:-1]
    after = await stores.directory.live_sessions(me, after=ids[2])
    assert [one.id for one in after] == ids[1::-1]
    assert await stores.directory.live_sessions(me, after=other.session.id) == ()

    end = stores.directory.end_login_sessions
    event = make_event(EventType.SESSION_REVOKED)
    assert await end(me, event, only=other.session.id) == ()
    assert await stores.alive(stranger)
    assert await end(me, event, only=ids[0]) == (ids[0],)
    assert await end(me, event, only=ids[0]) == ()
    assert await end(me, event, but=ids[3]) == tuple(sorted(ids[1:3]))
    assert [await stores.alive(cookie) for cookie in cookies] == [False, False, False, True]
    assert await end(me, event) == (ids[3],)
    assert await end("p-unknown", event) == ()
    assert (await stores.record_types()).count("session.revoked") == 3
