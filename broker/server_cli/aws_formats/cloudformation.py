"""One account's roles as a CloudFormation template, in YAML that is read alike everywhere.

Texts are in double quotes, so that none is taken for a number, a date or an
intrinsic function; there is no `Fn::Sub`, so `${` means nothing. A dynamic
reference is found in any text, and has no escape: it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from broker.errors import Conflict
from broker.issuance.aws_setup import AccountSetup, IamRole
from broker.server_cli.aws_formats.quoting import comment, identifier, quoted

FILE = "broker.yaml"
MAX_DIRECT = 51_200  # bytes of a template in the request itself (CloudFormation quotas)

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9:]*", re.ASCII)
# YAML 1.1 reads these as true, false or nothing.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# CloudFormation User Guide, "Get values stored in other services using dynamic references".
_REFERENCE = re.compile(r"\{\{\s*resolve", re.IGNORECASE)
_HOW = (
    "Create the stack with --capabilities CAPABILITY_NAMED_IAM in one region of account {account}; "
    "roles are in no region. In another account it makes nothing."
)
_EXISTING = (
    "CloudFormation changes no role that it did not make. The trust policies under Metadata are "
    "for the roles that exist already: `aws iam update-assume-role-policy` sets one, `aws iam "
    "update-role` its MaxSessionDuration."
)
_CONDITION = "RightAccount"


class _Commented(dict[str, object]):
    """A mapping with a comment before it."""

    def __init__(self, members: Mapping[str, object], notes: Sequence[str]) -> None:
        super().__init__(members)
        self.notes = notes


def render(account: AccountSetup, heading: Sequence[str]) -> str:
    """One template; see `only_existing` for an account that a stack could make nothing in.

    Raises Conflict for a text that CloudFormation would put a parameter or a secret for.
    """
    resources: dict[str, object] = {}
    roles = {_logical(role) for role in account.roles}
    for role in account.roles:
        for name, resource in _resources(account, role).items():
            # A role may be called what another's policy would be.
            taken = name in roles and name != _logical(role)
            resources[f"{name}Of{_logical(role)}" if taken else name] = resource
    existing = [role for role in account.roles if role.existing and role.trust is not None]
    template: dict[str, object] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"What the credential broker needs in account {account.id}",
    }
    if existing:
        template["Metadata"] = {"ExistingRoles": {role.name: _existing(role) for role in existing}}
    template["Conditions"] = {
        _CONDITION: {"Fn::Equals": [{"Ref": "AWS::AccountId"}, account.id]},
    }
    template["Resources"] = resources
    notes = [*heading, _HOW.format(account=account.id), *([_EXISTING] if existing else [])]
    return comment(notes) + _lines(template, 0)


def only_existing(account: AccountSetup) -> bool:
    """Whether there is nothing that a stack could make."""
    return all(role.existing and not role.policies for role in account.roles)


def _existing(role: IamRole) -> dict[str, object]:
    return {
        "MaxSessionDuration": role.max_session_duration,
        "AssumeRolePolicyDocument": role.trust,
    }


def _resources(account: AccountSetup, role: IamRole) -> dict[str, object]:
    name = _logical(role)
    if role.existing:
        return {
            f"{name}{_suffix(role, policy)}": _own(role, policy, document)
            for policy, document in role.policies.items()
        }
    properties: dict[str, object] = {
        "RoleName": role.name,
        "Path": role.path,
        "Description": role.description,
        "MaxSessionDuration": role.max_session_duration,
        "AssumeRolePolicyDocument": role.trust,
    }
    found: dict[str, object] = {}
    if role.policies and not role.policies_are_managed:
        properties["Policies"] = [
            {"PolicyName": policy, "PolicyDocument": document}
            for policy, document in role.policies.items()
        ]
    if role.attached:
        properties["ManagedPolicyArns"] = list(role.attached)
    resource = _resource("AWS::IAM::Role", properties)
    here = {other.arn: other for other in account.roles if not other.existing}
    before = [_logical(here[arn]) for arn in role.after if arn in here]
    if before:
        resource["DependsOn"] = before
    found[name] = _Commented(resource, role.notes)
    if role.policies_are_managed:
        for policy, document in role.policies.items():
            found[f"{name}{_suffix(role, policy)}"] = _managed(policy, document, {"Ref": name})
    if role.instance_profile:
        found[f"{name}InstanceProfile"] = _resource(
            "AWS::IAM::InstanceProfile",
            {"InstanceProfileName": role.name, "Roles": [{"Ref": name}]},
        )
    return found


def _own(role: IamRole, policy: str, document: Mapping[str, object]) -> dict[str, object]:
    """A policy for a role that exists already."""
    if role.policies_are_managed:
        return _managed(policy, document, role.name)
    return _resource(
        "AWS::IAM::RolePolicy",
        {"RoleName": role.name, "PolicyName": policy, "PolicyDocument": document},
    )


def _managed(policy: str, document: Mapping[str, object], role: object) -> dict[str, object]:
    return _resource(
        "AWS::IAM::ManagedPolicy",
        {"ManagedPolicyName": policy, "PolicyDocument": document, "Roles": [role]},
    )


def _resource(kind: str, properties: Mapping[str, object]) -> dict[str, object]:
    return {"Type": kind, "Condition": _CONDITION, "Properties": properties}


def _logical(role: IamRole) -> str:
    return identifier(role.name, "A-Za-z0-9")


def _suffix(role: IamRole, policy: str) -> str:
    """`BrokerHub-assume-roles-2` is the role's `AssumeRoles2`."""
    return "".join(word.capitalize() for word in policy.removeprefix(role.name).split("-"))


def _lines(members: Mapping[str, object], indent: int) -> str:
    pad = " " * indent
    lines = ""
    for key, value in members.items():
        if isinstance(value, _Commented):
            lines += comment(value.notes, pad)
        lines += f"{pad}{_key(key)}:{_value(value, indent)}"
    return lines


def _value(value: object, indent: int) -> str:
    match value:
        case str() if _REFERENCE.search(value):
            raise Conflict(
                f"CloudFormation would put another text for the reference in {value[:200]!r}: name "
                "it otherwise, or use --format terraform or json"
            )
        case str():
            return f" {quoted(value)}\n"
        case bool() | int():
            return f" {str(value).lower()}\n"
        case Mapping() if value:
            return f"\n{_lines(value, indent + 2)}"
        case list() | tuple() if value:
            return "\n" + "".join(_item(item, indent + 2) for item in value)
        case Mapping():
            return " {}\n"
        case list() | tuple():
            return " []\n"
        case _:
            raise TypeError(f"{type(value).__name__} has no form in YAML here")


def _item(item: object, indent: int) -> str:
    """`- ` takes the place of the first line's indentation."""
    pad = " " * indent
    if isinstance(item, Mapping):
        return f"{pad}- {_lines(item, indent + 2).lstrip(' ')}"
    return f"{pad}-{_value(item, indent)}"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) and key.lower() not in _WORDS else quoted(key)
