"""What is shown of STS's values: who the broker is, and a failure without its secrets."""

from __future__ import annotations

import pytest

from broker.errors import AwsDenied
from broker.issuance.sts import CallerIdentity, StsFailure
from tests.unit.issuance.issue_world import TRIPLE


@pytest.mark.parametrize(
    ("arn", "root", "session", "user"),
    [
        ("arn:aws:iam::111122223333:root", True, False, False),
        ("arn:aws:sts::111122223333:assumed-role/Hub/i-1", False, True, False),
        ("arn:aws:sts::111122223333:federated-user/ada", False, True, False),
        ("arn:aws:iam::111122223333:user/ops/broker", False, False, True),
    ],
)
def test_whose_the_brokers_credentials_are(arn: str, root: bool, session: bool, user: bool) -> None:
    identity = CallerIdentity("111122223333", arn)
    assert (identity.is_root, identity.is_role_session, identity.is_user) == (root, session, user)


def test_a_failure_is_named_by_awss_code_or_by_the_brokers() -> None:
    error = AwsDenied("Ask the operator.")
    failure = StsFailure(error, sts_code="AccessDenied", sts_message="said so", request_id="req-9")
    assert str(failure) == "AccessDenied"
    assert failure.error is error
    assert (failure.sts_code, failure.sts_message) == ("AccessDenied", "said so")
    assert failure.request_id == "req-9"
    assert (failure.outcome_unknown, failure.alarm) == (False, False)
    bare = StsFailure(error)
    assert str(bare) == "aws_denied"
    assert (bare.sts_code, bare.sts_message, bare.request_id) == (None, None, None)


def test_credentials_show_their_key_and_their_end_alone() -> None:
    assert repr(TRIPLE) == "Credentials(ASIAEXAMPLE000000001, expires 2026-11-24T13:00:00Z)"
