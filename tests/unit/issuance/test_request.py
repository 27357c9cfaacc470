import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidRequest
from broker.issuance.request import CredentialRequest, new_issuance_id

EITHER = (
    "restrict[0]: a statement has exactly one of Action and NotAction; "
    'write one of the two, such as Action: ["s3:GetObject"].'
)
FIELDS = "role, duration, reason, parameters, restrict, client"
DENY = {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}


def test_a_whole_request():
    body = {
        "role": "data-reader",
        "duration": 3600,
        "reason": "  INC-7 ",
        "parameters": {"bucket": "reports"},
        "restrict": [DENY],
        "client": "broker/0.1",
    }
    assert CredentialRequest.parse(body) == CredentialRequest(
        "data-reader", 3600, "INC-7", {"bucket": "reports"}, (DENY,), "broker/0.1"
    )


def test_all_but_the_role_may_be_absent_or_null():
    nothing = dict.fromkeys(["duration", "reason", "parameters", "restrict", "client"])
    assert CredentialRequest.parse({"role": "x", **nothing}) == CredentialRequest("x")
    assert CredentialRequest.parse({"role": "x", "reason": " "}).reason is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": None}, "role is needed"),
        ({"role": 1}, "role is needed"),
        ({"role": "Data"}, "role is needed"),
        ({"role": "a" * 65}, "role is needed"),
        ({"role": "a\n"}, "role is needed"),
        ({"role": "arn:aws:iam::111122223333:role/x"}, "role is needed"),
        ({"role_arn": "arn:aws:iam::111122223333:role/x"}, "'role_arn'"),
        ({"external_id": "x"}, "'external_id'"),
        ({"tags": {}}, "'tags'"),
        ({"session_policy": {}}, "'session_policy'"),
        ({"source_identity": "p-aaaabbbbccccdddd"}, "'source_identity'"),
        ({"Duration": 900}, "did you mean duration"),
        ({"duration": "3600"}, "whole number"),
        ({"duration": 3600.0}, "whole number"),
        ({"duration": True}, "whole number"),
        ({"duration": [3600]}, "whole number"),
        ({"reason": 7}, "reason is one line"),
        ({"reason": "a\nb"}, "reason is one line"),
        ({"reason": "a\x1b[2J"}, "reason is one line"),
        ({"reason": "a\u202eb"}, "reason is one line"),
        ({"reason": "\ud800"}, "reason is one line"),
        ({"reason": "x" * 501}, "at most 500"),
        ({"client": "x" * 129}, "at most 128"),
        ({"client": {}}, "client is one line"),
        ({"parameters": []}, "parameters is an object"),
        ({"parameters": {"bucket": 1}}, "Parameter bucket is a string"),
        ({"parameters": {"bucket": None}}, "Parameter bucket is a string"),
        ({"parameters": {"bucket": "x" * 257}}, "at most 256"),
        ({"parameters": {"Bucket": "x"}}, "no name of a parameter"),
        ({"parameters": {"principal.id": "x"}}, "no name of a parameter"),
        ({"parameters": {f"p{n}": "x" for n in range(33)}}, "more than 32"),
        ({"restrict": DENY}, "restrict is a list"),
        ({"restrict": [DENY] * 11}, "more than 10"),
        ({"restrict": ["x"]}, r"restrict\[0\]: a statement is an object"),
        ({"restrict": [{**DENY, "Effect": "Allow"}]}, "only Deny"),
        ({"restrict": [{"Action": "*", "Resource": "*"}]}, "only Deny"),
        ({"restrict": [DENY, {**DENY, "Principal": "*"}]}, r"restrict\[1\]\.Principal"),
        ({"restrict": [{**DENY, "NotAction": "s3:*"}]}, "exactly one of Action and NotAction"),
        ({"restrict": [{"Effect": "Deny", "Action": "*"}]}, "exactly one of Resource"),
        ({"restrict": [{**DENY, "Action": []}]}, "Action"),
        ({"restrict": [{**DENY, "Condition": {"StringIs": {"aws:x": "y"}}}]}, "no condition op"),
        ({"restrict": [{**DENY, "Resource": "arn:aws:s3:::" + "x" * 2048}]}, "longer than 2048"),
    ],
)
def test_what_is_not_well_formed(changes, message):
    with pytest.raises(InvalidRequest, match=message):
        CredentialRequest.parse({"role": "data-reader", **changes})


