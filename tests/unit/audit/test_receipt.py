"""Receipts: the proof that a record is in the log, read right, or refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.audit.chain import MAX_RECORD_BYTES, leaf_hash
from broker.audit.checkpoint import Checkpoint
from broker.audit.merkle import NO_LEAVES, BadProof
from broker.audit.note import BadNote, VerifierKey
from broker.audit.receipt import BadReceipt, Receipt, hashes
from tests.unit.audit.keys import ORIGIN, TestSigner

SIGNER = TestSigner()


def receipt(seq: int = 3) -> dict[str, Any]:
    records = [f'{{"seq":{n},"type":"issuance.issued"}}'.encode() for n in range(1, 6)]
    growth = NO_LEAVES.extend(leaf_hash(record) for record in records)
    note = Checkpoint(ORIGIN, 5, growth.after.root).signed(SIGNER)
    made = Receipt(seq, records[seq - 1], growth.inclusion(seq - 1), note).as_json()
    parsed: dict[str, Any] = json.loads(json.dumps(made))
    return parsed


@pytest.mark.parametrize("seq", range(1, 6))
def test_a_receipt_verifies(seq: int) -> None:
    stated = receipt(seq)
    assert list(stated) == ["version", "seq", "record", "path", "checkpoint"]
    assert (stated["version"], stated["seq"]) == (1, seq)
    parsed = Receipt.parse(stated)
    assert parsed.as_json() == stated
    assert parsed.verify([SIGNER.key]).size == 5
    assert parsed.unverified().size == 5
    assert parsed.members() == {"seq": seq, "type": "issuance.issued"}


NOT_IN_TREE = "record 3 is not in the tree of 5 records"
FOREIGN_KEY = TestSigner(seed=7)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"seq": 4}, BadProof, "record 4 is not in the tree of 5 records"),
        ({"seq": 6}, BadProof, "a tree of 5 records has no record 6"),
        ({"record": '{"seq":3,"type":"issuance.failed"}'}, BadProof, NOT_IN_TREE),
        ({"record": "[]"}, BadProof, NOT_IN_TREE),
        ({"path": []}, BadProof, "the proof must be 3 hashes of 32 bytes"),
        ({"path": ["00" * 32] * 3}, BadProof, NOT_IN_TREE),
        (
            {"checkpoint": "x"},
            BadNote,
            "not a signed note: no signatures after an empty line",
        ),
        ({"checkpoint": Checkpoint(ORIGIN, 5, bytes(32)).signed(SIGNER)}, BadProof, NOT_IN_TREE),
        (
            {"checkpoint": Checkpoint(ORIGIN, 5, bytes(32)).signed(FOREIGN_KEY)},
            BadNote,
            "no key that is trusted has signed it",
        ),
    ],
)
def test_a_changed_receipt_is_refused(
    change: dict[str, object], error: type[ValueError], reason: str
) -> None:
    parsed = Receipt.parse(receipt() | change)
    with pytest.raises(error) as refused:
        parsed.verify([SIGNER.key])
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"seq":7}', "the record has another number"),
        (b"{}", "the record has another number"),
        (b"[1]", "its record is not a JSON object"),
        (b"{", "its record is not a JSON object"),
        (b"[" * 60_000, "its record is not a JSON object"),
    ],
)
def test_a_record_without_the_number_of_its_place_is_refused(record: bytes, reason: str) -> None:
    growth = NO_LEAVES.extend([leaf_hash(record)])
    note = Checkpoint(ORIGIN, 1, growth.after.root).signed(SIGNER)
    of_place = Receipt(1, record, (), note)
    reads: list[Callable[[], object]] = [lambda: of_place.verify([SIGNER.key]), of_place.unverified]
    for read in reads:
        with pytest.raises(BadReceipt) as refused:
            read()
        assert str(refused.value) == reason


VERSION = "not a receipt of version 1 or 2"
NUMBER = "its number or record is missing"
PATH = "its path or checkpoint is missing"
NO_HASH = "its path holds what is no hash"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, VERSION),
        ([], VERSION),
        ({}, VERSION),
        (receipt() | {"version": 2}, VERSION),
        (receipt() | {"version": 3}, VERSION),
        (receipt() | {"version": True}, VERSION),
        (receipt() | {"version": 1.0}, VERSION),
        (receipt() | {"version": 2, "certificate": None}, VERSION),
        (receipt() | {"certificate": "x"}, VERSION),
        (receipt() | {"version": 2, "certificate": "x", "more": 1}, VERSION),
        (receipt() | {"more": 1}, VERSION),
        (receipt() | {"seq": True}, NUMBER),
        (receipt() | {"seq": 0}, NUMBER),
        (receipt() | {"seq": "3"}, NUMBER),
        (receipt() | {"record": 3}, NUMBER),
        (receipt() | {"checkpoint": None}, PATH),
        (receipt() | {"path": "00"}, PATH),
        (receipt() | {"path": ["00" * 32] * 65}, PATH),
        (receipt() | {"path": ["zz" * 32]}, NO_HASH),
        (receipt() | {"path": ["00" * 31]}, NO_HASH),
        (receipt() | {"path": ["AA" * 32]}, NO_HASH),
        (receipt() | {"path": ["00" * 32, 7]}, NO_HASH),
        (receipt() | {"record": "\ud800"}, "its record is not text"),
        (receipt() | {"record": "x" * (MAX_RECORD_BYTES + 1)}, "its record is too long"),
        (receipt() | {"record": "é" * (MAX_RECORD_BYTES // 2 + 1)}, "its record is too long"),
    ],
)
def test_what_is_no_receipt_is_refused(value: object, reason: str) -> None:
    with pytest.raises(BadReceipt) as refused:
        Receipt.parse(value)
    assert str(refused.value) == reason


def test_receipts_at_their_limits_are_read() -> None:
    largest = receipt() | {"record": "x" * MAX_RECORD_BYTES, "path": ["0f" * 32] * 64, "seq": 1}
    parsed = Receipt.parse(largest)
    assert (len(parsed.record), len(parsed.path)) == (MAX_RECORD_BYTES, 64)
    assert parsed.path[63] == bytes([15]) * 32


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "the proof is not a list of hashes"),
        ({}, "the proof is not a list of hashes"),
        (["00" * 32] * 131, "the proof is not a list of hashes"),
        *(
            (odd, "the proof holds what is no hash of 32 bytes")
            for odd in (["zz"], [1], ["AA" * 32], ["00" * 33])
        ),
    ],
)
def test_what_is_no_list_of_hashes_is_refused(values: object, reason: str) -> None:
    with pytest.raises(BadProof) as refused:
        hashes(values)
    assert str(refused.value) == reason
    assert hashes(["0f" * 32] * 130) == [bytes([15]) * 32] * 130


def test_a_key_needs_its_32_bytes() -> None:
    for length in (0, 31, 33):
        with pytest.raises(BadNote, match=r"and 32 bytes$"):
            VerifierKey("name", bytes(length))
