"""Whether a role's trust policy lets the broker in, and whom else, read from the policy alone.

Owns: the judgement on each thing that a first set-up gets wrong, with its cure.
Sources: IAM User Guide, "AWS JSON policy elements: Principal", "Policy
evaluation logic". What only AWS knows (the broker's own policies, the
organization's, keys that the broker does not see) is named as open, never
guessed. Does not own: reading the policy from AWS, or trying it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from broker.issuance.sts import AssumeRole, CallerIdentity
from broker.issuance.trust_conditions import Known, holds, keys_of
from broker.issuance.trust_document import (
    Clause,
    Statement,
    UnreadablePolicy,
    read_trust_policy,
)

_ASSUME = "sts:AssumeRole"
# Every call is tagged and says who it is for; a session that comes over a hop carries both along.
_NEEDED = (_ASSUME, "sts:TagSession", "sts:SetSourceIdentity")
# Keys that say who asks, or from where. `Principal: "*"` without one of them means everybody.
_WHO = (
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalorg",
    "aws:principaltag/",
    "aws:sourceip",
    "aws:sourcevpc",
    "aws:userid",
    "aws:username",
    "sts:externalid",
)
_ROLE = re.compile(r"(arn:[a-z-]+:iam::[0-9]{12}:role)/(?:.*/)?([^/]+)")
_UNIQUE_ID = re.compile(r"A[A-Z0-9]{15,127}")


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Judgement:
    level: Level
    message: str
    cure: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`judgements` are warnings and failures, none where all is well. `open`: what reading can't
    settle, so that only trying can.
    """

    judgements: tuple[Judgement, ...]
    open: tuple[str, ...]

    @property
    def refused(self) -> bool:
        return any(judgement.level is Level.FAIL for judgement in self.judgements)


class _Named(IntEnum):
    """How a statement names the caller."""

    NOT = 0
    ACCOUNT = 1
    SESSION = 2
    EXACTLY = 3
    EVERYBODY = 4


def judge(
    document: object,
    call: AssumeRole,
    identity: CallerIdentity,
    *,
    principal: str,
    varying: frozenset[str],
    role_name: str,
) -> Verdict:
    """`document` is the role's trust policy as parsed JSON, `call` the one that it must allow,
    `principal` the role or user behind its caller (`trust_policy.principal_behind`).
    """
    try:
        statements = read_trust_policy(document)
    except UnreadablePolicy as fault:
        message = f"the trust policy can't be read: {fault}"
        return Verdict((Judgement(Level.FAIL, message, _paste(role_name)),), ())
    keys = keys_of(call, identity, principal, varying)
    return _Judge(statements, call, identity, principal, keys, role_name).verdict()