UNNAMED = "A name that is left out here"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"role": None}, "role is needed: a role's short name, as `broker roles` lists it."),
        ({"Duration": 900}, "'Duration' is no field here; did you mean duration?"),
        # What does not look like a name may be a secret in the wrong place.
        ({"bka_1": 1}, f"{UNNAMED} is no field here; write one of: {FIELDS}."),
        ({"duration": "3600"}, "duration is a whole number of seconds."),
        ({"reason": "a\nb"}, "reason is one line of text without control characters."),
        ({"reason": "x" * 501}, "reason is at most 500 characters long."),
        ({"client": 7}, "client is one line of text without control characters."),
        ({"client": "x" * 129}, "client is at most 128 characters long."),
        ({"parameters": []}, 'parameters is an object, such as {"bucket": "reports"}.'),
        (
            {"parameters": dict.fromkeys(map(str, range(33)), "x")},
            "There are more than 32 parameters.",
        ),
        ({"parameters": {"Bucket": "x"}}, "'Bucket' is no name of a parameter."),
        ({"parameters": {"a b": "x"}}, f"{UNNAMED} is no name of a parameter."),
        ({"parameters": {"a" * 33 + "B": "x"}}, f"{UNNAMED} is no name of a parameter."),
        ({"parameters": {7: "x"}}, f"{UNNAMED} is no name of a parameter."),
        (
            {"parameters": {"bucket": 1}},
            "Parameter bucket is a string of at most 256 characters.",
        ),
        ({"restrict": DENY}, "restrict is a list of Deny statements."),
        (
            {"restrict": [DENY, {**DENY, "Actoin": "x"}]},
            "restrict[1].Actoin: 'Actoin' is unknown here; did you mean Action?",
        ),
        (
            {"restrict": [{**DENY, "NotAction": "s3:*"}]},
            EITHER,
        ),
        ({"restrict": [DENY] * 11}, "restrict has more than 10 statements."),
        (
            {"restrict": [{**DENY, "Resource": "arn:aws:s3:::" + "x" * 2048}]},
            "restrict is longer than 2048 characters.",
        ),
    ],
)
def test_a_refusal_says_what_to_write(changes, detail):
    with pytest.raises(InvalidRequest) as caught:
        CredentialRequest.parse({"role": "data-reader", **changes})
    assert caught.value.detail == detail


def test_each_limit_at_its_edge():
    edges = {
        "reason": "x" * 500,
        "client": "y" * 128,
        "parameters": {f"p{number}": "z" * 256 for number in range(32)},
        "restrict": [DENY] * 10,
    }
    request = CredentialRequest.parse({"role": "x", **edges})
    assert (request.reason, request.client) == (edges["reason"], edges["client"])
    assert (request.parameters, request.restrict) == (edges["parameters"], (DENY,) * 10)
    resource = "arn:aws:s3:::"
    room = 2048 - len(json.dumps([{**DENY, "Resource": resource}], separators=(",", ":")))
    longest = {**DENY, "Resource": resource + "x" * room}
    assert CredentialRequest.parse({"role": "x", "restrict": [longest]}).restrict == (longest,)
    longest["Resource"] += "x"
    with pytest.raises(InvalidRequest, match="longer than 2048"):
        CredentialRequest.parse({"role": "x", "restrict": [longest]})


def test_deny_statements_by_exclusion_may_be_added():
    statement = {"Effect": "Deny", "NotAction": ["s3:Get*"], "NotResource": "arn:aws:s3:::x/*"}
    condition = {"ForAnyValue:StringLikeIfExists": {"aws:PrincipalTag/a": ["x", 1, True]}}
    full = {**statement, "Sid": "A1", "Condition": condition}
    assert CredentialRequest.parse({"role": "x", "restrict": [full]}).restrict == (full,)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
_FIELDS = st.sampled_from(["role", "duration", "reason", "parameters", "restrict", "client"])


@given(body=st.dictionaries(_FIELDS | st.text(max_size=5), _JSON, max_size=4))
def test_any_json_is_read_or_refused(body: dict[str, Any]):
    try:
        request = CredentialRequest.parse({"role": "x", **body})
    except InvalidRequest:
        return
    assert request.role == body.get("role", "x")


def test_issuance_ids_are_random_and_fit_a_session_name():
    ids = {new_issuance_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"iss-[a-z2-7]{26}", one) for one in ids)
