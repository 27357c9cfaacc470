"""A stranger with an export and nothing else: what is found, and where."""

import ast
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import broker.audit.authentic
import broker.audit.chain
import broker.audit.cosignature
import broker.audit.delegate
import broker.audit.ed25519
import broker.audit.merkle
import broker.audit.note
import broker.audit.shapes
import broker.audit.tiles
import broker.audit.verify
from broker.audit.chain import EMPTY, GENESIS, MAX_RECORD_BYTES, Head, chain_hash, leaf_hash
from broker.audit.merkle import NO_LEAVES
from broker.audit.record import Actor, Event, EventType, Outcome, to_record
from broker.audit.verify import (
    MAX_LINE_BYTES,
    Problem,
    Verification,
    Verifier,
    export_line,
    sequence_number,
    verify,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TEXTS = ["plain", 'quo"ted \\ back\\\\slash', "línea \u2028 \U0001f511", "\x01\n\t\x7f", "", "</x>"]


def chain(records: list[bytes], after: Head = EMPTY) -> list[bytes]:
    lines = []
    previous = after.chain
    for record in records:
        leaf = leaf_hash(record)
        previous = chain_hash(previous, leaf)
        lines.append(export_line(record, leaf, previous))
    return lines


def record(seq: int, text: str = "plain") -> bytes:
    event = Event(
        EventType.LOGIN_SUCCEEDED,
        Actor("p-1", "person", text, "192.0.2.1", text),
        Outcome.SUCCESS,
        {"principal": "p-1"},
        {"text": text, "list": [1, {"a": None}, True]},
    )
    return to_record(event, seq, NOON)


RECORDS = [record(seq, text) for seq, text in enumerate(TEXTS, 1)]
LINES = chain(RECORDS)
EXPORT = b"".join(LINES)
HEAD = Head(len(LINES), bytes.fromhex(json.loads(LINES[-1])["chain"]))


def line_at(position: int) -> int:
    return EXPORT.count(b"\n", 0, position) + 1


def test_a_whole_export_is_consistent_and_says_no_more_than_that() -> None:
    found = verify([EXPORT])
    assert found == Verification(6, 1, HEAD, None)
    assert found.consistent
    text = f"internally consistent: records 1 to 6, chain {HEAD.chain.hex()}"
    assert str(found) == text
    assert "authentic" not in str(found)


def test_the_export_is_json_lines_that_hold_the_exact_bytes() -> None:
    for line, exact in zip(EXPORT.decode().removesuffix("\n").split("\n"), RECORDS, strict=True):
        members = json.loads(line)
        assert list(members) == ["record", "leaf", "chain"]
        assert members["record"].encode() == exact
        assert members["leaf"] == hashlib.sha256(b"\0" + exact).hexdigest()
        assert line == json.dumps(members, ensure_ascii=False)


@given(st.lists(st.integers(0, len(EXPORT)), max_size=8))
def test_how_the_bytes_arrive_makes_no_difference(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(EXPORT)]
    chunks = [EXPORT[a:b] for a, b in pairwise(edges)]
    assert verify(chunks) == Verification(6, 1, HEAD, None)
    assert verify(EXPORT[i : i + 1] for i in range(len(EXPORT))).consistent


def broken_at(export: bytes) -> int | None:
    found = verify([export])
    assert found.consistent == (found.problem is None)
    if found.problem is None:
        return None
    assert found.head.seq == found.problem.seq - 1 == found.count
    assert f"record {found.problem.seq}: " in str(found)
    return found.problem.seq


@given(st.integers(0, len(EXPORT) - 1), st.integers(1, 255))
def test_any_changed_byte_is_found_at_its_record(position: int, flip: int) -> None:
    changed = bytearray(EXPORT)
    changed[position] ^= flip
    assert broken_at(bytes(changed)) == line_at(position)


def test_every_single_bit_flip_is_found_at_its_record() -> None:
    for position in range(len(EXPORT)):
        for bit in range(8):
            changed = bytearray(EXPORT)
            changed[position] ^= 1 << bit
            assert broken_at(bytes(changed)) == line_at(position)


@given(st.integers(0, len(EXPORT) - 1))
def test_any_missing_byte_is_found_at_its_record(position: int) -> None:
    assert broken_at(EXPORT[:position] + EXPORT[position + 1 :]) == line_at(position)


@given(st.integers(0, len(EXPORT) - 1), st.integers(0, 255))
def test_any_added_byte_is_found_at_its_record(position: int, added: int) -> None:
    changed = EXPORT[:position] + bytes([added]) + EXPORT[position:]
    # The same byte added beside itself is at either place, on one line or its neighbour.
    assert broken_at(changed) in {line_at(position), line_at(min(position + 1, len(EXPORT) - 1))}


@given(st.permutations(LINES))
def test_any_other_order_is_found(lines: list[bytes]) -> None:
    first_moved = next(
        (n for n, (a, b) in enumerate(zip(lines, LINES, strict=True), 1) if a != b), None
    )
    assert broken_at(b"".join(lines)) == first_moved


@given(st.integers(0, 5))
def test_a_missing_or_doubled_record_is_found(index: int) -> None:
    without = LINES[:index] + LINES[index + 1 :]
    assert broken_at(b"".join(without)) == (index + 1 if index < 5 else None)
    doubled = LINES[: index + 1] + LINES[index:]
    assert broken_at(b"".join(doubled)) == index + 2


def test_a_tail_cut_at_a_line_shows_only_against_a_head_from_elsewhere() -> None:
    found = verify([b"".join(LINES[:4])])
    assert found.consistent
    assert found.head.seq == 4
    assert found.head != HEAD


def test_an_export_goes_on_from_a_trusted_head() -> None:
    head = verify([b"".join(LINES[:2])]).head
    assert verify([b"".join(LINES[2:])], head) == Verification(4, 3, HEAD, None)
    assert verify([b"".join(LINES[2:])], Head(2, GENESIS)).problem is not None
    assert verify([b"".join(LINES[3:])], head).problem is not None


def test_an_empty_export_is_no_evidence() -> None:
    found = verify([])
    assert (found.count, found.head) == (0, EMPTY)
    assert str(found) == "no records"


DUPLICATE = "the record has a duplicate member"
NO_NUMBER = "the record has no sequence number"
NOT_AN_OBJECT = "the record is not one JSON object"
MALFORMED = "the line is not well-formed JSON"


@pytest.mark.parametrize(
    ("forged", "what"),
    [
        (b'{"seq":1,"seq":1}', DUPLICATE),
        (b'{"actor":{"id":"a","id":"b"},"seq":1}', DUPLICATE),
        (b'{"seq":2}', "the record says it is number 2"),
        (b'{"seq":true}', NO_NUMBER),
        (b'{"seq":"1"}', NO_NUMBER),
        (b'{"v":1}', NO_NUMBER),
        (b'{"seq":1.0}', "the record holds a number that is not an integer: 1.0"),
        (
            b'{"seq":1.' + b"0" * 50 + b"}",
            f"the record holds a number that is not an integer: 1.{'0' * 38}",
        ),
        (b'{"a":NaN,"seq":1}', "the record holds a number that is not an integer: NaN"),
        (b'[{"seq":1}]', NOT_AN_OBJECT),
        (b'"seq"', NOT_AN_OBJECT),
        (b'{"seq":1} ', NOT_AN_OBJECT),
        (b' {"seq":1}', MALFORMED),
        (b'{"seq":1', MALFORMED),
        (b"", MALFORMED),
        (b'{"seq":1,"a":' + b"[" * 50_000, MALFORMED),
        (b'{"seq":' + b"1" * 6000 + b"}", MALFORMED),
    ],
)
def test_a_forged_record_with_right_hashes_is_still_refused(forged: bytes, what: str) -> None:
    found = verify(chain([forged]))
    assert found.problem == Problem(1, what)
    assert str(found) == f"broken at record 1: {what}"
    if "number 2" not in what:
        # A record that stands alone is refused in the same words.
        with pytest.raises(ValueError, match=r"^the record ") as refused:
            sequence_number(forged)
        assert str(refused.value) == what.replace("the line", "the record")


def test_the_number_of_a_record_that_stands_alone() -> None:
    assert [sequence_number(one) for one in RECORDS] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match=r"^the record is not UTF-8$"):
        sequence_number(b'{"seq":1,"a":"\xff"}')


