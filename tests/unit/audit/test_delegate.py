"""Certificates of delegates and witnesses' lines: any change of one is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, follow, opened
from broker.audit.cosignature import Cosignature, CosignerKey, cosigned_by, require_cosigned
from broker.audit.delegate import Certificate, certified, claimed, delegate_name, time_of
from broker.audit.merkle import NO_LEAVES
from broker.audit.note import BadNote, VerifierKey, sign
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
    assert RECEIPT.as_json() == {
        "version": 2,
        "seq": 1,
        "record": RECORD.decode(),
        "path": [],
        "checkpoint": RECEIPT.checkpoint,
        "certificate": CERTIFICATE,
    }
    assert RECEIPT.unverified() == HEAD
    with pytest.raises(BadNote):
        replace(RECEIPT, certificate=HEAD.signed(LOG)).unverified()


def test_a_certificate_reads_as_the_documentation_writes_it() -> None:
    text = (
        f"broker-log-delegate/v1\norigin {ORIGIN}\nkey {DELEGATE.key}\n"
        "from 2026-11-24T12:00:00Z\nuntil 2026-11-25T12:00:00Z\n"
    )
    assert sign(text, LOG) == CERTIFICATE
    made = Certificate(ORIGIN, DELEGATE.key, NOON, NOON + DAY)
    assert certified(CERTIFICATE, [LOG.key]) == claimed(CERTIFICATE) == made
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    assert Certificate(ORIGIN, DELEGATE.key, east, east + DAY).text == text


NOT_ONE = "not a delegate's certificate"
NO_TIME = "a certificate's time is not YYYY-MM-DDTHH:MM:SSZ"
SPELLING = "not a delegate's certificate in its one spelling"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("delegate/v1", "delegate/v2", NOT_ONE),
        ("origin ", "Origin ", NOT_ONE),
        ("until ", "till ", NOT_ONE),
        ("\nuntil", "\nmore\nuntil", NOT_ONE),
        ("from 2026-11-24T12:00:00Z\n", "", NOT_ONE),
        ("11-24T12:00:00Z", "11-24 12:00:00Z", NO_TIME),
        ("11-24T12:00:00Z", "13-24T12:00:00Z", NO_TIME),
        ("11-25T12:00:00Z", "11-25T12:00:00", NO_TIME),
        ("11-24T12:00:00Z", "11-24T12:0:00Z", SPELLING),
        (
            f"origin {ORIGIN}",
            "origin other",
            "a delegate is named after its log, and this one is not",
        ),
        ("11-25T12:00:00Z", "11-25T12:00:01Z", "a delegate is certified for at most 24 hours"),
    ],
)
def test_any_other_certificate_is_refused_though_it_is_signed(
    old: str, new: str, reason: str
) -> None:
    text = Certificate(ORIGIN, DELEGATE.key, NOON, NOON + DAY).text
    assert old in text
    note = sign(text.replace(old, new), LOG)
    reads: list[Callable[[], object]] = [lambda: certified(note, [LOG.key]), lambda: claimed(note)]
    for read in reads:
        with pytest.raises(BadNote) as refused:
            read()
        assert str(refused.value) == reason


def test_a_certificate_is_good_by_its_own_logs_key_alone() -> None:
    stranger = TestSigner("other.example.com", seed=9)
    note = Certificate(ORIGIN, DELEGATE.key, NOON, NOON + DAY).signed(stranger)
    with pytest.raises(BadNote, match=r"^no key that is trusted has signed it$"):
        certified(note, [stranger.key, LOG.key])


def test_a_delegates_head_is_its_own_logs() -> None:
    foreign = replace(HEAD, origin="other.example.com").signed(DELEGATE)
    with pytest.raises(BadNote, match=r"^the delegate is another log's$"):
        replace(RECEIPT, checkpoint=foreign).verify([LOG.key])


def test_a_receipt_may_be_held_against_the_time_it_is_shown() -> None:
    for moment in (NOON, NOON + DAY - timedelta(microseconds=1)):
        assert RECEIPT.verify([LOG.key], at=moment) == HEAD
    for moment in (NOON - timedelta(microseconds=1), NOON + DAY):
        with pytest.raises(BadNote, match=r"^the delegate is not certified for this time$"):
            RECEIPT.verify([LOG.key], at=moment)


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
        text = (
            "the delegate was not certified for the time of the record"
            if "." in time and "T" in time and ":60" not in time
            else "the record has no time to hold a certificate against"
        )
        with pytest.raises(BadNote, match=f"^{text}$"):
            receipt.verify([LOG.key])


def test_a_record_without_a_time_is_of_no_certificates_time() -> None:
    values: tuple[object, ...] = (None, 7, True, [])
    for value in values:
        with pytest.raises(BadNote) as refused:
            time_of(value)
        assert str(refused.value) == "the record has no time to hold a certificate against"


def test_no_statement_of_the_logs_key_stands_for_another() -> None:
    statements = (CERTIFICATE, HEAD.signed(LOG))
    with pytest.raises(BadNote):
        opened(CERTIFICATE, [LOG.key])
    with pytest.raises(BadNote):
        certified(HEAD.signed(LOG), [LOG.key])
    for statement in statements:
        with pytest.raises(BadNote):
            follow(ORIGIN, [LOG.key], [statement])


NAMED = "a delegate is named after its log, and this one is not"
A_DAY = "a delegate is certified for at most 24 hours"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"key": LOG.key}, NAMED),
        ({"origin": "other.example.com"}, NAMED),
        ({"ends": NOON}, A_DAY),
        ({"ends": NOON - DAY}, A_DAY),
        ({"ends": NOON + DAY + timedelta(seconds=1)}, A_DAY),
    ],
)
def test_a_certificate_that_nobody_would_accept_is_not_made(
    wrong: dict[str, object], reason: str
) -> None:
    good = {"origin": ORIGIN, "key": DELEGATE.key, "begins": NOON, "ends": NOON + DAY}
    with pytest.raises(BadNote, match=f"^{reason}$"):
        Certificate(**(good | wrong))  # type: ignore[arg-type]


# --- Cosignatures --------------------------------------------------------------------------------

WITNESS = TestWitness("witness.example.com/w1", 5)
COSIGNED = HEAD.signed(LOG) + WITNESS.cosign(HEAD.text, 1_790_000_000)


def test_a_cosignature_is_read_as_it_stands() -> None:
    found = cosigned_by(COSIGNED, WITNESS.key)
    line = COSIGNED.removeprefix(HEAD.signed(LOG))
    assert found == Cosignature(WITNESS.key, 1_790_000_000, line)
    # Of several, the first; and all of them must be good.
    twice = COSIGNED + WITNESS.cosign(HEAD.text, 1_790_000_060)
    assert cosigned_by(twice, WITNESS.key) == found
    require_cosigned([COSIGNED, twice], [WITNESS.key])
    assert opened(COSIGNED, [LOG.key]) == HEAD


def test_every_changed_character_of_a_cosignature_is_noticed() -> None:
    begin = COSIGNED.index(WITNESS.key.name)
    for place in range(begin, len(COSIGNED) - 1, 3):
        other = "B" if COSIGNED[place] != "B" else "C"
        with pytest.raises(BadNote):
            cosigned_by(COSIGNED[:place] + other + COSIGNED[place + 1 :], WITNESS.key)


FALSE = f"the cosignature of witness.example.com/w1 ({WITNESS.key.key_id.hex()}) is false"


@pytest.mark.parametrize(
    "line",
    [
        WITNESS.cosign(HEAD.text, 1_790_000_000, written=1_790_000_001),
        WITNESS.cosign(HEAD.text, 2**63),
        WITNESS.cosign(HEAD.text, 1_790_000_000, cut=1),
        WITNESS.cosign(HEAD.text, 1_790_000_000, cut=64),
        WITNESS.cosign(f"{HEAD.text}more\n", 1_790_000_000),
        TestWitness("thief", 6).cosign(HEAD.text, 1_790_000_000, as_of=WITNESS),
    ],
)
def test_a_false_cosignature_is_refused_whatever_else_is_there(line: str) -> None:
    with pytest.raises(BadNote) as refused:
        cosigned_by(COSIGNED + line, WITNESS.key)
    assert str(refused.value) == FALSE
    latest = HEAD.signed(LOG) + WITNESS.cosign(HEAD.text, 2**63 - 1)
    assert cosigned_by(latest, WITNESS.key).seconds == 2**63 - 1


def test_every_witness_that_is_asked_for_must_have_cosigned() -> None:
    other = TestWitness("witness.example.com/w2", 6)
    with pytest.raises(BadNote) as refused:
        require_cosigned([COSIGNED], [WITNESS.key, other.key])
    key_id = other.key.key_id.hex()
    text = f"the witness witness.example.com/w2 ({key_id}) has not cosigned it"
    assert str(refused.value) == text
    with pytest.raises(BadNote):
        require_cosigned([COSIGNED, HEAD.signed(LOG)], [WITNESS.key])


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
    with pytest.raises(BadNote):
        VerifierKey.parse(str(WITNESS.key))


NOT_A_WITNESS = "not the verifier key of a witness (NAME+KEYID+BASE64, type 0x04)"
UNNAMED = "a key needs a name without spaces or `+`, and 32 bytes"
MISTYPED = "the key id does not belong to the name and key: mistyped?"


@pytest.mark.parametrize(
    ("vkey", "reason"),
    [
        ("", NOT_A_WITNESS),
        ("x", NOT_A_WITNESS),
        ("x+00000000+é", NOT_A_WITNESS),
        (str(LOG.key), NOT_A_WITNESS),
        (f"{WITNESS.key}=", MISTYPED),
        (str(WITNESS.key).replace("+", "+0", 1), MISTYPED),
        (str(WITNESS.key).replace("/w1", "/w2"), MISTYPED),
        (str(WITNESS.key).removeprefix("witness.example.com/w1"), UNNAMED),
        (str(WITNESS.key).replace("/w1", " w1"), UNNAMED),
    ],
)
def test_a_mistyped_key_of_a_witness_is_refused(vkey: str, reason: str) -> None:
    with pytest.raises(BadNote) as refused:
        CosignerKey.parse(vkey)
    assert str(refused.value) == reason
