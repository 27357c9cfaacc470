"""The short way through a token reads and refuses exactly what the long way does."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import id_token, strict_json
from broker.identity.id_token import TokenRejected
from broker.identity.strict_json import MAX_DEPTH, MalformedJson, parse_object

ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
# Text that is nearly JSON: pieces that a document is made of, in any order.
WORDS = ("{", "}", "[", "]", ":", ",", '"', '"a"', '"a":1', "\\", "1", "-0", "01", "1.5", "1e9")
PIECES = st.lists(
    st.sampled_from(
        [*WORDS, "true", "null", "NaN", "é", '"a":{"a":1}', "\x7f", " ", "\n", "9" * 20]
    ),
    max_size=10,
)


def long_way(document: bytes) -> object:
    """What is read without the short way."""
    short = strict_json._plain_object
    strict_json._plain_object = lambda *_: None
    try:
        return read(document)
    finally:
        strict_json._plain_object = short


def read(document: bytes) -> object:
    try:
        return parse_object(document)
    except MalformedJson as refusal:
        return f"refused: {refusal}"


def typed(value: object) -> str:
    return (
        json.dumps(value, sort_keys=True, default=repr) if isinstance(value, dict) else str(value)
    )


@given(st.dictionaries(st.text(max_size=4), TREES, max_size=5), st.booleans())
def test_documents_are_read_alike(value: dict[str, object], ascii_only: bool) -> None:
    document = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert typed(read(document)) == typed(long_way(document))


@given(PIECES)
def test_what_is_nearly_a_document_is_read_or_refused_alike(pieces: list[str]) -> None:
    document = "".join(pieces).encode()
    assert typed(read(document)) == typed(long_way(document))
    wrapped = b'{"x":' + document + b"}"
    assert typed(read(wrapped)) == typed(long_way(wrapped))


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'[{"a":1,"a":2}]',
        b'{"x":[{"a":1,"a":2}]}',
        b'{"a":":","a":":"}',
    ],
)
def test_a_repeated_member_is_found_at_every_depth(document: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_object(document)


def test_depth_is_bounded_on_both_ways() -> None:
    deep = b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)
    with pytest.raises(MalformedJson, match="too deeply"):
        parse_object(deep)


def reference(part: str) -> bytes | None:
    """A value's one spelling, by trying it: RFC 7515 section 2."""
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return None
    canonical = base64.urlsafe_b64encode(decoded).rstrip(b"=").decode()
    return decoded if part and canonical == part else None


@given(
    st.text("ABab01+/-_=", max_size=9)
    | st.binary(max_size=9).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="))
    | st.text(st.characters(max_codepoint=127), max_size=6)
)
def test_of_each_value_exactly_one_spelling_is_taken(part: str) -> None:
    try:
        decoded: bytes | None = id_token._base64url(part.encode("ascii"))
    except TokenRejected:
        decoded = None
    assert decoded == reference(part)