FORM = "the line does not have the form of an export line"
ESCAPES = "the record is not escaped in the one way that is allowed"
LEAF = "the leaf hash does not match the record's bytes"
CHAIN = "the chain hash does not follow from the record before"


@pytest.mark.parametrize(
    ("old", "new", "first", "later"),
    [
        ("success", "failure", LEAF, LEAF),
        ('"leaf": "', '"leaf": "0', FORM, FORM),
        ('"leaf": "', '"Leaf": "', FORM, LEAF),
        ('"chain": "', '"Chain": "', FORM, CHAIN),
        ('{"record": "', '{"Record": "', FORM, FORM),
        ('"}\n', '"]\n', FORM, CHAIN),
        ("success", "succ\\u0065ss", ESCAPES, ESCAPES),
        ("success", "succ\\/ess", ESCAPES, ESCAPES),
        ("success", "\\success", MALFORMED, MALFORMED),
        ("success", "\x01", ESCAPES, ESCAPES),
    ],
)
def test_a_changed_line_is_refused_in_words(old: str, new: str, first: str, later: str) -> None:
    """The first line is read the strict way, the third is of a shape that is known."""
    for place, what in ((1, first), (3, later)):
        lines = chain([record(seq) for seq in (1, 2, 3, 4)])
        changed = lines[place - 1].decode().replace(old, new)
        assert changed != lines[place - 1].decode()
        lines[place - 1] = changed.encode()
        assert verify(lines).problem == Problem(place, what)


