"""What a new access policy changes, told of people: who gains and loses which right.

Owns: which names and groups of two policies are to be looked up, and the lines
that join the diff of rights with who is known. Does not own: the diff itself
(`diff`), nor the look-up, which is one read of the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.access.diff import Change
from broker.access.four_eyes import KnownPerson
from broker.access.policy import AccessPolicy, Group, Subject, User
from broker.identity.people import split_user_name

# Of a group's members, those that are named; the others are counted.
NAMED_MEMBERS = 10


@dataclass(frozen=True, slots=True)
class Named:
    """A person as a plan shows them."""

    id: str
    handle: str


@dataclass(frozen=True, slots=True)
class Members:
    """The people whose last login had the group: how many, and the first by name."""

    count: int
    named: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class KnownPeople:
    """`users`: of each `user:` name the person, or None while nobody was bound to it. `admins`
    are all who could administer by the subjects that were asked for, or are pinned. `granted` are
    the roles of the applier's grants, in force or to come.
    """

    users: Mapping[str, Named | None]
    groups: Mapping[str, Members]
    admins: tuple[KnownPerson, ...]
    granted: frozenset[str]


class KnownPeopleReader(Protocol):
    async def known_people(
        self,
        *,
        users: frozenset[str],
        groups: frozenset[str],
        admins: frozenset[Subject],
        applier: str,
    ) -> KnownPeople:
        """All in one read transaction. Raises AuditUnavailable where the database is out."""
        ...


def subjects(policy: AccessPolicy) -> Iterator[Subject]:
    """Everybody the policy names."""
    yield from policy.admins
    yield from policy.auditors
    for delegated in policy.delegated:
        yield delegated.to
    for entitlement in policy.entitlements:
        yield entitlement.to
        if entitlement.approval is not None:
            yield entitlement.approval.approvers


def user_names(policy: AccessPolicy) -> frozenset[str]:
    """Every `provider/e-mail` that the policy writes; principal ids need no binding."""
    return frozenset(
        subject.name
        for subject in subjects(policy)
        if isinstance(subject, User) and split_user_name(subject.name) is not None
    )


def generated_for(policy: AccessPolicy) -> frozenset[str]:
    """The ARNs of the roles for which the store makes an external id."""
    return frozenset(role.role_arn for role in policy.roles.values() if role.generates_external_id)


async def look_up(
    reader: KnownPeopleReader, before: AccessPolicy, after: AccessPolicy, applier: str
) -> KnownPeople:
    """Everybody that a plan from `before` to `after` is about."""
    everybody = {*subjects(before), *subjects(after)}
    return await reader.known_people(
        users=frozenset(one.name for one in everybody if isinstance(one, User)),
        groups=frozenset(one.name for one in everybody if isinstance(one, Group)),
        admins=frozenset({*before.admins, *after.admins}),
        applier=applier,
    )


def plan_lines(changes: tuple[Change, ...], people: KnownPeople) -> tuple[str, ...]:
    """One line a change, with who is meant. Rights over the broker itself are marked `!`."""
    lines = []
    for change in changes:
        mark = "! " if change.kind in _ADMINISTRATION else ""
        who = _who(change, people)
        lines.append(f"{mark}{change}" + (f"  [{who}]" if who else ""))
    return tuple(lines)


_ADMINISTRATION = ("admin", "delegated_admin", "auditor")


def _who(change: Change, people: KnownPeople) -> str:
    """The people behind a change's subject."""
    if change.kind != "right" and change.kind not in _ADMINISTRATION:
        return ""
    kind, _, name = (change.subject or change.name).partition(" ")
    if kind == "user":
        person = people.users.get(name)
        if person is None:
            return "nobody yet: bound at their first login"
        return person.handle if name != person.handle else ""
    if kind != "group":
        return ""
    members = people.groups.get(name, Members(0, ()))
    if members.count == 0:
        return "nobody known yet"
    shown = ", ".join(one.handle for one in members.named)
    more = members.count - len(members.named)
    return f"{members.count} known: {shown}" + (f" and {more} more" if more else "")


def plan_json(people: KnownPeople, after: AccessPolicy) -> dict[str, object]:
    """Whom the names of the new policy mean: pending ones are bound at their first login."""
    named = user_names(after)
    groups = {one.name for one in subjects(after) if isinstance(one, Group)}
    return {
        "users": [
            {"user": name, "principal": "pending" if person is None else person.id}
            for name, person in sorted(people.users.items())
            if name in named
        ],
        "groups": [
            {
                "group": name,
                "members": members.count,
                "people": [one.handle for one in members.named],
            }
            for name, members in sorted(people.groups.items())
            if name in groups
        ],
    }