@dataclass(frozen=True, slots=True)
class _Judge:
    statements: tuple[Statement, ...]
    call: AssumeRole
    identity: CallerIdentity
    principal: str
    keys: Mapping[str, Known]
    role_name: str

    def verdict(self) -> Verdict:
        judgements = list(self._everybody())
        if not any(self._about(_ASSUME, allow=True)):
            return Verdict((*judgements, self._not_named()), ())
        if self._allows(_ASSUME, self.keys) is not False:
            judgements += self._closeness()
            judgements += self._external_id()
        open_questions: list[str] = []
        told: set[Clause] = set()
        for action in _NEEDED:
            allowed = self._allows(action, self.keys)
            if allowed is None:
                open_questions.append(self._depends(action))
            elif allowed is False:
                # One statement may fail several actions by one condition.
                clause = self._failing(action)
                if clause is None or clause not in told:
                    judgements.append(self._refusal(action, clause))
                told |= {clause} if clause is not None else set()
        if not self._settled_by_trust():
            open_questions.append("the broker's own policies")
        return Verdict(tuple(judgements), tuple(dict.fromkeys(open_questions)))

    def _settled_by_trust(self) -> bool:
        """Whether naming the caller is enough: in its own account, exactly, and not along a chain,
        where its own policies must allow sts:SetSourceIdentity too.
        """
        same_account = self.principal.split(":")[4] == self.call.role_arn.split(":")[4]
        user = self.call.after is None and self.identity.is_user
        return same_account and user and self._closest(_ASSUME) >= _Named.EXACTLY

    # What is allowed.

    def _allows(self, action: str, keys: Mapping[str, Known]) -> bool | None:
        allowed = _any_holds(self._about(action, allow=True), keys)
        denied = _any_holds(self._about(action, allow=False), keys)
        if denied is True or allowed is False:
            return False
        return None if denied is None or allowed is None else True

    def _about(self, action: str, *, allow: bool) -> Iterator[Statement]:
        for statement in self.statements:
            if (
                statement.allow is allow
                and statement.concerns(action)
                and self._names(statement) > _Named.NOT
            ):
                yield statement

    def _names(self, statement: Statement) -> _Named:
        closest = max(map(self._name, statement.principals), default=_Named.NOT)
        if statement.all_but_principals:
            return _Named.EVERYBODY if closest is _Named.NOT else _Named.NOT
        return closest

    def _name(self, named: str) -> _Named:
        partition, account = self.principal.split(":")[1], self.principal.split(":")[4]
        if named == "*":
            return _Named.EVERYBODY
        if named in (account, f"arn:{partition}:iam::{account}:root"):
            return _Named.ACCOUNT
        if self.call.after is None and named == self.identity.arn and named != self.principal:
            return _Named.SESSION
        # A role's name is its account's, whatever the path, which AWS does not show to sessions.
        return _Named.EXACTLY if _bare(named) == _bare(self.principal) else _Named.NOT

    def _closest(self, action: str) -> _Named:
        holding = [
            self._names(statement)
            for statement in self._about(action, allow=True)
            if _all_hold(statement.clauses, self.keys) is not False
        ]
        return max(holding, default=_Named.NOT)

    # What is said of it.

    def _everybody(self) -> Iterator[Judgement]:
        for statement in self.statements:
            everybody = statement.all_but_principals or "*" in statement.principals
            if not (statement.allow and everybody and statement.concerns(_ASSUME)):
                continue
            limits = [clause.key for clause in statement.clauses if _limits_who(clause)]
            who = "NotPrincipal" if statement.all_but_principals else 'Principal "*"'
            if not limits:
                yield Judgement(
                    Level.FAIL,
                    f"the trust policy lets anybody in, of any AWS account: {who} without a "
                    "condition on who asks",
                    _paste(self.role_name),
                )
            else:
                yield Judgement(
                    Level.WARN,
                    f"the trust policy says {who}, limited only by {', '.join(limits)}",
                    f"name the broker as the principal: {self.principal}",
                )

    def _closeness(self) -> Iterator[Judgement]:
        match self._closest(_ASSUME):
            case _Named.ACCOUNT:
                yield Judgement(
                    Level.WARN,
                    f"the trust policy names the whole account {self.principal.split(':')[4]}: "
                    "whoever its policies let assume roles gets in",
                    f"name the broker as the principal: {self.principal}",
                )
            case _Named.SESSION:
                yield Judgement(
                    Level.WARN,
                    "the trust policy names the broker's present session alone, whose name may "
                    "change with the next start",
                    f"name the role behind it: {self.principal}",
                )

    def _external_id(self) -> Iterator[Judgement]:
        without = {**self.keys, "sts:externalid": Known(())}
        if self.call.external_id is not None and self._allows(_ASSUME, without) is not False:
            yield Judgement(
                Level.WARN,
                "the trust policy does not ask for the ExternalId that the access policy has",
                _paste(self.role_name),
            )

    def _failing(self, action: str) -> Clause | None:
        """The condition that fails, of the statement that comes nearest to allowing the action;
        None where no statement would, or one denies it.
        """
        if self._denied(action):
            return None
        failing = [
            [clause for clause in statement.clauses if holds(clause, self.keys) is False]
            for statement in self._about(action, allow=True)
        ]
        return min(failing, key=len)[0] if failing else None

    def _denied(self, action: str) -> bool:
        return any(
            _all_hold(statement.clauses, self.keys) is True
            for statement in self._about(action, allow=False)
        )

    def _refusal(self, action: str, clause: Clause | None) -> Judgement:
        if self._denied(action):
            message = f"a Deny statement of the trust policy refuses {action} to the broker"
            return Judgement(Level.FAIL, message, "remove it, or except the broker from it")
        if clause is not None:
            return self._condition(action, clause)
        message = f"the trust policy does not allow {action} to the broker"
        return Judgement(Level.FAIL, message, _paste(self.role_name))

    def _not_named(self) -> Judgement:
        named = [
            name
            for statement in self.statements
            if statement.allow and statement.concerns(_ASSUME)
            for name in statement.principals
        ]
        gone = [name for name in named if _UNIQUE_ID.fullmatch(name)]
        message = f"the trust policy does not name the broker, {self.principal}"
        if gone:
            message += f"; {gone[0]} stands for a principal that was deleted since"
        elif named:
            message += f"; it names {', '.join(named[:3])}"
        return Judgement(Level.FAIL, message, _paste(self.role_name))

    def _condition(self, action: str, clause: Clause) -> Judgement:
        if clause.key.lower() != "sts:externalid":
            message = f"the trust policy's condition {clause} on {action} refuses the broker"
            return Judgement(Level.FAIL, message, f"drop it, or {_paste(self.role_name)}")
        # The id itself is not shown: it is half a secret.
        if self.call.external_id is None:
            message = "the trust policy asks for an ExternalId, and the access policy has none"
        else:
            message = "the trust policy asks for another ExternalId than the access policy has"
        cure = "write the trust policy's as the role's external_id in the access policy"
        return Judgement(Level.FAIL, message, f"{cure}, or {_paste(self.role_name)}")

    def _depends(self, action: str) -> str:
        unknown = [
            str(clause)
            for allow in (True, False)
            for statement in self._about(action, allow=allow)
            for clause in statement.clauses
            if holds(clause, self.keys) is None
        ]
        return f"the condition {unknown[0]} on {action}"


def _paste(role_name: str) -> str:
    return f"set the trust policy that `broker access trust-policy {role_name}` prints"


def _bare(arn: str) -> str:
    """A role's ARN without its path."""
    match = _ROLE.fullmatch(arn)
    return arn if match is None else f"{match[1]}/{match[2]}"


def _any_holds(statements: Iterator[Statement], keys: Mapping[str, Known]) -> bool | None:
    found = [_all_hold(statement.clauses, keys) for statement in statements]
    return True if True in found else None if None in found else False


def _all_hold(conditions: tuple[Clause, ...], keys: Mapping[str, Known]) -> bool | None:
    found = [holds(clause, keys) for clause in conditions]
    return False if False in found else None if None in found else True


def _limits_who(clause: Clause) -> bool:
    """Whether the clause shuts out those who do not have what it asks for."""
    operator = clause.operator
    if "Not" in operator or operator == "Null" or operator.startswith("ForAllValues:"):
        return False
    if operator.endswith("IfExists") or any(set(value) <= {"*"} for value in clause.values):
        return False
    return clause.key.lower().startswith(_WHO)
