"""What `broker aws bootstrap` prints, read back from each format's own text, and put into IAM.

Nothing here knows how the product writes: Terraform is read by python-hcl2,
CloudFormation by a YAML parser, and values are compared and applied from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import hcl2
import yaml

Document = dict[str, Any]
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_RESOURCE = re.compile(r"\$\{(aws_\w+)\.([\w-]+)(?:\.(\w+))?\}")


@dataclass
class Written:
    """A role as a format has it. `before`: names of roles that the format puts before it."""

    name: str
    path: str = "/"
    description: str | None = None
    maximum: int | None = None
    trust: Document | None = None
    existing: bool = False
    inline: dict[str, Document] = field(default_factory=dict)
    managed: dict[str, Document] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)
    profile: bool = False
    before: list[str] = field(default_factory=list)

    def documents(self) -> list[Document]:
        return [*self.inline.values(), *self.managed.values()]


# Terraform.


def from_terraform(text: str) -> list[Written]:
    parsed = hcl2.loads(text)
    assert set(parsed) <= {"terraform", "data", "import", "resource", "__comments__"}
    imported = {_name(block["to"]): literal(block["id"]) for block in parsed.get("import", [])}
    roles: dict[str, Written] = {}
    policies: dict[str, tuple[str, Document]] = {}
    for kind, label, body in _resources(parsed):
        if kind == "aws_iam_role":
            roles[label] = _terraform_role(body, existing=label in imported)
            assert imported.get(label, roles[label].name) == roles[label].name
        elif kind == "aws_iam_role_policy":
            role = _role_of(body["role"], roles)
            role.inline[literal(body["name"])] = _encoded(body["policy"])
        elif kind == "aws_iam_policy":
            policies[label] = (literal(body["name"]), _encoded(body["policy"]))
        elif kind == "aws_iam_role_policy_attachment":
            role = _role_of(body["role"], roles)
            reference = _RESOURCE.fullmatch(body["policy_arn"])
            if reference is None:
                role.attached.append(literal(body["policy_arn"]))
            else:
                name, document = policies[reference[2]]
                role.managed[name] = document
        else:
            assert kind == "aws_iam_instance_profile"
            _role_of(body["role"], roles).profile = True
    for role in roles.values():
        role.before = [roles[label].name for label in role.before]
    return list(roles.values())


def _resources(parsed: Mapping[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    seen: set[tuple[str, str]] = set()
    for block in parsed.get("resource", []):
        ((kind, named),) = block.items()
        ((label, body),) = named.items()
        one = (literal(kind), literal(label))
        assert one not in seen
        seen.add(one)
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", one[1])
        yield *one, body


def _terraform_role(body: Mapping[str, Any], *, existing: bool) -> Written:
    if existing:
        (lifecycle,) = body["lifecycle"]
        assert lifecycle["prevent_destroy"] is True
        assert {"tags", "description"} <= set(lifecycle["ignore_changes"])
        assert "description" not in body
    before = [_RESOURCE.fullmatch(one) for one in body["depends_on"]]
    return Written(
        name=literal(body["name"]),
        path=literal(body["path"]),
        description=None if existing else literal(body["description"]),
        maximum=body["max_session_duration"],
        trust=_encoded(body["assume_role_policy"]),
        existing=existing,
        before=[one[2] for one in before if one is not None],
    )


def _role_of(reference: str, roles: dict[str, Written]) -> Written:
    found = _RESOURCE.fullmatch(reference)
    if found is None:  # one that this file does not make
        return roles.setdefault(literal(reference), Written(literal(reference), existing=True))
    assert (found[1], found[3]) == ("aws_iam_role", "name")
    return roles[found[2]]


def _name(reference: str) -> str:
    found = _RESOURCE.fullmatch(reference)
    assert found is not None
    return found[2]


def _encoded(expression: str) -> Document:
    """The document that `jsonencode(...)` makes."""
    inner = re.fullmatch(r"\$\{jsonencode\((.*)\)\}", expression, re.DOTALL)
    assert inner is not None, expression
    found: Document = _plain(hcl2.loads(f"it = {inner[1]}\n")["it"])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            literal(key) if key.startswith('"') else key: _plain(one)
            for key, one in value.items()
            if not key.startswith("__")
        }
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return literal(value) if isinstance(value, str) else value


def literal(text: str) -> str:
    """The value of a string in HCL, which must be one: nothing in it is a template."""
    assert _STRING.fullmatch(text), text
    inner = text[1:-1]
    assert not re.search(r"(?<![$%])[$%]\{", inner), text
    inner = inner.replace("$${", "${").replace("%%{", "%{")
    return _ESCAPE.sub(_unescaped, inner)


def _unescaped(found: re.Match[str]) -> str:
    escape = found[1]
    return chr(int(escape[1:], 16)) if escape[0] in "uU" and len(escape) > 1 else _PLAIN[escape]


# CloudFormation.


def from_cloudformation(text: str) -> list[Written]:
    template = yaml.safe_load(text)
    assert set(template) <= {
        "AWSTemplateFormatVersion", "Description", "Metadata", "Conditions", "Resources",
    }  # fmt: skip
    roles = {
        name: Written(
            name, maximum=one["MaxSessionDuration"], trust=one["AssumeRolePolicyDocument"],
            existing=True,
        )
        for name, one in template.get("Metadata", {}).get("ExistingRoles", {}).items()
    }  # fmt: skip
    resources = template["Resources"]
    logical = {
        key: one["Properties"]["RoleName"]
        for key, one in resources.items()
        if one["Type"] == "AWS::IAM::Role"
    }
    for resource in resources.values():
        assert resource["Condition"] == "RightAccount"
        _stack_resource(resource, roles, logical)
    return list(roles.values())


def _stack_resource(
    resource: dict[str, Any], roles: dict[str, Written], logical: dict[str, str]
) -> None:
    has = resource["Properties"]
    match resource["Type"]:
        case "AWS::IAM::Role":
            roles[has["RoleName"]] = Written(
                name=has["RoleName"],
                path=has["Path"],
                description=has["Description"],
                maximum=has["MaxSessionDuration"],
                trust=has["AssumeRolePolicyDocument"],
                inline={p["PolicyName"]: p["PolicyDocument"] for p in has.get("Policies", [])},
                attached=has.get("ManagedPolicyArns", []),
                before=[logical[key] for key in resource.get("DependsOn", [])],
            )
        case "AWS::IAM::RolePolicy":
            role = roles.setdefault(has["RoleName"], Written(has["RoleName"], existing=True))
            role.inline[has["PolicyName"]] = has["PolicyDocument"]
        case "AWS::IAM::ManagedPolicy":
            (named,) = has["Roles"]
            name = logical[named["Ref"]] if isinstance(named, dict) else named
            role = roles.setdefault(name, Written(name, existing=True))
            role.managed[has["ManagedPolicyName"]] = has["PolicyDocument"]
        case "AWS::IAM::InstanceProfile":
            (named,) = has["Roles"]
            roles[logical[named["Ref"]]].profile = True
        case other:
            raise AssertionError(other)


# JSON.


def from_json(text: str) -> dict[str, list[Written]]:
    """By account."""
    return {
        number: [_json_role(name, one) for name, one in account["roles"].items()]
        for number, account in json.loads(text)["accounts"].items()
    }


def _json_role(name: str, one: dict[str, Any]) -> Written:
    own = one["policies"]
    return Written(
        name=name,
        path=one["path"],
        description=one["description"],
        maximum=one["max_session_duration"],
        trust=one["trust_policy"],
        existing=one["existing"],
        inline={} if one["policies_are_managed"] else own,
        managed=own if one["policies_are_managed"] else {},
        attached=one["attached_policies"],
        profile=one["instance_profile"] is not None,
        before=[arn.rpartition("/")[2] for arn in one["after"]],
    )


def read(kind: str, text: str) -> list[Written]:
    """One account's file."""
    if kind == "json":
        (roles,) = from_json(text).values()
        return roles
    return (from_terraform if kind == "terraform" else from_cloudformation)(text)


