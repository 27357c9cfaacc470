"""Access policies that wait for another admin, external ids, and who a plan is about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert

from broker.access.four_eyes import Alone
from broker.access.plan import Members, Named
from broker.access.policy import EMPTY, Group, User
from broker.access.versions import MAX_PENDING, ChangeState, NewPolicy
from broker.adapters.store.schema import access_changes, audit_head, grants, principals
from broker.audit.record import EventType
from broker.errors import (
    AuditUnavailable,
    Conflict,
    NotFound,
    PreconditionFailed,
    SelfApproval,
    Suspended,
)
from broker.identity.login import BootstrapAdmin
from tests.store.stores import ISSUER, Stores, event

TEXT = "version: 1\n# wider\n"
MORE = NewPolicy(TEXT, frozenset({"corp/new@example.com"}), frozenset({"arn:aws:iam::1:role/A"}))
CHANGES = ({"kind": "right", "change": "added", "name": "admin", "subject": "group corp/sre"},)


async def propose(stores: Stores, author: str = "p-ada", **changes: Any) -> Any:
    arguments: dict[str, Any] = {"expected": 1, "author": author, "gains": ["gains role admin"]}
    return await stores.changes.propose_change(
        MORE, changes=CHANGES, event=event(EventType.ACCESS_PROPOSED), **(arguments | changes)
    )


async def approve(stores: Stores, change_id: str, approver: str = "p-bob") -> Any:
    return await stores.changes.approve_change(
        change_id,
        MORE,
        approver=approver,
        approved=event(EventType.ACCESS_APPROVED),
        applied=event(EventType.ACCESS_APPLIED),
    )


async def withdraw(stores: Stores, change_id: str, by: str = "p-ada") -> Any:
    return await stores.changes.withdraw_change(
        change_id, by=by, event=event(EventType.ACCESS_WITHDRAWN)
    )


async def test_a_change_waits_and_another_approves_it(stores: Stores) -> None:
    await stores.apply()
    change = await propose(stores)
    assert change.state is ChangeState.PENDING
    assert (change.base_version, change.text, change.author) == (1, TEXT, "p-ada")
    assert change.gains == ("gains role admin",)
    assert change.changes == CHANGES
    assert change.expires_at - change.created_at == timedelta(days=7)
    assert (await stores.access.current_policy()).number == 1
    assert await stores.access.pending_user_names() == frozenset()

    stored = await approve(stores, change.id)
    assert (stored.number, stored.text, stored.applied_by) == (2, TEXT, "p-ada")
    assert await stores.access.current_policy() == stored
    assert await stores.access.pending_user_names() == {"corp/new@example.com"}
    after = await stores.changes.change(change.id)
    assert (after.state, after.decided_by, after.applied_version) == (
        ChangeState.APPROVED,
        "p-bob",
        2,
    )
    proposed, approved, applied = (await stores.records())[-3:]
    assert [one["type"] for one in (proposed, approved, applied)] == [
        "access.proposed",
        "access.approved",
        "access.applied",
    ]
    for record in (proposed, approved, applied):
        assert record["subject"] == {"principal": "p-ada", "change": change.id}
    assert applied["detail"]["version"] == 2


async def test_nobody_approves_their_own(stores: Stores) -> None:
    await stores.apply()
    change = await propose(stores)
    before = await stores.everything()
    with pytest.raises(SelfApproval):
        await approve(stores, change.id, "p-ada")
    assert await stores.everything() == before


async def test_a_moved_base_is_refused_and_nothing_is_lost(stores: Stores) -> None:
    await stores.apply()
    change = await propose(stores)
    await stores.apply(expected=1, text="version: 1\n# another\n")
    before = await stores.everything()
    with pytest.raises(PreconditionFailed, match="version 2"):
        await approve(stores, change.id)
    with pytest.raises(PreconditionFailed):
        await propose(stores)
    assert await stores.everything() == before
    assert (await stores.changes.change(change.id)).text == TEXT


async def test_a_change_is_decided_once(stores: Stores) -> None:
    await stores.apply()
    withdrawn = await propose(stores)
    gone = await withdraw(stores, withdrawn.id)
    assert (gone.state, gone.decided_by) == (ChangeState.WITHDRAWN, "p-ada")
    approved = await propose(stores)
    await approve(stores, approved.id)
    before = await stores.everything()
    for change in (withdrawn, approved):
        with pytest.raises(Conflict):
            await approve(stores, change.id)
        with pytest.raises(Conflict):
            await withdraw(stores, change.id)
    for verb in (approve, withdraw):
        with pytest.raises(NotFound):
            await verb(stores, "chg-none")
    assert await stores.everything() == before
    assert await stores.changes.change("chg-none") is None


@pytest.mark.parametrize(("seconds", "lives"), [(-1, False), (60, True)])
async def test_a_change_expires(stores: Stores, seconds: int, lives: bool) -> None:
    await stores.apply()
    change = await propose(stores)
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    await stores.change(access_changes, access_changes.c.id == change.id, expires_at=moment)
    if lives:
        assert (await approve(stores, change.id)).number == 2
        return
    assert (await stores.changes.change(change.id)).state is ChangeState.EXPIRED
    with pytest.raises(Conflict, match="expired"):
        await approve(stores, change.id)
    with pytest.raises(Conflict, match="expired"):
        await withdraw(stores, change.id)
    assert (await stores.access.current_policy()).number == 1


async def test_an_author_has_so_many_waiting_and_no_more(stores: Stores) -> None:
    await stores.apply()
    made = [await propose(stores) for _ in range(MAX_PENDING)]
    with pytest.raises(Conflict):
        await propose(stores)
    await propose(stores, "p-bob")
    await withdraw(stores, made[0].id)
    await propose(stores)

    listed: list[str] = []
    page = await stores.changes.changes(limit=7)
    while page:
        listed += [one.id for one in page]
        page = await stores.changes.changes(limit=7, after=listed[-1])
    assert len(listed) == len(set(listed)) == MAX_PENDING + 2
    assert {one.id for one in made} <= set(listed)
    assert await stores.changes.changes(limit=7, after="chg-none") == ()


async def test_of_several_at_once_one_decides(replicas: tuple[Stores, Stores]) -> None:
    first, second = replicas
    await first.apply()
    change = await propose(first)
    results = await asyncio.gather(
        approve(first, change.id),
        approve(second, change.id, "p-eve"),
        withdraw(second, change.id),
        withdraw(first, change.id),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, Exception) for one in results) == 1
    assert all(isinstance(one, Conflict) for one in results if isinstance(one, Exception))
    decided = [
        t for t in await first.record_types() if t in ("access.approved", "access.withdrawn")
    ]
    assert len(decided) == 1


async def test_of_two_policies_at_once_one_wins_and_nothing_of_the_other_stays(
    replicas: tuple[Stores, Stores],
) -> None:
    first, second = replicas
    await first.apply()
    change = await propose(first)
    for number in range(1, 4):
        texts = [f"version: 1\n# {number} {name}\n" for name in "ab"]
        results = await asyncio.gather(
            first.apply("corp/a@example.com", expected=number, text=texts[0]),
            second.apply("corp/b@example.com", expected=number, text=texts[1]),
            approve(second, change.id),
            return_exceptions=True,
        )
        won = [one for one in results if not isinstance(one, Exception)]
        assert len(won) == 1
        refused = [one for one in results if isinstance(one, Exception)]
        assert all(isinstance(one, PreconditionFailed | Conflict) for one in refused), refused
        stored = await first.access.current_policy()
        assert stored.number == number + 1
        assert stored == won[0]
        names = await first.access.pending_user_names()
        assert (
            names
            == {
                texts[0]: {"corp/a@example.com"},
                texts[1]: {"corp/b@example.com"},
                TEXT: {"corp/new@example.com"},
            }[stored.text]
        )
    versions = [
        one["detail"]["version"] for one in await first.records() if one["type"] == "access.applied"
    ]
    assert versions == [1, 2, 3, 4]


async def test_an_external_id_is_made_once_for_a_role(stores: Stores) -> None:
    arns = ("arn:aws:iam::1:role/A", "arn:aws:iam::1:role/B")
    first = await stores.apply(external_ids_for=arns[:1])
    assert set(first.external_ids) == {arns[0]}
    second = await stores.apply(expected=1, external_ids_for=arns)
    assert second.external_ids[arns[0]] == first.external_ids[arns[0]]
    assert second.external_ids[arns[0]] != second.external_ids[arns[1]]
    # A role that leaves the policy and comes back has the id that its trust policy names.
    gone = await stores.apply(expected=2)
    assert gone.external_ids == second.external_ids
    assert await stores.access.current_policy() == gone
    for made in second.external_ids.values():
        assert len(made) >= 32
        assert made not in str(await stores.records())
        assert made not in repr(second)


async def test_a_plan_is_about_those_who_are_known(stores: Stores) -> None:
    async def known(**changes: Any) -> Any:
        arguments: dict[str, Any] = {
            "users": frozenset(),
            "groups": frozenset(),
            "admins": frozenset(),
            "applier": "p-none",
        }
        return await stores.known_people.known_people(**(arguments | changes))

    empty = await known()
    assert (empty.users, empty.groups, empty.admins, empty.granted) == ({}, {}, (), frozenset())

    ids = {}
    for number in range(12):
        login = await stores.log_in(f"sre{number:02}", groups=frozenset({"corp/sre", "corp/x"}))
        ids[f"sre{number:02}"] = login.principal.id
    bootstrap = (BootstrapAdmin(issuer=ISSUER, subject="root", provider=None, email=None),)
    root = (await stores.log_in("root", groups=frozenset(), bootstrap=bootstrap)).principal
    bound = (await stores.log_in("grace", groups=frozenset({"corp/sre's"}))).principal
    await stores.apply("corp/grace@example.com", "corp/nobody@example.com")
    twice = [
        await stores.log_in(f"two-{n}", email="two@example.com", groups=frozenset())
        for n in range(2)
    ]
    assert len(twice) == 2

    found = await known(
        users=frozenset(
            {
                "corp/grace@example.com",
                "corp/nobody@example.com",
                "corp/root@example.com",
                "corp/two@example.com",
                bound.id,
                "p-aaaaaaaaaaaaaaaa",
            }
        ),
        groups=frozenset({"corp/sre", "corp/none"}),
        admins=frozenset({Group("corp/none"), User("corp/grace@example.com")}),
    )
    assert found.users == {
        "corp/grace@example.com": Named(bound.id, "grace@example.com"),
        "corp/nobody@example.com": None,
        # Not bound yet, but applying would bind it.
        "corp/root@example.com": Named(root.id, "root@example.com"),
        # The address was passed on.
        "corp/two@example.com": None,
        bound.id: Named(bound.id, "grace@example.com"),
        "p-aaaaaaaaaaaaaaaa": None,
    }
    members = found.groups["corp/sre"]
    assert set(found.groups) == {"corp/sre"}
    assert members == Members(
        12, tuple(Named(ids[f"sre{n:02}"], f"sre{n:02}@example.com") for n in range(10))
    )
    assert {(one.principal.id, one.pinned_admin) for one in found.admins} == {
        (root.id, True),
        (bound.id, False),
    }
    by_group = await known(admins=frozenset({Group("corp/x")}))
    assert {one.principal.id for one in by_group.admins} == {root.id, *ids.values()}
    await stores.change(
        principals, principals.c.id == root.id, email_verified=False, pinned_admin_at=None
    )
    unverified = await known(
        users=frozenset({"corp/root@example.com"}),
        admins=frozenset({User("corp/root@example.com")}),
    )
    assert (unverified.users, unverified.admins) == ({"corp/root@example.com": None}, ())


@pytest.mark.parametrize("verb", ["propose", "approve", "withdraw"])
async def test_without_its_record_nothing_changes(stores: Stores, verb: str) -> None:
    await stores.apply()
    change = await propose(stores)
    async with stores.database.begin() as conn:
        await conn.execute(delete(audit_head))
    before = await stores.everything()
    acts: dict[str, Callable[[], Awaitable[Any]]] = {
        "propose": lambda: propose(stores),
        "approve": lambda: approve(stores, change.id),
        "withdraw": lambda: withdraw(stores, change.id),
    }
    with pytest.raises(AuditUnavailable):
        await acts[verb]()
    assert await stores.everything() == before


async def test_the_appliers_grants_in_force_or_to_come_are_known(stores: Stores) -> None:
    ada = (await stores.log_in("ada")).principal.id
    bob = (await stores.log_in("bob")).principal.id
    now = datetime.now(UTC)

    def row(role: str, begins: int, ends: int, holder: str = ada, **more: Any) -> dict[str, Any]:
        return {
            "id": f"g-{role}",
            "principal_id": holder,
            "role": role,
            "not_before": now + timedelta(hours=begins),
            "expires_at": now + timedelta(hours=ends),
            "granted_by": "p-admin",
            "reason": "why",
            "created_at": now,
            **more,
        }

    async with stores.database.begin() as conn:
        for values in (
            row("now", -1, 1),
            row("later", 1, 2),
            row("over", -2, -1),
            row("revoked", -1, 1, revoked_at=now),
            row("others", -1, 1, holder=bob),
        ):
            await conn.execute(insert(grants).values(**values))
    nobody: frozenset[Any] = frozenset()
    found = await stores.known_people.known_people(
        users=nobody, groups=nobody, admins=nobody, applier=ada
    )
    assert found.granted == {"now", "later"}
    assert found.admins == ()


async def test_many_names_are_looked_up(stores: Stores) -> None:
    ada = (await stores.log_in("ada")).principal
    many = frozenset(f"corp/{number}@example.com" for number in range(40_000))
    found = await stores.known_people.known_people(
        users=many | {"corp/ada@example.com"},
        groups=frozenset(f"corp/g{number}" for number in range(40_000)) | ada.groups,
        admins=frozenset(),
        applier=ada.id,
    )
    assert found.users["corp/ada@example.com"] == Named(ada.id, "ada@example.com")
    assert len(found.users) == 40_001
    assert set(found.groups) == ada.groups


async def test_who_is_no_longer_the_only_admin_applies_nothing_to_themselves(
    stores: Stores,
) -> None:
    root = (await stores.log_in("root", groups=frozenset({"corp/platform"}))).principal.id
    alone = Alone(replace(EMPTY, admins=(Group("corp/platform"),)), root)

    async def apply(expected: int) -> int:
        stored = await stores.access.apply_policy(
            NewPolicy(TEXT, frozenset()),
            expected=expected,
            applied_by=root,
            event=event(EventType.ACCESS_APPLIED),
            alone=alone,
        )
        return int(stored.number)

    assert await apply(0) == 1
    await stores.log_in("ada", groups=frozenset({"corp/others"}))
    assert await apply(1) == 2
    bob = (await stores.log_in("bob", groups=frozenset({"corp/platform"}))).principal.id
    before = await stores.everything()
    with pytest.raises(PreconditionFailed, match="Another admin"):
        await apply(2)
    assert await stores.everything() == before
    await stores.suspend(bob)
    assert await apply(2) == 3


async def test_who_was_suspended_meanwhile_applies_proposes_and_approves_nothing(
    stores: Stores,
) -> None:
    """Judging a file takes a while: the admin may have been suspended since they were let in."""
    mallory = (await stores.log_in("mallory")).principal.id
    await stores.apply()
    change = await propose(stores)
    await stores.suspend(mallory)
    before = await stores.everything()
    with pytest.raises(Suspended):
        await approve(stores, change.id, approver=mallory)
    with pytest.raises(Suspended):
        await propose(stores, author=mallory)
    with pytest.raises(Suspended):
        await stores.access.apply_policy(
            MORE, expected=1, applied_by=mallory, event=event(EventType.ACCESS_APPLIED)
        )
    assert await stores.everything() == before
