"""S3 and IAM through the gate: role, session and bucket policy together decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.devstack.aws import AwsStandIn, DemoAccount, seed_demo
from tests.devstack.asking import ACCOUNT, allow, policy, refusal

Client = Callable[..., Any]
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/DataReader/ada"


def read_only(resource: str = "arn:aws:s3:::reports/public/*", **more: Any) -> dict[str, Any]:
    return policy({"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource, **more})


def code_of(call: Callable[..., object], *arguments: Any, **named: Any) -> tuple[str, str]:
    return refusal(call, *arguments, **named)[:2]


@pytest.fixture
def session(demo: DemoAccount, client: Client) -> Callable[..., Any]:
    """An S3 client under a role session of the demo, DataReader unless told otherwise."""
    sts = client("sts", demo.hub)

    def make(document: Any = None, role: str = demo.data_reader_arn, **more: Any) -> Any:
        if document is not None:
            more["Policy"] = json.dumps(document)
        answer = sts.assume_role(
            RoleArn=role, RoleSessionName="ada", ExternalId=demo.external_id, **more
        )
        return client("s3", answer["Credentials"])

    return make


def test_a_read_is_allowed_and_a_write_refused_by_the_session_policy_alone(
    session: Callable[..., Any], standin: AwsStandIn
) -> None:
    narrow = session(read_only())
    assert (
        narrow.get_object(Bucket="reports", Key="public/q3.csv")["Body"]
        .read()
        .startswith(b"region")
    )
    assert code_of(narrow.put_object, Bucket="reports", Key="public/new", Body=b"x") == (
        "AccessDenied",
        (
            f"User: {SESSION} is not authorized to perform: s3:PutObject on resource:"
            ' "arn:aws:s3:::reports/public/new" because no session policy allows the s3:PutObject'
            " action"
        ),
    )
    assert not standin.world.has_object("reports", "public/new")
    # The role itself may: the session policy alone stood in the way.
    session().put_object(Bucket="reports", Key="public/new", Body=b"x")
    assert standin.world.has_object("reports", "public/new")


def test_what_the_role_lacks_a_session_policy_does_not_give(session: Callable[..., Any]) -> None:
    wide = session(allow("*"))
    code, message = code_of(wide.delete_object, Bucket="reports", Key="public/q3.csv")
    assert code == "AccessDenied"
    assert message.endswith("because no identity-based policy allows the s3:DeleteObject action")


def test_session_policies_are_ored_and_a_deny_narrows(
    standin: AwsStandIn, session: Callable[..., Any]
) -> None:
    arn = standin.put_managed_policy("ReadLogs", read_only("arn:aws:s3:::logs/*"))
    both = session(read_only(), PolicyArns=[{"arn": arn}])
    assert both.get_object(Bucket="reports", Key="public/q3.csv")["Body"].read()
    assert both.get_object(Bucket="logs", Key="public/2026-11-23.log")["Body"].read()
    assert (
        code_of(both.get_object, Bucket="reports", Key="private/salaries.csv")[0] == "AccessDenied"
    )
    denied = read_only()
    denied["Statement"].append(
        {"Effect": "Deny", "Action": "s3:*", "NotResource": "arn:aws:s3:::reports/*"}
    )
    restricted = session(denied, PolicyArns=[{"arn": arn}])
    _, message = code_of(restricted.get_object, Bucket="logs", Key="public/2026-11-23.log")
    assert message.endswith("with an explicit deny in a session policy")


def test_aws_managed_policies_can_be_session_policies(session: Callable[..., Any]) -> None:
    s3 = session(PolicyArns=[{"arn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}])
    assert s3.get_object(Bucket="reports", Key="private/salaries.csv")["Body"].read()
    assert code_of(s3.put_object, Bucket="reports", Key="x", Body=b"")[0] == "AccessDenied"


def test_a_managed_policy_deleted_later_leaves_the_session_restricted(
    standin: AwsStandIn, session: Callable[..., Any]
) -> None:
    arn = standin.put_managed_policy("Gone", read_only("*"))
    s3 = session(PolicyArns=[{"arn": arn}])
    assert s3.get_object(Bucket="reports", Key="public/q3.csv")["Body"].read()
    with standin.world.entered():
        standin.world.iam_of(ACCOUNT).managed_policies.pop(arn)
    assert code_of(s3.get_object, Bucket="reports", Key="public/q3.csv")[0] == "AccessDenied"


def test_a_bucket_policy_naming_the_session_escapes_the_session_policy(
    standin: AwsStandIn, session: Callable[..., Any]
) -> None:
    """The documented rule that makes session names a secret worth keeping unguessable."""
    narrow = session(read_only())
    write = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::reports/*"}

    def bucket(principal: str, **more: Any) -> None:
        statement = {**write, "Principal": {"AWS": principal}, **more}
        standin.put_bucket("reports", policy=policy(statement))

    def put(s3: Any = narrow) -> Any:
        return s3.put_object(Bucket="reports", Key="public/n", Body=b"x")

    bucket(f"arn:aws:iam::{ACCOUNT}:role/DataReader")
    assert "no session policy allows" in code_of(put)[1]
    bucket(f"{SESSION}-not")
    assert "no session policy allows" in code_of(put)[1]
    bucket(SESSION)
    assert put()["ETag"]
    # An explicit Deny holds against it.
    denied = read_only()
    denied["Statement"].append({"Effect": "Deny", "NotAction": "s3:GetObject", "Resource": "*"})
    guarded = session(denied)
    assert code_of(put, guarded)[1].endswith("with an explicit deny in a session policy")


def test_a_bucket_policy_denies_by_condition(
    standin: AwsStandIn, session: Callable[..., Any]
) -> None:
    standin.put_bucket(
        "reports",
        policy=policy(
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": "arn:aws:s3:::reports/private/*",
                "Condition": {"StringNotEquals": {"aws:SourceIdentity": "p-ada"}},
            }
        ),
    )

    def get(s3: Any, key: str) -> Any:
        return s3.get_object(Bucket="reports", Key=key)["Body"].read()

    assert get(session(), "public/q3.csv")
    assert get(session(SourceIdentity="p-ada"), "private/salaries.csv")
    for other in (session(), session(SourceIdentity="p-eve")):
        _, message = code_of(get, other, "private/salaries.csv")
        assert message.endswith("with an explicit deny in a resource-based policy")


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"aws:SourceIdentity": "p-ada"}},
        {"StringLike": {"aws:userid": "AROA*:ada"}},
        {"StringEquals": {"aws:PrincipalTag/broker:issuance": "01J"}},
        {"DateLessThan": {"aws:TokenIssueTime": "2100-01-01T00:00:00Z"}},
        {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/Data*"}},
    ],
)
def test_live_sessions_are_revoked_by_the_roles_policy(
    standin: AwsStandIn,
    demo: DemoAccount,
    session: Callable[..., Any],
    client: Client,
    condition: Any,
) -> None:
    """A role's policies are read at each request: a Deny put there ends what was issued before."""
    s3 = session(SourceIdentity="p-ada", Tags=[{"Key": "broker:issuance", "Value": "01J"}])
    assert s3.get_object(Bucket="reports", Key="public/q3.csv")
    admin = client("sts", demo.hub).assume_role(
        RoleArn=demo.admin_arn, RoleSessionName="doctor", ExternalId=demo.external_id
    )
    iam = client("iam", admin["Credentials"])
    iam.put_role_policy(
        RoleName="DataReader",
        PolicyName="revoked",
        PolicyDocument=json.dumps(
            policy({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition})
        ),
    )
    _, message = code_of(s3.get_object, Bucket="reports", Key="public/q3.csv")
    assert message.endswith("with an explicit deny in an identity-based policy")
    iam.delete_role_policy(RoleName="DataReader", PolicyName="revoked")
    assert s3.get_object(Bucket="reports", Key="public/q3.csv")


