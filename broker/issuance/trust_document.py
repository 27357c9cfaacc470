"""A trust policy, read: its statements as values.

Owns the shape alone, as tolerant as AWS is (one or many statements, strings or
lists). Sources: IAM User Guide, "Grammar of the IAM JSON policy language". Does
not own what a statement means for a request (`trust_conditions`,
`trust_judgement`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class UnreadablePolicy(Exception):
    """The document is no trust policy; the text says where."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One operator and key of a Condition block, e.g. StringEquals, sts:ExternalId, [...]."""

    operator: str
    key: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.operator} {self.key}"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `all_but_...`: written as NotAction or NotPrincipal. Principals are as
    written; of kinds other than AWS with their kind before them.
    """

    allow: bool
    actions: tuple[str, ...]
    all_but_actions: bool
    principals: tuple[str, ...]
    all_but_principals: bool
    clauses: tuple[Clause, ...]

    def concerns(self, action: str) -> bool:
        matches = any(glob(pattern.lower(), action.lower()) for pattern in self.actions)
        return matches != self.all_but_actions


def read_trust_policy(document: object) -> tuple[Statement, ...]:
    """The statements of the parsed JSON `document`. Raises UnreadablePolicy."""
    if not isinstance(document, Mapping) or "Statement" not in document:
        raise UnreadablePolicy("it has no Statement")
    listed = document["Statement"]
    return tuple(map(_statement, listed if isinstance(listed, list) else [listed]))


def _statement(statement: object) -> Statement:
    if not isinstance(statement, Mapping) or statement.get("Effect") not in ("Allow", "Deny"):
        raise UnreadablePolicy("a statement has no Effect")
    actions, all_but_actions = _either(statement, "Action")
    principals, all_but_principals = _either(statement, "Principal")
    return Statement(
        statement["Effect"] == "Allow",
        tuple(_texts(actions)),
        all_but_actions,
        tuple(_principals(principals)),
        all_but_principals,
        tuple(_clauses(statement.get("Condition", {}))),
    )


def _either(statement: Mapping[str, object], name: str) -> tuple[object, bool]:
    for key, inverted in ((name, False), (f"Not{name}", True)):
        if key in statement:
            return statement[key], inverted
    raise UnreadablePolicy(f"a statement has no {name}")


def _principals(value: object) -> Iterator[str]:
    if value == "*":
        yield "*"
        return
    if not isinstance(value, Mapping):
        raise UnreadablePolicy("Principal is not an object")
    for kind, names in value.items():
        for name in _texts(names):
            yield name if kind == "AWS" else f"{kind} {name}"


def _texts(value: object) -> Iterator[str]:
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            raise UnreadablePolicy("a name is not a string")
        yield text


def _clauses(condition: object) -> Iterator[Clause]:
    """Every line of a Condition block. Raises UnreadablePolicy."""
    if not isinstance(condition, Mapping):
        raise UnreadablePolicy("Condition is not an object")
    for operator, keys in condition.items():
        if not isinstance(keys, Mapping):
            raise UnreadablePolicy(f"{operator} is not an object")
        for key, values in keys.items():
            listed = values if isinstance(values, list) else [values]
            texts = tuple(_text(value) for value in listed)
            yield Clause(str(operator), str(key), texts)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise UnreadablePolicy("a value is not a string")
    return str(value)


def glob(pattern: str, value: str) -> bool:
    """IAM's wildcards: `*` and `?`. In time linear in pattern times value, whatever they hold."""
    p = v = 0
    star, mark = -1, 0
    while v < len(value):
        if p < len(pattern) and pattern[p] == "*":
            star, mark = p, v
            p += 1
        elif p < len(pattern) and pattern[p] in ("?", value[v]):
            p, v = p + 1, v + 1
        elif star >= 0:
            mark += 1
            p, v = star + 1, mark
        else:
            return False
    return set(pattern[p:]) <= {"*"}
