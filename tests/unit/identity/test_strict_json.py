from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.strict_json import MAX_DEPTH, MalformedJson, parse_object

NOT_JSON, NOT_AN_OBJECT = "not JSON", "not an object"
REPEATED, DEEP = "a member is repeated", "nested too deeply"
INFINITE, LARGE = "NaN and infinities are not JSON", "a number is too large"
NOT_TEXT = "a string is not Unicode text"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", NOT_JSON),
        (b"null", NOT_AN_OBJECT),
        (b"[]", NOT_AN_OBJECT),
        (b'"text"', NOT_AN_OBJECT),
        (b"{", NOT_JSON),
        (b'{"a":1}x', NOT_JSON),
        (b'{"a":1,"a":1}', REPEATED),
        (b'{"a":1,"a":":"}', REPEATED),
        (b'{"a":{"b":1,"b":2}}', REPEATED),
        (b'{"a":[{"b":1,"b":2}]}', REPEATED),
        (b'{"a":[0,{"b":1,"b":2},true,null,"x"]}', REPEATED),
        (b'{"sub":"a","\\u0073ub":"b"}', REPEATED),
        (b'{"a":NaN}', INFINITE),
        (b'{"a":-Infinity}', INFINITE),
        (b'{"a":1e999}', LARGE),
        (b'{"a":' + b"9" * 309 + b"}", LARGE),
        (b'{"a":-' + b"9" * 308 + b"}", LARGE),
        (b'{"a":"\\ud800"}', NOT_TEXT),
        (b'{"a":"\\udfff"}', NOT_TEXT),
        (b'{"\\udc00":1}', NOT_TEXT),
        (b'{"a":["\\udfff"]}', NOT_TEXT),
        (b'{"a":{"b":"\\udfff"}}', NOT_TEXT),
        (b'{"a":"\xff"}', NOT_JSON),
        (b'{"a":"\n"}', NOT_JSON),
        (b'\xef\xbb\xbf{"a":1}', NOT_JSON),
        ('{"a":1}'.encode("utf-16"), NOT_JSON),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", DEEP),
        (b'{"a":' * 100_000, DEEP),
        (b'{"a":"' + b"\\" * 999 + b"[" * 100_000, NOT_JSON),
    ],
)
def test_what_can_be_read_in_two_ways_or_not_at_all_is_refused(document, reason):
    with pytest.raises(MalformedJson) as refused:
        parse_object(document)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("document", "read"),
    [
        (b'{"a":[1,[2],{"b":{}}],"c":null}', {"a": [1, [2], {"b": {}}], "c": None}),
        (b'{"a":":","b":":"}', {"a": ":", "b": ":"}),
        (b'{ "a" : 1.5 }', {"a": 1.5}),
        (b'{"a":1.5,"b":[2.0]}', {"a": 1.5, "b": [2.0]}),
        (b'{"a":' + b"9" * 308 + b"}", {"a": 10**308 - 1}),
        (b'{"a":9223372036854775808}', {"a": 2**63}),
        (b'{"a":-9223372036854775808}', {"a": -(2**63)}),
        ('{"é":"\ud7ff\ue000"}'.encode(), {"é": "\ud7ff\ue000"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":["\\\\"],"b":"["}', {"a": ["\\"], "b": "["}),
    ],
)
def test_one_reading_is_the_reading(document, read):
    assert parse_object(document) == read


def test_nesting_is_allowed_up_to_the_limit_and_not_beyond():
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b"1" + b"}" * depth

    assert "a" in parse_object(nested(MAX_DEPTH))
    with pytest.raises(MalformedJson, match=r"^nested too deeply$"):
        parse_object(nested(MAX_DEPTH + 1))
    assert "a" in parse_object(b'{"a":[' + b"[]," * 40 + b"[]]}"), "what is closed does not count"
    assert parse_object(nested(2), max_depth=2) == {"a": {"a": 1}}
    for text in (nested(3), b'{"a":{"a":{"a":"\\n"}}}', b'{"a":[[1]]}'):
        with pytest.raises(MalformedJson, match=r"^nested too deeply$"):
            parse_object(text, max_depth=2)


def test_brackets_and_quotes_inside_strings_do_not_count():
    text = '[{"\\' * 50
    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4), st.booleans())
def test_ordinary_documents_read_as_any_parser_reads_them(document, ascii_only):
    text = json.dumps(document, ensure_ascii=ascii_only).encode()
    try:
        assert parse_object(text) == document
    except MalformedJson as refused:
        assert "deep" in str(refused)  # noqa: PT017 (Hypothesis may nest beyond the limit)


@given(st.binary(max_size=200) | st.text('{}[]":,\\u0dn1e9', max_size=60).map(str.encode))
def test_no_bytes_raise_anything_else(document):
    try:
        assert isinstance(parse_object(document), dict)
    except MalformedJson:
        return


@pytest.mark.parametrize("unit", [b'\\"', b'"', b'"\\', b'"a', b'["', b"\\"])
def test_a_string_that_never_ends_costs_no_more_than_its_length(unit: bytes) -> None:
    document = (b'{"a":"' + unit * 2**20)[: 2**20]
    started = time.process_time()
    with pytest.raises(MalformedJson):
        parse_object(document)
    # Looking again from every quote took hours for as much.
    assert time.process_time() - started < 5
