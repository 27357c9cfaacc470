"""An explanation says what issuing does with the same request, and does nothing itself."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError, NotFound
from broker.issuance import explain as explaining
from broker.issuance.explain import Explanation, explain
from broker.issuance.request import PLACEHOLDER_ID, CredentialRequest
from tests.unit.issuance.issue_world import (
    ASKED,
    GRANT,
    NOW,
    PERSON,
    POLICY,
    SECRETS,
    WHO,
    World,
)

LINE = POLICY.entitlements[0].line
OUTSIDER = replace(WHO, principal=replace(PERSON, groups=frozenset({"corp/sales"})))


def answer(explanation: Explanation) -> Any:
    return explaining.answer(explanation)


def explained(
    request=ASKED,
    who=WHO,
    *,
    grants=(),
    address="10.1.2.3",
    policy=POLICY,
    chained=False,
    sees_others=False,
) -> Explanation:
    return explain(
        request,
        who=who,
        address=ip_address(address),
        policy=policy,
        grants=grants,
        now=NOW,
        chained=lambda partition: chained,
        sees_others=sees_others,
    )


REQUESTS = st.builds(
    CredentialRequest,
    role=st.sampled_from(["reader", "granted", "nothing"]),
    duration=st.sampled_from([None, 900, 5400, 43200, 1, 10**9]),
    reason=st.sampled_from([None, "ticket 12"]),
    parameters=st.sampled_from([{}, {"bucket": "logs"}, {"bucket": "*"}, {"other": "x"}]),
    restrict=st.sampled_from(
        [
            (),
            ({"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::logs/x/*"},),
            tuple({"Effect": "Deny", "Action": "s3:*", "Resource": "*" * 300} for _ in range(6)),
        ]
    ),
)
PEOPLE = st.builds(
    lambda groups, suspended, mfa, left: replace(
        WHO,
        principal=replace(PERSON, groups=groups, suspended_at=suspended),
        mfa_time=mfa,
        login_session_expires_at=NOW + timedelta(seconds=left),
    ),
    st.sampled_from([PERSON.groups, frozenset[str]()]),
    st.sampled_from([None, None, None, NOW]),
    st.sampled_from([WHO.mfa_time, WHO.mfa_time, None]),
    st.sampled_from([914, 915, 3600, 40000]),
)


@given(
    request=REQUESTS,
    who=PEOPLE,
    grants=st.sampled_from([(), (GRANT,), (replace(GRANT, expires_at=NOW),)]),
    address=st.sampled_from(["10.1.2.3", "192.0.2.1"]),
    chained=st.booleans(),
)
def test_it_falls_as_issuing_does(request, who, grants, address, chained):
    world = World(chained_partitions=frozenset({"aws"} if chained else ()))
    code = None
    try:
        asyncio.run(world.issue(request, who, grants, address))
    except BrokerError as refusal:
        code = refusal.code
    asked = partial(explained, request, who, grants=grants, address=address, chained=chained)
    if code in ("not_found", "suspended", "mfa_required"):
        with pytest.raises(BrokerError) as caught:
            asked()
        assert caught.value.code == code
        return
    found = answer(asked())
    assert found["code"] == code
    assert found["allowed"] is (code is None)
    if code is not None:
        assert found["session_policy"] is None
        return
    [call] = world.calls
    assert found["session_policy"] == json.loads(call.policy or "null")
    assert found["session_policy_characters"] == len(call.policy or "")
    assert found["managed_policies"] == list(call.policy_arns)
    issued = world.intents[0].id
    expected = {key: value.replace(issued, PLACEHOLDER_ID) for key, value in call.tags}
    assert found["tags"] == expected
    assert found["transitive_tags"] == list(call.transitive_tag_keys)
    assert found["source_identity"] == call.source_identity
    assert found["session_name"] == call.role_session_name.replace(issued, PLACEHOLDER_ID)
    assert found["duration"]["granted"] == call.duration_seconds


def test_allowed_it_shows_the_entry_and_every_limit():
    found = answer(explained(replace(ASKED, duration=43200), chained=True))
    assert found["allowed"] is True
    assert found["matched"] == {"entitlement": "group corp/analysts", "line": LINE}
    assert found["near_misses"] == []
    assert found["duration"] == {
        "requested": 43200,
        "granted": 3600,
        "bound_by": "role_chaining",
        "chained": True,
        "limits": [
            {"name": "requested", "seconds": 43200},
            {"name": "entitlement", "seconds": 7200},
            {"name": "role_maximum", "seconds": 14400},
            {"name": "role_chaining", "seconds": 3600},
            {"name": "login_session_remaining", "seconds": 11 * 3600 - 15},
        ],
    }
    shown = json.dumps(found)
    assert not any(secret in shown for secret in SECRETS)


ROLE_SHOWN = {
    "role": "reader",
    "role_arn": "arn:aws:iam::111122223333:role/DataReader",
    "account_id": "111122223333",
    "account_name": "Production",
}
NOTHING_SENT: dict[str, object] = {
    "session_policy": None,
    "session_policy_characters": None,
    "managed_policies": [],
    "tags": {},
    "transitive_tags": [],
    "source_identity": None,
    "session_name": None,
    "via": [],
}
MATCHED = {"entitlement": "group corp/analysts", "line": LINE}


def limited(first: str, seconds: int, left: int = 11 * 3600 - 15) -> list[dict[str, object]]:
    return [
        {"name": first, "seconds": seconds},
        {"name": "entitlement", "seconds": 7200},
        {"name": "role_maximum", "seconds": 14400},
        {"name": "login_session_remaining", "seconds": left},
    ]


def test_where_too_little_time_is_left_the_limits_say_why():
    brief = replace(WHO, login_session_expires_at=NOW + timedelta(seconds=914))
    assert answer(explained(replace(ASKED, duration=1800), who=brief)) == {
        **ROLE_SHOWN,
        "allowed": False,
        "code": "duration_too_short",
        "detail": (
            "Your login session (sign in again for a new one) leaves 899 s; "
            "AWS gives no less than 900 s."
        ),
        "matched": MATCHED,
        "near_misses": [],
        "duration": {
            "requested": 1800,
            "granted": None,
            "bound_by": "login_session_remaining",
            "limits": limited("requested", 1800, 899),
            "chained": False,
        },
        **NOTHING_SENT,
    }


def test_a_scope_that_is_refused_still_shows_the_limits():
    assert answer(explained(replace(ASKED, parameters={"bucket": "secret"}))) == {
        **ROLE_SHOWN,
        "allowed": False,
        "code": "invalid_request",
        "detail": "Parameter bucket is not one of reports, logs.",
        "matched": MATCHED,
        "near_misses": [],
        "duration": {
            "requested": None,
            "granted": 3600,
            "bound_by": "role_default",
            "limits": limited("role_default", 3600),
            "chained": False,
        },
        **NOTHING_SENT,
    }


def test_a_request_that_aws_would_not_take_has_no_limits_to_show():
    found = answer(explained(replace(ASKED, duration=1)))
    assert (found["code"], found["duration"]) == ("invalid_request", None)
    assert found["matched"] == MATCHED


def test_what_would_be_sent_over_hops():
    far = POLICY.roles["far"]
    asked: list[str] = []

    def chained(partition: str) -> bool:
        asked.append(partition)
        return False

    request = CredentialRequest("far")
    found = answer(
        explain(
            request,
            who=WHO,
            address=None,
            policy=POLICY,
            grants=(),
            now=NOW,
            chained=chained,
            sees_others=False,
        )
    )
    assert asked == ["aws"]
    assert found["via"] == list(far.via)
    assert found["tags"] == {"broker:issuance": PLACEHOLDER_ID}
    assert found["transitive_tags"] == ["broker:issuance"]
    assert found["source_identity"] == PERSON.id
    assert found["session_name"] == f"grace@example.com-{PLACEHOLDER_ID}"
    assert found["duration"]["chained"] is True


def test_a_role_without_a_session_policy_shows_that_it_has_none():
    roles = {**POLICY.roles, "far": replace(POLICY.roles["far"], may_chain=True)}
    found = answer(explained(CredentialRequest("far"), policy=replace(POLICY, roles=roles)))
    assert (found["session_policy"], found["session_policy_characters"]) == (None, 0)


def test_a_refusal_shows_the_nearest_entry_and_its_one_condition():
    found = answer(explained(address="192.0.2.1"))
    assert (found["allowed"], found["code"]) == (False, "outside_network")
    [miss] = found["near_misses"]
    assert miss["entry"] == {"entitlement": "group corp/analysts", "line": LINE}
    assert miss["condition"] == "networks"
    assert [unmet["satisfied_by"] for unmet in miss["failed"]] == ["a client address in 10.0.0.0/8"]


def test_only_who_sees_others_learns_of_a_role_that_is_not_offered():
    for role in ("reader", "nothing"):
        with pytest.raises(NotFound, match="offered to you"):
            explained(replace(ASKED, role=role), OUTSIDER)
    found = answer(explained(who=OUTSIDER, sees_others=True))
    assert (found["allowed"], found["code"]) == (False, "not_found")
    [miss] = found["near_misses"]
    assert miss["condition"] == "subject"
    assert miss["failed"][0]["satisfied_by"].startswith("membership of group corp/analysts")
    with pytest.raises(NotFound, match=r"^The access policy has no role of that name\.$"):
        explained(replace(ASKED, role="nothing"), OUTSIDER, sees_others=True)


def test_a_role_given_to_many_names_the_nearest_alone():
    entries = [replace(POLICY.entitlements[0], line=line) for line in range(1, 200)]
    found = answer(
        explained(
            who=OUTSIDER, policy=replace(POLICY, entitlements=tuple(entries)), sees_others=True
        )
    )
    assert len(found["near_misses"]) == 20
