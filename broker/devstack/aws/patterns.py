"""Wildcards and policy variables of IAM policies, matched without regular expressions.

Pure. Owns `*`, `?`, `${variable}`, `${variable, 'default'}` and the escapes
`${*}`, `${?}`, `${$}` (IAM User Guide: Resource; Policy variables). Does not own
which element of a policy may hold what (grammar.py).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Condition keys in lower case (they are case-insensitive) to their values.
Context = Mapping[str, tuple[str, ...]]

_VARIABLE = re.compile(r"\$\{(?P<name>[^{}$,']*?)\s*(?:,\s*'(?P<default>[^']*)'\s*)?\}")
_NAME = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9_.:/=+@ -]+")
_ESCAPES = {"*", "?", "$"}
_ARN_PARTS = 6


class Wild(enum.Enum):
    ANY = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Variable:
    key: str  # lower case
    default: str | None


Token = str | Wild | Variable  # a str token is one literal character
Tokens = tuple[Token, ...]


class BadPattern(ValueError):
    """A `${…}` that is not a policy variable."""


@lru_cache(maxsize=8192)
def tokens(text: str, *, variables: bool, wildcards: bool = True) -> Tokens:
    """The pattern taken apart. `variables` is true for Version 2012-10-17 alone.

    Raises BadPattern.
    """
    found: list[Token] = []
    position = 0
    while position < len(text):
        character = text[position]
        if variables and text.startswith("${", position):
            match = _VARIABLE.match(text, position)
            if match is None:
                raise BadPattern(text)
            found.append(_variable(match, text))
            position = match.end()
            continue
        if wildcards and character in "*?":
            found.append(Wild(character))
        else:
            found.append(character)
        position += 1
    return tuple(found)


def _variable(match: re.Match[str], text: str) -> Token:
    name = match["name"]
    if name in _ESCAPES and match["default"] is None:
        return name
    if _NAME.fullmatch(name) is None:
        raise BadPattern(text)
    return Variable(name.lower(), match["default"])


def resolve(pattern: Tokens, context: Context) -> Tokens | None:
    """The pattern with its variables replaced by literal text.

    None when a variable has no value in the request: such a pattern matches
    nothing. A variable's value is never a wildcard.
    """
    resolved: list[Token] = []
    for token in pattern:
        if not isinstance(token, Variable):
            resolved.append(token)
            continue
        values = context.get(token.key)
        if values is not None and len(values) == 1:
            resolved.extend(values[0])
        elif token.default is not None:
            resolved.extend(token.default)
        else:
            return None
    return tuple(resolved)


def glob(pattern: Sequence[Token], value: str) -> bool:
    """Whether the whole value matches, in time linear in pattern times value."""
    p = v = 0
    star, mark = -1, 0
    while v < len(value):
        if p < len(pattern) and pattern[p] is Wild.ANY:
            star, mark = p, v
            p += 1
        elif p < len(pattern) and (pattern[p] is Wild.ONE or pattern[p] == value[v]):
            p += 1
            v += 1
        elif star >= 0:
            mark += 1
            p, v = star + 1, mark
        else:
            return False
    return all(token is Wild.ANY for token in pattern[p:])


def glob_arn(pattern: Tokens, arn: str) -> bool:
    """Match an ARN part by part: a wildcard does not reach over one of the first five colons.

    A pattern of fewer than six parts that ends in `*` stands for `*` in the rest.
    """
    if pattern == (Wild.ANY,):
        return True
    parts = _split(pattern)
    if len(parts) < _ARN_PARTS:
        if not parts[-1] or parts[-1][-1] is not Wild.ANY:
            return False
        parts += [[Wild.ANY]] * (_ARN_PARTS - len(parts))
    have = arn.split(":", _ARN_PARTS - 1)
    return len(have) == _ARN_PARTS and all(
        glob(part, value) for part, value in zip(parts, have, strict=True)
    )


def _split(pattern: Tokens) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for item in pattern:
        if item == ":" and len(parts) < _ARN_PARTS:
            parts.append([])
        else:
            parts[-1].append(item)
    return parts
