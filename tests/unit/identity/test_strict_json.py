from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.strict_json import MAX_DEPTH, MalformedJson, parse_object


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"a":1}x',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[{"b":1,"b":2}]}',
        b'{"sub":"a","\\u0073ub":"b"}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 309 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":["\\udfff"]}',
        b'{"a":"\xff"}',
        b'{"a":"\n"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b'{"a":"' + b"\\" * 999 + b"[" * 100_000,
    ],
)
def test_what_can_be_read_in_two_ways_or_not_at_all_is_refused(document):
    with pytest.raises(MalformedJson) as refused:
        parse_object(document)
    assert len(str(refused.value)) < 60


def test_nesting_is_allowed_up_to_the_limit_and_not_beyond():
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b"1" + b"}" * depth

    assert "a" in parse_object(nested(MAX_DEPTH))
    with pytest.raises(MalformedJson, match="deep"):
        parse_object(nested(MAX_DEPTH + 1))


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
