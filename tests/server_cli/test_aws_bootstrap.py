"""`broker aws bootstrap`: each format is what its own tools take, and all say the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from cfnlint.api import lint_all

from broker import entry
from broker.access.session_policy import compact
from broker.adapters.parliament import analyse
from broker.server_cli import main
from tests.e2e.processes import free_port
from tests.server_cli.aws_code import (
    Document,
    Written,
    from_json,
    from_terraform,
    principals,
    read,
)

ROOT = Path(__file__).resolve().parents[2]
HUB_ACCOUNT, FAR = "999988887777", "111122223333"
FORMATS = {"terraform": "broker.tf", "cloudformation": "broker.yaml", "json": "broker.json"}
SCOPE = (
    '{Version: "2012-10-17", Statement: [{Effect: Allow, Action: "s3:GetObject", Resource: "*"}]}'
)
RICH = f"""\
version: 1
accounts:
  hub: {{id: "{HUB_ACCOUNT}"}}
  far: {{id: "{FAR}", name: Far away}}
admins: [{{group: corp/platform}}]
roles:
  reader:
    description: Read one data set
    account: hub
    role_arn: arn:aws:iam::{HUB_ACCOUNT}:role/data/Reader
    external_id: x-reader
    role_maximum: 4h
    tags: {{team: web, stage: "{{{{principal.handle}}}}"}}
    transitive_tags: [team]
    session_policy: {SCOPE}
    revocable: true
  behind:
    account: far
    role_arn: arn:aws:iam::{FAR}:role/Behind
    via: [arn:aws:iam::{HUB_ACCOUNT}:role/Gate]
    external_id: x-behind
    managed_policies: ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
  admin:
    account: far
    role_arn: arn:aws:iam::{FAR}:role/Admin
    external_id: x-admin
    unscoped: true
    role_maximum: 12h
    revocable: true
"""
EC2 = ("--account", "hub", "--hub-trust", "ec2")
EVERYTHING = (
    *EC2,
    "--with-doctor",
    "--with-revocation",
    "--sealing-key",
    f"arn:aws:kms:us-east-1:{HUB_ACCOUNT}:key/mrk-0123456789abcdef",
    "--signing-key",
    f"awskms:arn:aws:kms:us-east-1:{HUB_ACCOUNT}:key/6b1f6c2e-1111-2222-3333-444455556666",
)


@dataclass
class Printed:
    code: int
    out: str
    err: str


@pytest.fixture
def bootstrap(tmp_path: Path, capsys, monkeypatch):
    """The command, in this process; its words after the access policy's text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BROKER_CONFIG", raising=False)

    def run(text: str, *words: str) -> Printed:
        (tmp_path / "access.yaml").write_text(text, "utf-8")
        capsys.readouterr()
        code = main(["aws", "bootstrap", "--policy", "access.yaml", *words])
        shown = capsys.readouterr()
        return Printed(code, shown.out, shown.err)

    return run


def written(bootstrap, kind: str, text: str, *words: str) -> dict[str, list[Written]]:
    """By account, from the files of one format."""
    done = bootstrap(text, *words, "--format", kind, "--output", "made")
    assert done.code == 0, done.err
    assert done.out == ""
    found = {}
    for path in sorted(Path("made").glob(f"*/{FORMATS[kind]}")):
        assert path.stat().st_mode & 0o777 == 0o600
        found[path.parent.name] = read(kind, path.read_text("ascii"))
    return found


def by_name(roles: dict[str, list[Written]]) -> dict[str, Written]:
    return {role.name: role for some in roles.values() for role in some}


