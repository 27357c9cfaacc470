"""Two at once, on two processes' worth of connections: one wins, and the other is told so."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from broker.adapters.store.schema import login_sessions, principals, recovery_codes, tokens
from broker.audit.record import EventType
from broker.errors import PreconditionFailed
from broker.identity.login import BootstrapAdmin
from broker.identity.oauth import Redeemed
from broker.identity.sessions import Refreshed, Token, TokenKind
from broker.identity.totp import Burned
from tests.store.stores import Stores

ROUNDS = 3


async def both(replicas: tuple[Stores, Stores], call: Any) -> list[Any]:
    """What `call(store, number)` gives for four at once, two on each replica; refusals too."""
    return await asyncio.gather(
        *(call(replicas[number % 2], number) for number in range(4)), return_exceptions=True
    )


async def test_one_of_several_redeems_a_code(replicas: tuple[Stores, Stores]) -> None:
    login = await replicas[0].log_in()
    for _ in range(ROUNDS):
        code = await replicas[0].code(login)
        results = await both(replicas, lambda store, _, code=code: store.redeem(code))
        # One makes a session; one finds the code spent and ends that session; the rest find
        # nothing left to end.
        assert Counter(redeemed for redeemed, _ in results) == {
            Redeemed.OK: 1,
            Redeemed.REUSED: 1,
            Redeemed.REFUSED: 2,
        }
    made = [row for row in await replicas[0].rows(login_sessions) if row["client"] == "cli"]
    assert len(made) == ROUNDS
    assert all(row["revoked_at"] is not None for row in made)


async def test_a_refresh_token_shown_several_times_leaves_one_live_successor(
    replicas: tuple[Stores, Stores],
) -> None:
    login = await replicas[0].log_in()
    for _ in range(ROUNDS):
        _, refresh, session = await replicas[0].cli(login)
        successors = [Token.new(TokenKind.REFRESH) for _ in range(4)]
        results = await both(
            replicas, lambda store, n, r=refresh, s=successors: store.rotate(r, s[n])
        )
        assert {refreshed for refreshed, _ in results} == {Refreshed.ROTATED}
        live = [
            row["hash"]
            for row in await replicas[0].rows(tokens)
            if row["kind"] == "bkr"
            and row["retired_at"] is None
            and row["login_session_id"] == session.id
        ]
        assert len(live) == 1
        [winner] = [token for token in successors if token.hash == live[0]]
        rotated, _ = await replicas[0].rotate(winner, Token.new(TokenKind.REFRESH))
        assert rotated is Refreshed.ROTATED


async def test_one_of_several_burns_a_step(replicas: tuple[Stores, Stores]) -> None:
    login = await replicas[0].log_in()
    factor = await replicas[0].enrol(login)
    sessions = [(await replicas[0].log_in()).session for _ in range(4)]
    for step in range(200, 200 + ROUNDS):
        results = await both(
            replicas, lambda store, n, step=step: store.burn(factor, step, sessions[n])
        )
        assert Counter(results) == {Burned.ACCEPTED: 1, Burned.REPLAYED: 3}


async def test_one_of_several_spends_a_recovery_code(
    replicas: tuple[Stores, Stores], make_event: Any
) -> None:
    login = await replicas[0].log_in()
    await replicas[0].enrol(login, codes=(b"1", b"2"))
    event = make_event(EventType.MFA_VERIFIED)
    results = await both(
        replicas,
        lambda store, _: store.factors.spend_recovery_code(
            login.principal.id, b"1", login.session.id, event
        ),
    )
    assert sorted(results) == [False, False, False, True]
    assert [row["code_hash"] for row in await replicas[0].rows(recovery_codes)] == [b"2"]


async def test_one_of_several_spends_an_enrolment_code(replicas: tuple[Stores, Stores]) -> None:
    await replicas[0].invite(b"code", provider="corp", email="shared@example.com")
    # Two people of one address, one after the other: the code is still good once.
    logins = [await replicas[0].log_in(name, email="shared@example.com") for name in "abcd"]
    pending = [await replicas[0].start_factor(login.principal.id) for login in logins]
    results = await both(
        replicas, lambda store, n: store.confirm(pending[n], logins[n], enrolment_code=b"code")
    )
    assert Counter(results) == {Burned.ACCEPTED: 1, Burned.GONE: 3}


async def test_one_of_several_browsers_enrols_the_first_factor(
    replicas: tuple[Stores, Stores],
) -> None:
    logins = [await replicas[0].log_in() for _ in range(4)]
    factor = await replicas[0].start_factor(logins[0].principal.id)
    results = await both(replicas, lambda store, n: store.confirm(factor, logins[n]))
    assert Counter(results) == {Burned.ACCEPTED: 1, Burned.GONE: 3}


async def test_attempts_at_once_are_all_counted(replicas: tuple[Stores, Stores]) -> None:
    login = await replicas[0].log_in()
    attempts = await both(
        replicas, lambda store, _: store.factors.count_attempt(login.principal.id)
    )
    assert sorted(attempt.failures for attempt in attempts) == [1, 2, 3, 4]


async def test_one_of_several_applies_the_next_version(replicas: tuple[Stores, Stores]) -> None:
    for version in range(ROUNDS):
        results = await both(
            replicas,
            lambda store, n, version=version: store.apply(expected=version, text=f"# {n}"),
        )
        refused = [one for one in results if isinstance(one, PreconditionFailed)]
        [applied] = [one for one in results if one not in refused]
        assert len(refused) == 3
        assert applied == await replicas[1].access.current_policy()
        assert applied.number == version + 1


async def test_first_logins_of_one_subject_make_one_principal(
    replicas: tuple[Stores, Stores],
) -> None:
    results = await both(replicas, lambda store, _: store.log_in())
    assert len({login.principal.id for login in results}) == 1
    assert len(await replicas[0].rows(principals)) == 1
    firsts = [record["detail"]["first_login"] for record in await replicas[0].records()]
    assert sorted(firsts) == [False, False, False, True]


async def test_one_of_several_becomes_the_first_admin(replicas: tuple[Stores, Stores]) -> None:
    bootstrap = tuple(BootstrapAdmin(provider="corp", email=f"{n}@example.com") for n in range(4))
    results = await both(replicas, lambda store, n: store.log_in(str(n), bootstrap=bootstrap))
    assert sorted(login.bootstrapped for login in results) == [False, False, False, True]


async def test_a_first_login_and_the_policy_that_names_it_always_meet(
    replicas: tuple[Stores, Stores],
) -> None:
    for version in range(ROUNDS):
        subject = f"s{version}"
        name = f"corp/{subject}@example.com"
        await asyncio.gather(replicas[0].apply(name, expected=version), replicas[1].log_in(subject))
        person = await replicas[0].people.find_by_subject("https://id.example.com", subject)
        assert person.user_names == {name}


async def test_one_of_several_callbacks_takes_the_attempt(replicas: tuple[Stores, Stores]) -> None:
    await replicas[0].logins.open_login_attempt(b"1", "corp", "/")
    taken = await both(replicas, lambda store, _: store.logins.take_login_attempt(b"1"))
    assert sorted(one is not None for one in taken) == [False, False, False, True]


async def test_several_invitations_leave_one_live_code(replicas: tuple[Stores, Stores]) -> None:
    login = await replicas[0].log_in()
    targets = (
        {"principal_id": login.principal.id},
        {"provider": "corp", "email": "grace@example.com"},
    )
    await both(replicas, lambda store, n: store.invite(bytes([n]), **targets[n // 2]))
    who = login.principal.id
    live = [await replicas[0].factors.find_enrolment_code(bytes([n]), who) for n in range(4)]
    assert live.count(True) == 1


async def test_verbs_about_one_person_never_wait_for_each_other_in_a_circle(
    replicas: tuple[Stores, Stores], make_event: Any
) -> None:
    """Many at once: each ends with a result, none as the victim of a deadlock."""
    login = await replicas[0].log_in()
    factor = await replicas[0].enrol(login, codes=(b"1",))
    who = login.principal.id
    for number in range(6):
        other = await replicas[0].log_in()
        access, refresh, _ = await replicas[0].cli(other)
        code = await replicas[0].code(other)
        first, second = replicas
        results = await asyncio.gather(
            first.rotate(refresh, Token.new(TokenKind.REFRESH)),
            second.redeem(code),
            first.burn(factor, 500 + number, other.session),
            second.factors.count_attempt(who),
            first.sessions.revoke_token(access, make_event(EventType.SESSION_REVOKED)),
            second.log_in(),
            first.invite(b"%d" % number, principal_id=who),
            second.apply("corp/grace@example.com", expected=number),
            first.sessions.end_login_session(
                other.session.id, make_event(EventType.SESSION_REVOKED)
            ),
            second.factors.spend_recovery_code(
                who, b"1", other.session.id, make_event(EventType.MFA_VERIFIED)
            ),
        )
        assert len(results) == 10
    await first.records()
