"""A record's bytes are canonical JSON, whatever was in the event."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import MAX_RECORD_BYTES
from broker.audit.record import (
    Actor,
    Event,
    EventType,
    NotStorable,
    Outcome,
    clean,
    clean_and_prepare,
    clean_text,
    prepare,
    rfc3339,
    to_record,
)

EARLIEST = datetime(1000, 1, 1)  # noqa: DTZ001 - Hypothesis takes a naive bound
NOON = datetime(2026, 1, 2, 12, 0, 0, 6, tzinfo=UTC)
ADA = Actor("p-aaaabbbbccccdddd", "person", "ada@example.com", "192.0.2.7", "curl/8")

storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
hostile_text = st.text(st.characters(), max_size=50)
keys = st.text(st.characters(max_codepoint=127, exclude_characters="\0"), max_size=12)
numbers = st.integers(-(2**53) + 1, 2**53 - 1)


def json_values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | numbers | texts
    return st.recursive(
        scalars,
        lambda children: (
            st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4)
        ),
        max_leaves=12,
    )


def json_objects(texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(keys, json_values(texts), max_size=5)


def event(**members: Any) -> Event:
    return replace(Event(EventType.ISSUANCE_DENIED, ADA, Outcome.DENIED), **members)


@given(
    subject=json_objects(storable_text),
    detail=json_objects(storable_text),
    handle=st.none() | storable_text,
    request_id=st.none() | storable_text,
    seq=st.integers(1, 2**53 - 1),
    time=st.datetimes(min_value=EARLIEST, timezones=st.just(UTC)),
)
def test_a_record_is_the_canonical_json_of_its_members(
    subject: dict[str, Any],
    detail: dict[str, Any],
    handle: str | None,
    request_id: str | None,
    seq: int,
    time: datetime,
) -> None:
    actor = Actor("p-1", "person", handle, None, handle)
    made = event(actor=actor, subject=subject, detail=detail, request_id=request_id)
    assert to_record(made, seq, time) == rfc8785.dumps(
        {
            "v": 1,
            "seq": seq,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "issuance.denied",
            "actor": {
                "id": "p-1",
                "kind": "person",
                "handle": handle,
                "ip": None,
                "user_agent": handle,
            },
            "request_id": request_id,
            "subject": subject,
            "outcome": "denied",
            "detail": detail,
        }
    )


odd_values = (
    json_values(hostile_text)
    | st.floats()
    | st.integers(2**53 - 2, 2**53 + 1)
    | st.text("x", min_size=1020, max_size=1030)
    | st.dictionaries(st.text(max_size=3) | st.integers(), st.booleans())
)


@given(
    subject=st.dictionaries(st.text(max_size=3), odd_values, max_size=3),
    detail=st.dictionaries(st.text(max_size=3), odd_values, max_size=3),
    handle=st.none() | hostile_text | st.text("x", min_size=510, max_size=514),
)
def test_the_quick_way_and_the_careful_one_are_the_same(
    subject: dict[str, Any], detail: dict[str, Any], handle: str | None
) -> None:
    made = event(subject=subject, detail=detail, actor=replace(ADA, handle=handle))
    try:
        careful = clean(made)
        expected = careful, prepare(careful)
    except NotStorable:
        with pytest.raises(NotStorable):
            clean_and_prepare(made)
    else:
        assert clean_and_prepare(made) == expected


@given(subject=json_objects(hostile_text), detail=json_objects(hostile_text), text=hostile_text)
def test_any_text_from_outside_gives_one_record(
    subject: dict[str, Any], detail: dict[str, Any], text: str
) -> None:
    actor = Actor(text, "anonymous", text, text, text)
    made = event(actor=actor, subject=subject, detail=detail, request_id=text)
    record = to_record(clean(made), 1, NOON)
    assert rfc8785.dumps(json.loads(record)) == record
    assert b"\\u0000" not in record.replace(b"\\\\", b"")
    assert b"\n" not in record


def test_text_is_kept_but_for_what_no_database_stores() -> None:
    assert clean_text("naïve \U0001f511 \x1b[0m\n") == "naïve \U0001f511 \x1b[0m\n"
    assert clean_text("a\0b\ud800c\udfff") == "a\ufffdb\ufffdc\ufffd"
    assert clean_text("abcdef", 4) == "abc…"
    assert clean_text("abcd", 4) == "abcd"


TOO_LARGE = "an integer is 2^53 or over"
KEY = "a key is not an ASCII string"
SURROGATE, NUL = "a text holds a lone surrogate", "a text holds NUL"


def nested(levels: int) -> object:
    deep: object = "leaf"
    for level in range(levels):
        deep = [deep] if level % 2 else {"in": deep}
    return deep


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1.0, "a float is not JSON-ready"),
        (float("nan"), "a float is not JSON-ready"),
        (b"bytes", "a bytes is not JSON-ready"),
        ({"set"}, "a set is not JSON-ready"),
        (datetime.now(UTC), "a datetime is not JSON-ready"),
        ([[{"deep": 0.5}]], "a float is not JSON-ready"),
        (2**53, TOO_LARGE),
        (-(2**53), TOO_LARGE),
        ("\ud800", SURROGATE),
        (["x", "\udfff"], SURROGATE),
        ("a\0", NUL),
        (["\0"], NUL),
        ({"a": {"b": "\0"}}, NUL),
        ({"a\0": 1}, NUL),
        ({"é": 1}, KEY),
        ({1: "number as key"}, KEY),
        (nested(32), "nested over 32 levels deep"),
    ],
)
def test_what_is_not_json_ready_is_refused(value: object, reason: str) -> None:
    for made in (event(detail={"value": value}), event(subject={"value": value})):
        for refuse in (prepare, clean_and_prepare):
            if refuse is clean_and_prepare and reason in (SURROGATE, NUL) and value != {"a\0": 1}:
                continue  # texts are cleaned
            with pytest.raises(NotStorable) as refused:
                refuse(made)
            assert str(refused.value) == reason


def test_what_only_looks_like_an_escape_is_kept() -> None:
    detail = {"text": "\\u0000", "more": ["\\\\u0000"], "deep": nested(31)}
    made = event(detail=detail)
    assert json.loads(to_record(made, 1, NOON))["detail"] == detail
    assert clean_and_prepare(made) == (made, prepare(made))


def test_what_the_log_indexes_of_an_event() -> None:
    prepared = prepare(event(subject={"principal": "p-7"}))
    assert (prepared.type, prepared.actor_id) == ("issuance.denied", "p-aaaabbbbccccdddd")
    assert (prepared.principal_id, prepared.attachment) == ("p-7", None)
    assert prepare(event(subject={"principal": 7})).principal_id is None
    assert prepare(event()).principal_id is None


def test_texts_of_actor_and_subject_are_cut_and_those_of_the_detail_are_kept() -> None:
    def made(length: int) -> Event:
        text = "x" * length
        return Event(
            EventType.ISSUANCE_DENIED,
            Actor(text, text, text, text, text),
            Outcome.DENIED,
            {"a": {"b": [text]}},
            {"a": {"b": [text]}},
            text,
        )

    fitting = made(512)
    assert clean(fitting) == fitting == clean_and_prepare(fitting)[0]
    cut = "x" * 511 + "…"
    expected = replace(made(513), actor=Actor(cut, cut, cut, cut, cut), request_id=cut)
    assert clean(made(513)) == expected == clean_and_prepare(made(513))[0]
    longer = clean(made(1025))
    assert longer.subject == {"a": {"b": ["x" * 1023 + "…"]}}
    assert longer.detail == made(1025).detail
    assert clean(made(1024)).subject == made(1024).subject


def test_cleaning_does_not_hide_what_is_not_json_ready() -> None:
    with pytest.raises(NotStorable, match=r"^a float is not JSON-ready$"):
        prepare(clean(event(detail={"value": 0.5})))


class Word(str):
    __slots__ = ()


def test_values_that_only_look_plain_become_so_or_are_refused() -> None:
    odd = event(detail=MappingProxyType({"a": Word("b"), "c": (Outcome.DENIED,)}))
    with pytest.raises(NotStorable):
        prepare(odd)
    assert json.loads(to_record(clean(odd), 1, NOON))["detail"] == {"a": "b", "c": ["denied"]}


def test_nesting_without_end_is_refused_before_it_overflows() -> None:
    deep: Any = "leaf"
    for _ in range(100_000):
        deep = [deep]
    for refuse in (clean, prepare, clean_and_prepare):
        with pytest.raises(NotStorable, match=r"^nested over 32 levels deep$"):
            refuse(event(detail={"deep": deep}))


@given(size=st.integers(MAX_RECORD_BYTES - 600, MAX_RECORD_BYTES + 200))
def test_a_record_never_exceeds_its_limit_and_loses_nothing(size: int) -> None:
    detail = {"text": "x" * size}
    prepared = prepare(event(detail=detail))
    record = prepared.record(2**53 - 1, rfc3339(NOON))
    assert len(record) <= MAX_RECORD_BYTES
    held = json.loads(record)["detail"]
    if prepared.attachment is None:
        assert held == detail
        return
    body = prepared.attachment.body
    assert json.loads(body) == detail
    assert held == {"attachment": {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}}
    assert prepared.attachment.sha256 == held["attachment"]["sha256"]


def test_only_an_oversize_detail_is_split_off() -> None:
    assert prepare(event(detail={"text": "x" * 50_000})).attachment is None
    assert prepare(event(detail={"text": "x" * 70_000})).attachment is not None


def test_what_cannot_be_split_off_is_bounded_or_refused() -> None:
    flood = "x" * 100_000
    made = event(
        actor=Actor("anonymous", "anonymous", flood, flood, flood), subject={"role": flood}
    )
    assert len(to_record(clean(made), 1, NOON)) < 8192
    with pytest.raises(NotStorable) as refused:
        prepare(made)
    assert str(refused.value) == "the record is over 60 KiB even without its detail"


def test_a_record_may_be_as_large_as_its_limit() -> None:
    least = len(prepare(event(detail={"t": ""})).record(10**18, rfc3339(NOON)))
    fitting = prepare(event(detail={"t": "x" * (MAX_RECORD_BYTES - least)}))
    assert fitting.attachment is None
    assert len(fitting.record(10**18, rfc3339(NOON))) == MAX_RECORD_BYTES
    assert prepare(event(detail={"t": "x" * (MAX_RECORD_BYTES - least + 1)})).attachment


def test_times_are_utc_with_microseconds() -> None:
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 1, 2, 14, 0, 0, 6, tzinfo=east)) == "2026-01-02T12:00:00.000006Z"