# Into IAM.


def apply(iam: Any, roles: Iterable[Written], exists: Callable[[str], bool]) -> None:
    """As the tools would. AWS refuses a trust policy that names what does not `exist`."""
    for role in roles:
        _put_role(iam, role, exists)
        for name, document in role.inline.items():
            iam.put_role_policy(
                RoleName=role.name, PolicyName=name, PolicyDocument=json.dumps(document)
            )
        for name, document in role.managed.items():
            made = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(document))
            iam.attach_role_policy(RoleName=role.name, PolicyArn=made["Policy"]["Arn"])
        for arn in role.attached:
            iam.attach_role_policy(RoleName=role.name, PolicyArn=arn)
        if role.profile:
            iam.create_instance_profile(InstanceProfileName=role.name)
            iam.add_role_to_instance_profile(InstanceProfileName=role.name, RoleName=role.name)


def _put_role(iam: Any, role: Written, exists: Callable[[str], bool]) -> None:
    if role.trust is None:
        return
    for arn in principals(role.trust):
        assert exists(arn), f"{role.name} names {arn}, which is not there yet"
    trust = json.dumps(role.trust)
    if role.existing:
        iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=trust)
        iam.update_role(RoleName=role.name, MaxSessionDuration=role.maximum)
        return
    iam.create_role(
        RoleName=role.name,
        Path=role.path,
        Description=role.description,
        MaxSessionDuration=role.maximum,
        AssumeRolePolicyDocument=trust,
    )


def principals(trust: Document) -> list[str]:
    return [one["Principal"]["AWS"] for one in trust["Statement"] if "AWS" in one["Principal"]]
