"""The decision: may this principal have this role now, and for how long at most.

Owns: which entitlements and grants apply, which conditions hold, the choice
among several, and the refusal that helps most. Deny by default. Does not own:
narrowing and the final duration (`issuance`), nor the record of the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from broker.access.grant import Grant
from broker.access.policy import (
    AccessPolicy,
    Conditions,
    Entitlement,
    Group,
    Mode,
    Parameter,
    Role,
    User,
    WorkloadRef,
)
from broker.access.rights import means, written
from broker.errors import (
    ApprovalRequired,
    BrokerError,
    MfaRequired,
    MfaStale,
    NotEntitled,
    NotFound,
    OutsideHours,
    OutsideNetwork,
    ReasonRequired,
    Suspended,
)
from broker.identity.principal import AuthContext

Address = IPv4Address | IPv6Address
Entry = Entitlement | Grant


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of this request. `address` is the caller's, None where there is none."""

    address: Address | None
    reason: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most an entry allows: `max_duration` in seconds, and moments nothing may outlive, each
    under its limit's name (grant_remaining, hours_remaining).
    """

    max_duration: int | None = None
    ends: tuple[tuple[str, datetime], ...] = ()

    def seconds(self, role_maximum: int, now: datetime) -> float:
        """The longest this ceiling leaves of `role_maximum`."""
        limits = [(end - now).total_seconds() for _, end in self.ends]
        if self.max_duration is not None:
            limits.append(self.max_duration)
        return min([role_maximum, *limits])


@dataclass(frozen=True, slots=True)
class Unmet:
    """A condition of an entry that does not hold now. `condition` is its key in the access
    policy (mode, networks, hours, mfa_within, reason), or subject, not_before, expires_at.
    `cure` is what would satisfy it.
    """

    condition: str
    error: BrokerError
    cure: str

    def as_json(self) -> dict[str, object]:
        return {
            "condition": self.condition,
            "code": self.error.code,
            "detail": self.error.detail,
            "satisfied_by": self.cure,
        }


@dataclass(frozen=True, slots=True)
class NearMiss:
    """An entry that does not apply now. `unmet` are all its reasons, the one that is hardest to
    cure first: with the others met, that one would still refuse.
    """

    entry: Entry
    unmet: tuple[Unmet, ...]

    @property
    def error(self) -> BrokerError:
        return self.unmet[0].error

    @property
    def code(self) -> str:
        return self.error.code

    def as_json(self) -> dict[str, object]:
        return {
            "entry": entry_json(self.entry),
            "condition": self.unmet[0].condition,
            "failed": [unmet.as_json() for unmet in self.unmet],
        }


@dataclass(frozen=True, slots=True)
class Allowed:
    """`by` is the entry that gave it, the one that leaves the longest time."""

    role: Role
    by: Entry
    ceiling: Ceiling


@dataclass(frozen=True, slots=True)
class Denied:
    error: BrokerError
    near_misses: tuple[NearMiss, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """A role that a principal can have, as `GET /v1/roles` lists it. Durations in seconds."""

    name: str
    description: str
    account_id: str
    account_name: str
    role_arn: str
    availability: str  # standing, granted or requestable
    max_duration: int
    parameters: Mapping[str, Parameter]
    grant_expires_at: datetime | None


def decide(
    policy: AccessPolicy,
    who: AuthContext,
    role_name: str,
    grants: tuple[Grant, ...],
    facts: Facts,
) -> Allowed | Denied:
    """Whether `who` may have the role, by a standing entitlement or a grant in force.

    Never raises: a refusal is a `Denied` whose error has the code to answer.
    Nothing is said of a role to somebody whom no entry offers it.
    """
    if who.principal.suspended_at is not None:
        return Denied(Suspended())
    if who.lacks_second_factor:
        return Denied(MfaRequired())
    entries = tuple(_entries(policy, who, role_name, grants))
    role = policy.roles.get(role_name)
    if role is None or not entries:
        return Denied(
            NotFound("No role of that name is offered to you; `broker roles` lists yours.")
        )
    if not _account_allowed(policy, role):
        return Denied(NotEntitled("The organization's rules allow no role in this account."))

    allowed: list[Allowed] = []
    misses: list[NearMiss] = []
    for entry in entries:
        unmet = tuple(_unmet(entry, who, facts))
        if unmet:
            misses.append(NearMiss(entry, unmet))
        else:
            allowed.append(Allowed(role, entry, _ceiling(entry, facts.now)))
    if allowed:
        # max() keeps the first of equals: the file's order, and entitlements before grants.
        return max(allowed, key=lambda one: one.ceiling.seconds(role.role_maximum, facts.now))
    misses.sort(key=_distance)
    return Denied(misses[0].error, tuple(misses))


def entries_for_others(
    policy: AccessPolicy, who: AuthContext, role_name: str, facts: Facts
) -> tuple[NearMiss, ...]:
    """The entitlements to the role that are not for `who`, the nearest first: for those who may
    see whom a role is given to.
    """
    misses = [
        NearMiss(entry, (_another_subject(entry), *_unmet(entry, who, facts)))
        for entry in policy.entitlements
        if entry.role == role_name and not means(entry.to, who.principal)
    ]
    return tuple(sorted(misses, key=_distance))


def offers(
    policy: AccessPolicy, who: AuthContext, grants: tuple[Grant, ...], now: datetime
) -> tuple[Offer, ...]:
    """The roles that `who` can have, by name: those with a standing entitlement, whether or not
    its conditions hold right now, those with a grant in force, and those to be requested.
    """
    if who.principal.suspended_at is not None or who.lacks_second_factor:
        return ()
    offered = (_offer(policy, role, who, grants, now) for role in policy.roles.values())
    return tuple(sorted((o for o in offered if o is not None), key=lambda offer: offer.name))


def entry_json(entry: Entry) -> dict[str, object]:
    """What an entry is, for the audit record and for `explain`."""
    if isinstance(entry, Grant):
        return {"grant_id": entry.id, "granted_by": entry.granted_by}
    return {"entitlement": written(entry.to), "line": entry.line}


def unmapped(address: Address) -> Address:
    """A v4 address that came over a v6 socket (`::ffff:10.0.0.1`) as the v4 address it is."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


