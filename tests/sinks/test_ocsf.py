"""OCSF events: valid by py-ocsf-models and by what the schema demands, and tied to the log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import validate
from py_ocsf_models.events.base_event import BaseEvent
from py_ocsf_models.objects.api import API
from py_ocsf_models.objects.cloud import Cloud
from py_ocsf_models.objects.metadata import Metadata
from py_ocsf_models.objects.user import User

from broker.adapters.sinks import ocsf
from broker.adapters.store.records import StoredRecord
from broker.audit.chain import leaf_hash
from broker.audit.record import SYSTEM, Actor, Event, EventType, Outcome, clean_and_prepare
from tests.sinks.records import TIME, stored

# What OCSF 1.5.0 demands of the three classes (schema.ocsf.io): required attributes, the captions
# that go with each number, and of each "at least one of" the one that the broker gives.
_USER = {
    "type": "object",
    "properties": {"type_id": {"enum": [0, 1, 2, 3, 4, 99]}, "name": {"type": "string"}},
    "anyOf": [{"required": ["name"]}, {"required": ["uid"]}, {"required": ["account"]}],
}
_BASE = {
    "type": "object",
    "required": [
        "activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "metadata",
    ],
    "properties": {
        "time": {"type": "integer", "minimum": 10**12},
        "severity_id": {"enum": [0, 1, 2, 3, 4, 5, 6, 99]},
        "status_id": {"enum": [0, 1, 2, 99]},
        "metadata": {
            "type": "object",
            "required": ["product", "version"],
            "properties": {
                "version": {"const": "1.5.0"},
                "product": {"type": "object", "required": ["vendor_name"]},
                "sequence": {"type": "integer"},
            },
        },
        "actor": {"type": "object", "required": ["user"], "properties": {"user": _USER}},
        "src_endpoint": {"anyOf": [{"required": ["ip"]}, {"required": ["svc_name"]}]},
        "raw_data": {"type": "string"},
        "unmapped": {"type": "object"},
    },
}  # fmt: skip
_CLASSES: dict[int, dict[str, Any]] = {
    3001: {
        "required": ["user"],
        "properties": {
            "class_name": {"const": "Account Change"},
            "category_uid": {"const": 3},
            "activity_id": {"enum": [0, *range(1, 12), 99]},
            "user": _USER,
        },
    },
    3002: {
        "required": ["user", "service"],
        "properties": {
            "class_name": {"const": "Authentication"},
            "category_uid": {"const": 3},
            "activity_id": {"enum": [0, 1, 2, 3, 4, 5, 6, 99]},
            "auth_protocol_id": {"enum": [*range(11), 99]},
            "user": _USER,
        },
    },
    6003: {
        "required": ["actor", "api", "src_endpoint"],
        "properties": {
            "class_name": {"const": "API Activity"},
            "category_uid": {"const": 6},
            "activity_id": {"enum": [0, 1, 2, 3, 4, 99]},
            "api": {"type": "object", "required": ["operation"]},
            "cloud": {"type": "object", "required": ["provider"]},
        },
    },
}

ACTORS = [
    Actor("p-abcdefghijklmnop", "person", "ada@example.com", "192.0.2.7", "agent"),
    Actor("w-abcdefghijklmnop", "workload", "deploy", "192.0.2.9", None),
    Actor("anonymous", "anonymous", None, "192.0.2.8", None),
    SYSTEM,
]


def event(record: Any) -> dict[str, Any]:
    line = ocsf.line(record)
    assert b"\n" not in line
    made: dict[str, Any] = json.loads(line)
    return made


@pytest.mark.parametrize("event_type", EventType)
def test_every_record_is_a_valid_event(event_type: EventType) -> None:
    for actor in ACTORS:
        for outcome in Outcome:
            check(event_type, actor, outcome)


def check(event_type: EventType, actor: Actor, outcome: Outcome) -> None:
    subject: dict[str, object] = {"principal": "p-zzzzzzzzzzzzzzzz", "role": "reader"}
    record = stored(event_type, actor=actor, outcome=outcome, subject=subject)
    made = event(record)
    for schema in (_BASE, _CLASSES[made["class_uid"]]):
        validate(schema, made)
    assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
    # And by the models of the package.
    BaseEvent.model_validate(made)
    Metadata.model_validate(made["metadata"])
    User.model_validate(made["actor"]["user"])
    if "api" in made:
        API.model_validate(made["api"])
    if "user" in made:
        User.model_validate(made["user"])
    # What it was, to the letter.
    assert made["metadata"]["event_code"] == event_type.value
    assert made["status"] == ("Success" if outcome is Outcome.SUCCESS else "Failure")
    assert leaf_hash(made["raw_data"].encode()).hex() == made["metadata"]["uid"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc_", max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_NAMES = ("principal", "role", "role_arn", "account_id", "grant", "code", "reason", "region")
_MEMBERS = st.dictionaries(st.sampled_from(_NAMES) | st.text("abc", max_size=5), _JSON, max_size=6)


@settings(max_examples=100)
@given(
    st.sampled_from(EventType), st.lists(st.text(max_size=30), min_size=5, max_size=5), _MEMBERS,
    _MEMBERS,
)  # fmt: skip
def test_nothing_that_can_be_recorded_stops_a_sink(
    event_type: EventType, texts: list[str], subject: dict[str, object], detail: dict[str, object]
) -> None:
    happened = Event(event_type, Actor(*texts), Outcome.SUCCESS, subject, detail, texts[0])
    record = clean_and_prepare(happened)[1].record(3, TIME)
    leaf = leaf_hash(record)
    made = event(StoredRecord(3, record, leaf, leaf))
    assert leaf_hash(made["raw_data"].encode()).hex() == made["metadata"]["uid"]
    validate(_BASE, made)


def test_an_event_leads_back_to_the_log() -> None:
    record = stored(seq=2**40, detail={"a": [1, {"b": None}]})
    made = event(record)
    assert made["metadata"]["sequence"] == made["unmapped"]["seq"] == 2**40
    assert made["unmapped"]["leaf"] == record.leaf.hex() == made["metadata"]["uid"]
    assert made["unmapped"]["chain"] == record.chain.hex()
    assert made["unmapped"]["detail"] == {"a": [1, {"b": None}]}
    assert made["raw_data"].encode() == record.record
    assert made["metadata"]["original_time"] == TIME
    assert made["time"] == 1795515630123
    assert made["metadata"]["correlation_uid"] == "req-1"


def test_an_issuance_is_a_call_of_sts_in_its_account() -> None:
    made = event(
        stored(
            EventType.ISSUANCE_FAILED,
            outcome=Outcome.FAILURE,
            subject={
                "principal": "p-abcdefghijklmnop",
                "role": "reader",
                "role_arn": "arn:aws:iam::111122223333:role/Reader",
                "account_id": "111122223333",
            },
            detail={"sts_code": "AccessDenied", "sts_request_id": "r-9", "code": "aws_denied"},
        )
    )
    assert made["api"]["operation"] == "AssumeRole"
    assert made["api"]["service"]["name"] == "sts.amazonaws.com"
    assert made["api"]["request"] == {"uid": "r-9"}
    assert made["api"]["response"]["error"] == "AccessDenied"
    assert made["cloud"]["account"]["uid"] == "111122223333"
    Cloud.model_validate(made["cloud"])
    assert made["resources"] == [
        {
            "name": "reader",
            "uid": "arn:aws:iam::111122223333:role/Reader",
            "type": "AWS IAM Role",
        }
    ]
    assert made["status_code"] == "aws_denied"
    assert made["src_endpoint"] == {"ip": "192.0.2.7"}
    assert made["http_request"] == {"user_agent": "curl/8 é"}


def test_an_account_change_names_who_acted_and_whom_it_was_about() -> None:
    made = event(
        stored(
            EventType.GRANT_CREATED,
            subject={"principal": "p-zzzzzzzzzzzzzzzz", "role": "admin", "grant": "g-1"},
        )
    )
    assert made["actor"]["user"]["name"] == "ada@example.com"
    assert made["user"]["uid"] == "p-zzzzzzzzzzzzzzzz"
    assert made["policy"] == {"name": "admin", "uid": "g-1"}


def test_a_second_factor_says_that_it_is_one() -> None:
    assert event(stored(EventType.MFA_VERIFIED))["is_mfa"] is True
    assert event(stored(EventType.LOGIN_SUCCEEDED))["is_mfa"] is False


def test_a_text_that_looks_like_json_stays_a_text() -> None:
    hostile = '","class_uid":1,"x":"\n\u2028\x00'.replace("\x00", "")
    actor = Actor("p-abcdefghijklmnop", "person", hostile, hostile, hostile)
    made = event(stored(actor=actor, detail={"code": hostile}))
    assert made["class_uid"] == 6003
    assert made["actor"]["user"]["name"] == hostile
    assert made["status_code"] == hostile
