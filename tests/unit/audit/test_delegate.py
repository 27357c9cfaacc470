"""Certificates of delegates and witnesses' lines: any change of one is noticed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, follow, opened
from broker.audit.cosignature import CosignerKey, cosigned_by
from broker.audit.delegate import Certificate, certified, delegate_name, time_of
from broker.audit.merkle import NO_LEAVES
from broker.audit.note import BadNote, VerifierKey
from broker.audit.receipt import BadReceipt, Receipt
from tests.unit.audit.keys import ORIGIN, TestSigner, TestWitness

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LOG, DELEGATE = TestSigner(), TestSigner(delegate_name(ORIGIN), seed=4)
DAY = timedelta(hours=24)
RECORD = b'{"seq":1,"time":"2026-11-24T12:00:00.000000Z"}'
HEAD = Checkpoint(ORIGIN, 1, NO_LEAVES.extend([leaf_hash(RECORD)]).after.root)
CERTIFICATE = Certificate(ORIGIN, DELEGATE.key, NOON, NOON + DAY).signed(LOG)
RECEIPT = Receipt(1, RECORD, (), HEAD.signed(DELEGATE), CERTIFICATE)


def test_a_receipt_of_a_delegate_survives_its_json() -> None:
    assert RECEIPT.verify([LOG.key]) == HEAD
    assert Receipt.parse(RECEIPT.as_json()) == RECEIPT
    assert RECEIPT.as_json()["version"] == 2
    assert RECEIPT.unverified() == HEAD


@pytest.mark.parametrize("start", range(7))
def test_every_changed_character_of_a_certificate_is_noticed(start: int) -> None:
    for place in range(start, len(CERTIFICATE), 7):
        for other in ("x", "0", "\n"):
            if CERTIFICATE[place] == other:
                continue
            changed = CERTIFICATE[:place] + other + CERTIFICATE[place + 1 :]
            with pytest.raises((BadNote, BadReceipt)):
                replace(RECEIPT, certificate=changed).verify([LOG.key])


@pytest.mark.parametrize(
    ("time", "good"),
    [
        ("2026-11-24T11:59:59.999999Z", False),
        ("2026-11-24T12:00:00.000000Z", True),
        ("2026-11-25T11:59:59.999999Z", True),
        ("2026-11-25T12:00:00.000000Z", False),
        ("2026-11-24T12:00:00Z", False),
        ("2026-11-24 12:00:00.000000Z", False),
        ("2026-11-24T12:00:60.000000Z", False),
        ("", False),
    ],
)
def test_the_records_time_decides_to_the_microsecond(time: str, good: bool) -> None:
    record = RECORD.replace(b"2026-11-24T12:00:00.000000Z", time.encode())
    head = Checkpoint(ORIGIN, 1, NO_LEAVES.extend([leaf_hash(record)]).after.root)
    receipt = replace(RECEIPT, record=record, checkpoint=head.signed(DELEGATE))
    if good:
        assert receipt.verify([LOG.key]) == head
    else:
        with pytest.raises(BadNote):
            receipt.verify([LOG.key])


def test_a_record_without_a_time_is_of_no_certificates_time() -> None:
    values: tuple[object, ...] = (None, 7, True, [])
    for value in values:
        with pytest.raises(BadNote, match="no time"):
            time_of(value)


def test_no_statement_of_the_logs_key_stands_for_another() -> None:
    statements = (CERTIFICATE, HEAD.signed(LOG))
    with pytest.raises(BadNote):
        opened(CERTIFICATE, [LOG.key])
    with pytest.raises(BadNote):
        certified(HEAD.signed(LOG), [LOG.key])
    for statement in statements:
        with pytest.raises(BadNote):
            follow(ORIGIN, [LOG.key], [statement])


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": LOG.key},
        {"origin": "other.example.com"},
        {"ends": NOON},
        {"ends": NOON - DAY},
        {"ends": NOON + DAY + timedelta(seconds=1)},
    ],
)
def test_a_certificate_that_nobody_would_accept_is_not_made(wrong: dict[str, object]) -> None:
    good = {"origin": ORIGIN, "key": DELEGATE.key, "begins": NOON, "ends": NOON + DAY}
    with pytest.raises(BadNote):
        Certificate(**(good | wrong))  # type: ignore[arg-type]


# --- Cosignatures --------------------------------------------------------------------------------

WITNESS = TestWitness("witness.example.com/w1", 5)
COSIGNED = HEAD.signed(LOG) + WITNESS.cosign(HEAD.text, 1_790_000_000)


def test_a_cosignature_is_read_as_it_stands() -> None:
    found = cosigned_by(COSIGNED, WITNESS.key)
    assert found.seconds == 1_790_000_000
    assert COSIGNED.endswith(found.line)
    assert opened(COSIGNED, [LOG.key]) == HEAD


def test_every_changed_character_of_a_cosignature_is_noticed() -> None:
    begin = COSIGNED.index(WITNESS.key.name)
    for place in range(begin, len(COSIGNED) - 1, 3):
        other = "B" if COSIGNED[place] != "B" else "C"
        with pytest.raises(BadNote):
            cosigned_by(COSIGNED[:place] + other + COSIGNED[place + 1 :], WITNESS.key)


def test_the_specifications_own_example_of_a_line_has_this_form() -> None:
    """From C2SP tlog-cosignature; its key is not published, so that the form alone is checked."""
    line = (
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJs"
        "X3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    with pytest.raises(BadNote, match="has not cosigned"):
        cosigned_by(HEAD.signed(LOG) + line, WITNESS.key)


def test_a_witnesss_key_and_a_logs_are_not_taken_for_each_other() -> None:
    assert CosignerKey.parse(str(WITNESS.key)) == WITNESS.key
    for vkey in (str(LOG.key), f"{WITNESS.key}=", str(WITNESS.key).replace("+", "+0", 1), "x", ""):
        with pytest.raises(BadNote):
            CosignerKey.parse(vkey)
    with pytest.raises(BadNote):
        VerifierKey.parse(str(WITNESS.key))
