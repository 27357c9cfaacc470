"""IAM policy documents parsed into frozen values, and what AWS refuses in them.

Pure. Owns the grammar (IAM User Guide: Grammar of the IAM JSON policy language)
for the four places a document can stand. Does not own what a policy means for a
request (evaluate.py, conditions.py).
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from functools import lru_cache

from broker.devstack.aws.conditions import OPERATORS, Condition, Qualifier
from broker.devstack.aws.patterns import BadPattern, Tokens, tokens

_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_SID = re.compile(r"[A-Za-z0-9]*")
_RESOURCE = re.compile(r"arn:[^:]+:[^:]+:.*", re.DOTALL)
_PRINCIPAL = re.compile(
    r"\*|[0-9]{12}|arn:aws[a-z-]*:(?:iam::[0-9]{12}:(?:root|user/[^*?]+|role/[^*?]+)"
    r"|sts::[0-9]{12}:assumed-role/[^/*?]+/[^/*?]+)"
)
_TOP = {"Version", "Id", "Statement"}
_STATEMENT = {"Sid", "Effect", "Action", "NotAction", "Condition"}
_RESOURCES = {"Resource", "NotResource"}
_PRINCIPALS = {"Principal", "NotPrincipal"}
_SYNTAX = "Syntax errors in policy."


class Kind(enum.Enum):
    """Where the document stands; it decides the elements a statement may have."""

    IDENTITY = "identity"  # on a user or role, or a session policy: no Principal
    TRUST = "trust"  # on a role: Principal, no Resource
    BUCKET = "bucket"  # on a bucket: Principal and Resource


class MalformedPolicy(Exception):
    """The document breaks the grammar; the text is AWS's."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. An inverted element matches what its patterns do not."""

    allow: bool
    actions: tuple[Tokens, ...]  # lower case
    inverted_actions: bool
    resources: tuple[Tokens, ...]  # empty in trust policies
    inverted_resources: bool
    principals: tuple[str, ...]  # "*", ARNs, account ids; "service:…" for other kinds
    inverted_principals: bool
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    statements: tuple[Statement, ...]


# What stands in for a document that can't be read: nothing is granted by mistake.
DENY_ALL = Policy(
    (
        Statement(
            allow=False,
            actions=(tokens("*", variables=False),),
            inverted_actions=False,
            resources=(tokens("*", variables=False),),
            inverted_resources=False,
            principals=("*",),
            inverted_principals=False,
            conditions=(),
        ),
    )
)


