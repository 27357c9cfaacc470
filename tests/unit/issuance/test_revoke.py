"""What a role must deny, while somebody is suspended and after."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.issuance.revoke import deny_policy, policy_name, whole_seconds

WHO = "p-abcdefghij234567"


def test_while_suspended_the_time_does_not_matter() -> None:
    assert deny_policy(WHO) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:SourceIdentity": WHO}},
            }
        ],
    }


def test_afterwards_what_was_issued_before_is_denied() -> None:
    lifted = datetime(2026, 11, 24, 12, 0, 1, 1, tzinfo=UTC)
    condition = {
        "StringEquals": {"aws:SourceIdentity": WHO},
        "DateLessThan": {"aws:TokenIssueTime": "2026-11-24T12:00:02Z"},
    }
    suspended = deny_policy(WHO)["Statement"]
    afterwards = deny_policy(WHO, lifted)["Statement"]
    assert isinstance(suspended, list)
    assert afterwards == [suspended[0] | {"Condition": condition}]


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 59, 999999, tzinfo=UTC), "2026-01-02T03:05:00Z"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:04:00Z"),
    ],
)
def test_seconds_are_rounded_up(moment: datetime, written: str) -> None:
    assert whole_seconds(moment) == written


def test_times_are_in_utc_wherever_the_broker_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    try:
        time.tzset()
        written = whole_seconds(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert written == "2026-01-02T03:04:05Z"


def test_the_policy_fits_a_role_and_is_named_after_whom_it_stops() -> None:
    assert policy_name(WHO) == f"broker-deny-{WHO}"
    assert len(json.dumps(deny_policy(WHO, datetime.now(UTC)))) < 300
