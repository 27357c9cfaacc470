"""The Condition element: every operator that IAM documents, against one request's keys.

Pure. Source: IAM User Guide, "Condition operators" and "Multivalued context
keys". A positive operator on a missing key is false, a negated one true,
IfExists true, ForAllValues true, ForAnyValue false.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from broker.devstack.aws.patterns import Context, Tokens, glob, glob_arn, resolve

# (the policy's value, variables replaced; the request's value) -> does it match?
Test = Callable[[Tokens, str], bool]


class Qualifier(enum.Enum):
    NONE = ""
    FOR_ALL_VALUES = "ForAllValues:"
    FOR_ANY_VALUE = "ForAnyValue:"


@dataclass(frozen=True, slots=True)
class Operator:
    test: Test
    negated: bool = False
    wildcards: bool = False  # whether `*` and `?` in the policy's value are wildcards


@dataclass(frozen=True, slots=True)
class Condition:
    operator: str  # a key of OPERATORS
    qualifier: Qualifier
    if_exists: bool
    key: str  # lower case
    values: tuple[Tokens, ...]  # ORed


def holds(condition: Condition, context: Context) -> bool:
    """Whether one operator-and-key line of a Condition block is met."""
    present = context.get(condition.key) or None
    if condition.operator == "Null":
        wanted = {_text(value).lower() for value in condition.values}
        return ("true" if present is None else "false") in wanted
    operator = OPERATORS[condition.operator]
    if present is None:
        if condition.if_exists or condition.qualifier is Qualifier.FOR_ALL_VALUES:
            return True
        return operator.negated and condition.qualifier is Qualifier.NONE
    values = [resolve(value, context) for value in condition.values]
    if None in values:
        # A variable without a value: the comparison can't be made, so it is not met.
        return False
    outcomes = [
        any(operator.test(value, have) for value in values if value is not None) != operator.negated
        for have in present
    ]
    # Several values and no qualifier: positive means any of them, negated means all.
    if condition.qualifier is Qualifier.NONE:
        return all(outcomes) if operator.negated else any(outcomes)
    return all(outcomes) if condition.qualifier is Qualifier.FOR_ALL_VALUES else any(outcomes)


def _text(value: Tokens) -> str:
    return "".join(token for token in value if isinstance(token, str))


def _string_equals(value: Tokens, have: str) -> bool:
    return _text(value) == have


def _string_equals_ignore_case(value: Tokens, have: str) -> bool:
    return _text(value).casefold() == have.casefold()


def _bool(value: Tokens, have: str) -> bool:
    return _text(value).lower() == have.lower()


def _ip(value: Tokens, have: str) -> bool:
    try:
        return ipaddress.ip_address(have) in ipaddress.ip_network(_text(value), strict=False)
    except ValueError:
        return False


def _numeric(compare: Callable[[Decimal, Decimal], bool]) -> Test:
    def test(value: Tokens, have: str) -> bool:
        try:
            return compare(Decimal(have), Decimal(_text(value)))
        except InvalidOperation:
            return False

    return test


def _date(compare: Callable[[datetime, datetime], bool]) -> Test:
    def test(value: Tokens, have: str) -> bool:
        try:
            return compare(_when(have), _when(_text(value)))
        except (ValueError, OverflowError):
            return False

    return test


def _when(text: str) -> datetime:
    """ISO 8601 (UTC where no zone is given) or seconds since the epoch."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except ValueError:
        when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def _ordered(prefix: str, build: Callable[..., Test]) -> dict[str, Operator]:
    equal = build(lambda have, value: have == value)
    return {
        f"{prefix}Equals": Operator(equal),
        f"{prefix}NotEquals": Operator(equal, negated=True),
        f"{prefix}LessThan": Operator(build(lambda have, value: have < value)),
        f"{prefix}LessThanEquals": Operator(build(lambda have, value: have <= value)),
        f"{prefix}GreaterThan": Operator(build(lambda have, value: have > value)),
        f"{prefix}GreaterThanEquals": Operator(build(lambda have, value: have >= value)),
    }


OPERATORS: Mapping[str, Operator] = {
    "StringEquals": Operator(_string_equals),
    "StringNotEquals": Operator(_string_equals, negated=True),
    "StringEqualsIgnoreCase": Operator(_string_equals_ignore_case),
    "StringNotEqualsIgnoreCase": Operator(_string_equals_ignore_case, negated=True),
    "StringLike": Operator(glob, wildcards=True),
    "StringNotLike": Operator(glob, negated=True, wildcards=True),
    **_ordered("Numeric", _numeric),
    **_ordered("Date", _date),
    "Bool": Operator(_bool),
    "BinaryEquals": Operator(_string_equals),
    "IpAddress": Operator(_ip),
    "NotIpAddress": Operator(_ip, negated=True),
    # ArnEquals and ArnLike behave identically (IAM User Guide).
    "ArnEquals": Operator(glob_arn, wildcards=True),
    "ArnLike": Operator(glob_arn, wildcards=True),
    "ArnNotEquals": Operator(glob_arn, negated=True, wildcards=True),
    "ArnNotLike": Operator(glob_arn, negated=True, wildcards=True),
    "Null": Operator(_bool),
}
