"""The trust policy that lets the broker into a role, and nobody else.

Owns: what is written for each call that issuing makes (`rehearsal`): the exact
principal, the three actions that the call needs, and conditions that hold for
every call of the broker's and few others. Sources: IAM User Guide, "Pass
session tags in AWS STS" and "Monitor and control actions taken with assumed
roles"; Service Authorization Reference, AWS STS, for which action has which
keys. Does not own: judging a policy that is there (`trust_judgement`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from broker.access.grammar import VERSION
from broker.access.session_policy import compact
from broker.access.tags import ISSUANCE_TAG
from broker.errors import Conflict
from broker.issuance.scope import Scoped
from broker.issuance.sts import AssumeRole, CallerIdentity

ACTIONS = ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")
# A person's or a workload's id, and the form of session names (`scope.session_name`).
SOURCE_IDENTITIES = ["p-*", "w-*"]
SESSION_NAMES = "*-iss-*"
ISSUANCE_IDS = "iss-*"

_ASSUMED = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):sts::(?P<account>[0-9]{12}):assumed-role/(?P<role>[^/]+)/.+"
)
_PATH_NOTE = (
    "If the broker's role has a path, write it: {arn} stands for what "
    "`aws iam get-role --role-name {name} --query Role.Arn` prints. AWS does not show the path "
    "to the role's own sessions."
)
_OWN_POLICY_NOTE = (
    "{principal} also needs a policy of its own that allows " + ", ".join(ACTIONS) + " on {role}."
)
# IAM's default quota, which an account may have raised (IAM User Guide, "IAM and AWS STS quotas").
_MAX_CHARACTERS = 2048
_LONG_NOTE = (
    "It has {size} characters, over the {limit} that AWS takes unless the account's quota is "
    "raised: leave tags out of the role in the access policy."
)


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """`document` is for the role `role_arn`, which `principal` is to assume. `notes` are for the
    person who pastes it.
    """

    role_arn: str
    principal: str
    document: Mapping[str, object]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "role_arn": self.role_arn,
            "principal": self.principal,
            "policy": self.document,
            "notes": [*self.notes, *length_note(self.document)],
        }

    def beside(self, everyone: Iterable[TrustPolicy]) -> TrustPolicy:
        """With what `everyone` else needs of the same role: another entry of the access policy
        may mean it too, or pass through it, and a role has one trust policy.
        """
        same = [one.document for one in everyone if one.role_arn == self.role_arn]
        return replace(self, document=united([self.document, *same]))


def principal_behind(identity: CallerIdentity) -> tuple[str, tuple[str, ...]]:
    """The ARN that trust policies name for the broker, and what to note of it.

    Raises Conflict for an identity that can assume no role.
    """
    if identity.is_user:
        return identity.arn, ()
    match = _ASSUMED.fullmatch(identity.arn)
    if match is None:
        raise Conflict(
            f"The broker is {identity.arn} at AWS, which can assume no role: run it as an IAM role."
        )
    name = match["role"]
    arn = f"arn:{match['partition']}:iam::{match['account']}:role/{name}"
    return arn, (_PATH_NOTE.format(arn=arn, name=name),)


def trust_policies(scoped: Scoped, identity: CallerIdentity) -> tuple[TrustPolicy, ...]:
    """One for each role on the way, the last for the role itself. Raises Conflict."""
    broker, notes = principal_behind(identity)
    return trust_policies_for(scoped, broker, notes)


def trust_policies_for(
    scoped: Scoped, broker: str, notes: tuple[str, ...] = ()
) -> tuple[TrustPolicy, ...]:
    """The same where the broker's ARN is known. `notes` are about that ARN."""
    return tuple(
        _trust_policy(call, broker, notes)
        if call.after is None
        else _trust_policy(call, call.after.role_arn, ())
        for call in scoped.calls
    )


def united(documents: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """One document with every statement of theirs once: a role may be on several ways."""
    statements: list[dict[str, object]] = []
    seen: set[str] = set()
    sids: Counter[str] = Counter()
    for document in documents:
        for statement in _statements(document):
            said = compact({key: value for key, value in statement.items() if key != "Sid"})
            if said in seen:
                continue
            seen.add(said)
            sid = str(statement["Sid"])
            sids[sid] += 1
            statements.append({**statement, "Sid": sid if sids[sid] == 1 else f"{sid}{sids[sid]}"})
    return {"Version": VERSION, "Statement": statements}


def length_note(document: Mapping[str, object]) -> tuple[str, ...]:
    """What to say of a document that is longer than AWS takes by default."""
    size = len(compact(document))
    return (_LONG_NOTE.format(size=size, limit=_MAX_CHARACTERS),) if size > _MAX_CHARACTERS else ()


def _trust_policy(call: AssumeRole, principal: str, notes: tuple[str, ...]) -> TrustPolicy:
    document = _document(principal, call)
    own = _OWN_POLICY_NOTE.format(principal=principal, role=call.role_arn)
    return TrustPolicy(call.role_arn, principal, document, (*notes, own))


def _statements(document: Mapping[str, object]) -> list[dict[str, object]]:
    found = document["Statement"]
    if not isinstance(found, list):
        raise TypeError("the broker writes statements as a list")
    return found


def _document(principal: str, call: AssumeRole) -> dict[str, object]:
    who, tags, assume = _conditions(call)
    return {
        "Version": VERSION,
        "Statement": [
            _statement("BrokerAssumeRole", principal, "sts:AssumeRole", assume),
            _statement("BrokerTagSession", principal, "sts:TagSession", tags),
            _statement("BrokerSetSourceIdentity", principal, "sts:SetSourceIdentity", who),
        ],
    }


def _statement(
    sid: str, principal: str, action: str, condition: Mapping[str, object]
) -> dict[str, object]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": action,
        "Condition": condition,
    }


def broker_calls(
    *, after_hop: bool
) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """What is alike in all calls of the broker's, as conditions on SetSourceIdentity, TagSession
    and AssumeRole, each with the keys that AWS gives it.

    After a hop, source identity and transitive tags are the caller's already; AWS shows them as
    the principal's and not as the request's.
    """
    if after_hop:
        identity, issuance = "aws:SourceIdentity", f"aws:PrincipalTag/{ISSUANCE_TAG}"
    else:
        identity, issuance = "sts:SourceIdentity", f"aws:RequestTag/{ISSUANCE_TAG}"
    who: dict[str, object] = {identity: SOURCE_IDENTITIES}
    tagged: dict[str, object] = {issuance: ISSUANCE_IDS}
    assume: dict[str, object] = {
        "StringLike": {**who, "sts:RoleSessionName": SESSION_NAMES, **tagged}
    }
    return {"StringLike": who}, {"StringLike": tagged}, assume


def _conditions(
    call: AssumeRole,
) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    who, tags, assume = broker_calls(after_hop=call.after is not None)
    if call.after is None:
        tags["ForAllValues:StringEquals"] = {
            "aws:TagKeys": [key for key, _ in call.tags],
            "sts:TransitiveTagKeys": list(call.transitive_tag_keys),
        }
    if call.external_id is not None:
        assume["StringEquals"] = {"sts:ExternalId": call.external_id}
    return who, tags, assume