# How far from cure a caller is: the last of these is fixed by typing something.
_HARDNESS = {
    ReasonRequired.code: 0,
    MfaStale.code: 1,
    OutsideHours.code: 2,
    OutsideNetwork.code: 3,
    ApprovalRequired.code: 4,
    NotEntitled.code: 5,
}


def _entries(
    policy: AccessPolicy, who: AuthContext, role_name: str, grants: tuple[Grant, ...]
) -> Iterator[Entry]:
    for entitlement in policy.entitlements:
        if entitlement.role == role_name and means(entitlement.to, who.principal):
            yield entitlement
    for grant in grants:
        if grant.role == role_name and grant.principal_id == who.principal.id:
            yield grant


def _account_allowed(policy: AccessPolicy, role: Role) -> bool:
    allowed = policy.organization.allowed_accounts
    return allowed is None or role.account.id in allowed


def _distance(miss: NearMiss) -> tuple[int, int]:
    return len(miss.unmet), _HARDNESS[miss.code]


def _another_subject(entry: Entitlement) -> Unmet:
    match entry.to:
        case Group(name):
            cure = f"membership of group {name}, as the provider says at login"
        case User(name):
            cure = f"being user {name}"
        case WorkloadRef(name):
            cure = f"being workload {name}"
    return Unmet("subject", NotEntitled(f"This entry is for {written(entry.to)}."), cure)