def in_partition(text: str, partition: str) -> str:
    region = {"aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}[partition]
    text = text.replace("arn:aws:", f"arn:{partition}:")
    return text.replace('7777"}', f'7777", partition: {partition}, region: {region}}}').replace(
        "name: Far away}", f"name: Far away, partition: {partition}, region: {region}}}"
    )


def test_all_formats_say_the_same(bootstrap) -> None:
    of_json = written(bootstrap, "json", RICH, *EVERYTHING)
    assert list(of_json) == [FAR, HUB_ACCOUNT]
    here = {role.name for role in of_json[HUB_ACCOUNT]}
    for kind in ("terraform", "cloudformation"):
        found = written(bootstrap, kind, RICH, *EVERYTHING)
        assert found.keys() == of_json.keys()
        for account, roles in found.items():
            for said, plain in zip(roles, of_json[account], strict=True):
                # Only what stands in the same file can be put before it there.
                before = [name for name in plain.before if name in here and account == HUB_ACCOUNT]
                assert said == replace(plain, before=before)


def test_what_each_role_is(bootstrap) -> None:
    roles = by_name(written(bootstrap, "terraform", RICH, *EVERYTHING))
    assert list(roles) == ["Admin", "Behind", "BrokerHub", "Gate", "Reader"]
    hub_arn = f"arn:aws:iam::{HUB_ACCOUNT}:role/BrokerHub"
    gate_arn = f"arn:aws:iam::{HUB_ACCOUNT}:role/Gate"
    assert {name: role.maximum for name, role in roles.items()} == {
        "Admin": 43200, "Behind": 3600, "BrokerHub": 3600, "Gate": 3600, "Reader": 14400,
    }  # fmt: skip
    trusts = {name: role.trust or {} for name, role in roles.items() if name != "BrokerHub"}
    assert {name: set(principals(trust)) for name, trust in trusts.items()} == {
        "Admin": {hub_arn}, "Behind": {gate_arn}, "Gate": {hub_arn}, "Reader": {hub_arn},
    }  # fmt: skip
    asked = {
        name: trust["Statement"][0]["Condition"].get("StringEquals")
        for name, trust in trusts.items()
    }
    assert asked == {
        "Admin": {"sts:ExternalId": "x-admin"},
        "Behind": {"sts:ExternalId": "x-behind"},
        "Gate": None,
        "Reader": {"sts:ExternalId": "x-reader"},
    }
    assert roles["Reader"].path == "/data/"
    assert (
        roles["Reader"].description == "Through the credential broker as reader: Read one data set"
    )
    assert roles["Behind"].attached == ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
    assert [name for name, role in roles.items() if role.documents()] == ["BrokerHub", "Gate"]
    assert allowed(roles["Gate"].documents()) == {
        action: [f"arn:aws:iam::{FAR}:role/Behind"]
        for action in ("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity")
    }


def allowed(documents: list[Document]) -> dict[str, list[str]]:
    return {
        action: statement["Resource"]
        for document in documents
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in statement["Action"]
    }


def test_the_hub_has_the_least_it_needs(bootstrap) -> None:
    roles = [f"arn:aws:iam::{FAR}:role/Admin", f"arn:aws:iam::{HUB_ACCOUNT}:role/Gate"]
    roles.append(f"arn:aws:iam::{HUB_ACCOUNT}:role/data/Reader")
    assumes = dict.fromkeys(("sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"), roles)
    plain = by_name(written(bootstrap, "terraform", RICH, *EC2))["BrokerHub"]
    assert allowed(plain.documents()) == assumes
    full = by_name(written(bootstrap, "terraform", RICH, *EVERYTHING))["BrokerHub"]
    sealing, signing = EVERYTHING[-3], EVERYTHING[-1].removeprefix("awskms:")
    writes = ("iam:PutRolePolicy", "iam:GetRolePolicy", "iam:DeleteRolePolicy")
    assert allowed(full.documents()) == {
        **assumes,
        # In its own account alone: IAM reads and writes no other.
        "iam:GetRole": roles[1:],
        **dict.fromkeys(writes, roles[2:]),
        "kms:GenerateDataKey": [sealing],
        "kms:Encrypt": [sealing],
        "kms:Decrypt": [sealing],
        "kms:Sign": [signing],
        "kms:GetPublicKey": [signing],
    }
    denied = {
        action: statement.get("NotResource", statement.get("Resource"))
        for document in full.documents()
        for statement in document["Statement"]
        if statement["Effect"] == "Deny"
        for action in statement["Action"]
    }
    assert denied["iam:CreateAccessKey"] == denied["sts:AssumeRoot"] == "*"
    assert denied["iam:PutRolePolicy"] == roles[2:]
    assert "iam:GetRole" not in denied
    (assume,) = (
        one
        for document in plain.documents()
        for one in document["Statement"]
        if "sts:AssumeRole" in one["Action"]
    )
    assert assume["Condition"] == {
        "StringLike": {
            "sts:SourceIdentity": ["p-*", "w-*"],
            "sts:RoleSessionName": "*-iss-*",
            "aws:RequestTag/broker:issuance": "iss-*",
        }
    }


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_cfn_lint_and_parliament_find_nothing(bootstrap, partition: str) -> None:
    """cfn-lint's I are hints, such as to say why a resource is there."""
    text = RICH if partition == "aws" else in_partition(RICH, partition)
    words = [word.replace("arn:aws:", f"arn:{partition}:") for word in EVERYTHING]
    roles = by_name(written(bootstrap, "cloudformation", text, *words))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports warns of itself
        for path in Path("made").glob("*/broker.yaml"):
            found = lint_all(path.read_text("ascii"))
            assert [one for one in found if not one.rule.id.startswith("I")] == []
    for role in roles.values():
        for document in role.documents():
            assert analyse(json.dumps(document)) == ()
        # It takes every policy for one that names resources: a trust policy has none.
        assert role.trust is not None
        itself = f"arn:{partition}:iam::{FAR}:role/x"
        as_resource = {
            **role.trust,
            "Statement": [{**one, "Resource": itself} for one in role.trust["Statement"]],
        }
        assert analyse(json.dumps(as_resource)) == ()
        assert len(compact(role.trust)) <= 2048
        assert f"arn:{partition}:" in compact(role.documents() or role.trust)


HOSTILE = {
    "name": 'x" } resource "aws_iam_user" "evil" { # ${file("/etc/passwd")} %{if true}',
    "description": 'é ${x} %{y} $${z} "q" \\ # Resources: {} !Sub ${AWS::AccountId} - on',
    "path": "/a\"b\\{c}%{d}#/!&<>':,/",
}


@pytest.mark.parametrize("kind", list(FORMATS))
def test_no_value_is_more_than_a_value(bootstrap, kind: str) -> None:
    arn = f"arn:aws:iam::{FAR}:role{HOSTILE['path']}1.on=a@R,e"
    policy = {
        "version": 1,
        "accounts": {"far": {"id": FAR, "name": HOSTILE["name"]}},
        "admins": [{"group": "corp/platform"}],
        "roles": {
            "on": {
                "description": HOSTILE["description"],
                "account": "far",
                "role_arn": arn,
                "external_id": "=x:@/+,.-_",
                "unscoped": True,
                "tags": {"équipe + on": "a", "y": "b"},
                "transitive_tags": ["équipe + on"],
            }
        },
    }
    words = ("--account", FAR, "--hub-trust", "ecs", "--hub-name", "null")
    roles = by_name(written(bootstrap, kind, json.dumps(policy), *words))
    assert list(roles) == ["null", "1.on=a@R,e"]
    on = roles["1.on=a@R,e"]
    assert on.path == HOSTILE["path"]
    assert on.description == f"Through the credential broker as on: {HOSTILE['description']}"
    assert on.trust is not None
    assume, tag, _ = on.trust["Statement"]
    assert assume["Condition"]["StringEquals"] == {"sts:ExternalId": "=x:@/+,.-_"}
    assert tag["Condition"]["ForAllValues:StringEquals"] == {
        "aws:TagKeys": ["équipe + on", "y", "broker:issuance"],
        "sts:TransitiveTagKeys": ["équipe + on", "broker:issuance"],
    }
    assert allowed(roles["null"].documents())["sts:AssumeRole"] == [arn]
    assert roles["null"].path == "/"


@pytest.mark.parametrize("kind", list(FORMATS))
def test_cloudformation_is_asked_for_no_secret(bootstrap, kind: str) -> None:
    """Who writes a description does not read the secrets of who applies the template."""
    secret = "{{resolve:secretsmanager:prod/db:SecretString:password}}"
    text = RICH.replace("description: Read one data set", f'description: "{{{secret}}} read"')
    roles = by_name(written(bootstrap, kind, text, *EC2))
    told = "Through the credential broker as reader: { { {resolve:secretsmanager:prod/db"
    assert str(roles["Reader"].description).startswith(told)
    done = bootstrap(
        RICH.replace("role/data/Reader", "role/{{resolve:ssm:p}}/Reader"),
        *EC2, "--format", kind, "--output", "made",
    )  # fmt: skip
    if kind == "cloudformation":
        assert done.code == 1
        assert "CloudFormation would put another text for the reference in" in done.err
    else:
        assert done.code == 0


@pytest.mark.parametrize(
    ("words", "statement", "profile"),
    [
        (
            ("--hub-trust", "ec2"),
            {"Principal": {"Service": "ec2.amazonaws.com"}, "Action": ["sts:AssumeRole"]},
            True,
        ),
        (
            ("--hub-trust", "ecs"),
            {
                "Principal": {"Service": "ecs-tasks.amazonaws.com"},
                "Action": ["sts:AssumeRole"],
                "Condition": {
                    "StringEquals": {"aws:SourceAccount": HUB_ACCOUNT},
                    "ArnLike": {"aws:SourceArn": f"arn:aws:ecs:*:{HUB_ACCOUNT}:*"},
                },
            },
            False,
        ),
        (
            (
                "--hub-trust",
                "irsa",
                "--oidc-provider",
                f"arn:aws:iam::{HUB_ACCOUNT}:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/AB12",
                "--service-account",
                "broker/server",
            ),
            {
                "Principal": {
                    "Federated": f"arn:aws:iam::{HUB_ACCOUNT}:oidc-provider/"
                    "oidc.eks.us-east-1.amazonaws.com/id/AB12"
                },
                "Action": ["sts:AssumeRoleWithWebIdentity"],
                "Condition": {
                    "StringEquals": {
                        "oidc.eks.us-east-1.amazonaws.com/id/AB12:aud": "sts.amazonaws.com",
                        "oidc.eks.us-east-1.amazonaws.com/id/AB12:sub": (
                            "system:serviceaccount:broker:server"
                        ),
                    }
                },
            },
            False,
        ),
        (
            ("--hub-trust", "pod-identity"),
            {
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
            },
            False,
        ),
        (
            ("--hub-trust", "pod-identity", "--service-account", "broker/server"),
            {
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {
                    "StringEquals": {
                        "aws:RequestTag/kubernetes-namespace": "broker",
                        "aws:RequestTag/kubernetes-service-account": "server",
                    }
                },
            },
            False,
        ),
        (
            ("--hub-trust", f"arn:aws:iam::{FAR}:role/ops/Host"),
            {
                "Principal": {"AWS": f"arn:aws:iam::{FAR}:role/ops/Host"},
                "Action": ["sts:AssumeRole"],
            },
            False,
        ),
    ],
)
def test_how_the_host_gets_the_hub(bootstrap, words, statement, profile) -> None:
    done = bootstrap(RICH, "--account", HUB_ACCOUNT, *words, "--format", "json")
    assert done.code == 0, done.err
    hub = by_name(from_json(done.out))["BrokerHub"]
    assert hub.trust == {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "Host", "Effect": "Allow", **statement}],
    }
    assert hub.profile is profile


