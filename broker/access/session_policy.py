"""The inline session policy as it is sent: a role's own, and the Deny statements beside it.

Owns: which denials are added, how they are joined, and the size that counts
against AWS's limit. Several session policies are OR-ed before they are
intersected with the role, and only an explicit Deny narrows a union: so what is
added is Deny, never Allow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from broker.access.grammar import VERSION
from broker.access.policy import Organization, Role

MAX_POLICY = 2048  # characters, inline and managed together (AssumeRole, API reference)

# Credentials that may assume another role leave behind the scope, the tags and
# the revocation that were put on their own session.
NO_CHAINING: Mapping[str, object] = {
    "Effect": "Deny",
    "Action": ["sts:AssumeRole", "sts:AssumeRoot"],
    "Resource": "*",
}
# An inline policy of Deny statements alone would leave an unscoped role nothing.
EVERYTHING: Mapping[str, object] = {"Effect": "Allow", "Action": "*", "Resource": "*"}


# Kept, as json.dumps makes a new encoder for each call that wants something of its own.
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def compact(document: object) -> str:
    """JSON as short as STS takes it. ASCII, so always in the characters that STS admits."""
    return _compact(document)


def hop_policy(following: str) -> str:
    """The session policy of a hop: it may go on to the role `following`, and do nothing else."""
    statement = {
        "Effect": "Allow",
        "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
        "Resource": following,
    }
    return compact({"Version": VERSION, "Statement": [statement]})


def size(policy: str | None, managed: tuple[str, ...]) -> int:
    """What AWS counts against MAX_POLICY, as far as it is known here: of managed policies the
    broker sees the ARNs alone.
    """
    return len(policy or "") + sum(len(arn) for arn in managed)


def denials(
    role: Role, organization: Organization, restrict: tuple[Mapping[str, object], ...] = ()
) -> list[Mapping[str, object]]:
    """The Deny statements that stand in this role's session policy beside its own."""
    chaining = [] if role.may_chain else [NO_CHAINING]
    return [*organization.deny, *chaining, *restrict]


def assemble(
    role: Role, own: Mapping[str, object] | None, added: list[Mapping[str, object]]
) -> str | None:
    """The inline policy: the role's own (rendered), and the denials. None where there is neither:
    the managed policies, or the role's unscoped rights, then stand alone.

    A Sid is unique in a policy, so that of a denial is left out: it might be the role's own.
    """
    if own is None and not added:
        return None
    statements: list[object] = []
    document: dict[str, object] = {"Version": VERSION}
    if own is not None:
        document.update(own)
        written = own["Statement"]
        statements.extend(written if isinstance(written, list) else [written])
    elif role.unscoped:
        statements.append(EVERYTHING)
    statements.extend(
        {key: value for key, value in denial.items() if key != "Sid"} for denial in added
    )
    document["Statement"] = statements
    return compact(document)