def test_listing_by_prefix(session: Callable[..., Any]) -> None:
    s3 = session(
        policy(
            {
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": "arn:aws:s3:::reports",
                "Condition": {"StringLike": {"s3:prefix": ["public/*"]}},
            }
        )
    )
    listed = s3.list_objects_v2(Bucket="reports", Prefix="public/")["Contents"]
    assert [entry["Key"] for entry in listed] == ["public/q3.csv", "public/q4.csv"]
    for call in (
        lambda: s3.list_objects_v2(Bucket="reports"),
        lambda: s3.list_objects_v2(Bucket="reports", Prefix="private/"),
        lambda: s3.list_objects(Bucket="reports"),
    ):
        assert code_of(call)[0] == "AccessDenied"


def test_a_missing_object_is_told_only_to_who_may_list(session: Callable[..., Any]) -> None:
    assert code_of(session().get_object, Bucket="reports", Key="public/none")[0] == "NoSuchKey"
    code, message = code_of(session(read_only()).get_object, Bucket="reports", Key="public/none")
    assert (code, "s3:ListBucket" in message) == ("AccessDenied", True)
    assert (
        code_of(session(read_only()).head_object, Bucket="reports", Key="public/none")[0] == "403"
    )


def test_a_copy_needs_its_source(session: Callable[..., Any], demo: DemoAccount) -> None:
    document = read_only()
    document["Statement"].append({"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"})
    s3 = session(document, role=demo.deployer_arn)
    s3.copy_object(Bucket="logs", Key="q3", CopySource="reports/public/q3.csv")
    code, message = code_of(
        s3.copy_object, Bucket="logs", Key="pay", CopySource="reports/private/salaries.csv"
    )
    assert (code, "private/salaries.csv" in message) == ("AccessDenied", True)