def test_roles_that_exist_already(bootstrap) -> None:
    """Only what they trust and for how long; the hub, and a hop, get the policies they need."""
    hub = f"arn:aws:iam::{HUB_ACCOUNT}:role/ops/Hub"
    words = ("--hub-arn", hub, "--existing", "all")
    for kind in FORMATS:
        text = RICH if kind != "cloudformation" else RICH.replace(f"::{FAR}:", f"::{HUB_ACCOUNT}:")
        if kind == "cloudformation":  # where it could change nothing, see the refusals
            text = text.replace("account: far", "account: hub")
        roles = by_name(written(bootstrap, kind, text, *words))
        assert all(role.existing for role in roles.values())
        assert roles["Hub"].trust is None
        # A role that others may use too is denied nothing.
        assert list(roles["Hub"].inline) == ["Hub-assume-roles"]
        assert list(roles["Gate"].inline) == ["Gate-assume-roles"]
        assert roles["Reader"].maximum == 14400
        assert roles["Behind"].attached == []
        assert set(principals(roles["Reader"].trust or {})) == {hub}
    one = by_name(written(bootstrap, "terraform", RICH, *EC2, "--existing", "reader"))
    assert [name for name, role in one.items() if role.existing] == ["Reader"]


def test_more_roles_than_one_policy_names(bootstrap) -> None:
    path = "/".join(["long" * 30] * 4)

    def many(count: int) -> str:
        roles = "".join(
            f"  r{n}: {{account: hub, unscoped: true, "
            f"role_arn: 'arn:aws:iam::{HUB_ACCOUNT}:role/{path}/Role{n:04}'}}\n"
            for n in range(count)
        )
        return f'version: 1\naccounts: {{hub: {{id: "{HUB_ACCOUNT}"}}}}\nroles:\n{roles}'

    for kind in FORMATS:
        (found,) = written(bootstrap, kind, many(12), "--hub-trust", "ec2").values()
        hub = next(role for role in found if role.name == "BrokerHub")
        assert hub.inline == {}
        assert 1 < len(hub.managed) <= 10
        assert all(len(compact(document)) <= 6144 for document in hub.managed.values())
        named = [
            arn
            for document in hub.managed.values()
            for one in document["Statement"]
            if one["Action"] == ["sts:AssumeRole"]
            for arn in one["Resource"]
        ]
        assert len(set(named)) == len(named) == 12
    long = bootstrap(many(22), "--hub-trust", "ec2", "--format", "cloudformation")
    assert "over 51200 bytes: CloudFormation takes it from S3 alone" in long.err
    refused = bootstrap(many(60), "--hub-trust", "ec2")
    assert refused.code == 1
    assert "AWS attaches 10 to a role" in refused.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--hub-trust", "ec2"), "say which account the broker runs in: --account (hub, far"),
        (("--account", "nowhere", "--hub-trust", "ec2"), "no account 'nowhere'"),
        (("--account", "hub"), "--hub-trust ec2, ecs, irsa, pod-identity or a role's ARN"),
        (("--account", "hub", "--hub-trust", "vm"), "'vm' is no ARN of a role"),
        ((*EC2, "--hub-name", "a/b"), "'a/b' is no name of a role"),
        ((*EC2, "--hub-name", "reader"), "can't both exist"),
        ((*EC2, "--hub-name", "Gate"), "role behind names the broker's own role"),
        ((*EC2, "--hub-arn", f"arn:aws:iam::{FAR}:role/x"), "leave --hub-trust out"),
        (("--hub-arn", f"arn:aws:iam::{FAR}:role/*/x"), "is no ARN of a role"),
        (("--hub-arn", f"arn:aws:iam::{FAR}:user/x"), "is no ARN of a role"),
        ((*EC2, "--existing", "nobody"), "--existing nobody: the access policy has no such role"),
        ((*EC2, "--sealing-key", "alias/broker"), "'alias/broker' is no KMS key: write awskms:arn"),
        (("--account", "hub", "--hub-trust", "irsa"), "needs --oidc-provider"),
        (
            ("--account", "hub", "--hub-trust", "irsa", "--oidc-provider", "x",
             "--service-account", "a/b"),
            "'x' is no ARN of an OIDC provider",
        ),
        (
            ("--account", "hub", "--hub-trust", "irsa", "--service-account", "a/b",
             "--oidc-provider", f"arn:aws:iam::{FAR}:oidc-provider/example.com"),
            f"the OIDC provider is in account {FAR}",
        ),
        (
            ("--account", "hub", "--hub-trust", "pod-identity", "--service-account", "A*/b"),
            "is no service account",
        ),
        (EC2, "--output DIR writes a file for each"),
        (
            ("--hub-arn", f"arn:aws:iam::{HUB_ACCOUNT}:role/Hub", "--existing", "all",
             "--format", "cloudformation", "--output", "x"),
            f"every role of account {FAR} exists already",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_to_write(bootstrap, words, says: str) -> None:
    done = bootstrap(RICH, *words)
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith("broker: ")
    assert says in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2\n", "access.yaml:1:10: this broker reads version 1; write version: 1"),
        (
            RICH.replace("external_id: x-reader", "external_id: {generate: true}"),
            "the external id of role reader is made when the access policy is applied",
        ),
        (
            RICH.replace("role/Admin", "role/aws-reserved/sso.amazonaws.com/Admin"),
            "is AWS's own, whose trust policy nobody can change",
        ),
    ],
)
def test_policies_that_can_not_be_set_up(bootstrap, text: str, says: str) -> None:
    done = bootstrap(text, *EC2, "--output", "made")
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert not Path("made").exists()


