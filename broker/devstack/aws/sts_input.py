"""AssumeRole's parameters, read from the Query protocol and held to AWS's constraints.

Owns shapes, lengths and patterns (STS API reference, AssumeRole). Does not own
what depends on the caller, the role or the session (sts.py).

Stricter than AWS in one thing: an unknown or doubled parameter is refused, where
AWS ignores it, since here it is the sign of a client's typing error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.devstack.aws.wire import AwsError

_NAME = r"[\w+=,.@-]*"
_EXTERNAL_ID = r"[\w+=,.@:\/-]*"
_POLICY = r"[\u0009\u000A\u000D\u0020-\u00FF]+"
_TAG_KEY = r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+"
_TAG_VALUE = r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*"
_ROLE_ARN = re.compile(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/(?:[\x21-\x7e]{1,510}/)?[\w+=,.@-]{1,64}", re.ASCII
)
_LIST = re.compile(r"(PolicyArns|Tags|TransitiveTagKeys)\.member\.([1-9][0-9]{0,3})(?:\.(\w+))?")
_SCALARS = {
    "Action",
    "Version",
    "RoleArn",
    "RoleSessionName",
    "DurationSeconds",
    "Policy",
    "ExternalId",
    "SourceIdentity",
    "MinimumSessionTokenSize",
}
MAX_POLICY_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class AssumeRoleInput:
    role_arn: str
    session_name: str
    duration_seconds: int
    policy: str | None
    policy_arns: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    transitive_tag_keys: tuple[str, ...]
    external_id: str | None = field(repr=False)
    source_identity: str | None
    token_size: int


def assume_role_input(parameters: Mapping[str, str]) -> AssumeRoleInput:
    """Read and check the parameters of one AssumeRole call. Raises AwsError."""
    lists = _lists(parameters)
    problems: list[str] = []
    check = _Checker(problems)
    arn, name = parameters.get("RoleArn"), parameters.get("RoleSessionName")
    check.text("roleArn", arn, 20, 2048, None)
    check.text("roleSessionName", name, 2, 64, _NAME)
    policy = parameters.get("Policy")
    if policy is not None:
        check.text("policy", policy, 1, MAX_POLICY_CHARACTERS, _POLICY)
    for parameter, label, high, pattern in (
        ("ExternalId", "externalId", 1224, _EXTERNAL_ID),
        ("SourceIdentity", "sourceIdentity", 64, _NAME),
    ):
        if parameter in parameters:
            check.text(label, parameters[parameter], 2, high, pattern)
    duration = check.number(
        "durationSeconds", parameters.get("DurationSeconds", "3600"), 900, 43200
    )
    size = check.number(
        "minimumSessionTokenSize", parameters.get("MinimumSessionTokenSize", "0"), 0, 4096
    )
    policy_arns = tuple(member.get("arn", "") for member in lists["PolicyArns"])
    check.count("policyArns", policy_arns, 10)
    tags = tuple((member.get("Key", ""), member.get("Value", "")) for member in lists["Tags"])
    check.count("tags", tags, 50)
    for position, (key, value) in enumerate(tags, 1):
        check.text(f"tags.{position}.member.key", key, 1, 128, _TAG_KEY)
        check.text(f"tags.{position}.member.value", value, 0, 256, _TAG_VALUE)
    transitive = tuple(member.get("", "") for member in lists["TransitiveTagKeys"])
    check.count("transitiveTagKeys", transitive, 50)
    if problems:
        noun = "error" if len(problems) == 1 else "errors"
        raise AwsError(
            "ValidationError",
            f"{len(problems)} validation {noun} detected: {'; '.join(problems)}",
        )
    return _consistent(
        AssumeRoleInput(
            role_arn=arn or "",
            session_name=name or "",
            duration_seconds=duration,
            policy=policy,
            policy_arns=policy_arns,
            tags=tags,
            transitive_tag_keys=transitive,
            external_id=parameters.get("ExternalId"),
            source_identity=parameters.get("SourceIdentity"),
            token_size=size,
        )
    )


def _consistent(call: AssumeRoleInput) -> AssumeRoleInput:
    if _ROLE_ARN.fullmatch(call.role_arn) is None:
        raise AwsError("ValidationError", f"{call.role_arn} is invalid")
    for arn in call.policy_arns:
        parts = arn.split(":", 5)
        if len(parts) != 6 or parts[2] != "iam" or not parts[5].startswith("policy/"):
            raise AwsError(
                "ValidationError", f"The specified value for PolicyArn {arn} is invalid."
            )
        if parts[4] not in ("aws", call.role_arn.split(":")[4]):
            raise AwsError(
                "ValidationError", "Managed policies must be in the same account as the role."
            )
    keys = [key.lower() for key, _ in call.tags]
    if len(keys) != len(set(keys)):
        raise AwsError(
            "InvalidParameterValue",
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
        )
    if any(key.startswith("aws:") for key in keys):
        raise AwsError(
            "InvalidParameterValue",
            "aws: prefixed tag key names are not allowed for external use.",
        )
    if not {key.lower() for key in call.transitive_tag_keys} <= set(keys):
        raise AwsError(
            "InvalidParameterValue",
            "The specified transitive tag key must be included in the requested tags.",
        )
    return call


def _lists(parameters: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    """The `Name.member.N[.field]` parameters, gathered; N must run from 1 without a gap."""
    gathered: dict[str, dict[int, dict[str, str]]] = {
        "PolicyArns": {},
        "Tags": {},
        "TransitiveTagKeys": {},
    }
    fields = {"PolicyArns": {"arn"}, "Tags": {"Key", "Value"}, "TransitiveTagKeys": {""}}
    for name, value in parameters.items():
        if name in _SCALARS:
            continue
        match = _LIST.fullmatch(name)
        if match is None or (match[3] or "") not in fields[match[1]]:
            raise AwsError("ValidationError", f"Unexpected parameter {name}")
        gathered[match[1]].setdefault(int(match[2]), {})[match[3] or ""] = value
    result: dict[str, list[dict[str, str]]] = {}
    for name, members in gathered.items():
        if sorted(members) != list(range(1, len(members) + 1)):
            raise AwsError("ValidationError", f"The members of {name} are not numbered from 1")
        if any(set(member) != fields[name] for member in members.values()):
            raise AwsError("ValidationError", f"A member of {name} lacks a field")
        result[name] = [members[position] for position in sorted(members)]
    return result


class _Checker:
    """Gathers constraint failures, worded as AWS words them."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def text(self, label: str, value: str | None, low: int, high: int, pattern: str | None) -> None:
        if value is None:
            self._problems.append(
                f"Value null at '{label}' failed to satisfy constraint: Member must not be null"
            )
            return
        if len(value) < low:
            self._failed(value, label, f"have length greater than or equal to {low}")
        if len(value) > high:
            self._failed(value, label, f"have length less than or equal to {high}")
        if pattern is not None and not all(_CHARACTERS[pattern](c) for c in value):
            self._failed(value, label, f"satisfy regular expression pattern: {pattern}")

    def number(self, label: str, value: str, low: int, high: int) -> int:
        if not value.isascii() or not value.isdigit() or len(value) > 9:
            raise AwsError("MalformedInput", f"{label} is not an integer")
        number = int(value)
        if number < low:
            self._failed(value, label, f"have value greater than or equal to {low}")
        if number > high:
            self._failed(value, label, f"have value less than or equal to {high}")
        return number

    def count(self, label: str, members: tuple[object, ...], high: int) -> None:
        if len(members) > high:
            self._failed(str(list(members)), label, f"have length less than or equal to {high}")

    def _failed(self, value: str, label: str, rule: str) -> None:
        self._problems.append(
            f"Value '{value}' at '{label}' failed to satisfy constraint: Member must {rule}"
        )


def _one_of(extra: str) -> Callable[[str], bool]:
    return lambda c: c.isascii() and (c.isalnum() or c in extra)


def _tag_character(c: str) -> bool:
    return unicodedata.category(c)[0] in "LZN" or c in "_.:/=+-@"


_CHARACTERS: Mapping[str, Callable[[str], bool]] = {
    _NAME: _one_of("_+=,.@-"),
    _EXTERNAL_ID: _one_of("_+=,.@:/-"),
    _POLICY: lambda c: c in "\t\n\r" or " " <= c <= "\u00ff",
    _TAG_KEY: _tag_character,
    _TAG_VALUE: _tag_character,
}
