"""Signed notes, checkpoints and successions of keys: read right, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.checkpoint import Checkpoint, follow, opened, succession, unverified
from broker.audit.note import BadNote, Note, VerifierKey, sign
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
    assert str(CHECKPOINT) == f"{ORIGIN} 3 {ROOT_64}"
    assert VerifierKey.parse(str(SIGNER.key)) == SIGNER.key


@given(st.data())
def test_any_changed_character_of_a_note_is_found(data: st.DataObject) -> None:
    note = CHECKPOINT.signed(SIGNER)
    at = data.draw(st.integers(0, len(note) - 1))
    other = data.draw(st.sampled_from([c for c in "\n A1=—+é" if c != note[at]]))
    with pytest.raises(BadNote):
        opened(note[:at] + other + note[at + 1 :], [SIGNER.key])


ROOT_64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
THREE_LINES = "not a checkpoint: origin, size and root are its three lines"
NO_ROOT = "not a checkpoint: its root is not the base64 of 32 bytes"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x\n", THREE_LINES),
        (f"{ORIGIN}\n3\n", THREE_LINES),
        (f"{ORIGIN}\n3\n{ROOT_64}\nextension\n", THREE_LINES),
        (f"{ORIGIN}\n03\n{ROOT_64}\n", THREE_LINES),
        (f"{ORIGIN}\n-3\n{ROOT_64}\n", THREE_LINES),
        (f"{ORIGIN}\n\u0663\n{ROOT_64}\n", THREE_LINES),
        (f"{ORIGIN}\n1{'0' * 16}\n{ROOT_64}\n", THREE_LINES),
        (f"\n3\n{ROOT_64}\n", THREE_LINES),
        (f"{ORIGIN}\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==\n", NO_ROOT),
        (f"{ORIGIN}\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n", NO_ROOT),
        (f"{ORIGIN}\n3\n!!\n", NO_ROOT),
        (f"{ORIGIN}\n3\n!{ROOT_64}\n", NO_ROOT),
        (f"{ORIGIN}\n3\né\n", NO_ROOT),
    ],
)
def test_what_is_signed_and_is_no_checkpoint_is_refused(text: str, reason: str) -> None:
    note = sign(text, SIGNER)
    reads: list[Callable[[], object]] = [
        lambda: opened(note, [SIGNER.key]),
        lambda: unverified(note),
    ]
    for read in reads:
        with pytest.raises(BadNote) as refused:
            read()
        assert str(refused.value) == reason


LINE = "— name AAAAAAA=\n"
NOT_SIGNED = "not a signed note: no signatures after an empty line"
UNFIT = "not a signed note: too long, or control characters in it"
MALFORMED = "not a signed note: a signature line is malformed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", NOT_SIGNED),
        ("text\n", NOT_SIGNED),
        ("text\n\n", NOT_SIGNED),
        (f"text\n{LINE}", NOT_SIGNED),
        (f"\n\n{LINE}", NOT_SIGNED),
        (f"text\n\n{LINE}"[:-1], NOT_SIGNED),
        (f"text\n\n{LINE * 65}", NOT_SIGNED),
        *((f"te{odd}xt\n\n{LINE}", UNFIT) for odd in "\0\t\x0b\r\x1f"),
        ("x" * (64 * 1024 + 1), UNFIT),
        *(
            (f"text\n\n{line}\n", MALFORMED)
            for line in (
                "- name AAAAAAA=",
                "—name AAAAAAA=",
                "— AAAAAAA=",
                "— na+me AAAAAAA=",
                f"— {'n' * 256} AAAAAAA=",
                "—  AAAAAAA=",
                "— name AAAAAAA",
                "— name AAAAAAB=",
                "— name é",
                "— name AAAAAA==",  # a key's id and no signature
                "— name AAAAAAA= more",
            )
        ),
    ],
)
def test_what_is_no_signed_note_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadNote) as refused:
        Note.parse(text)
    assert str(refused.value) == reason


def test_notes_are_read_up_to_their_limits() -> None:
    assert len(Note.parse(f"text\n\n{LINE * 64}").signatures) == 64
    assert Note.parse(f"a\n\nb\n\n{LINE}").text == "a\n\nb\n"
    longest = f"\n\n— {'n' * 255} AAAAAAA=\n"
    text = "x" * (64 * 1024 - len(longest))
    assert Note.parse(text + longest).text == f"{text}\n"


def test_signatures_of_strangers_are_passed_over_and_false_ones_are_not() -> None:
    stranger, other = TestSigner("witness.example.com", 9), TestSigner(ORIGIN, 2)
    note = sign(CHECKPOINT.text, stranger, SIGNER)
    assert opened(note, [SIGNER.key]) == CHECKPOINT
    with pytest.raises(BadNote, match=r"^no key that is trusted has signed it$"):
        opened(note, [other.key])
    with pytest.raises(BadNote, match="no key that is trusted"):
        opened(note, [])
    # A false signature of one known key spoils the note, though another known key's is right.
    false = Checkpoint(ORIGIN, 4, bytes(32)).signed(SIGNER).splitlines(keepends=True)[-1]
    with pytest.raises(BadNote) as refused:
        opened(sign(CHECKPOINT.text, stranger) + false, [SIGNER.key, stranger.key])
    assert str(refused.value) == f"the signature of {ORIGIN} ({SIGNER.key.key_id.hex()}) is false"
    # Of several that signed, the first is named.
    assert Note.parse(note).signed_by([SIGNER.key, stranger.key]) == stranger.key


NOT_A_KEY = "not the verifier key of an Ed25519 signer (NAME+KEYID+BASE64)"
MISTYPED = "the key id does not belong to the name and key: mistyped?"
UNNAMED = "a key needs a name without spaces or `+`, and 32 bytes"


@pytest.mark.parametrize(
    ("vkey", "reason"),
    [
        ("", NOT_A_KEY),
        ("name", NOT_A_KEY),
        (str(SIGNER.key) + "=", NOT_A_KEY),
        (str(SIGNER.key).replace("+AY", "+BI"), NOT_A_KEY),
        (str(SIGNER.key).replace("+", "+0", 1), MISTYPED),
        (str(SIGNER.key).replace("broker", "brokes"), MISTYPED),
        (str(SIGNER.key).replace("+", " +", 1), UNNAMED),
        (str(SIGNER.key).removeprefix(ORIGIN), UNNAMED),
        ("n" * 256 + str(SIGNER.key).removeprefix(ORIGIN), UNNAMED),
        ("sp ace" + str(SIGNER.key), UNNAMED),
        ("name+00000000+AQ==", UNNAMED),
    ],
)
def test_a_mistyped_key_is_refused(vkey: str, reason: str) -> None:
    with pytest.raises(BadNote) as refused:
        VerifierKey.parse(vkey)
    assert str(refused.value) == reason


# --- Keys that follow each other ----------------------------------------------------------


def test_trust_follows_successions_over_several_keys_in_any_order() -> None:
    first, second, third = (TestSigner(seed=n) for n in (1, 2, 3))
    notes = [succession(ORIGIN, second, third), succession(ORIGIN, first, second)]
    assert follow(ORIGIN, [first.key], notes) == [first.key, second.key, third.key]
    assert follow(ORIGIN, [second.key], notes) == [second.key, third.key]
    assert follow(ORIGIN, [third.key], notes) == [third.key]
    # One more time, and to a key that is trusted already: nothing is named twice.
    assert follow(ORIGIN, [first.key], [*notes, *notes]) == [first.key, second.key, third.key]
    known = [third.key, first.key]
    assert follow(ORIGIN, known, notes) == [*known, second.key]
    assert notes[1].startswith(f"broker-log-key/v1\n{ORIGIN}\n{second.key}\n\n— {ORIGIN} ")


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
    longer = f"{Note.parse(succession(ORIGIN, old, new)).text}more\n"
    for note in (CHECKPOINT.signed(old), sign(longer, old, new)):
        with pytest.raises(BadNote, match=r"^not a succession of the log's key$"):
            follow(ORIGIN, [old.key], [note])
    other = sign(f"broker-log-key/v1\nother.example.com\n{new.key}\n", old, new)
    after = succession(ORIGIN, old, new)
    assert follow(ORIGIN, [old.key], [other, after]) == [old.key, new.key]
    with pytest.raises(BadNote, match="not a checkpoint"):
        opened(succession(ORIGIN, old, new), [old.key])
