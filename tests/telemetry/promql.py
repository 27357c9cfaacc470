"""What a PromQL expression names: enough of the language to be strict about our own expressions.

Anything that is not known here is refused, so that a slip is not taken for a metric
that happens not to be checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FUNCTIONS = frozenset(
    {
        *("rate", "increase", "deriv", "changes", "histogram_quantile", "min_over_time"),
        *("max_over_time", "absent", "time", "topk", "sum", "max", "min", "avg", "count"),
    }
)
GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
OPERATORS = frozenset({"and", "or", "unless", "bool"})

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<range>\[(?:\d+[smhd]|\$__rate_interval)\])
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<braces>\{[^{}]*\})
    | (?P<sign>==|!=|>=|<=|[-+*/<>(),])
    )""",
    re.VERBOSE,
)
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"([^"\\]*)"\s*(?:,|$)')


class NotUnderstood(AssertionError):
    pass


@dataclass
class Named:
    """`selectors`: each metric with the matchers on it, by label. `grouped`: labels in by (…)."""

    selectors: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    grouped: set[str] = field(default_factory=set)


def names_in(expression: str) -> Named:
    found = Named()
    tokens = list(_tokens(expression))
    grouping = depth = 0
    for place, (kind, text) in enumerate(tokens):
        following = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        if kind == "sign":
            depth += {"(": 1, ")": -1}.get(text, 0)
            if depth < 0:
                raise NotUnderstood(f"{expression}: a bracket too many")
            if text == ")" and grouping > depth:
                grouping = 0
        elif kind == "name" and text in GROUPING:
            grouping = depth + 1
        elif kind == "name" and grouping:
            found.grouped.add(text)
        elif (kind == "name" and following == "(") or (text in FUNCTIONS and _grouped(following)):
            if text not in FUNCTIONS:
                raise NotUnderstood(f"{expression}: {text} is no function known here")
        elif kind == "name" and text not in OPERATORS:
            matchers = _matchers(following) if following.startswith("{") else {}
            found.selectors.append((text, matchers))
        elif kind == "braces" and tokens[place - 1][0] != "name":
            raise NotUnderstood(f"{expression}: a selector without a metric")
    if depth or not found.selectors:
        raise NotUnderstood(f"{expression}: names nothing, or a bracket is open")
    return found


def _grouped(following: str) -> bool:
    return following in GROUPING


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens, place = [], 0
    expression = expression.strip()
    while place < len(expression):
        match = _TOKEN.match(expression, place)
        if match is None or match.lastgroup is None:
            raise NotUnderstood(f"{expression[place:]!r} in {expression}")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return tokens


def _matchers(braces: str) -> dict[str, str]:
    inner, matchers, place = braces[1:-1], {}, 0
    while place < len(inner):
        match = _MATCHER.match(inner, place)
        if match is None:
            raise NotUnderstood(f"{inner[place:]!r} in {braces}")
        matchers[match[1]] = match[3]
        place = match.end()
    return matchers