def test_a_line_of_another_log_does_not_follow() -> None:
    records = [record(seq) for seq in (1, 2, 3, 4)]
    lines = chain(records)
    other = chain(records, Head(0, bytes([1]) * 32))
    for place in (1, 3):
        swapped = [*lines[: place - 1], other[place - 1], *lines[place:]]
        assert verify(swapped).problem == Problem(place, CHAIN)
    cut = "the line is cut off: no line feed at its end"
    assert verify([*lines[:2], lines[2][:-1]]).problem == Problem(3, cut)
    assert verify([*lines[:2], b"\xff" + lines[2]]).problem == Problem(3, "the line is not UTF-8")
    assert verify([*lines[:2], b"\n"]).problem == Problem(3, FORM)


def test_roots_and_leaves_are_kept_where_they_are_asked_for() -> None:
    leaves = [leaf_hash(one) for one in RECORDS]
    roots = [NO_LEAVES.extend(leaves[:size]).after.root for size in range(7)]
    found = verify([EXPORT], sizes=[0, 2, 5, 9], numbers=[1, 5, 9])
    assert found.roots == {0: roots[0], 2: roots[2], 5: roots[5], 6: roots[6]}
    assert found.leaves == {1: leaves[0], 5: leaves[4]}
    part = verify([b"".join(LINES[2:])], Head(2, verify(LINES[:2]).head.chain), sizes=[0, 4])
    assert (part.consistent, part.roots) == (True, {}), "a part of a log has no roots"
    broken = verify([*LINES[:3], LINES[4]], sizes=[2, 5], numbers=[1, 5])
    assert broken.roots == {2: roots[2], 3: roots[3]}
    assert broken.leaves == {1: leaves[0]}


def test_after_a_problem_nothing_more_is_read() -> None:
    verifier = Verifier()
    assert verifier.feed(LINES[0])
    assert not verifier.feed(b"x\n")
    assert not verifier.feed(LINES[1])
    assert verifier.close() == Verification(
        1, 1, Head(1, chain_hash(GENESIS, leaf_hash(RECORDS[0]))), Problem(2, FORM)
    )


@pytest.mark.parametrize(
    "respell",
    [
        lambda line: json.dumps(json.loads(line), ensure_ascii=False, separators=(",", ":")) + "\n",
        lambda line: json.dumps(json.loads(line)) + "\n",
        lambda line: line.replace("\n", "\r\n"),
        lambda line: line.replace("/", "\\/"),
        lambda line: " " + line,
        lambda line: "\ufeff" + line,
        lambda line: "\n" + line,
        lambda line: line[:-2] + ', "extra": 1}\n',
        lambda line: '{"record": "{}", ' + line[1:],
    ],
)
def test_a_line_has_one_spelling(respell: Callable[[str], str]) -> None:
    line = chain([record(1, "é/")])[0].decode()
    assert verify([line.encode()]).consistent
    assert verify([respell(line).encode()]).problem is not None


def test_the_largest_record_fits_a_line_and_what_is_longer_is_refused_unread() -> None:
    start, end = b'{"a":"', b'","seq":1}'
    quotes = b'\\"' * ((MAX_RECORD_BYTES - len(start) - len(end)) // 2)
    largest = start + quotes + end
    assert len(largest) == MAX_RECORD_BYTES
    assert verify(chain([largest])).consistent
    filler = b"x" * (MAX_LINE_BYTES + 1 - len(chain([start + end])[0]))
    assert len(chain([start + filler + end])[0]) == MAX_LINE_BYTES + 1, "the line feed is no part"
    assert verify(chain([start + filler + end])).consistent
    over = verify(chain([start + filler + b"x" + end]))
    assert over.problem == Problem(1, "the line is too long")

    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 65536
            yield b"x" * 65536

    found = verify(endless())
    assert found.problem == Problem(1, "the line is too long")
    assert read <= MAX_LINE_BYTES + 65536


def test_a_light_client_can_verify() -> None:
    """None of the modules imports anything but the standard library and the others."""
    modules = (
        broker.audit.verify, broker.audit.chain, broker.audit.shapes, broker.audit.merkle,
        broker.audit.authentic, broker.audit.receipt, broker.audit.checkpoint, broker.audit.note,
        broker.audit.ed25519, broker.audit.tiles, broker.audit.delegate, broker.audit.cosignature,
    )  # fmt: skip
    ours = {module.__name__ for module in modules} | {"broker.audit"}
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = str(name).split(".", 1)[0]
                assert top in sys.stdlib_module_names or str(name) in ours
    isolated = (
        "import broker.audit.verify, broker.audit.authentic, sys; "
        "print('msgspec' in sys.modules or 'cryptography' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", isolated], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
