"""The grammar of IAM session policies, as far as AWS states it.

Owns: which JSON is a session policy or a Deny statement (IAM User Guide,
"Grammar of the IAM JSON policy language": identity policies, so no Principal).
AWS stays the judge of what an action or a condition key means; this refuses
early what STS would answer with MalformedPolicyDocument, or would read
otherwise than its author meant. Does not own: placeholders (`template`),
sizes (`issuance/scope`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from broker.access.finding import Fault, Path, nearest

VERSION = "2012-10-17"
_POLICY_KEYS = ("Version", "Id", "Statement")
_STATEMENT_KEYS = ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition")
_ACTION = re.compile(r"[A-Za-z0-9-]{1,64}:[A-Za-z0-9*?]{1,128}", re.ASCII)
_RESOURCE = re.compile(r"arn:[^:]+:[^:]+:[^:]*:[^:]*:.+", re.DOTALL)
_SID = re.compile(r"[A-Za-z0-9]*", re.ASCII)
_CONDITION_KEY = re.compile(r"[A-Za-z0-9-]+:[^\s\x00-\x1f]+")

_STRING = ("Equals", "NotEquals", "EqualsIgnoreCase", "NotEqualsIgnoreCase", "Like", "NotLike")
_ORDER = (
    "Equals",
    "NotEquals",
    "LessThan",
    "LessThanEquals",
    "GreaterThan",
    "GreaterThanEquals",
)
_OPERATORS = frozenset(
    [f"String{name}" for name in _STRING]
    + [f"Numeric{name}" for name in _ORDER]
    + [f"Date{name}" for name in _ORDER]
    + [f"Arn{name}" for name in ("Equals", "NotEquals", "Like", "NotLike")]
    + ["Bool", "BinaryEquals", "IpAddress", "NotIpAddress", "Null"]
)
_SET_OPERATORS = ("ForAllValues:", "ForAnyValue:")


def policy_faults(document: object) -> Iterator[Fault]:
    """What keeps parsed JSON from being a session policy."""
    if not isinstance(document, Mapping):
        yield Fault((), "a session policy is an object", "write {Version: ..., Statement: [...]}")
        return
    yield from _unknown_keys(document, _POLICY_KEYS, ())
    if document.get("Version") != VERSION:
        path: Path = ("Version",) if "Version" in document else ()
        yield Fault(
            path,
            "without Version 2012-10-17 IAM reads ${...} as plain text",
            f'write Version: "{VERSION}"',
        )
    if "Id" in document and not isinstance(document["Id"], str):
        yield Fault(("Id",), "Id is a string", "put it in quotes")
    statements = document.get("Statement")
    if isinstance(statements, list) and statements:
        for index, statement in enumerate(statements):
            yield from statement_faults(statement, ("Statement", index))
        yield from _repeated_sids(statements)
    elif isinstance(statements, Mapping):
        yield from statement_faults(statements, ("Statement",))
    else:
        where: Path = ("Statement",) if "Statement" in document else ()
        yield Fault(where, "there is no statement", "write Statement: [{Effect: Allow, ...}]")


def _repeated_sids(statements: list[object]) -> Iterator[Fault]:
    seen: set[object] = set()
    for index, statement in enumerate(statements):
        sid = statement.get("Sid") if isinstance(statement, Mapping) else None
        if isinstance(sid, str) and sid in seen:
            yield Fault(
                ("Statement", index, "Sid"), f"{_shown(sid)} stands here twice", "write another Sid"
            )
        seen.add(sid if isinstance(sid, str) else None)


def statement_faults(
    statement: object, path: Path = (), *, deny_only: bool = False
) -> Iterator[Fault]:
    """What keeps parsed JSON from being a statement, or a Deny statement where `deny_only`."""
    if not isinstance(statement, Mapping):
        yield Fault(path, "a statement is an object", "write {Effect: ..., Action: ..., ...}")
        return
    yield from _unknown_keys(statement, _STATEMENT_KEYS, path)
    yield from _effect_faults(statement, path, deny_only)
    sid = statement.get("Sid", "")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        yield Fault((*path, "Sid"), "Sid holds letters and digits only", "write Sid: ReadReports")
    for name, check in (("Action", _action_fault), ("Resource", _resource_fault)):
        key = _one_of(statement, name, f"Not{name}")
        if key is None:
            yield Fault(
                path,
                f"a statement has exactly one of {name} and Not{name}",
                f"write one of the two, such as {name}: {_EXAMPLES[name]}",
            )
            continue
        for where, text in _strings(statement[key], (*path, key)):
            fault = "is no string" if text is None else check(text)
            if fault:
                yield Fault(
                    where, f"{_shown(text)} {fault}".strip(), f"write {key}: {_EXAMPLES[name]}"
                )
    if "Condition" in statement:
        yield from _condition_faults(statement["Condition"], (*path, "Condition"))


_EXAMPLES = {"Action": '["s3:GetObject"]', "Resource": '["arn:aws:s3:::reports/*"]'}


def _effect_faults(
    statement: Mapping[object, object], path: Path, deny_only: bool
) -> Iterator[Fault]:
    effect = statement.get("Effect")
    where: Path = (*path, "Effect") if "Effect" in statement else path
    if deny_only and effect != "Deny":
        yield Fault(where, "only Deny statements may be added here", "write Effect: Deny")
    elif effect not in ("Allow", "Deny"):
        yield Fault(where, "Effect is Allow or Deny", "write Effect: Allow")


def _unknown_keys(
    node: Mapping[object, object], known: tuple[str, ...], path: Path
) -> Iterator[Fault]:
    for key in node:
        if key in ("Principal", "NotPrincipal"):
            yield Fault(
                (*path, str(key)),
                "a session policy names no principal: it is the role session's",
                f"leave {key} out",
            )
        elif key not in known:
            yield Fault((*path, str(key)), f"{_shown(key)} is unknown here", nearest(key, known))


def _one_of(node: Mapping[object, object], first: str, second: str) -> str | None:
    present = [key for key in (first, second) if key in node]
    return present[0] if len(present) == 1 else None


def _strings(value: object, path: Path) -> Iterator[tuple[Path, str | None]]:
    """The strings of a string-or-list; None for what is neither, or for an empty list."""
    items = value if isinstance(value, list) else [value]
    if not items:
        yield path, None
    for index, item in enumerate(items):
        where = (*path, index) if isinstance(value, list) else path
        yield where, item if isinstance(item, str) else None


def _action_fault(text: str) -> str:
    if text == "*" or _ACTION.fullmatch(text):
        return ""
    return "is no action"


def _resource_fault(text: str) -> str:
    if text == "*" or _RESOURCE.fullmatch(text):
        return ""
    return "is no resource: an ARN, or * for all"


def _condition_faults(condition: object, path: Path) -> Iterator[Fault]:
    example = 'write {StringEquals: {"aws:PrincipalTag/team": [web]}}'
    if not isinstance(condition, Mapping) or not condition:
        yield Fault(path, "Condition is an object of operators", example)
        return
    for operator, keys in condition.items():
        where = (*path, str(operator))
        if not _known_operator(operator):
            yield Fault(
                where,
                f"{_shown(operator)} is no condition operator",
                nearest(operator, sorted(_OPERATORS)),
            )
        elif not isinstance(keys, Mapping) or not keys:
            yield Fault(where, "a condition operator holds an object of keys", example)
        else:
            yield from _operand_faults(keys, where)


def _operand_faults(keys: Mapping[object, object], path: Path) -> Iterator[Fault]:
    for key, values in keys.items():
        where = (*path, str(key))
        if not isinstance(key, str) or not _CONDITION_KEY.fullmatch(key):
            yield Fault(
                where, f"{_shown(key)} is no condition key", "write one such as aws:SourceIp"
            )
        items = values if isinstance(values, list) else [values]
        if not items or not all(isinstance(item, str | int) for item in items):
            yield Fault(
                where,
                "a condition's values are strings, whole numbers or booleans",
                "write one, or a list with at least one",
            )


def _known_operator(operator: object) -> bool:
    if not isinstance(operator, str):
        return False
    name = operator
    for prefix in _SET_OPERATORS:
        name = name.removeprefix(prefix)
    if name != "NullIfExists":  # Null asks for existence already
        name = name.removesuffix("IfExists")
    return name in _OPERATORS and operator.count(":") <= 1


def _shown(value: object) -> str:
    return "" if value is None else repr(value)[:80]
