"""Signatures: what a tampered, stale, foreign or unsigned request gets."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.devstack.aws import AwsStandIn, DemoAccount, HubCredentials
from tests.devstack.asking import allow, policy, refusal

Client = Callable[..., Any]
IDENTITY = {"Action": "GetCallerIdentity", "Version": "2011-06-15"}
FORM = "application/x-www-form-urlencoded; charset=utf-8"


def signed(
    standin: AwsStandIn,
    hub: HubCredentials,
    parameters: dict[str, str] | str = IDENTITY,
    *,
    secret: str | None = None,
    service: str = "sts",
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> tuple[str, str, dict[str, str], bytes]:
    """A rightly signed request, taken apart so that tests can tamper with it."""
    body = parameters if isinstance(parameters, str) else urlencode(parameters)
    target = "/" if method == "POST" else f"/?{body}"
    request = AWSRequest(
        method=method,
        url=f"{standin.url}{target}",
        data=body.encode() if method == "POST" else b"",
        headers={
            "Host": urlsplit(standin.url).netloc,
            **({"Content-Type": FORM} if method == "POST" else {}),
            **(headers or {}),
        },
    )
    key = Credentials(hub.access_key_id, secret or hub.secret_access_key, hub.session_token)
    SigV4Auth(key, service, "us-east-1").add_auth(request)
    return method, target, dict(request.headers.items()), body.encode() if method == "POST" else b""


def send(
    standin: AwsStandIn, method: str, target: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(standin.url).netloc, timeout=5)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_right_signature(standin: AwsStandIn, demo: DemoAccount, method: str) -> None:
    status, text = send(standin, *signed(standin, demo.hub, method=method))
    assert status == 200
    assert 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"' in text
    assert "assumed-role/BrokerHub/" in text


@pytest.mark.parametrize(
    "tamper",
    ["body", "secret", "signature", "date", "header", "target", "method", "service"],
)
def test_tampering(standin: AwsStandIn, demo: DemoAccount, tamper: str) -> None:
    method, target, headers, body = signed(
        standin, demo.hub, secret="x" * 40 if tamper == "secret" else None
    )
    match tamper:
        case "body":
            body = body.replace(b"GetCallerIdentity", b"AssumeRole")
        case "signature":
            flipped = "0" if headers["Authorization"][-1] != "0" else "1"
            headers["Authorization"] = headers["Authorization"][:-1] + flipped
        case "date":
            moved = datetime.now(UTC) - timedelta(seconds=61)
            headers["X-Amz-Date"] = moved.strftime("%Y%m%dT%H%M%SZ")
        case "header":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        case "target":
            method, target, headers, body = signed(standin, demo.hub, method="GET")
            target += "&x=1"
        case "method":
            method, body = "GET", b""
        case "service":
            headers["Authorization"] = headers["Authorization"].replace("/sts/", "/iam/")
    status, text = send(standin, method, target, headers, body)
    assert status == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in text


def test_a_declared_payload_hash_does_not_excuse_the_body(
    standin: AwsStandIn, demo: DemoAccount
) -> None:
    declared = hashlib.sha256(urlencode(IDENTITY).encode()).hexdigest()
    method, target, headers, body = signed(
        standin, demo.hub, headers={"X-Amz-Content-SHA256": declared}
    )
    assert send(standin, method, target, headers, body)[0] == 200
    other = body.replace(b"GetCallerIdentity", b"AssumeRole")
    status, text = send(standin, method, target, headers, other)
    assert (status, "XAmzContentSHA256Mismatch" in text) == (400, True)


def test_a_header_added_behind_the_signature(standin: AwsStandIn, demo: DemoAccount) -> None:
    method, target, headers, body = signed(standin, demo.hub)
    for name in ("x-amz-acl", "x-amz-meta-added"):
        status, text = send(standin, method, target, {**headers, name: "x"}, body)
        assert (status, "not signed" in text) == (403, True)


@pytest.mark.parametrize("missing", ["Authorization", "X-Amz-Date", "X-Amz-Security-Token"])
def test_missing_parts(standin: AwsStandIn, demo: DemoAccount, missing: str) -> None:
    method, target, headers, body = signed(standin, demo.hub)
    headers.pop(missing)
    status, text = send(standin, method, target, headers, body)
    expected = {
        "Authorization": (403, "MissingAuthenticationToken"),
        "X-Amz-Date": (400, "IncompleteSignature"),
        # It is among the signed headers: without it the signature is another.
        "X-Amz-Security-Token": (403, "SignatureDoesNotMatch"),
    }[missing]
    assert (status, f"<Code>{expected[1]}</Code>" in text) == (expected[0], True)


@pytest.mark.parametrize(
    ("hub", "why"),
    [
        (HubCredentials("AKIAUNKNOWN000000000", "s" * 40, None, ""), "unknown key"),
        (HubCredentials("ASIAUNKNOWN000000000", "s" * 40, "t" * 400, ""), "unknown session"),
    ],
)
def test_unknown_keys(standin: AwsStandIn, hub: HubCredentials, why: str) -> None:
    status, text = send(standin, *signed(standin, hub))
    assert (status, "<Code>InvalidClientTokenId</Code>" in text) == (403, True), why


def test_a_session_key_needs_its_own_token(standin: AwsStandIn, demo: DemoAccount) -> None:
    hub = demo.hub
    for token in (None, "t" * 400):
        stolen = HubCredentials(hub.access_key_id, hub.secret_access_key, token, "")
        status, text = send(standin, *signed(standin, stolen))
        assert (status, "<Code>InvalidClientTokenId</Code>" in text) == (403, True)
    user = standin.hub_credentials("user")
    mixed = HubCredentials(user.access_key_id, user.secret_access_key, hub.session_token, "")
    status, text = send(standin, *signed(standin, mixed))
    assert (status, "<Code>InvalidClientTokenId</Code>" in text) == (403, True)


@pytest.mark.parametrize(
    ("offset", "says"),
    [(20 * 60, "Signature expired: "), (-20 * 60, "Signature not yet current: ")],
)
def test_a_clock_twenty_minutes_off(
    standin: AwsStandIn, demo: DemoAccount, client: Client, offset: int, says: str
) -> None:
    standin.faults.clock_offset = offset
    with pytest.raises(ClientError) as caught:
        client("sts", demo.hub).get_caller_identity()
    error = caught.value.response["Error"]
    assert error["Code"] == "SignatureDoesNotMatch"
    assert error["Message"].startswith(says)
    with pytest.raises(ClientError) as caught:
        client("s3", demo.hub).list_buckets()
    assert caught.value.response["Error"]["Code"] == "RequestTimeTooSkewed"
    standin.faults.clear()
    assert client("sts", demo.hub).get_caller_identity()


@pytest.mark.parametrize("offset", [4 * 60, -4 * 60])
def test_a_clock_four_minutes_off_is_taken(
    standin: AwsStandIn, demo: DemoAccount, client: Client, offset: int
) -> None:
    standin.faults.clock_offset = offset
    assert client("sts", demo.hub).get_caller_identity()


def test_expired_credentials(standin: AwsStandIn, demo: DemoAccount, client: Client) -> None:
    issued = client("sts", demo.hub).assume_role(
        RoleArn=demo.data_reader_arn, RoleSessionName="ada", ExternalId=demo.external_id
    )["Credentials"]
    assert client("s3", issued).get_object(Bucket="reports", Key="public/q3.csv")
    standin.expire(issued["AccessKeyId"])
    query = ("The security token included in the request is expired", 403)
    for service, operation, arguments, expected in (
        ("sts", "get_caller_identity", {}, query),
        ("iam", "list_roles", {}, query),
        (
            "s3",
            "get_object",
            {"Bucket": "reports", "Key": "public/q3.csv"},
            ("The provided token has expired.", 400),
        ),
    ):
        code, message, status = refusal(getattr(client(service, issued), operation), **arguments)
        assert (code, message, status) == ("ExpiredToken", *expected)


def test_s3_codes(standin: AwsStandIn, demo: DemoAccount, client: Client) -> None:
    hub = demo.hub
    for wrong, code in (
        (HubCredentials("AKIAUNKNOWN000000000", "s" * 40, None, ""), "InvalidAccessKeyId"),
        (HubCredentials(hub.access_key_id, hub.secret_access_key, "t" * 400, ""), "InvalidToken"),
        (
            HubCredentials(hub.access_key_id, "s" * 40, hub.session_token, ""),
            "SignatureDoesNotMatch",
        ),
    ):
        with pytest.raises(ClientError) as caught:
            client("s3", wrong).list_buckets()
        assert caught.value.response["Error"]["Code"] == code


def test_anonymous_requests_are_refused(standin: AwsStandIn, demo: DemoAccount) -> None:
    host = {"Host": urlsplit(standin.url).netloc}
    everyone = policy(
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": "arn:aws:s3:::reports/*",
        }
    )
    standin.put_bucket("reports", policy=everyone)
    for target in (
        "/reports/public/q3.csv",
        "/",
        "/moto-api/reset",
        "/moto-api/data.json",
        "/latest/meta-data/",
    ):
        status, text = send(standin, "GET", target, host)
        assert (status, "<Code>AccessDenied</Code>" in text) == (403, True)
    assert standin.world.has_object("reports", "public/q3.csv")


def test_another_host_is_refused(standin: AwsStandIn, demo: DemoAccount) -> None:
    for host in ("reports.s3.amazonaws.com", "localhost"):
        status, _ = send(standin, "GET", "/public/q3.csv", {"Host": host})
        assert status == 421


def test_a_presigned_url(standin: AwsStandIn, demo: DemoAccount, client: Client) -> None:
    issued = client("sts", demo.hub).assume_role(
        RoleArn=demo.data_reader_arn,
        RoleSessionName="ada",
        ExternalId=demo.external_id,
        Policy=json.dumps(allow("s3:GetObject", "arn:aws:s3:::reports/public/*")),
    )["Credentials"]
    s3 = client("s3", issued, signature_version="s3v4")
    host = {"Host": urlsplit(standin.url).netloc}

    def get(key: str, sent_for: str | None = None) -> tuple[int, str]:
        url = s3.generate_presigned_url(
            "get_object", Params={"Bucket": "reports", "Key": key}, ExpiresIn=60
        )
        target = url.removeprefix(standin.url)
        if sent_for is not None:
            target = target.replace(key, sent_for, 1)
        return send(standin, "GET", target, host)

    assert get("public/q3.csv")[0] == 200
    assert get("private/salaries.csv")[0] == 403
    assert "SignatureDoesNotMatch" in get("public/q3.csv", "public/q4.csv")[1]
    standin.faults.clock_offset = 3600
    assert "Request has expired" in get("public/q3.csv")[1]


def test_a_presigned_sts_url(standin: AwsStandIn, demo: DemoAccount) -> None:
    hub = demo.hub
    request = AWSRequest("GET", f"{standin.url}/?{urlencode(IDENTITY)}", headers={})
    key = Credentials(hub.access_key_id, hub.secret_access_key, hub.session_token)
    SigV4QueryAuth(key, "sts", "us-east-1", expires=60).add_auth(request)
    target = request.url.removeprefix(standin.url)
    host = {"Host": urlsplit(standin.url).netloc}
    assert send(standin, "GET", target, host)[0] == 200
    status, text = send(standin, "GET", target.replace("GetCallerIdentity", "AssumeRole"), host)
    assert (status, "SignatureDoesNotMatch" in text) == (403, True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15", "MalformedQueryString"),
        ("Action=GetCallerIdentity&Version=2010-05-08", "InvalidAction"),
        ("Action=AssumeRole&Version=2011-06-15", "ValidationError"),
        ("Action=AssumeRole&Version=2011-06-15&RoleARN=x", "ValidationError"),
        ("Action=AssumeRole&Version=2011-06-15&DurationSeconds=1e3", "MalformedInput"),
        (
            "Action=AssumeRole&Version=2011-06-15&Tags.member.2.Key=a&Tags.member.2.Value=b",
            "ValidationError",
        ),
        ("Action=AssumeRole&Version=2011-06-15&Tags.member.1.Key=a", "ValidationError"),
        ("Action=AssumeRole&Version=2011-06-15&PolicyArns.member.1=a", "ValidationError"),
        ("Action=%FF", "MalformedQueryString"),
    ],
)
def test_odd_forms_though_signed(
    standin: AwsStandIn, demo: DemoAccount, body: str, code: str
) -> None:
    status, text = send(standin, *signed(standin, demo.hub, body))
    assert (status, f"<Code>{code}</Code>" in text) == (400, True)
    assert "Credentials" not in text


def test_keep_alive(standin: AwsStandIn, demo: DemoAccount) -> None:
    connection = http.client.HTTPConnection(urlsplit(standin.url).netloc, timeout=5)
    sockets = set()
    for _ in range(3):
        method, target, headers, body = signed(standin, demo.hub)
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        assert answer.read()
        sockets.add(id(connection.sock))
    connection.close()
    assert len(sockets) == 1


_SAFE = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


def test_botocore_signatures_over_many_inputs_are_taken(
    standin: AwsStandIn, demo: DemoAccount, client: Client
) -> None:
    s3 = client("s3", standin.hub_credentials("root"))

    @settings(max_examples=25, deadline=None)
    @given(_SAFE.filter(lambda key: key.strip("./ ") == key and key and "//" not in key))
    def get(key: str) -> None:
        with pytest.raises(ClientError) as caught:
            s3.get_object(Bucket="reports", Key=key)
        assert caught.value.response["Error"]["Code"] == "NoSuchKey"

    get()