def test_what_is_told_beside_the_code(bootstrap) -> None:
    done = bootstrap(RICH, *EVERYTHING, "--output", "made")
    assert "the sessions of admin are denied from within theirs" in done.err
    assert "can write any inline policy" in done.err
    assert f"in this order: {HUB_ACCOUNT}, {FAR}" in done.err
    here, there = (Path("made", number, "broker.tf").read_text() for number in (HUB_ACCOUNT, FAR))
    assert "can write any inline policy" in here
    assert f"Apply it after those of {HUB_ACCOUNT}" in there
    assert "It may do nothing until you attach permissions" in there
    # Roles of another partition need a hub there.
    two = (
        RICH.replace("name: Far away}", "partition: aws-cn, region: cn-north-1}")
        .replace(f"arn:aws:iam::{FAR}", f"arn:aws-cn:iam::{FAR}")
        .replace(f"    via: [arn:aws:iam::{HUB_ACCOUNT}:role/Gate]\n", "")
        .replace("arn:aws:iam::aws:", "arn:aws-cn:iam::aws:")
    )
    done = bootstrap(two, *EC2)
    assert done.code == 0
    assert "left out, since they are not in partition aws: behind, admin" in done.err
    assert [role.name for role in from_terraform(done.out)] == ["BrokerHub", "Reader"]


