"""One account's roles as Terraform, in the style of `terraform fmt`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from broker.issuance.aws_setup import AccountSetup, AwsSetup, IamRole
from broker.server_cli.aws_formats.quoting import comment, hcl, identifier

FILE = "broker.tf"

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_ONE_LINE = 88
# `import` blocks are Terraform's since 1.5.
_VERSIONS = """\
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}
"""
_EXISTING = (
    "It exists already: imported, so that its trust policy and MaxSessionDuration are set. Nothing "
    "else of it is touched."
)
_NOT_OURS = ("description", "permissions_boundary", "tags", "tags_all", "force_detach_policies")


class _Raw(str):
    """An expression, as it stands."""

    __slots__ = ()


class _Json(dict[str, object]):
    """A policy document."""


def render(setup: AwsSetup, account: AccountSetup, heading: Sequence[str]) -> str:
    """One file, for a provider that is configured for this account."""
    parts = [comment(heading), _VERSIONS, _guard(account)]
    for role in account.roles:
        parts += _role(setup, account, role)
    return "\n".join(parts)


def _guard(account: AccountSetup) -> str:
    """Roles' names are alike in many accounts: a plan for the wrong one fails."""
    return (
        'data "aws_caller_identity" "broker" {\n'
        "  lifecycle {\n"
        "    postcondition {\n"
        f"      condition     = self.account_id == {hcl(account.id)}\n"
        f"      error_message = {hcl(f'This is for account {account.id}.')}\n"
        "    }\n"
        "  }\n"
        "}\n"
    )


def _role(setup: AwsSetup, account: AccountSetup, role: IamRole) -> Iterator[str]:
    label = _label(role)
    if role.trust is not None:
        if role.existing:
            yield _block(["import"], {"to": _Raw(f"aws_iam_role.{label}"), "id": role.name})
        yield comment([*role.notes, *([_EXISTING] if role.existing else [])]) + _block(
            ["resource", "aws_iam_role", label], _arguments(account, role)
        )
    named = _Raw(f"aws_iam_role.{label}.name") if role.trust is not None else role.name
    if role.arn == setup.hub_arn and role.trust is None:
        yield comment(["The broker's own role exists already: it gets these policies."])
    for name, document in role.policies.items():
        yield from _policy(role, name, document, named)
    for arn in role.attached:
        yield _block(
            ["resource", "aws_iam_role_policy_attachment", f"{label}__{_attachment(role, arn)}"],
            {"role": named, "policy_arn": arn},
        )
    if role.instance_profile:
        yield _block(
            ["resource", "aws_iam_instance_profile", label], {"name": role.name, "role": named}
        )


def _arguments(account: AccountSetup, role: IamRole) -> dict[str, object]:
    found: dict[str, object] = {"name": role.name, "path": role.path}
    if not role.existing:
        found["description"] = role.description
    found["max_session_duration"] = role.max_session_duration
    found["assume_role_policy"] = _Json(role.trust or {})
    here = {other.arn: other for other in account.roles if other.trust is not None}
    before = [f"aws_iam_role.{_label(here[arn])}" for arn in role.after if arn in here]
    found["depends_on"] = [_Raw(name) for name in ("data.aws_caller_identity.broker", *before)]
    if role.existing:
        found["lifecycle"] = {
            "prevent_destroy": True,
            "ignore_changes": [_Raw(name) for name in _NOT_OURS],
        }
    return found


def _policy(
    role: IamRole, name: str, document: Mapping[str, object], named: object
) -> Iterator[str]:
    label = f"{_label(role)}__{_short(name.removeprefix(role.name))}"
    if not role.policies_are_managed:
        yield _block(
            ["resource", "aws_iam_role_policy", label],
            {"name": name, "role": named, "policy": _Json(document)},
        )
        return
    yield _block(["resource", "aws_iam_policy", label], {"name": name, "policy": _Json(document)})
    yield _block(
        ["resource", "aws_iam_role_policy_attachment", label],
        {"role": named, "policy_arn": _Raw(f"aws_iam_policy.{label}.arn")},
    )


def _attachment(role: IamRole, arn: str) -> str:
    """The policy's name; with its ARN where that is not the role's only one of that name."""
    name = arn.rpartition("/")[2]
    alike = [other for other in role.attached if other.endswith(f"/{name}")]
    return _short(name if len(alike) == 1 else arn)


def _label(role: IamRole) -> str:
    return identifier(role.name, "A-Za-z0-9_-")


def _short(text: str) -> str:
    """A policy's part of a label."""
    return identifier(text.strip("-"), "A-Za-z0-9_-")


def _block(words: Sequence[str], arguments: Mapping[str, object]) -> str:
    head = " ".join([words[0], *map(hcl, words[1:])])
    return f"{head} {{\n{_lines(arguments, 2)}}}\n"


def _lines(members: Mapping[str, object], indent: int) -> str:
    """One a line; the equals signs of neighbours that are one line each stand in one column."""
    rendered: list[tuple[str, str]] = []
    blocks = ""
    for key, value in members.items():
        if key == "lifecycle" and isinstance(value, Mapping):
            blocks += f"\n{' ' * indent}lifecycle {{\n{_lines(value, indent + 2)}{' ' * indent}}}\n"
        else:
            rendered.append((key if _BARE.fullmatch(key) else hcl(key), _value(value, indent)))
    lines = ""
    for place, (key, value) in enumerate(rendered):
        width = 0 if "\n" in value else _width(rendered, place)
        lines += f"{' ' * indent}{key.ljust(width)} = {value}\n"
    return lines + blocks


def _width(rendered: Sequence[tuple[str, str]], place: int) -> int:
    first = last = place
    while first > 0 and "\n" not in rendered[first - 1][1]:
        first -= 1
    while last + 1 < len(rendered) and "\n" not in rendered[last + 1][1]:
        last += 1
    return max(len(key) for key, _ in rendered[first : last + 1])


def _value(value: object, indent: int) -> str:
    match value:
        case _Raw():
            return str(value)
        case _Json():
            return f"jsonencode({_value(dict(value), indent)})"
        case str():
            return hcl(value)
        case bool() | int():
            return str(value).lower()
        case Mapping():
            return f"{{\n{_lines(value, indent + 2)}{' ' * indent}}}"
        case list() | tuple():
            return _list(value, indent)
        case _:
            raise TypeError(f"{type(value).__name__} has no form in HCL here")


def _list(items: Sequence[object], indent: int) -> str:
    inner = " " * (indent + 2)
    rendered = [_value(item, indent + 2) for item in items]
    line = f"[{', '.join(rendered)}]"
    if "\n" not in line and indent + len(line) <= _ONE_LINE:
        return line
    return "[\n" + "".join(f"{inner}{item},\n" for item in rendered) + f"{' ' * indent}]"
