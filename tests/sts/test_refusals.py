"""Each refusal of STS as the person reads it: its code, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from broker.errors import AwsDenied, AwsThrottled, AwsUnavailable, ScopeTooLarge
from broker.issuance.sts import StsFailure
from tests.sts.misbehaving import BASE_ROLE, ROLE, a_call, refuses

CHAINED = (
    "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role "
    "chaining."
)
POLICY_LENGTH = (
    "1 validation error detected: Value 'canary' at 'policy' failed to satisfy constraint: Member "
    "must have length less than or equal to 2048"
)
DENIED = f"User: {BASE_ROLE} is not authorized to perform: %s on resource: canary"

TABLE = [
    (
        400,
        "ValidationError",
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        AwsDenied,
        ["role_maximum", "MaxSessionDuration", "broker doctor", "Ask for less time"],
    ),
    (400, "ValidationError", CHAINED, AwsDenied, ["3600", "chained", "partition aws"]),
    (400, "ValidationError", POLICY_LENGTH, ScopeTooLarge, ["2048"]),
    (400, "ValidationError", "canary", AwsDenied, ["Ask the operator"]),
    (
        403,
        "AccessDenied",
        DENIED % "sts:AssumeRole",
        AwsDenied,
        [
            "sts:AssumeRole",
            "sts:TagSession",
            "sts:SetSourceIdentity",
            BASE_ROLE,
            ROLE,
            "ExternalId",
            "trust policy",
            "broker doctor",
        ],
    ),
    (403, "AccessDenied", DENIED % "sts:TagSession", AwsDenied, ["AWS refused sts:TagSession"]),
    (
        403,
        "AccessDenied",
        DENIED % "sts:SetSourceIdentity",
        AwsDenied,
        ["AWS refused sts:SetSourceIdentity"],
    ),
    (
        400,
        "PackedPolicyTooLarge",
        "Packed size of session tags consumes 138% of allotted space.",
        ScopeTooLarge,
        ["138%", "fewer or shorter"],
    ),
    (400, "PackedPolicyTooLarge", "Serialized token too large", ScopeTooLarge, ["shorten"]),
    (400, "MalformedPolicyDocument", "canary", AwsDenied, ["session policy", "broker access lint"]),
    (
        403,
        "RegionDisabledException",
        "STS is not activated in this region for account:canary.",
        AwsDenied,
        ["us-east-1", "111122223333", "activate"],
    ),
    (403, "InvalidClientTokenId", "canary", AwsUnavailable, ["broker's own credentials"]),
    (403, "ExpiredToken", "canary", AwsUnavailable, ["broker's own credentials", "renew"]),
    (403, "SignatureDoesNotMatch", "Signature expired: canary", AwsUnavailable, ["clock", "NTP"]),
    (
        403,
        "SignatureDoesNotMatch",
        "Signature not yet current: canary",
        AwsUnavailable,
        ["clock", "NTP"],
    ),
    (400, "RequestExpired", "canary", AwsUnavailable, ["clock", "NTP"]),
    (403, "SignatureDoesNotMatch", "canary", AwsUnavailable, ["secret access key"]),
    (400, "BrandNewRefusal", "canary", AwsDenied, ["BrandNewRefusal", "Ask the operator"]),
]


@pytest.mark.parametrize(("status", "code", "message", "error", "advice"), TABLE)
async def test_a_refusal_says_what_to_do(server, started, status, code, message, error, advice):
    server.script = [refuses(code, message, status)] * 3
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call())
    failure = caught.value
    assert type(failure.error) is error
    for words in advice:
        assert words in failure.error.detail
    assert failure.sts_code == code
    assert failure.request_id == "req-1"
    assert not failure.outcome_unknown
    assert not failure.alarm
    # AWS's own words are the operator's alone.
    assert "canary" not in failure.error.detail
    assert failure.sts_message == message
    assert message in (failure.error.log_detail or "")


async def test_no_policy_is_ever_left_out_to_make_it_fit(server, started):
    server.script = [refuses("PackedPolicyTooLarge", "Packed size consumes 200% of allotted space")]
    with pytest.raises(StsFailure):
        await started.assume_role(a_call())
    assert [request.params["Policy"] for request in server.assumed] == [a_call().policy]


async def test_without_an_external_id_none_is_spoken_of(server, started):
    server.script = [refuses("AccessDenied", "no", 403)]
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call(external_id=None))
    assert "ExternalId" not in caught.value.error.detail
    assert "ExternalId" not in server.assumed[0].params


async def test_a_wrong_clock_is_told_by_how_much(server, started):
    theirs = format_datetime(datetime.now(UTC) + timedelta(minutes=20), usegmt=True)
    server.script = [refuses("SignatureDoesNotMatch", "Signature expired: x", 403, Date=theirs)]
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call())
    assert "s (behind)" in caught.value.error.detail


async def test_a_hostile_message_is_cleaned_and_bounded(server, started):
    server.script = [refuses("AccessDenied", "a\x85\u2028\u202eb\n\n" + "x" * 5000, 403)]
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call())
    message = caught.value.sts_message
    assert message is not None
    assert message.startswith("a b xxx")
    assert message.isprintable()
    assert len(message) <= 1000


async def test_a_throttle_by_status_alone(server, started):
    server.script = [refuses("SomeNewThrottle", "slower", 429)] * 3
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call())
    assert isinstance(caught.value.error, AwsThrottled)
    assert len(server.assumed) == 3
