"""Odd answers are discarded with an alarm: nothing of them reaches anybody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import botocore.parsers
import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.sts import answer
from broker.adapters.sts.answer import OddAnswer, Reply
from broker.adapters.sts.connection import MAX_ANSWER_BYTES
from broker.errors import AwsUnavailable
from broker.issuance.sts import StsFailure
from tests.sts.misbehaving import (
    BASE_ROLE,
    SECRET,
    SESSION,
    TOKEN,
    a_call,
    good_answer,
    identity_answer,
    refuses,
    replies,
)

BOMB = '<!DOCTYPE a [<!ENTITY x "canary"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>' + good_answer(
    secret="&y;canary-secret-key"
)

ODD = {
    "nothing": "",
    "not XML": "{}",
    "cut XML": good_answer()[:-30],
    "no namespace": good_answer().replace(' xmlns="https://sts.amazonaws.com/doc/2011-06-15/"', ""),
    "another namespace": good_answer(xmlns="https://sts.example.com/doc/2011-06-15/"),
    "another call's answer": identity_answer(BASE_ROLE),
    "entities": BOMB,
    "a DTD elsewhere": '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x.dtd">' + good_answer(),
    "UTF-16 DTD": BOMB.encode("utf-16"),
    "an unknown encoding": '<?xml version="1.0" encoding="canary"?>' + good_answer(),
    "bytes that are not UTF-8": good_answer().encode().replace(b"p-abc", b"\xff\xfe"),
    "another person": good_answer(source_identity="p-zzzzzzzzzzzzzzzz"),
    "no person": good_answer(source_identity=None),
    "an empty person": good_answer(source_identity=""),
    "another role": good_answer(arn=f"arn:aws:sts::111122223333:assumed-role/Admin/{SESSION}"),
    "the role's path": good_answer(
        arn=f"arn:aws:sts::111122223333:assumed-role/team/DataReader/{SESSION}"
    ),
    "another account": good_answer(
        arn=f"arn:aws:sts::444455556666:assumed-role/DataReader/{SESSION}"
    ),
    "another partition": good_answer(
        arn=f"arn:aws-cn:sts::111122223333:assumed-role/DataReader/{SESSION}"
    ),
    "another session": good_answer(session="grace-iss-zzzzzzzzzz"),
    "another session's id": good_answer(role_id="AROAEXAMPLE0000000001:grace-iss-zzzz"),
    "no role id": good_answer(role_id=f":{SESSION}"),
    "a strange role id": good_answer(role_id=f"*:{SESSION}"),
    "an access key id with a line break": good_answer(access_key_id="ASIA&#10;export X=0000000"),
    "a short access key id": good_answer(access_key_id="ASIA"),
    "an empty secret key": good_answer(secret=""),
    "a secret key with a space": good_answer(secret=f"{SECRET} x"),
    "a token with a line break": good_answer(token="canary&#10;X"),
    "an empty token": good_answer(token=""),
    "an expiry that is past": good_answer(expires_in=-1),
    "an expiry beyond what was asked": good_answer(expires_in=12 * 3600),
    "an expiry with no zone": good_answer(expiration="2999-01-01T00:00:00"),
    "an expiry that is no time": good_answer(expiration="soon"),
    "two results": good_answer(extra="</AssumeRoleResult><AssumeRoleResult>"),
    "two credentials": good_answer(extra="<Credentials/>"),
    "a huge body": good_answer(extra=" " * MAX_ANSWER_BYTES),
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
async def test_an_odd_200_is_discarded_with_an_alarm(server, started, caplog, body):
    server.script = [replies(body)]
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call())
    failure = caught.value
    assert isinstance(failure.error, AwsUnavailable)
    assert failure.alarm
    assert failure.outcome_unknown, "STS said 200: it may have minted"
    assert len(server.assumed) == 1
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    told = record.getMessage() + failure.error.detail + (failure.error.log_detail or "")
    for secret in ("canary", SECRET, TOKEN):
        assert secret not in told


@pytest.mark.parametrize(
    "odd",
    [
        replies("", 400),
        replies("<html>blocked by a proxy</html>", 403),
        replies("<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", 403),
        refuses("AccessDenied", "", 403),
        refuses("AccessDenied", "  ", 403),
        refuses("", "message", 403),
        refuses("Code with spaces", "message", 403),
        replies("", 204),
        replies(good_answer(), 201),
        replies(good_answer(), 403),
    ],
)
async def test_an_odd_refusal_is_discarded_with_an_alarm(server, started, odd):
    server.script = [odd]
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call())
    assert isinstance(caught.value.error, AwsUnavailable)
    assert caught.value.alarm
    assert len(server.assumed) == 1


async def test_what_is_not_http_is_an_odd_answer(server, started):
    async def talks_smtp(_, writer):
        writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server.script = [talks_smtp]
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call())
    assert caught.value.alarm
    assert caught.value.outcome_unknown


def reply(body: str | bytes, status: int = 200) -> Reply:
    return Reply(status, body if isinstance(body, bytes) else body.encode(), "req-header", None)


def test_the_expiry_may_differ_by_as_much_as_clocks_may():
    """AWS takes signatures up to five minutes off, so expiries are that far off too."""
    asked = datetime.now(UTC) + timedelta(seconds=3600)
    body = good_answer(expiration=(asked + timedelta(minutes=4)).isoformat())
    assert answer.minted(reply(body), a_call(), datetime.now(UTC)).credentials.expiration > asked


@pytest.mark.parametrize(
    ("extra", "percent"),
    [
        ("", None),
        ("<SessionTokenUtilization>7</SessionTokenUtilization>", 7),
        ("<PackedPolicySize>9</PackedPolicySize>", 9),
        (
            (
                "<PackedPolicySize>9</PackedPolicySize>"
                "<SessionTokenUtilization>7</SessionTokenUtilization>"
            ),
            7,
        ),
        ("<PackedPolicySize>much</PackedPolicySize>", None),
        ("<SomethingNew><Deep>1</Deep></SomethingNew>", None),
    ],
)
def test_what_aws_may_add_or_drop_does_not_matter(extra, percent):
    assert answer.minted(
        reply(good_answer(extra=extra)), a_call(), datetime.now(UTC)
    ).packed_policy_percent == (percent)


def test_a_good_answer_reads_as_botocore_reads_it():
    model = botocore.session.Session().get_service_model("sts")
    parser = botocore.parsers.create_parser("query")
    body = good_answer()
    theirs = parser.parse(
        {"body": body.encode(), "headers": {}, "status_code": 200},
        model.operation_model("AssumeRole").output_shape,
    )
    ours = answer.minted(reply(body), a_call(), datetime.now(UTC))
    assert ours.credentials.access_key_id == theirs["Credentials"]["AccessKeyId"]
    assert ours.credentials.secret_access_key == theirs["Credentials"]["SecretAccessKey"]
    assert ours.credentials.session_token == theirs["Credentials"]["SessionToken"]
    assert ours.credentials.expiration == theirs["Credentials"]["Expiration"]
    assert ours.assumed_role_arn == theirs["AssumedRoleUser"]["Arn"]
    assert ours.assumed_role_id == theirs["AssumedRoleUser"]["AssumedRoleId"]
    assert ours.packed_policy_percent == theirs["PackedPolicySize"]
    assert ours.request_id == theirs["ResponseMetadata"]["RequestId"]


@given(st.binary(max_size=300), st.sampled_from([200, 400, 500]))
def test_no_bytes_break_the_reader(body, status):
    for read in (
        lambda r: answer.minted(r, a_call(), datetime.now(UTC)),
        answer.caller_identity,
        answer.refusal,
    ):
        with pytest.raises(OddAnswer):
            read(reply(body, status))


@given(
    st.integers(0, len(good_answer().encode()) - 1),
    st.integers(0, 255),
)
def test_a_flipped_byte_gives_nobody_elses_credentials(position, byte):
    """Whatever one byte becomes, the answer is refused or still about this role and person."""
    body = bytearray(good_answer().encode())
    body[position] = byte
    try:
        minted = answer.minted(reply(bytes(body)), a_call(), datetime.now(UTC))
    except OddAnswer:
        return
    assert minted.assumed_role_arn == f"arn:aws:sts::111122223333:assumed-role/DataReader/{SESSION}"
    assert minted.assumed_role_id.endswith(f":{SESSION}")


def test_the_caller_identity_is_read():
    identity = answer.caller_identity(reply(identity_answer(BASE_ROLE)))
    assert (identity.account, identity.arn) == ("999988887777", BASE_ROLE)
    assert identity.is_role_session
    assert not identity.is_root
    assert not identity.is_user


def test_the_request_id_of_the_header_serves_where_the_body_has_none():
    with pytest.raises(OddAnswer) as caught:
        answer.minted(reply("garbage"), a_call(), datetime.now(UTC))
    assert caught.value.request_id == "req-header"
