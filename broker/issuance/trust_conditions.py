"""Whether a trust policy's Condition holds for a call, as far as that can be known here.

Owns: the request's keys as the broker knows them, and the operators (IAM User
Guide, "Condition operators", "Multivalued context keys"), with three answers:
yes, no, and None for what only AWS knows. Does not own what follows from it
(`trust_judgement`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.access.tags import ISSUANCE_TAG
from broker.issuance.request import PLACEHOLDER_ID
from broker.issuance.sts import AssumeRole, CallerIdentity
from broker.issuance.trust_document import Clause, glob

_QUALIFIERS = ("ForAllValues:", "ForAnyValue:")
_REQUEST_TAG = "aws:requesttag/"


@dataclass(frozen=True, slots=True)
class Known:
    """The values of one key; none means that the request does not have it. `sample`: what the
    broker sends varies, and these values are only like it.
    """

    values: tuple[str, ...]
    sample: bool = False


def keys_of(
    call: AssumeRole, identity: CallerIdentity, principal: str, varying: frozenset[str]
) -> dict[str, Known]:
    """What STS knows of the request when the broker makes `call`, names in lower case.

    `principal` is the role or user behind the caller; `varying` are the tags whose values differ
    from one issuance to the next. Of a key that is not in it nothing is known.
    """
    keys = {
        "aws:principalaccount": Known((principal.split(":")[4],)),
        "aws:principalisawsservice": Known(("false",)),
        "aws:viaawsservice": Known(("false",)),
        "aws:securetransport": Known(("true",)),
        "sts:externalid": _maybe(call.external_id),
        "sts:rolesessionname": Known((call.role_session_name,), sample=True),
        "sts:sourceidentity": _maybe(call.source_identity, sample=True),
        "aws:tagkeys": Known(tuple(key for key, _ in call.tags)),
        "sts:transitivetagkeys": Known(call.transitive_tag_keys),
        **_of_caller(call, identity, principal),
    }
    for key, value in call.tags:
        keys[f"{_REQUEST_TAG}{key.lower()}"] = Known((value,), sample=key in varying)
    return keys


def _of_caller(call: AssumeRole, identity: CallerIdentity, principal: str) -> dict[str, Known]:
    if call.after is None and identity.is_user:
        # Long-term keys, or those of GetSessionToken, which may have shown a second factor.
        return {
            "aws:principalarn": Known((principal,)),
            "aws:principaltype": Known(("User",)),
            "aws:sourceidentity": Known(()),
        }
    keys = {
        # The path of the broker's own role is not known.
        "aws:principalarn": Known((principal,), sample=call.after is None),
        "aws:principaltype": Known(("AssumedRole",)),
        "aws:multifactorauthpresent": Known(("false",)),
        "aws:multifactorauthage": Known(()),
        "aws:sourceidentity": Known(()),
    }
    if call.after is not None:
        keys["aws:sourceidentity"] = Known((call.after.source_identity,), sample=True)
        keys[f"aws:principaltag/{ISSUANCE_TAG}"] = Known((PLACEHOLDER_ID,), sample=True)
    return keys


def _maybe(value: str | None, *, sample: bool = False) -> Known:
    return Known(()) if value is None else Known((value,), sample)


def holds(clause: Clause, keys: Mapping[str, Known]) -> bool | None:
    """None where it depends on what is not known here."""
    operator, qualifier = clause.operator, ""
    for name in _QUALIFIERS:
        if operator.startswith(name):
            operator, qualifier = operator.removeprefix(name), name
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    negated = "Not" in operator
    known = _known(clause.key.lower(), keys)
    if known is None:
        return None
    if operator == "Null":
        return ("false" if known.values else "true") in {v.lower() for v in clause.values}
    if not known.values:
        return if_exists or qualifier == "ForAllValues:" or (negated and not qualifier)
    test = _TESTS.get(operator.replace("Not", ""))
    if test is None or any("${" in value for value in clause.values):
        return None
    outcomes = [
        any(test(value, have) for value in clause.values) != negated for have in known.values
    ]
    every = qualifier == "ForAllValues:" or (negated and not qualifier)
    outcome = all(outcomes) if every else any(outcomes)
    # Where the sample is named, so is what it stands for; where it is not, another value may be.
    return None if known.sample and outcome == negated else outcome


def _known(key: str, keys: Mapping[str, Known]) -> Known | None:
    if key.startswith(_REQUEST_TAG):
        return keys.get(key, Known(()))  # the broker sends no other tag
    return keys.get(key)


def _arn_like(pattern: str, arn: str) -> bool:
    """Part by part: a wildcard does not reach over one of the first five colons."""
    if pattern == "*":
        return True
    parts, have = pattern.split(":", 5), arn.split(":", 5)
    if parts[-1].endswith("*"):
        parts += ["*"] * (len(have) - len(parts))
    # What is no ARN is like none.
    return len(have) == 6 == len(parts) and all(map(glob, parts, have))


_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, have: value == have,
    "StringEqualsIgnoreCase": lambda value, have: value.casefold() == have.casefold(),
    "StringLike": glob,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda value, have: value.lower() == have.lower(),
}
