"""What a new access policy changes, in terms of rights.

Owns: who gains and loses which role on what terms, which roles mean something
else than before, who administers. Compares parsed values: a file that is merely
written otherwise has no difference. An external id is never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from broker.access.policy import (
    AccessPolicy,
    Account,
    Conditions,
    DelegatedAdmin,
    Entitlement,
    Organization,
    Parameter,
    Role,
    Subject,
)
from broker.access.rights import written
from broker.access.session_policy import compact
from broker.identity.trust import Workload

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is right, role, admin, delegated_admin, auditor, account or organization; `name` the
    role, subject or account; `before` and `after` its terms or value, None where it is not there.
    `subject` and `field` say more of a right and of a part of something.
    """

    kind: str
    name: str
    before: str | None
    after: str | None
    subject: str | None = None
    field: str | None = None

    @property
    def sign(self) -> str:
        if self.before is None:
            return "+"
        return "-" if self.after is None else "~"

    def as_json(self) -> dict[str, object]:
        change = {"+": "added", "-": "removed", "~": "changed"}[self.sign]
        members = {
            "kind": self.kind,
            "change": change,
            "name": self.name,
            "subject": self.subject,
            "field": self.field,
            "before": self.before,
            "after": self.after,
        }
        return {key: value for key, value in members.items() if value}

    def __str__(self) -> str:
        if self.kind == "right":
            verb = {"+": "gains", "-": "loses", "~": "keeps"}[self.sign]
            what = f"{self.subject} {verb} role {self.name}"
        else:
            kind = self.kind.replace("_", " ")
            what = " ".join(part for part in (kind, self.name, self.field) if part)
        values = [value for value in (self.before, self.after) if value]
        return f"{self.sign} {what}" + (f": {' -> '.join(values)}" if values else "")


def diff_policies(before: AccessPolicy, after: AccessPolicy) -> tuple[Change, ...]:
    """Rights first, then administration, roles, accounts and organization rules."""
    return (
        *_rights(before, after),
        *_names("admin", _written(before.admins), _written(after.admins)),
        *_delegations(before, after),
        *_names("auditor", _written(before.auditors), _written(after.auditors)),
        *_things("role", before.roles, after.roles, _role_fields),
        *_things("account", before.accounts, after.accounts, _account_fields),
        *_things("workload", before.workloads, after.workloads, _workload_fields),
        *_fields(
            "organization",
            "",
            _organization_fields(before.organization),
            _organization_fields(after.organization),
        ),
    )


def diff_json(changes: tuple[Change, ...]) -> list[dict[str, object]]:
    """For the audit event and the API."""
    return [change.as_json() for change in changes]


def diff_lines(changes: tuple[Change, ...]) -> tuple[str, ...]:
    """For people: one line a change, `+`, `-` or `~` first."""
    return tuple(str(change) for change in changes)


def _rights(before: AccessPolicy, after: AccessPolicy) -> Iterator[Change]:
    old, new = _terms(before), _terms(after)
    for subject, role in sorted({*old, *new}):
        was, becomes = old.get((subject, role)), new.get((subject, role))
        if was != becomes:
            yield Change("right", role, was, becomes, subject=subject)


def _terms(policy: AccessPolicy) -> dict[tuple[str, str], str]:
    """Of each subject and role, all entitlements' terms."""
    terms: dict[tuple[str, str], list[str]] = {}
    for entitlement in policy.entitlements:
        key = (written(entitlement.to), entitlement.role)
        terms.setdefault(key, []).append(_term(entitlement))
    return {key: "; or ".join(sorted(values)) for key, values in terms.items()}


def _term(entitlement: Entitlement) -> str:
    parts = [entitlement.mode.value]
    if entitlement.max_duration is not None:
        parts.append(f"at most {entitlement.max_duration} s")
    if entitlement.max_grant is not None:
        parts.append(f"grants of at most {entitlement.max_grant} s")
    if entitlement.approval is not None:
        approval = entitlement.approval
        parts.append(f"approved by {approval.quorum} of {written(approval.approvers)}")
    if entitlement.break_glass:
        parts.append("or by breaking glass")
    return ", ".join([*parts, *_conditions(entitlement.require)])


def _conditions(require: Conditions) -> Iterator[str]:
    if require.mfa_within is not None:
        yield f"second factor within {require.mfa_within} s"
    if require.networks:
        yield f"from {' or '.join(str(network) for network in require.networks)}"
    if require.hours is not None:
        yield f"in {require.hours}"
    if require.reason:
        yield "with a reason"


