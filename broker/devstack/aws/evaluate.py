"""Whether AWS would allow a request: the policy evaluation logic, as a pure function.

Source: IAM User Guide, "Policy evaluation logic" and "Session policies". In order:

1. An explicit Deny in any policy that applies decides.
2. In the caller's own account a resource policy that names the very principal
   that calls (a user, a role session, or everyone) decides alone: implicit
   denies of identity, boundary and session policies do not limit it.
3. One that names the role is still limited by session policies and boundary.
4. One that names the account only lets identity policies decide.
5. Else identity policies must allow, and so must the boundary and, where any
   was passed, one of the session policies.
6. Across accounts both sides must allow.

Does not own where policies come from, nor the texts of refusals in HTTP.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from broker.devstack.aws.conditions import holds
from broker.devstack.aws.grammar import Policy, Statement
from broker.devstack.aws.patterns import Context, Tokens, glob, glob_arn, resolve


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `arn` is the user's, the account root's or the role session's."""

    arn: str
    account: str
    role_arn: str | None = None
    root: bool = False


@dataclass(frozen=True, slots=True)
class CallerPolicies:
    """The caller's side. `session` is None when no session policy was passed."""

    identity: tuple[Policy, ...]
    session: tuple[Policy, ...] | None = None
    boundary: Policy | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked for. `policy_decides`: identity policies alone are not enough (role trust)."""

    arn: str
    account: str
    policy: Policy | None = None
    policy_decides: bool = False


class Cause(enum.Enum):
    """Why; the values are the endings AWS puts behind its "not authorized" text."""

    ALLOWED = "allowed"
    DENY_IDENTITY = "with an explicit deny in an identity-based policy"
    DENY_SESSION = "with an explicit deny in a session policy"
    DENY_BOUNDARY = "with an explicit deny in a permissions boundary"
    DENY_RESOURCE = "with an explicit deny in a resource-based policy"
    NO_IDENTITY = "because no identity-based policy allows the {action} action"
    NO_SESSION = "because no session policy allows the {action} action"
    NO_BOUNDARY = "because no permissions boundary allows the {action} action"
    NO_RESOURCE = "because no resource-based policy allows the {action} action"


@dataclass(frozen=True, slots=True)
class Decision:
    cause: Cause
    action: str

    @property
    def allowed(self) -> bool:
        return self.cause is Cause.ALLOWED

    @property
    def reason(self) -> str:
        return self.cause.value.format(action=self.action)


class _Grant(enum.IntEnum):
    """How closely a resource policy names the caller."""

    NONE = 0
    ACCOUNT = 1
    ROLE = 2
    PRINCIPAL = 3


def evaluate(
    action: str, resource: Resource, caller: Caller, policies: CallerPolicies, context: Context
) -> Decision:
    """Decide one action (`service:Name`) on one resource."""
    request = _Request(action, resource.arn, context)
    denied = _explicit_deny(request, resource, caller, policies)
    if denied is not None:
        return Decision(denied, action)
    grant = _resource_grant(request, resource.policy, caller)
    same_account = resource.account == caller.account
    return Decision(_outcome(request, resource, caller, policies, grant, same_account), action)


def _outcome(
    request: _Request,
    resource: Resource,
    caller: Caller,
    policies: CallerPolicies,
    grant: _Grant,
    same_account: bool,
) -> Cause:
    if not same_account:
        if grant is _Grant.NONE:
            return Cause.NO_RESOURCE
        return _identity_side(request, caller, policies)
    if grant is _Grant.PRINCIPAL:
        return Cause.ALLOWED
    if grant is _Grant.ROLE:
        return _limits(request, policies)
    if grant is _Grant.NONE and resource.policy_decides:
        return Cause.NO_RESOURCE
    return _identity_side(request, caller, policies)


def _identity_side(request: _Request, caller: Caller, policies: CallerPolicies) -> Cause:
    if not caller.root and not _allows(request, policies.identity):
        return Cause.NO_IDENTITY
    return _limits(request, policies)


def _limits(request: _Request, policies: CallerPolicies) -> Cause:
    if policies.boundary is not None and not _allows(request, [policies.boundary]):
        return Cause.NO_BOUNDARY
    if policies.session is not None and not _allows(request, policies.session):
        return Cause.NO_SESSION
    return Cause.ALLOWED


def _explicit_deny(
    request: _Request, resource: Resource, caller: Caller, policies: CallerPolicies
) -> Cause | None:
    if _denies(request, policies.identity):
        return Cause.DENY_IDENTITY
    if policies.boundary is not None and _denies(request, [policies.boundary]):
        return Cause.DENY_BOUNDARY
    if _denies(request, policies.session or ()):
        return Cause.DENY_SESSION
    if resource.policy is not None and any(
        not statement.allow
        and _names(statement, caller) is not _Grant.NONE
        and request.concerns(statement)
        for statement in resource.policy.statements
    ):
        return Cause.DENY_RESOURCE
    return None


def _allows(request: _Request, policies: Iterable[Policy]) -> bool:
    return any(s.allow and request.concerns(s) for p in policies for s in p.statements)


def _denies(request: _Request, policies: Iterable[Policy]) -> bool:
    return any(not s.allow and request.concerns(s) for p in policies for s in p.statements)


def _resource_grant(request: _Request, policy: Policy | None, caller: Caller) -> _Grant:
    if policy is None:
        return _Grant.NONE
    grants = [
        _names(statement, caller)
        for statement in policy.statements
        if statement.allow and request.concerns(statement)
    ]
    return max(grants, default=_Grant.NONE)


def _names(statement: Statement, caller: Caller) -> _Grant:
    closest = max((_match(named, caller) for named in statement.principals), default=_Grant.NONE)
    if statement.inverted_principals:
        return _Grant.PRINCIPAL if closest is _Grant.NONE else _Grant.NONE
    return closest


def _match(named: str, caller: Caller) -> _Grant:
    if named in ("*", caller.arn):
        return _Grant.PRINCIPAL
    if caller.role_arn is not None and named == caller.role_arn:
        return _Grant.ROLE
    partition = caller.arn.split(":")[1]
    if named in (caller.account, f"arn:{partition}:iam::{caller.account}:root"):
        return _Grant.ACCOUNT
    return _Grant.NONE


@dataclass(frozen=True, slots=True)
class _Request:
    action: str
    resource: str
    context: Context

    def concerns(self, statement: Statement) -> bool:
        """Whether the statement's action, resource and conditions take in this request."""
        action = self.action.lower()
        if any(glob(p, action) for p in statement.actions) == statement.inverted_actions:
            return False
        if statement.resources and not self._resource_matches(statement):
            return False
        return all(holds(condition, self.context) for condition in statement.conditions)

    def _resource_matches(self, statement: Statement) -> bool:
        resolved = [resolve(pattern, self.context) for pattern in statement.resources]
        hit = any(self._covers(pattern) for pattern in resolved if pattern is not None)
        if not statement.inverted_resources:
            return hit
        # NotResource with a variable that has no value: an Allow must not grow by it,
        # a Deny must not shrink.
        if None in resolved and statement.allow:
            return False
        return not hit

    def _covers(self, pattern: Tokens) -> bool:
        return glob_arn(pattern, self.resource)
