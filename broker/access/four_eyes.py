"""Which rights a new access policy would add to whoever applies it, and who else could approve.

Owns the rule of four eyes: nobody adds rights to themselves alone while another
admin could look at it. It compares entries and not their sum: what can't be
shown to be no wider counts as wider. Does not own: waiting and approving
(`versions`), nor reading who is known (`plan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from broker.access.policy import (
    AccessPolicy,
    Conditions,
    DelegatedAdmin,
    Entitlement,
    Mode,
    Parameter,
    Role,
    Subject,
    User,
    WorkloadRef,
)
from broker.access.rights import is_admin, means, written
from broker.identity.people import email_key
from broker.identity.principal import Principal, PrincipalKind
from broker.identity.trust import Exactly, Matcher, Workload


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """`verified_email`: the provider vouched for the principal's address at its last login."""

    principal: Principal
    pinned_admin: bool
    verified_email: bool


@dataclass(frozen=True, slots=True)
class Alone:
    """That `applier` is the only admin by `policy`: what applying to oneself rests on."""

    policy: AccessPolicy
    applier: str

    def holds(self, people: Sequence[KnownPerson]) -> bool:
        """`people` are all who could administer by the policy, or are pinned."""
        return not any(
            administers(self.policy, one) for one in people if one.principal.id != self.applier
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """`gains` says in words what the applier would gain; nothing where it is empty. `approvers`
    are the other admins there are.
    """

    gains: tuple[str, ...]
    approvers: tuple[Principal, ...]

    @property
    def waits(self) -> bool:
        return bool(self.gains and self.approvers)

    @property
    def self_granted(self) -> bool:
        """One admin alone: applied, and recorded as what it is."""
        return bool(self.gains) and not self.approvers


def judge(
    before: AccessPolicy,
    after: AccessPolicy,
    applier: Principal,
    *,
    granted: frozenset[str],
    people: Sequence[KnownPerson],
) -> Verdict:
    """Whether `applier` may put `after` in force alone.

    `granted` are the roles of the applier's grants, in force or to come. `people` are all who
    could administer by either policy, or are pinned.
    """
    others = tuple(one for one in people if one.principal.id != applier.id)
    approvers = tuple(one.principal for one in others if administers(before, one))
    found = list(_gains(before, after, applier, granted))
    for entry in _entries_of_same_jobs(before, after, applier):
        found += _gains(before, after, replace(applier, subject=entry.subject), frozenset())
    gains = list(dict.fromkeys(found))
    if approvers and not any(administers(after, one, to_be_named=True) for one in others):
        gains.append("no other admin would be left who could approve what comes next")
    return Verdict(tuple(gains), approvers)


def administers(policy: AccessPolicy, one: KnownPerson, *, to_be_named: bool = False) -> bool:
    """A workload approves nothing: it can't look. `to_be_named`: names not bound yet count."""
    principal = one.principal
    if principal.kind is not PrincipalKind.PERSON or principal.suspended_at is not None:
        return False
    if is_admin(policy, principal, one.pinned_admin):
        return True
    named = to_be_named and one.verified_email
    return named and any(_by_address(subject, principal) for subject in policy.admins)


def _gains(
    before: AccessPolicy, after: AccessPolicy, applier: Principal, granted: frozenset[str]
) -> Iterator[str]:
    yield from _administration(before, after, applier)
    yield from _entitlements(before, after, applier)
    yield from _reviews(before, after, applier)
    held = granted | {one.role for one in after.entitlements if _is_meant(one.to, applier)}
    for name in sorted(held & after.roles.keys()):
        yield from _role(before.roles.get(name), after.roles[name], name in granted)
    if held & after.roles.keys():
        yield from _organization(before, after)
    yield from _own_trust(before, after, applier)


def _is_meant(subject: Subject, applier: Principal) -> bool:
    """Also by a name that is not bound yet: applying the policy may bind it."""
    return means(subject, applier) or _by_address(subject, applier)


def _by_address(subject: Subject, principal: Principal) -> bool:
    if not isinstance(subject, User) or principal.email is None:
        return False
    return subject.name == f"{principal.provider}/{email_key(principal.email)}"


def _administration(before: AccessPolicy, after: AccessPolicy, applier: Principal) -> Iterator[str]:
    for kind, old, new in (
        ("an admin", before.admins, after.admins),
        ("an auditor", before.auditors, after.auditors),
    ):
        for subject in new:
            if subject not in old and _is_meant(subject, applier):
                yield f"{written(subject)} becomes {kind}"
    for delegated in after.delegated:
        if not _is_meant(delegated.to, applier):
            continue
        if not any(_limits_within(delegated, old) for old in before.delegated):
            yield f"{written(delegated.to)} becomes a delegated admin, or of more"


def _limits_within(new: DelegatedAdmin, old: DelegatedAdmin) -> bool:
    return new.to == old.to and new.accounts <= old.accounts and new.roles <= old.roles


def _entitlements(before: AccessPolicy, after: AccessPolicy, applier: Principal) -> Iterator[str]:
    for new in after.entitlements:
        if not _is_meant(new.to, applier):
            continue
        same = [one for one in before.entitlements if (one.role, one.to) == (new.role, new.to)]
        if not same:
            yield f"{written(new.to)} gains role {new.role}"
        elif not any(_within(new, old) for old in same):
            yield f"{written(new.to)} has role {new.role} on wider terms"


def _within(new: Entitlement, old: Entitlement) -> bool:
    """Whether `new` gives nothing that `old` does not."""
    return (
        (new.mode is old.mode or new.mode is Mode.ON_REQUEST)
        and _at_most(new.max_duration, old.max_duration)
        and _conditions_within(new.require, old.require)
        and (new.mode is Mode.STANDING or old.mode is Mode.STANDING or _asked_as_much(new, old))
    )


def _asked_as_much(new: Entitlement, old: Entitlement) -> bool:
    if new.break_glass and not old.break_glass:
        return False
    if not _at_most(new.max_grant, old.max_grant):
        return False
    if new.approval is None or old.approval is None:
        return new.approval is old.approval
    same = new.approval.approvers == old.approval.approvers
    return same and new.approval.quorum >= old.approval.quorum


def _inside(one: IPv4Network | IPv6Network, wide: IPv4Network | IPv6Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(wide, IPv4Network) and one.subnet_of(wide)
    return isinstance(wide, IPv6Network) and one.subnet_of(wide)


def _conditions_within(new: Conditions, old: Conditions) -> bool:
    """Whether every condition of old still binds."""
    if old.networks and not (
        new.networks
        and all(any(_inside(one, wide) for wide in old.networks) for one in new.networks)
    ):
        return False
    if old.hours is not None and new.hours != old.hours:
        return False
    return _at_most(new.mfa_within, old.mfa_within) and (new.reason or not old.reason)


def _at_most(new: int | None, old: int | None) -> bool:
    """None is without a limit."""
    return old is None or (new is not None and new <= old)


def _reviews(before: AccessPolicy, after: AccessPolicy, applier: Principal) -> Iterator[str]:
    """Who decides on others' requests has a right over the role."""
    old = {(one.role, one.approval.approvers) for one in before.entitlements if one.approval}
    for new in after.entitlements:
        if new.approval is None or (new.role, new.approval.approvers) in old:
            continue
        if _is_meant(new.approval.approvers, applier):
            yield f"{written(new.approval.approvers)} approves requests for role {new.role}"


def _role(old: Role | None, new: Role, by_grant: bool) -> Iterator[str]:
    """What the applier holds already may come to mean more."""
    if old is None:
        if by_grant:
            yield f"role {new.name}, which a grant gives, comes to be"
        return
    for field in _widened(old, new):
        yield f"role {new.name} may allow more: {field} changes"


def _widened(old: Role, new: Role) -> Iterator[str]:
    target = ("role_arn", "via", "tags", "transitive_tags")
    for field in target:
        if getattr(old, field) != getattr(new, field):
            yield field
    if (old.account.id, old.account.partition) != (new.account.id, new.account.partition):
        yield "account"
    if new.role_maximum > old.role_maximum:
        yield "role_maximum"
    if not _scope_within(new, old):
        yield "session_policy, managed_policies or unscoped"
    if any(_parameter_wider(old.parameters.get(p.name), p) for p in new.parameters.values()):
        yield "parameters"
    if new.may_chain and not old.may_chain:
        yield "may_chain"
    if old.revocable and not new.revocable:
        yield "revocable"


def _scope_within(new: Role, old: Role) -> bool:
    if old.unscoped:
        return True
    return (
        not new.unscoped
        and new.session_policy == old.session_policy
        and set(new.managed_policies) <= set(old.managed_policies)
    )


def _parameter_wider(old: Parameter | None, new: Parameter) -> bool:
    if old is None:
        return False  # it stands in a policy or tag, which then changed
    if new.allowed is None or old.allowed is None:
        return new.pattern != old.pattern
    return not set(new.allowed) <= set(old.allowed)


def _organization(before: AccessPolicy, after: AccessPolicy) -> Iterator[str]:
    """Its limits bind whoever holds any role."""
    old, new = before.organization, after.organization
    if not _at_most(new.maximum_duration, old.maximum_duration):
        yield "organization.maximum_duration is raised"
    if any(statement not in new.deny for statement in old.deny):
        yield "a statement of organization.deny is dropped or changed"


def _own_trust(before: AccessPolicy, after: AccessPolicy, applier: Principal) -> Iterator[str]:
    """A workload that applies policies may not widen which jobs it is."""
    for name, new in after.workloads.items():
        if not means(WorkloadRef(name, new.issuer), applier):
            continue
        old = before.workloads.get(name)
        if old is None or replace(old, line=0) != replace(new, line=0):
            yield f"workload {name} changes"


def _entries_of_same_jobs(
    before: AccessPolicy, after: AccessPolicy, applier: Principal
) -> Iterator[Workload]:
    """The other workloads that the applying job could be let in as: it chooses its audience, and
    by the role among several entries.
    """
    own = [
        one
        for policy in (before, after)
        for one in policy.workloads.values()
        if means(WorkloadRef(one.name, one.issuer), applier)
    ]
    for entry in after.workloads.values():
        if any(entry.name != one.name and not _disjoint(entry, one) for one in own):
            yield entry


def _disjoint(one: Workload, other: Workload) -> bool:
    """Whether no job can be both: another issuer, or a claim whose values have none in common."""
    if one.issuer != other.issuer:
        return True
    return any(
        _apart(wanted, other.claims[name])
        for name, wanted in one.claims.items()
        if name in other.claims
    )


def _apart(one: Matcher, other: Matcher) -> bool:
    """Two patterns can't be shown to have nothing in common."""
    if isinstance(one, Exactly):
        return not any(other.admits(value) for value in one.values)
    if isinstance(other, Exactly):
        return not any(one.admits(value) for value in other.values)
    return False