def test_a_bulk_delete_is_decided_object_by_object(
    standin: AwsStandIn, session: Callable[..., Any], demo: DemoAccount
) -> None:
    document = allow("s3:DeleteObject", "arn:aws:s3:::reports/public/*")
    s3 = session(document, role=demo.deployer_arn)
    keys = ["public/q3.csv", "private/salaries.csv"]
    answer = s3.delete_objects(Bucket="reports", Delete={"Objects": [{"Key": key} for key in keys]})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["public/q3.csv"]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [
        ("private/salaries.csv", "AccessDenied")
    ]
    assert standin.world.has_object("reports", "private/salaries.csv")
    assert not standin.world.has_object("reports", "public/q3.csv")


def test_multipart_upload(session: Callable[..., Any]) -> None:
    s3 = session()
    upload = s3.create_multipart_upload(Bucket="reports", Key="public/big")["UploadId"]
    part = s3.upload_part(
        Bucket="reports", Key="public/big", UploadId=upload, PartNumber=1, Body=b"x"
    )
    s3.complete_multipart_upload(
        Bucket="reports",
        Key="public/big",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert s3.get_object(Bucket="reports", Key="public/big")["Body"].read() == b"x"
    narrow = session(read_only())
    code, _ = code_of(narrow.create_multipart_upload, Bucket="reports", Key="public/big")
    assert code == "AccessDenied"


@pytest.mark.parametrize(
    "key", ["public/a b+c.csv", "public/é.csv", "public/a%2Fb", "public/x?y=z"]
)
def test_keys_that_need_encoding(session: Callable[..., Any], key: str) -> None:
    s3 = session(allow("s3:*Object", f"arn:aws:s3:::reports/{key.replace('?', '${?}')}"))
    s3.put_object(Bucket="reports", Key=key, Body=b"x")
    assert s3.get_object(Bucket="reports", Key=key)["Body"].read() == b"x"
    assert code_of(s3.get_object, Bucket="reports", Key=f"{key}2")[0] == "AccessDenied"


def test_buckets_of_another_account_need_both_sides(
    standin: AwsStandIn, session: Callable[..., Any]
) -> None:
    standin.put_bucket("elsewhere", account_id="444455556666")
    standin.put_object("elsewhere", "x", b"1")
    role_allows = allow("s3:*")
    hub_only = policy(
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/BrokerHub"},
            "Action": "sts:AssumeRole",
        }
    )
    arn = f"arn:aws:iam::{ACCOUNT}:role/Reader"
    standin.put_role(arn, hub_only, policies={"all": role_allows})
    s3 = session(role=arn)
    _, message = code_of(s3.get_object, Bucket="elsewhere", Key="x")
    assert message.endswith("because no resource-based policy allows the s3:GetObject action")
    standin.put_bucket(
        "elsewhere",
        account_id="444455556666",
        policy=policy(
            {
                "Effect": "Allow",
                "Principal": {"AWS": arn},
                "Action": "s3:GetObject",
                "Resource": "arn:aws:s3:::elsewhere/*",
            }
        ),
    )
    assert s3.get_object(Bucket="elsewhere", Key="x")["Body"].read() == b"1"