def _unmet(entry: Entry, who: AuthContext, facts: Facts) -> Iterator[Unmet]:
    """Why the entry does not apply now, hardest first."""
    if isinstance(entry, Grant):
        yield from _out_of_force(entry, facts.now)
        return
    if entry.mode is not Mode.STANDING:
        yield Unmet("mode", ApprovalRequired(), "an approved request, or a grant")
    yield from _unmet_conditions(entry.require, who, facts)


def _out_of_force(grant: Grant, now: datetime) -> Iterator[Unmet]:
    if now < grant.not_before:
        error = NotEntitled("Your grant of this role has not begun yet.")
        yield Unmet("not_before", error, f"waiting until {_utc(grant.not_before)}")
    if now >= grant.expires_at:
        error = NotEntitled("Your grant of this role has ended.")
        yield Unmet("expires_at", error, f"a new grant; this one ended {_utc(grant.expires_at)}")


def _unmet_conditions(require: Conditions, who: AuthContext, facts: Facts) -> Iterator[Unmet]:
    if require.networks and not _inside(require, facts.address):
        networks = ", ".join(str(network) for network in require.networks)
        yield Unmet(
            "networks",
            OutsideNetwork(
                f"This role is not given to your network address ({facts.address or 'unknown'})."
            ),
            f"a client address in {networks}",
        )
    if require.hours is not None and not require.hours.contains(facts.now):
        opens = require.hours.next_opening(facts.now)
        yield Unmet(
            "hours",
            OutsideHours(f"This role is given {require.hours}."),
            "other hours" if opens is None else f"waiting until {_utc(opens)}",
        )
    if require.mfa_within is not None and _factor_older(who, facts.now, require.mfa_within):
        yield Unmet(
            "mfa_within",
            MfaStale(
                f"This role asks for a second factor shown in the last {require.mfa_within} s; "
                "verify it again.",
                extra={"mfa_within": require.mfa_within},
            ),
            f"a second factor shown in the last {require.mfa_within} s: `broker mfa verify`",
        )
    if require.reason and not (facts.reason or "").strip():
        yield Unmet("reason", ReasonRequired(), "a reason: `--reason TEXT`")


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _factor_older(who: AuthContext, now: datetime, seconds: int) -> bool:
    return who.mfa_time is None or now - who.mfa_time >= timedelta(seconds=seconds)


def _inside(require: Conditions, address: Address | None) -> bool:
    if address is None:
        return False
    real = unmapped(address)
    return any(real in network for network in require.networks)


def _ceiling(entry: Entry, now: datetime) -> Ceiling:
    if isinstance(entry, Grant):
        return Ceiling(None, (("grant_remaining", entry.expires_at),))
    if entry.require.hours is None:
        return Ceiling(entry.max_duration)
    closes = now + timedelta(seconds=entry.require.hours.remaining(now))
    return Ceiling(entry.max_duration, (("hours_remaining", closes),))


def _offer(
    policy: AccessPolicy,
    role: Role,
    who: AuthContext,
    grants: tuple[Grant, ...],
    now: datetime,
) -> Offer | None:
    standing: list[int] = []
    requestable: list[int] = []
    ends: list[datetime] = []
    for entry in _entries(policy, who, role.name, grants):
        if isinstance(entry, Grant):
            if entry.not_before <= now < entry.expires_at:
                ends.append(entry.expires_at)
        else:
            modes = standing if entry.mode is Mode.STANDING else requestable
            modes.append(entry.max_duration or role.role_maximum)
    if not (standing or ends or requestable) or not _account_allowed(policy, role):
        return None
    now_at_hand = [*standing, *(int((end - now).total_seconds()) for end in ends)]
    longest = max(now_at_hand or requestable)
    organization = policy.organization.maximum_duration or role.role_maximum
    return Offer(
        name=role.name,
        description=role.description,
        account_id=role.account.id,
        account_name=role.account.title,
        role_arn=role.role_arn,
        availability="standing" if standing else "granted" if ends else "requestable",
        max_duration=min(longest, role.role_maximum, organization),
        parameters=role.parameters,
        grant_expires_at=max(ends, default=None),
    )
