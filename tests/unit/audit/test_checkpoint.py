"""Signed notes, checkpoints, successions of keys and receipts: read right, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, follow, opened, succession, unverified
from broker.audit.merkle import NO_LEAVES, BadProof
from broker.audit.note import BadNote, Note, VerifierKey, sign
from broker.audit.receipt import BadReceipt, Receipt, hashes
from tests.unit.audit.keys import ORIGIN, TestSigner

# The example of the Go implementation of signed notes (golang.org/x/mod/sumdb/note).
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdng"
    "otpRZb6KE6RyyBwJnAM=\n"
)
SIGNER = TestSigner()
CHECKPOINT = Checkpoint(ORIGIN, 3, bytes(range(32)))


def test_notes_of_other_tools_verify() -> None:
    key = VerifierKey.parse(GO_VKEY)
    assert str(key) == GO_VKEY
    note = Note.parse(GO_NOTE)
    assert note.signed_by([key]) == key
    assert note.text.endswith("what your problem is.\n")


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    note = CHECKPOINT.signed(SIGNER)
    assert note.splitlines()[:3] == [
        ORIGIN,
        "3",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ]
    assert opened(note, [SIGNER.key]) == CHECKPOINT == unverified(note)
    assert VerifierKey.parse(str(SIGNER.key)) == SIGNER.key


@given(st.data())
def test_any_changed_character_of_a_note_is_found(data: st.DataObject) -> None:
    note = CHECKPOINT.signed(SIGNER)
    at = data.draw(st.integers(0, len(note) - 1))
    other = data.draw(st.sampled_from([c for c in "\n A1=—+é" if c != note[at]]))
    with pytest.raises(BadNote):
        opened(note[:at] + other + note[at + 1 :], [SIGNER.key])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "broker.example.com\n3\n",
        "broker.example.com\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nextension\n",
        "broker.example.com\n03\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "broker.example.com\n-3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "broker.example.com\n\u0663\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "broker.example.com\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==\n",
        "broker.example.com\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
        "broker.example.com\n3\n!!\n",
        "\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    ],
)
def test_what_is_signed_and_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        opened(sign(text, SIGNER), [SIGNER.key])


def test_signatures_of_strangers_are_passed_over_and_false_ones_are_not() -> None:
    stranger, other = TestSigner("witness.example.com", 9), TestSigner(ORIGIN, 2)
    note = sign(CHECKPOINT.text, stranger, SIGNER)
    assert opened(note, [SIGNER.key]) == CHECKPOINT
    with pytest.raises(BadNote, match="no key that is trusted"):
        opened(note, [other.key])
    with pytest.raises(BadNote, match="no key that is trusted"):
        opened(note, [])
    # A false signature of one known key spoils the note, though another known key's is right.
    false = Checkpoint(ORIGIN, 4, bytes(32)).signed(SIGNER).splitlines(keepends=True)[-1]
    with pytest.raises(BadNote, match="is false"):
        opened(sign(CHECKPOINT.text, stranger) + false, [SIGNER.key, stranger.key])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000+AQ==",
        str(SIGNER.key).replace("+", "+0", 1),
        str(SIGNER.key).lower(),
        str(SIGNER.key) + "=",
        str(SIGNER.key).replace("broker", "brokes"),
        "sp ace" + str(SIGNER.key),
    ],
)
def test_a_mistyped_key_is_refused(vkey: str) -> None:
    with pytest.raises(BadNote):
        VerifierKey.parse(vkey)


# --- Keys that follow each other ----------------------------------------------------------


def test_trust_follows_successions_over_several_keys_in_any_order() -> None:
    first, second, third = (TestSigner(seed=n) for n in (1, 2, 3))
    notes = [succession(ORIGIN, second, third), succession(ORIGIN, first, second)]
    assert follow(ORIGIN, [first.key], notes) == [first.key, second.key, third.key]
    assert follow(ORIGIN, [second.key], notes) == [second.key, third.key]
    assert follow(ORIGIN, [third.key], notes) == [third.key]


def test_a_key_that_names_itself_is_not_trusted() -> None:
    trusted, thief = TestSigner(seed=1), TestSigner(seed=6)
    forged = succession(ORIGIN, thief, thief)
    assert follow(ORIGIN, [trusted.key], [forged]) == [trusted.key]
    # Claiming the trusted key's signature without having it.
    body, _, _ = forged.rpartition("\n\n")
    stolen = CHECKPOINT.signed(trusted).splitlines(keepends=True)[-1]
    with pytest.raises(BadNote, match="is false"):
        follow(ORIGIN, [trusted.key], [f"{body}\n\n{stolen}"])


def test_a_successor_must_sign_too() -> None:
    old, new = TestSigner(seed=1), TestSigner(seed=2)
    text = Note.parse(succession(ORIGIN, old, new)).text
    with pytest.raises(BadNote, match="no key that is trusted"):
        follow(ORIGIN, [old.key], [sign(text, old)])


def test_successions_of_other_logs_are_passed_over_and_checkpoints_are_none() -> None:
    old, new = TestSigner(seed=1), TestSigner(seed=2)
    assert follow(ORIGIN, [old.key], [succession("other.example.com", old, new)]) == [old.key]
    with pytest.raises(BadNote, match="not a succession"):
        follow(ORIGIN, [old.key], [CHECKPOINT.signed(old)])
    with pytest.raises(BadNote, match="not a checkpoint"):
        opened(succession(ORIGIN, old, new), [old.key])


# --- Receipts -----------------------------------------------------------------------------


def receipt(seq: int = 3) -> dict[str, Any]:
    records = [f'{{"seq":{n},"type":"issuance.issued"}}'.encode() for n in range(1, 6)]
    growth = NO_LEAVES.extend(leaf_hash(record) for record in records)
    note = Checkpoint(ORIGIN, 5, growth.after.root).signed(SIGNER)
    made = Receipt(seq, records[seq - 1], growth.inclusion(seq - 1), note).as_json()
    parsed: dict[str, Any] = json.loads(json.dumps(made))
    return parsed


def test_a_receipt_verifies() -> None:
    parsed = Receipt.parse(receipt())
    assert parsed.verify([SIGNER.key]).size == 5
    assert parsed.unverified().size == 5
    assert parsed.members() == {"seq": 3, "type": "issuance.issued"}


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 4},
        {"seq": 6},
        {"record": '{"seq":3,"type":"issuance.failed"}'},
        {"record": "[]"},
        {"path": []},
        {"path": ["00" * 32] * 3},
        {"checkpoint": "x"},
        {"checkpoint": CHECKPOINT.signed(SIGNER)},
        {"checkpoint": Checkpoint(ORIGIN, 5, bytes(32)).signed(SIGNER)},
        {"checkpoint": Checkpoint(ORIGIN, 5, bytes(32)).signed(TestSigner(seed=7))},
    ],
)
def test_a_changed_receipt_is_refused(change: dict[str, object]) -> None:
    parsed = Receipt.parse(receipt() | change)
    with pytest.raises((BadNote, BadProof, BadReceipt)):
        parsed.verify([SIGNER.key])


def test_a_record_with_another_number_than_its_place_is_refused() -> None:
    record = b'{"seq":7}'
    growth = NO_LEAVES.extend([leaf_hash(record)])
    note = Checkpoint(ORIGIN, 1, growth.after.root).signed(SIGNER)
    with pytest.raises(BadReceipt, match="another number"):
        Receipt(1, record, (), note).verify([SIGNER.key])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        receipt() | {"version": 2},
        receipt() | {"more": 1},
        receipt() | {"seq": True},
        receipt() | {"seq": 0},
        receipt() | {"seq": "3"},
        receipt() | {"record": 3},
        receipt() | {"record": "\ud800"},
        receipt() | {"record": "x" * 61 * 1024},
        receipt() | {"path": "00"},
        receipt() | {"path": ["zz" * 32]},
        receipt() | {"path": ["00" * 32] * 65},
        receipt() | {"path": ["00" * 31]},
        receipt() | {"checkpoint": None},
    ],
)
def test_what_is_no_receipt_is_refused(value: object) -> None:
    with pytest.raises(BadReceipt):
        Receipt.parse(value)


@pytest.mark.parametrize("values", [None, {}, ["zz"], [1], ["AA" * 32], ["00" * 32] * 131])
def test_what_is_no_list_of_hashes_is_refused(values: object) -> None:
    with pytest.raises(BadProof):
        hashes(values)
