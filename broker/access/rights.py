"""Whom a subject of the access policy means, and who administers and audits.

`is_admin` means without limits: whoever may apply a policy. A delegated admin
applies nothing, and gives grants within the accounts and roles of its entry.
That nobody gives anything to themselves is for the caller to refuse.
"""

from __future__ import annotations

from broker.access.policy import AccessPolicy, Group, Subject, User, WorkloadRef
from broker.identity.principal import Principal, PrincipalKind
from broker.identity.trust import workload_subject


def means(subject: Subject, principal: Principal) -> bool:
    """Whether `subject` names this principal.

    A user is matched by principal id or by the names the store bound to the
    principal, never by its e-mail of today; a group by its qualified name; a
    workload by its entry's name and the issuer that the entry trusts.
    """
    match subject:
        case User(name):
            return name == principal.id or name in principal.user_names
        case Group(name):
            return name in principal.groups
        case WorkloadRef(name, issuer):
            return (
                principal.kind is PrincipalKind.WORKLOAD
                and principal.subject == workload_subject(name, issuer)
            )


def is_admin(policy: AccessPolicy, principal: Principal, pinned: bool) -> bool:
    """`pinned`: the store holds this principal as the bootstrapped admin."""
    if principal.suspended_at is not None:
        return False
    return pinned or any(means(subject, principal) for subject in policy.admins)


def may_administer(
    policy: AccessPolicy, principal: Principal, role_name: str, *, pinned: bool = False
) -> bool:
    """Whether this principal may give others grants of the role: as an admin, or as a delegated
    admin of the role or its account.
    """
    if is_admin(policy, principal, pinned):
        return True
    role = policy.roles.get(role_name)
    if role is None or principal.suspended_at is not None:
        return False
    return any(
        (role_name in one.roles or role.account.name in one.accounts) and means(one.to, principal)
        for one in policy.delegated
    )


def administered_roles(
    policy: AccessPolicy, principal: Principal, *, pinned: bool = False
) -> frozenset[str]:
    """The names of the roles that `may_administer` says yes to."""
    return frozenset(
        name for name in policy.roles if may_administer(policy, principal, name, pinned=pinned)
    )


def is_delegated_admin(policy: AccessPolicy, principal: Principal) -> bool:
    """Whether this principal administers some roles, by an entry with limits."""
    if principal.suspended_at is not None:
        return False
    return any(means(one.to, principal) for one in policy.delegated)


def is_auditor(policy: AccessPolicy, principal: Principal) -> bool:
    """Auditors alone: that admins may read what auditors read is for the caller to say."""
    if principal.suspended_at is not None:
        return False
    return any(means(subject, principal) for subject in policy.auditors)


def written(subject: Subject) -> str:
    """The subject as people read it: `group corp/sre`."""
    match subject:
        case User(name):
            return f"user {name}"
        case Group(name):
            return f"group {name}"
        case WorkloadRef(name):
            return f"workload {name}"