def test_iam_is_decided_too(
    session: Callable[..., Any], demo: DemoAccount, client: Client, standin: AwsStandIn
) -> None:
    iam = client("iam", demo.hub)
    code, message = code_of(iam.get_role, RoleName="DataReader")
    assert code == "AccessDenied"
    assert message.endswith(
        "is not authorized to perform: iam:GetRole on resource: role DataReader because no"
        " identity-based policy allows the iam:GetRole action"
    )
    allowed = standin.hub_credentials(
        "user",
        name="doctor",
        policy=allow("iam:GetRole", demo.data_reader_arn),
    )
    doctor = client("iam", allowed)
    role = doctor.get_role(RoleName="DataReader")["Role"]
    assert role["MaxSessionDuration"] == 14400
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Action"] == "sts:AssumeRole"
    assert code_of(doctor.get_role, RoleName="Admin")[0] == "AccessDenied"
    assert (
        code_of(doctor.put_role_policy, RoleName="DataReader", PolicyName="p", PolicyDocument="{}")[
            0
        ]
        == "AccessDenied"
    )


def test_iam_and_s3_refuse_malformed_policies(
    standin: AwsStandIn, client: Client, demo: DemoAccount
) -> None:
    root = standin.hub_credentials("root")
    iam, s3 = client("iam", root), client("s3", root)
    bad = json.dumps(allow("x"))
    for call in (
        lambda: iam.put_role_policy(RoleName="Admin", PolicyName="p", PolicyDocument=bad),
        lambda: iam.create_role(RoleName="New", AssumeRolePolicyDocument=bad),
        lambda: iam.update_assume_role_policy(RoleName="Admin", PolicyDocument=bad),
    ):
        assert code_of(call)[0] == "MalformedPolicyDocument"
    assert code_of(s3.put_bucket_policy, Bucket="reports", Policy=bad)[0] == "MalformedPolicy"


def test_a_role_made_anew_ends_its_sessions(
    standin: AwsStandIn, session: Callable[..., Any], demo: DemoAccount
) -> None:
    s3 = session()
    assert s3.get_object(Bucket="reports", Key="public/q3.csv")
    with standin.world.entered():
        iam = standin.world.iam_of(ACCOUNT)
        [role_id] = [role.id for role in iam.roles.values() if role.name == "DataReader"]
        del iam.roles[role_id]
    assert code_of(s3.get_object, Bucket="reports", Key="public/q3.csv")[0] == "AccessDenied"
    seed_demo(standin)
    assert code_of(s3.get_object, Bucket="reports", Key="public/q3.csv")[0] == "AccessDenied"