def test_where_the_access_policy_comes_from(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(RICH.encode())))
    assert bootstrap(RICH, *EC2, "--policy", "-", "--format", "json").code == 0
    Path("empty.db").touch(0o600)
    for name, url in (
        ("no-database", "sqlite+aiosqlite:///gone.db"),
        ("no-tables", "sqlite+aiosqlite:///empty.db"),
        ("out", f"postgresql+asyncpg://broker@127.0.0.1:{free_port()}/broker"),
    ):
        Path(f"{name}.toml").write_text(f'[database]\nurl = "{url}"\n')
    for words, says in (
        (["--policy", "nowhere.yaml"], "nowhere.yaml can't be read"),
        ([], "name the access policy (--policy FILE), or the settings (--config FILE)"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--config", "no-database.toml"], "there is no database file gone.db"),
        (["--config", "no-tables.toml"], "broker migrate"),
        (["--config", "out.toml"], "the database can't be reached"),
    ):
        assert main(["aws", "bootstrap", *EC2, *words]) == 1
        assert says in capsys.readouterr().err
    assert not Path("gone.db").exists()


def test_the_light_client_says_what_it_needs(monkeypatch, capsys) -> None:
    monkeypatch.setattr(entry, "_installed", lambda packages: False)
    assert entry.main(["aws", "bootstrap", "--policy", "access.yaml"]) == 2
    assert "pip install 'credential-broker[server]'" in capsys.readouterr().err


def test_the_same_input_gives_the_same_bytes(bootstrap) -> None:
    """Whatever order a process's sets have."""
    here = bootstrap(RICH, *EVERYTHING, "--format", "json")
    assert here.code == 0
    done = subprocess.run(
        [sys.executable, "-m", "broker.entry", "aws", "bootstrap", "--policy", "access.yaml",
         *EVERYTHING, "--format", "json"],
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=100,
        check=True,
    )  # fmt: skip
    assert done.stdout.decode("ascii") == here.out
    assert json.loads(here.out)["hub"] == f"arn:aws:iam::{HUB_ACCOUNT}:role/BrokerHub"
