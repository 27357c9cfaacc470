from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access.decide import Ceiling
from broker.errors import DurationTooShort, InvalidRequest
from broker.issuance.duration import DurationReport, report
from tests.unit.access.examples import NOW, policy

ROLE = policy().roles["data-reader"]  # role_maximum 4 h, default_duration 45 min


def granted(
    requested: int | None = None,
    *,
    role_maximum: int = 14400,
    entitlement: int | None = None,
    organization: int | None = None,
    chained: bool = False,
    session_left: float = 43200,
    ends: tuple[tuple[str, float], ...] = (),
    session_limit: str = "login_session_remaining",
) -> DurationReport:
    return report(
        replace(ROLE, role_maximum=role_maximum),
        Ceiling(entitlement, tuple((n, NOW + timedelta(seconds=left)) for n, left in ends)),
        requested=requested,
        organization_maximum=organization,
        login_session_expires_at=NOW + timedelta(seconds=session_left),
        chained=chained,
        now=NOW,
        session_limit=session_limit,
    )


@pytest.mark.parametrize(
    ("limits", "seconds", "bound_by"),
    [
        ({}, 2700, "role_default"),
        ({"requested": 900}, 900, "requested"),
        ({"requested": 7200}, 7200, "requested"),
        ({"requested": 43200}, 14400, "role_maximum"),
        ({"requested": 14400}, 14400, "requested"),  # of equals the one that was asked for
        ({"requested": 7200, "entitlement": 3600}, 3600, "entitlement"),
        ({"requested": 7200, "entitlement": 10800}, 7200, "requested"),
        ({"requested": 7200, "organization": 5400}, 5400, "organization"),
        ({"requested": 7200, "chained": True}, 3600, "role_chaining"),
        ({"requested": 3600, "chained": True}, 3600, "requested"),
        ({"requested": 7200, "session_left": 3615}, 3600, "login_session_remaining"),
        ({"requested": 7200, "session_left": 3614.9}, 3599, "login_session_remaining"),
        ({"requested": 7200, "ends": (("grant_remaining", 2000),)}, 1985, "grant_remaining"),
        ({"requested": 7200, "ends": (("hours_remaining", 2000),)}, 1985, "hours_remaining"),
        ({"session_left": 915}, 900, "login_session_remaining"),
        ({"entitlement": 900}, 900, "entitlement"),
    ],
)
def test_the_least_limit_is_granted_and_named(limits, seconds, bound_by):
    made = granted(**limits)
    assert (made.granted, made.bound_by) == (seconds, bound_by)
    assert made.requested == limits.get("requested")


def test_the_report_names_every_limit():
    ends = (("grant_remaining", 9000), ("hours_remaining", 8000))
    made = granted(7200, entitlement=9001, organization=9002, chained=True, ends=ends)
    assert made.as_json() == {
        "requested": 7200,
        "granted": 3600,
        "bound_by": "role_chaining",
        "limits": [
            {"name": "requested", "seconds": 7200},
            {"name": "entitlement", "seconds": 9001},
            {"name": "role_maximum", "seconds": 14400},
            {"name": "organization", "seconds": 9002},
            {"name": "role_chaining", "seconds": 3600},
            {"name": "login_session_remaining", "seconds": 43185},
            {"name": "grant_remaining", "seconds": 8985},
            {"name": "hours_remaining", "seconds": 7985},
        ],
        "chained": True,
    }
    without = granted().as_json()
    assert without["requested"] is None
    assert without["limits"] == [
        {"name": "role_default", "seconds": 2700},
        {"name": "role_maximum", "seconds": 14400},
        {"name": "login_session_remaining", "seconds": 43185},
    ]


@pytest.mark.parametrize("requested", [899, 43201, 0, -900, True, False, 10**30])
def test_outside_of_what_aws_takes_is_not_well_formed(requested):
    with pytest.raises(InvalidRequest, match=r"^duration is 900 to 43200 seconds\.$"):
        granted(requested)


SIGN_IN = "Your login session (sign in again for a new one)"


@pytest.mark.parametrize(
    ("limits", "bound_by", "left", "words"),
    [
        ({"session_left": 914}, "login_session_remaining", 899, SIGN_IN),
        ({"session_left": -3600}, "login_session_remaining", 0, SIGN_IN),
        ({"ends": (("grant_remaining", 900),)}, "grant_remaining", 885, "Your grant"),
        (
            {"ends": (("hours_remaining", 914.99),)},
            "hours_remaining",
            899,
            "The end of this role's hours",
        ),
        ({"entitlement": 899}, "entitlement", 899, "The entitlement"),
        ({"role_maximum": 899}, "role_maximum", 899, "The role's maximum"),
        ({"organization": 899}, "organization", 899, "The organization's maximum"),
        (
            {"session_left": 600, "session_limit": "job_remaining"},
            "job_remaining",
            585,
            "The job's time (a new token of its platform begins a new one)",
        ),
        # A limit of a later version is told by its name.
        ({"ends": (("other_remaining", 900),)}, "other_remaining", 885, "other_remaining"),
    ],
)
@pytest.mark.parametrize("chained", [False, True])
def test_less_than_aws_gives_is_refused_with_the_limits(limits, bound_by, left, words, chained):
    with pytest.raises(DurationTooShort) as refused:
        granted(7200, **limits, chained=chained)
    assert refused.value.detail == f"{words} leaves {left} s; AWS gives no less than 900 s."
    named = refused.value.extra.pop("limits")
    assert refused.value.extra == {"bound_by": bound_by, "chained": chained}
    assert isinstance(named, list)
    assert {"name": bound_by, "seconds": left} in named
    assert named[0] == {"name": "requested", "seconds": 7200}
    assert ({"name": "role_chaining", "seconds": 3600} in named) is chained


@given(
    requested=st.none() | st.integers(900, 43200),
    role_maximum=st.integers(3600, 43200),
    entitlement=st.none() | st.integers(900, 43200),
    organization=st.none() | st.integers(900, 43200),
    chained=st.booleans(),
    session_left=st.floats(915, 50000),
    grant_left=st.none() | st.floats(915, 90000),
)
def test_what_is_granted_is_legal_and_outlives_nothing(
    requested, role_maximum, entitlement, organization, chained, session_left, grant_left
):
    made = granted(
        requested,
        role_maximum=role_maximum,
        entitlement=entitlement,
        organization=organization,
        chained=chained,
        session_left=session_left,
        ends=() if grant_left is None else (("grant_remaining", grant_left),),
    )
    assert 900 <= made.granted <= 43200
    assert made.granted == min(limit.seconds for limit in made.limits)
    assert made.bound_by in {one.name for one in made.limits if one.seconds == made.granted}
    for most in (requested, role_maximum, entitlement, organization, 3600 if chained else None):
        assert most is None or made.granted <= most
    for left in (session_left, grant_left):
        assert left is None or made.granted <= left - 15
