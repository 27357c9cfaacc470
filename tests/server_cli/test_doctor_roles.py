"""`broker doctor` on roles: read where IAM lets it, tried where not, and never with a way in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from broker.issuance.rehearsal import DENY_EVERYTHING, rehearse
from broker.issuance.sts import CallerIdentity
from broker.issuance.trust_policy import trust_policies
from tests.server_cli.conftest import ACCOUNT, EXTERNAL_ID, HUB, READER, Host
from tests.unit.access.examples import policy

OTHER_ACCOUNT = "444455556666"
STS = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
# What the broker's own role needs, and to read the roles of its account.
ASSUMES = {"Effect": "Allow", "Action": STS, "Resource": "*"}
READS = {"Effect": "Allow", "Action": "iam:GetRole", "Resource": "*"}
HEAD = f"""\
version: 1
accounts:
  prod: {{id: "{ACCOUNT}"}}
  far: {{id: "{OTHER_ACCOUNT}"}}
admins: [{{group: corp/platform}}]
"""


def role_text(
    name: str, account: str = "prod", external_id: str | None = EXTERNAL_ID, more: str = ""
) -> str:
    number = {"prod": ACCOUNT, "far": OTHER_ACCOUNT}[account]
    with_id = "" if external_id is None else f", external_id: {external_id}"
    return (
        f'  {name}: {{account: {account}, role_arn: "arn:aws:iam::{number}:role/{name}", '
        f"unscoped: true, role_maximum: 2h{with_id}{more}}}\n"
    )


def file_of(host: Host, *roles: str) -> str:
    path = host.folder / "access.yaml"
    path.write_text(f"{HEAD}roles:\n{''.join(roles)}")
    return str(path)


def statement(action: Any = STS, principal: Any = HUB, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": action, **more}


def trust(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


WITH_ID = {"Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}}
RIGHT = trust(statement(**WITH_ID))


def arn(name: str, account: str = ACCOUNT) -> str:
    return f"arn:aws:iam::{account}:role/{name}"


def test_all_is_well_where_the_written_trust_policy_stands(host: Host) -> None:
    host.may(ASSUMES, READS)
    reader = replace(policy().roles["data-reader"], role_arn=READER, external_id=EXTERNAL_ID)
    identity = CallerIdentity(ACCOUNT, host.aws.hub_credentials("role").arn)
    [written] = trust_policies(rehearse(reader), identity)
    host.aws.put_role(READER, json.loads(json.dumps(written.document)), 4 * 3600)
    report = host.doctor(as_json=False)
    assert report.code == 0, report.out
    assert report.err == ""
    lines = report.out.splitlines()
    [line] = [line for line in lines if "role data-reader" in line]
    assert line.startswith("ok    role data-reader: let the broker in when it was tried, with")
    assert "with ExternalId, TagSession and SetSourceIdentity" in line
    assert "1h at most, since chained (MaxSessionDuration is 4h, as written)" in line
    assert "not checked" not in line
    assert "cure:" not in report.out
    assert lines[-1].endswith(" 0 warned of, 0 failed")

    # It was tried as issuing would, for nobody, with credentials that may do nothing.
    [call] = host.aws.calls.of("AssumeRole")
    assert call.outcome == "ok"
    assert call.parameters["DurationSeconds"] == "900"
    assert call.parameters["Policy"] == DENY_EVERYTHING
    assert call.parameters["SourceIdentity"] == "p-0000000000000000"
    assert call.parameters["ExternalId"] == EXTERNAL_ID
    assert call.parameters["RoleSessionName"] == "broker-doctor-iss-00000000000000000000000000"
    assert [call.parameters[f"Tags.member.{n}.Key"] for n in (1, 2)] == ["team", "broker:issuance"]
    assert call.parameters["Tags.member.1.Value"] == "web"
    shown = report.out + report.err
    assert EXTERNAL_ID not in shown
    assert str(call.issued_key_id) not in shown


def test_a_user_in_the_roles_account_is_judged_by_reading_alone(host: Host) -> None:
    user = host.aws.hub_credentials("user", policy=trust(ASSUMES, READS))
    host.use(user)
    host.aws.put_role(READER, trust(statement(principal=user.arn, **WITH_ID)), 4 * 3600)
    report = host.doctor()
    assert report.code == 0
    assert report.wrong() == [("warning", "aws identity")]
    assert "long-term keys" in report.of("aws identity")["detail"]
    assert "lets the broker in, as its trust policy says" in report.of("role data-reader")["detail"]
    assert (
        "4h at most (MaxSessionDuration is 4h, as written)"
        in report.of("role data-reader")["detail"]
    )
    assert host.aws.calls.of("AssumeRole") == []


def test_each_role_that_can_be_read(host: Host) -> None:
    host.may(ASSUMES, READS)
    put = host.aws.put_role
    put(arn("right"), RIGHT, 7200)
    put(arn("other-principal"), trust(statement(principal=arn("Somebody"), **WITH_ID)), 7200)
    put(
        arn("other-id"),
        trust(statement(Condition={"StringEquals": {"sts:ExternalId": "x-1"}})),
        7200,
    )
    put(arn("no-tags"), trust(statement([STS[0], STS[2]], **WITH_ID)), 7200)
    put(arn("no-identity"), trust(statement(STS[:2], **WITH_ID)), 7200)
    put(arn("anybody"), trust(statement(principal="*")), 7200)
    put(arn("account"), trust(statement(principal=f"arn:aws:iam::{ACCOUNT}:root", **WITH_ID)), 7200)
    put(arn("no-id"), trust(statement()), 7200)
    put(arn("short"), RIGHT, 3600)
    put(arn("long"), RIGHT, 12 * 3600)
    put(arn("deep").replace("role/", "role/team/"), RIGHT, 7200)
    put(
        arn("mfa"),
        trust(statement(Condition={"Bool": {"aws:MultiFactorAuthPresent": "true"}})),
        7200,
    )
    names = ["right", "missing", "other-principal", "other-id", "no-tags", "no-identity", "anybody"]
    names += ["account", "no-id", "short", "long", "deep", "mfa"]
    report = host.doctor("--policy", file_of(host, *map(role_text, names)))
    assert report.code == 1
    assert report.wrong() == [
        ("failed", "role missing"),
        ("failed", "role other-principal"),
        ("failed", "role other-id"),
        ("failed", "role no-tags"),
        ("failed", "role no-identity"),
        ("failed", "role anybody"),
        ("warning", "role anybody"),
        ("warning", "role account"),
        ("warning", "role no-id"),
        ("failed", "role short duration"),
        ("warning", "role long duration"),
        ("failed", "role deep"),
        ("failed", "role mfa"),
    ]
    assert {one["role"] for one in report.checks if one["check"].startswith("role ")} == set(names)
    said: dict[str, str] = {}
    cures: dict[str, str] = {}
    for check in report.checks:
        if check["status"] != "ok":
            said.setdefault(check["check"], check["detail"])
            cures.setdefault(check["check"], check["cure"])
    assert said["role missing"] == f"account {ACCOUNT} has no role missing"
    assert "does not name the broker" in said["role other-principal"]
    assert arn("Somebody") in said["role other-principal"]
    assert "broker access trust-policy other-principal" in cures["role other-principal"]
    assert "another ExternalId" in said["role other-id"]
    assert "does not allow sts:TagSession" in said["role no-tags"]
    assert "does not allow sts:SetSourceIdentity" in said["role no-identity"]
    assert "anybody" in said["role anybody"]
    assert "whole account" in said["role account"]
    assert "does not ask for the ExternalId" in said["role no-id"]
    assert "MaxSessionDuration is 1h, role_maximum 2h" in said["role short duration"]
    assert "--max-session-duration 7200" in cures["role short duration"]
    assert "MaxSessionDuration is 12h, role_maximum 2h" in said["role long duration"]
    assert "AWS says arn:aws:iam::111122223333:role/team/deep" in said["role deep"]
    assert "aws:MultiFactorAuthPresent" in said["role mfa"]
    # What reading found to be refused was not tried.
    tried = {call.parameters["RoleArn"] for call in host.aws.calls.of("AssumeRole")}
    assert tried == {arn(name) for name in ("right", "account", "no-id", "long")}
    assert EXTERNAL_ID not in report.out
    assert "x-1" not in report.out


def test_each_role_that_can_only_be_tried(host: Host) -> None:
    """Of another account, or where iam:GetRole is not allowed."""
    host.may(ASSUMES, {"Effect": "Deny", "Action": "sts:*", "Resource": arn("denied")})
    put = host.aws.put_role
    put(arn("near"), RIGHT, 7200)
    put(arn("denied"), RIGHT, 7200)
    put(arn("far", OTHER_ACCOUNT), RIGHT, 7200)
    put(arn("no-id", OTHER_ACCOUNT), trust(statement()), 7200)
    put(arn("no-tags", OTHER_ACCOUNT), trust(statement([STS[0], STS[2]], **WITH_ID)), 7200)
    put(arn("no-identity", OTHER_ACCOUNT), trust(statement(STS[:2], **WITH_ID)), 7200)
    report = host.doctor(
        "--policy",
        file_of(
            host,
            role_text("near"),
            role_text("denied"),
            role_text("far", "far"),
            role_text("no-id", "far", None),
            role_text("no-tags", "far"),
            role_text("no-identity", "far"),
            role_text("missing", "far"),
        ),
    )
    assert report.code == 1
    assert report.wrong() == [
        ("failed", "role denied"),
        ("warning", "role no-id external id"),
        ("failed", "role no-tags"),
        ("failed", "role no-identity"),
        ("failed", "role missing"),
    ]
    near, far = report.of("role near")["detail"], report.of("role far")["detail"]
    assert "not checked, since the broker may not do iam:GetRole: whom else it lets in" in near
    assert f"not checked, since it is in account {OTHER_ACCOUNT}" in far
    assert "MaxSessionDuration" in far
    assert "does not say why" in report.of("role denied")["detail"]
    assert "refuses sts:TagSession" in report.of("role no-tags")["detail"]
    assert "refuses sts:SetSourceIdentity" in report.of("role no-identity")["detail"]
    assert "does not exist, or its trust policy" in report.of("role missing")["detail"]
    assert "external_id: {generate: true}" in report.of("role no-id external id")["cure"]
    for name in ("no-tags", "no-identity", "missing"):
        cure = report.of(f"role {name}")["cure"]
        assert f"broker access trust-policy {name}" in cure
        assert f"let a policy of {HUB} allow sts:AssumeRole" in cure


def test_the_brokers_own_policy_is_at_fault_where_the_trust_policy_is_right(host: Host) -> None:
    host.may(READS, {"Effect": "Allow", "Action": STS[:2], "Resource": "*"})
    host.aws.put_role(arn("reader"), RIGHT, 7200)
    report = host.doctor("--policy", file_of(host, role_text("reader")))
    assert report.wrong() == [("failed", "role reader")]
    assert (
        "AWS refuses sts:SetSourceIdentity: the broker's own policies"
        in report.of("role reader")["detail"]
    )
    assert report.of("role reader")["cure"] == (
        f"let a policy of {HUB} allow {', '.join(STS)} on {arn('reader')}"
    )


def test_without_trying(host: Host) -> None:
    host.may(ASSUMES, READS)
    host.aws.put_role(arn("near"), RIGHT, 7200)
    host.aws.put_role(arn("wrong"), trust(statement(STS[:1], **WITH_ID)), 7200)
    roles = (role_text("near"), role_text("wrong"), role_text("far", "far"))
    report = host.doctor("--no-try", "--policy", file_of(host, *roles))
    assert report.wrong() == [
        ("warning", "role near"),
        ("failed", "role wrong"),
        ("failed", "role wrong"),
        ("warning", "role far"),
    ]
    assert "depends on the broker's own policies" in report.of("role near")["detail"]
    assert "--no-try" in report.of("role far")["cure"]
    assert host.aws.calls.of("AssumeRole") == []


def test_over_a_hop(host: Host) -> None:
    host.may(ASSUMES, READS)
    hop, lost = arn("hop"), arn("lost")
    on = {"Effect": "Allow", "Action": STS, "Resource": "*"}
    host.aws.put_role(
        hop,
        trust(statement()),
        policies={"on": {"Version": "2012-10-17", "Statement": [on]}},
    )
    host.aws.put_role(arn("good", OTHER_ACCOUNT), trust(statement(principal=hop, **WITH_ID)))
    host.aws.put_role(arn("bad", OTHER_ACCOUNT), trust(statement(**WITH_ID)))
    roles = (
        role_text("good", "far", more=f', via: ["{hop}"]'),
        role_text("bad", "far", more=f', via: ["{hop}"]'),
        role_text("ugly", "far", more=f', via: ["{lost}"]'),
    )
    report = host.doctor("--policy", file_of(host, *roles))
    assert report.wrong() == [("failed", "role bad"), ("failed", f"role ugly via {lost}")]
    assert "1h at most, since chained" in report.of("role good")["detail"]
    assert f"does not name {hop}" in report.of("role bad")["detail"]
    assert "has no role lost" in report.of(f"role ugly via {lost}")["detail"]


def test_an_external_id_that_is_generated_is_taken_from_the_database(host: Host) -> None:
    text = f"{HEAD}roles:\n{role_text('generated', external_id='{generate: true}')}"
    file = host.folder / "access.yaml"
    file.write_text(text)
    before = host.doctor("--policy", str(file))
    assert before.of("role generated")["status"] == "warning"
    assert "made when the access policy is applied" in before.of("role generated")["detail"]
    assert host.aws.calls.of("AssumeRole") == []
    host.apply(text)
    after = host.doctor("--policy", str(file))
    assert after.of("role generated")["status"] == "failed"  # AWS has no such role
    [call] = host.aws.calls.of("AssumeRole")
    assert call.parameters["ExternalId"].startswith("broker-")
    assert call.parameters["ExternalId"] not in after.out