@lru_cache(maxsize=2048)
def parse(document: str, kind: Kind = Kind.IDENTITY) -> Policy:
    """Parse and check a document. Raises MalformedPolicy."""
    try:
        root = json.loads(document, object_pairs_hook=_no_duplicates, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedPolicy(_SYNTAX) from error
    if not isinstance(root, dict) or not set(root) <= _TOP or "Statement" not in root:
        raise MalformedPolicy(_SYNTAX)
    version = root.get("Version", "2008-10-17")
    if version not in ("2008-10-17", "2012-10-17"):
        raise MalformedPolicy(_SYNTAX)
    if not isinstance(root.get("Id", ""), str):
        raise MalformedPolicy(_SYNTAX)
    statements = root["Statement"]
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise MalformedPolicy(_SYNTAX)
    variables = version == "2012-10-17"
    parsed = tuple(_statement(statement, kind, variables) for statement in statements)
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(sids) != len(set(sids)):
        raise MalformedPolicy("Statement IDs (SID) in a single policy must be unique.")
    return Policy(parsed)


def _statement(raw: object, kind: Kind, variables: bool) -> Statement:
    if not isinstance(raw, dict):
        raise MalformedPolicy(_SYNTAX)
    allowed = _STATEMENT | (_RESOURCES if kind is not Kind.TRUST else set())
    if not set(raw) <= allowed | _PRINCIPALS | _RESOURCES:
        raise MalformedPolicy(_SYNTAX)
    if kind is Kind.IDENTITY and set(raw) & _PRINCIPALS:
        raise MalformedPolicy("Policy document should not specify a principal.")
    if kind is Kind.TRUST and set(raw) & _RESOURCES:
        raise MalformedPolicy("Has prohibited field Resource")
    if raw.get("Effect") not in ("Allow", "Deny"):
        raise MalformedPolicy(_SYNTAX)
    sid = raw.get("Sid", "")
    if not isinstance(sid, str) or _SID.fullmatch(sid) is None:
        raise MalformedPolicy("Statement IDs (SID) must be alpha-numeric.")
    actions, inverted_actions = _either(raw, "Action", "Policy statement must contain actions.")
    resources: list[str] = []
    inverted_resources = False
    if kind is not Kind.TRUST:
        resources, inverted_resources = _either(
            raw, "Resource", "Policy statement must contain resources."
        )
    principals, inverted_principals = _principals(raw, kind)
    return Statement(
        allow=raw["Effect"] == "Allow",
        actions=tuple(_action(action) for action in actions),
        inverted_actions=inverted_actions,
        resources=tuple(_resource(resource, variables) for resource in resources),
        inverted_resources=inverted_resources,
        principals=principals,
        inverted_principals=inverted_principals,
        conditions=_conditions(raw.get("Condition", {}), variables),
    )


def _either(raw: dict[str, object], name: str, missing: str) -> tuple[list[str], bool]:
    """The strings of `name` or of `Notname`, exactly one of which must be there."""
    present = [key for key in (name, f"Not{name}") if key in raw]
    if len(present) == 2:
        raise MalformedPolicy(_SYNTAX)
    if not present:
        raise MalformedPolicy(missing)
    values = _strings(raw[present[0]])
    if not values:
        raise MalformedPolicy(missing)
    return values, present[0].startswith("Not")


def _strings(raw: object) -> list[str]:
    values = raw if isinstance(raw, list) else [raw]
    strings = [value for value in values if isinstance(value, str)]
    if len(strings) != len(values):
        raise MalformedPolicy(_SYNTAX)
    return strings


def _action(text: str) -> Tokens:
    if ":" not in text and text != "*":
        raise MalformedPolicy(
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
        )
    if _ACTION.fullmatch(text) is None:
        raise MalformedPolicy(f"Action {text} is not valid.")
    return tokens(text.lower(), variables=False)


def _resource(text: str, variables: bool) -> Tokens:
    if text != "*" and _RESOURCE.fullmatch(text) is None:
        raise MalformedPolicy(f'Resource {text} must be in ARN format or "*".')
    return _tokens(text, variables)


def _tokens(text: str, variables: bool, *, wildcards: bool = True) -> Tokens:
    try:
        return tokens(text, variables=variables, wildcards=wildcards)
    except BadPattern as error:
        raise MalformedPolicy(f"The policy variable in {text} is not valid.") from error


def _principals(raw: dict[str, object], kind: Kind) -> tuple[tuple[str, ...], bool]:
    if kind is Kind.IDENTITY:
        return ("*",), False
    present = [key for key in ("Principal", "NotPrincipal") if key in raw]
    if len(present) != 1:
        raise MalformedPolicy("Missing required field Principal")
    named = raw[present[0]]
    if named == "*":
        named = {"AWS": "*"}
    if not isinstance(named, dict) or not named:
        raise MalformedPolicy("Invalid principal in policy")
    found: list[str] = []
    for sort, values in named.items():
        if sort not in ("AWS", "Service", "Federated", "CanonicalUser"):
            raise MalformedPolicy("Invalid principal in policy")
        for value in _strings(values):
            if sort == "AWS" and _PRINCIPAL.fullmatch(value) is None:
                raise MalformedPolicy("Invalid principal in policy")
            # Only AWS principals call this stand-in: the rest is kept, and never matches.
            found.append(value if sort == "AWS" else f"{sort.lower()}:{value}")
    return tuple(found), present[0] == "NotPrincipal"


def _conditions(raw: object, variables: bool) -> tuple[Condition, ...]:
    if not isinstance(raw, dict):
        raise MalformedPolicy(_SYNTAX)
    found: list[Condition] = []
    for name, keys in raw.items():
        if not isinstance(keys, dict):
            raise MalformedPolicy(_SYNTAX)
        qualifier, operator, if_exists = _operator(name)
        for key, values in keys.items():
            if ":" not in key:
                raise MalformedPolicy(
                    "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
                )
            found.append(
                Condition(
                    operator=operator,
                    qualifier=qualifier,
                    if_exists=if_exists,
                    key=key.lower(),
                    values=tuple(
                        _tokens(value, variables, wildcards=OPERATORS[operator].wildcards)
                        for value in _scalars(values)
                    ),
                )
            )
    return tuple(found)


def _operator(name: str) -> tuple[Qualifier, str, bool]:
    qualifier = Qualifier.NONE
    operator = name
    for candidate in (Qualifier.FOR_ALL_VALUES, Qualifier.FOR_ANY_VALUE):
        if operator.startswith(candidate.value):
            qualifier = candidate
            operator = operator.removeprefix(candidate.value)
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    if operator not in OPERATORS or (operator == "Null" and if_exists):
        raise MalformedPolicy(f"Invalid Condition type : {name}.")
    return qualifier, operator, if_exists


def _scalars(raw: object) -> list[str]:
    values = raw if isinstance(raw, list) else [raw]
    texts: list[str] = []
    for value in values:
        if isinstance(value, bool):
            texts.append("true" if value else "false")
        elif isinstance(value, (str, int, float)):
            texts.append(str(value))
        else:
            raise MalformedPolicy(_SYNTAX)
    return texts


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Two members of one name: readers differ on which counts, so neither does.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse(text: str) -> object:
    raise ValueError(text)
