"""botocore as the oracle: our signatures and bodies are the ones it would send."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import botocore.auth
import botocore.session
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.sts import query
from broker.adapters.sts.endpoint import from_url
from broker.adapters.sts.sigv4 import CONTENT_TYPE, Signer
from broker.issuance.sts import AssumeRole
from tests.sts.misbehaving import a_call

MODEL = botocore.session.Session().get_service_model("sts")
KEY_ID = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=16, max_size=32)
# What may stand in a header: a token with inner runs of spaces does not exist at AWS.
SECRET_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80)
# Hypothesis wants bounds without a zone, and adds the zone itself.
DAY_ONE = datetime(2000, 1, 1)  # noqa: DTZ001
DAY_LAST = datetime(2099, 1, 1)  # noqa: DTZ001
URLS = st.sampled_from(
    [
        "https://sts.us-east-1.amazonaws.com",
        "https://sts.us-east-1.amazonaws.com:443",
        "https://sts.cn-north-1.amazonaws.com.cn/",
        "http://127.0.0.1:4566",
        "http://127.0.0.1:80/",
        "http://[::1]:4566/aws/sts_v1.0~x",
        "http://localhost:1/a/b/",
    ]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def botocore_signs(url, body, credentials, region, now) -> dict[str, str]:
    request = AWSRequest("POST", url, headers={"Content-Type": CONTENT_TYPE}, data=body)
    with patch("botocore.auth.get_current_datetime", return_value=now.replace(tzinfo=None)):
        botocore.auth.SigV4Auth(credentials, "sts", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(
    KEY_ID,
    SECRET_TEXT,
    st.none() | SECRET_TEXT,
    URLS,
    st.sampled_from(["us-east-1", "cn-north-1", "us-gov-west-1"]),
    st.binary(max_size=200),
    st.datetimes(DAY_ONE, DAY_LAST, timezones=st.just(UTC)),
)
def test_signatures_are_botocores(key_id, secret, token, url, region, body, now):
    endpoint = from_url(url, region)
    ours = Signer(key_id, secret, token).sign(endpoint, body, now)
    theirs = botocore_signs(
        endpoint.url, body, ReadOnlyCredentials(key_id, secret, token), region, now
    )
    assert ours.pop("host") == endpoint.host
    assert ours == theirs


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["us-east-1", "eu-west-1"]),
            st.integers(0, 3),
        ),
        max_size=12,
    )
)
def test_the_kept_day_key_is_never_another_days_or_regions(steps):
    signer = Signer("AKIAEXAMPLE000000001", "secret", None)
    for region, day in steps:
        endpoint = from_url("https://sts.example.com", region)
        now = datetime(2026, 11, 24, 23, 59, tzinfo=UTC) + timedelta(days=day)
        fresh = Signer("AKIAEXAMPLE000000001", "secret", None)
        assert signer.sign(endpoint, b"x", now) == fresh.sign(endpoint, b"x", now)


def botocore_writes(operation: str, parameters: dict[str, object]) -> bytes:
    request = create_serializer("query", include_validation=False).serialize_to_request(
        parameters, MODEL.operation_model(operation)
    )
    prepared = AWSRequest("POST", "https://sts.example.com/", data=request["body"]).prepare().body
    return prepared if isinstance(prepared, bytes) else prepared.encode()


@given(
    st.builds(
        AssumeRole,
        partition=st.just("aws"),
        region=st.just("us-east-1"),
        role_arn=TEXT,
        role_session_name=TEXT,
        duration_seconds=st.integers(900, 43200),
        policy=st.none() | TEXT,
        policy_arns=st.lists(TEXT, max_size=10).map(tuple),
        tags=st.lists(st.tuples(TEXT, TEXT), max_size=50).map(tuple),
        transitive_tag_keys=st.lists(TEXT, max_size=50).map(tuple),
        source_identity=TEXT,
        external_id=st.none() | TEXT,
    )
)
def test_bodies_are_botocores(call):
    parameters: dict[str, object] = {
        "RoleArn": call.role_arn,
        "RoleSessionName": call.role_session_name,
    }
    if call.policy_arns:
        parameters["PolicyArns"] = [{"arn": arn} for arn in call.policy_arns]
    if call.policy is not None:
        parameters["Policy"] = call.policy
    parameters["DurationSeconds"] = call.duration_seconds
    if call.tags:
        parameters["Tags"] = [{"Key": key, "Value": value} for key, value in call.tags]
    if call.transitive_tag_keys:
        parameters["TransitiveTagKeys"] = list(call.transitive_tag_keys)
    if call.external_id is not None:
        parameters["ExternalId"] = call.external_id
    parameters["SourceIdentity"] = call.source_identity
    assert query.assume_role(call) == botocore_writes("AssumeRole", parameters)


def test_the_identity_question_is_botocores():
    assert botocore_writes("GetCallerIdentity", {}) == query.GET_CALLER_IDENTITY


def test_no_repr_shows_a_secret():
    signer = Signer("AKIAEXAMPLE000000001", "canary-secret", "canary-token")
    assert "canary" not in repr(signer)
    assert "canary" not in repr(a_call(external_id="canary"))
