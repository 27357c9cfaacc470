"""Records of a shape seen before are recognised; whatever is not surely good is left to others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.record import Actor, Event, EventType, Outcome, to_record
from broker.audit.shapes import Shapes
from broker.audit.verify import export_line

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HASHES = 2 * 64 + len('", "leaf": "') + len('", "chain": "') + len('"}')


def line_of(record: bytes) -> tuple[bytes, int]:
    """Without its line feed, and where the record's string closes in it."""
    line = export_line(record, bytes(32), bytes(32)).removesuffix(b"\n")
    return line, len(line) - HASHES


def learnt(*records: bytes) -> Shapes:
    shapes = Shapes()
    for record in records:
        shapes.learn(*line_of(record), record.decode())
    return shapes


def known(shapes: Shapes, record: bytes) -> bool:
    found = shapes.recognise(*line_of(record))
    assert found is None or found == (record, json.loads(record)["seq"])
    return found is not None


def record(seq: int, text: str = "plain", kind: EventType = EventType.LOGIN_FAILED) -> bytes:
    actor = Actor("p-1", "person", text, None, text)
    detail = {"text": text, "list": [1, {"a": None}, True, -7], "seq": 5}
    return to_record(Event(kind, actor, Outcome.SUCCESS, {"who": text}, detail), seq, NOON)


def padded(record: str) -> bytes:
    """Real records are longer than these, and type and version stand at their end."""
    return record.replace("{", '{"0":"%s",' % ("x" * 100), 1).encode()


ODD = 'quo"ted \\ back\\\\slash \x01\n\t\x1f línea \u2028 \U0001f511'


@pytest.mark.parametrize("text", ["plain", ODD, "", "\\", '"'])
@pytest.mark.parametrize("other", ["OTHER XX", "x" * 500, ""])
def test_a_record_with_other_values_is_recognised(text: str, other: str) -> None:
    shapes = learnt(record(1, text))
    for seq in (2, 10, 999_999_999_999_999):
        assert known(shapes, record(seq, other))
    assert not known(shapes, record(2, other, EventType.LOGIN_SUCCEEDED)), "of another type"


def test_texts_to_escape_are_recognised_once_a_record_had_some() -> None:
    assert not known(learnt(record(1)), record(2, ODD))
    assert known(learnt(record(1, 'a"b')), record(2, "c\\d"))
    both = learnt(record(1), record(2, ODD))
    for seq, text in enumerate(["plain", ODD, "plain", "plain", ODD, 'a"b', "é", "\x7f"], 3):
        assert known(both, record(seq, text))


@pytest.mark.parametrize(
    ("first", "second", "recognised"),
    [
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":-20,"seq":2,"type":"t","v":1}', True),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":0,"seq":2,"type":"t","v":1}', True),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":01,"seq":2,"type":"t","v":1}', False),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":1,"seq":0,"type":"t","v":1}', False),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":1,"seq":-1,"type":"t","v":1}', False),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":1.5,"seq":2,"type":"t","v":1}', False),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":"1","seq":2,"type":"t","v":1}', False),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"b":1,"seq":2,"type":"t","v":1}', False),
        ('{"a":1,"seq":1,"type":"t","v":1}', '{"a":1, "seq":2,"type":"t","v":1}', False),
        ('{"a":true,"seq":1,"type":"t","v":1}', '{"a":true,"seq":2,"type":"t","v":1}', True),
        ('{"a":true,"seq":1,"type":"t","v":1}', '{"a":false,"seq":2,"type":"t","v":1}', False),
        ('{"a":[1],"seq":1,"type":"t","v":1}', '{"a":[2],"seq":2,"type":"t","v":1}', True),
        ('{"a":[1],"seq":1,"type":"t","v":1}', '{"a":[2,3],"seq":2,"type":"t","v":1}', False),
        ('{"a":{"b":1},"seq":1,"type":"t","v":1}', '{"a":{"b":9},"seq":2,"type":"t","v":1}', True),
        # Not canonical, so never learnt: the strict way judges each of them.
        ('{"a": 1,"seq":1,"type":"t","v":1}', '{"a": 1,"seq":2,"type":"t","v":1}', False),
        # No number of its own, or only one further inside.
        ('{"a":1,"type":"t","v":1}', '{"a":1,"type":"t","v":1}', False),
        ('{"a":{"seq":1},"type":"t","v":1}', '{"a":{"seq":1},"type":"t","v":1}', False),
        ('{"seq":"1","type":"t","v":1}', '{"seq":"1","type":"t","v":1}', False),
        # No type at its end.
        ('{"seq":1,"v":1}', '{"seq":2,"v":1}', False),
        ('{"type":"t","zz":"' + "x" * 120 + '","seq":1}',) * 2 + (False,),
    ],
)
def test_names_nesting_and_kinds_of_values_make_the_shape(
    first: str, second: str, recognised: bool
) -> None:
    shapes = learnt(padded(first))
    assert (shapes.recognise(*line_of(padded(second))) is not None) is recognised


def test_a_number_inside_does_not_stand_for_the_records() -> None:
    shapes = learnt(padded('{"a":[{"seq":9}],"seq":1,"type":"t","v":1}'))
    other = padded('{"a":[{"seq":8}],"seq":2,"type":"t","v":1}')
    assert shapes.recognise(*line_of(other)) == (other, 2)


@pytest.mark.parametrize("place", ["{", '"who', "plain"])
@pytest.mark.parametrize("odd", [b"\x00", b"\xff", b'"', b"\\", b"\\u0041", b"\\/", b"\r"])
def test_a_line_that_is_spelled_otherwise_is_not_recognised(place: str, odd: bytes) -> None:
    shapes = learnt(record(1), record(2, ODD))
    line, end = line_of(record(3))
    at = line.index(place.encode(), 12)
    changed = line[:at] + odd + line[at:]
    try:
        assert shapes.recognise(changed, end + len(odd)) is None
    except UnicodeDecodeError:
        assert odd == b"\xff"


def test_new_shapes_without_end_cost_no_more_than_some() -> None:
    def of(name: str, kind: str) -> bytes:
        return padded(f'{{"{name}":1,"seq":1,"type":"{kind}","v":1}}')

    one_type = [of(f"a{n}", "t") for n in range(20)]
    shapes = learnt(*one_type)
    assert [known(shapes, one) for one in one_type] == [True] * 8 + [False] * 12
    many = [of("a", f"t{n}") for n in range(300)]
    shapes = learnt(*many)
    assert [known(shapes, one) for one in many] == [True] * 256 + [False] * 44
    large = record(1, "x" * 2048)
    assert not known(learnt(large), large)
    fitting = b'{"a":"%b","seq":1,"type":"t","v":1}'
    for length, learns in ((8192, True), (8193, False)):
        text = fitting % (b"x" * (length - len(fitting) + 2))
        assert len(text) == length
        assert known(learnt(text), text) is learns


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=6,
)


@given(values, values)
def test_what_is_recognised_is_what_the_strict_way_reads(one: Any, other: Any) -> None:
    def of(seq: int, detail: Any) -> bytes:
        members = {"detail": detail, "seq": seq, "type": "t", "v": 1}
        text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return padded(text)

    shapes = learnt(of(1, one))
    assert known(shapes, of(2, one))
    known(shapes, of(3, other))