def _names(kind: str, before: frozenset[str], after: frozenset[str]) -> Iterator[Change]:
    for name in sorted(after - before):
        yield Change(kind, name, None, "")
    for name in sorted(before - after):
        yield Change(kind, name, "", None)


def _delegations(before: AccessPolicy, after: AccessPolicy) -> Iterator[Change]:
    old = {written(one.to): _limits(one) for one in before.delegated}
    new = {written(one.to): _limits(one) for one in after.delegated}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield Change("delegated_admin", name, old.get(name), new.get(name))


def _limits(delegated: DelegatedAdmin) -> str:
    parts = []
    if delegated.accounts:
        parts.append(f"accounts {', '.join(sorted(delegated.accounts))}")
    if delegated.roles:
        parts.append(f"roles {', '.join(sorted(delegated.roles))}")
    return "; ".join(parts)


def _written(subjects: tuple[Subject, ...]) -> frozenset[str]:
    return frozenset(written(subject) for subject in subjects)


def _things(
    kind: str,
    before: Mapping[str, Thing],
    after: Mapping[str, Thing],
    fields: Callable[[Thing], dict[str, str]],
) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        if name not in before:
            yield Change(kind, name, None, _summary(fields(after[name])))
        elif name not in after:
            yield Change(kind, name, _summary(fields(before[name])), None)
        else:
            yield from _fields(kind, name, fields(before[name]), fields(after[name]))


def _fields(
    kind: str, name: str, before: dict[str, str], after: dict[str, str]
) -> Iterator[Change]:
    for field, value in after.items():
        if before[field] != value:
            shown = (_shown(field, before[field]), _shown(field, value))
            yield Change(kind, name, *shown, field=field)


def _summary(fields: dict[str, str]) -> str:
    return ", ".join(
        f"{field} {_shown(field, value)}" for field, value in fields.items() if value not in _PLAIN
    )


_PLAIN = ("", "false", "[]", "{}", "none")
_GENERATED = "{generate: true}"


def _shown(field: str, value: str) -> str:
    if field == "external_id":
        return value if value in ("none", _GENERATED) else "(not shown)"
    return value


def _role_fields(role: Role) -> dict[str, str]:
    policy = role.session_policy
    return {
        "description": role.description,
        "account": role.account.id,
        "role_arn": role.role_arn,
        "via": compact(role.via),
        "external_id": _external_id(role),
        "role_maximum": f"{role.role_maximum} s",
        "default_duration": f"{role.default_duration} s",
        "max_grant": f"{role.max_grant} s",
        "parameters": compact({name: _parameter(one) for name, one in role.parameters.items()}),
        "session_policy": "none" if policy is None else compact(policy.source),
        "managed_policies": compact(role.managed_policies),
        "tags": compact({key: template.source for key, template in role.tags.items()}),
        "transitive_tags": compact(role.transitive_tags),
        "unscoped": compact(role.unscoped),
        "may_chain": compact(role.may_chain),
        "revocable": compact(role.revocable),
    }


def _external_id(role: Role) -> str:
    """To compare by. A generated one is the same before and after it was made."""
    if role.generates_external_id:
        return _GENERATED
    return "none" if role.external_id is None else role.external_id


def _parameter(parameter: Parameter) -> dict[str, object]:
    members = {
        "allowed": parameter.allowed,
        "pattern": parameter.pattern,
        "default": parameter.default,
    }
    return {key: value for key, value in members.items() if value is not None}


def _workload_fields(workload: Workload) -> dict[str, str]:
    return {
        "issuer": workload.issuer,
        "audience": workload.audience,
        "preset": "none" if workload.preset is None else workload.preset.name,
        "claims": compact({name: str(one) for name, one in sorted(workload.claims.items())}),
        "algorithms": compact(sorted(workload.algorithms)),
        "max_job": f"{workload.max_job} s",
        "reuse": compact(workload.reuse),
        "observe": compact(workload.observe),
    }


def _account_fields(account: Account) -> dict[str, str]:
    return {
        "id": account.id,
        "name": account.title,
        "region": account.region,
        "partition": account.partition,
    }


def _organization_fields(organization: Organization) -> dict[str, str]:
    longest, accounts = organization.maximum_duration, organization.allowed_accounts
    return {
        "maximum_duration": "none" if longest is None else f"{longest} s",
        "allowed_accounts": "none" if accounts is None else compact(sorted(accounts)),
        "deny": compact(organization.deny),
    }
