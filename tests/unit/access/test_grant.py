"""From when until when a grant may be in force, at each edge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.access.grant import MAX_AHEAD, Grant, SeenBy, validity
from broker.errors import InvalidRequest

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = 86400


def at(**delta: float) -> datetime:
    return NOW + timedelta(**delta)


@pytest.mark.parametrize(
    ("asked", "begins", "ends"),
    [
        ({"duration": 3600}, NOW, at(hours=1)),
        ({"duration": 60}, NOW, at(seconds=60)),
        ({"duration": DAY}, NOW, at(days=1)),
        ({"expires_at": at(days=1)}, NOW, at(days=1)),
        ({"not_before": at(days=3), "duration": DAY}, at(days=3), at(days=4)),
        ({"not_before": at(days=3), "expires_at": at(days=4)}, at(days=3), at(days=4)),
        ({"not_before": at(days=366), "duration": 60}, NOW + MAX_AHEAD, at(days=366, seconds=60)),
        # A caller's clock is a little behind: it means from now on.
        ({"not_before": at(minutes=-5), "duration": 3600}, NOW, at(hours=1)),
    ],
)
def test_a_grant_that_may_be(asked: dict[str, Any], begins: datetime, ends: datetime) -> None:
    given = {"not_before": None, "expires_at": None, "duration": None} | asked
    found = validity(now=NOW, longest=DAY, **given)
    assert (found.not_before, found.expires_at) == (begins, ends)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "Give expires_at or duration, one of them."),
        ({"duration": 60, "expires_at": at(days=1)}, "Give expires_at or duration, one of them."),
        ({"duration": 59}, "A grant ends at least 60 s after it begins."),
        ({"expires_at": at(seconds=59)}, "A grant ends at least 60 s after it begins."),
        ({"expires_at": at(days=-1)}, "A grant ends at least 60 s after it begins."),
        (
            {"not_before": at(days=2), "expires_at": at(days=1)},
            "A grant ends at least 60 s after it begins.",
        ),
        ({"duration": DAY + 1}, "A grant of this role lasts at most 86400 s."),
        ({"expires_at": at(days=1, seconds=1)}, "A grant of this role lasts at most 86400 s."),
        (
            {"not_before": at(hours=1), "expires_at": at(hours=26)},
            "A grant of this role lasts at most 86400 s.",
        ),
        ({"not_before": at(minutes=-5, seconds=-1), "duration": 60}, "not_before is in the past."),
        (
            {"not_before": at(days=366, seconds=1), "duration": 60},
            "not_before is over a year away.",
        ),
    ],
)
def test_a_grant_that_may_not_be(asked: dict[str, Any], says: str) -> None:
    given = {"not_before": None, "expires_at": None, "duration": None} | asked
    with pytest.raises(InvalidRequest) as refused:
        validity(now=NOW, longest=DAY, **given)
    assert refused.value.detail == says
    assert refused.value.extra == ({"max_grant": DAY} if "at most" in says else {})


def test_who_sees_a_grant() -> None:
    grant = Grant("g-1", "p-ada", "reader", NOW, at(hours=1), "p-root", "why")
    assert SeenBy("p-ada").sees(grant)
    assert SeenBy("p-root").sees(grant)
    assert SeenBy("p-eve", frozenset({"reader"})).sees(grant)
    assert not SeenBy("p-eve", frozenset({"writer"})).sees(grant)
    assert not SeenBy("p-eve").sees(grant)
