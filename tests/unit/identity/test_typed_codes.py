from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.typed_codes import (
    TypedCodeKind,
    hash_of_typed,
    new_code,
    new_enrolment_code,
)

RECOVERY, ENROLMENT = TypedCodeKind.RECOVERY, TypedCodeKind.ENROLMENT


def test_codes_carry_at_least_112_bits_and_never_repeat():
    codes = {new_code(RECOVERY)[0] for _ in range(200)}
    assert len(codes) == 200
    assert all(re.fullmatch(r"[a-z2-7]{6}(-[a-z2-7]{6}){3}", code) for code in codes)


def test_codes_that_were_handed_out_stay_good_in_every_version():
    typed = "ABCDEF-GHIJKL-MNOPQR-STUV23"
    for kind, name in ((RECOVERY, "recovery"), (ENROLMENT, "enrolment")):
        stored = f"broker {name} code|abcdefghijklmnopqrstuv23".encode()
        assert hash_of_typed(kind, typed) == hashlib.sha256(stored).digest()


@pytest.mark.parametrize(
    "retype",
    [
        str,
        str.upper,
        lambda code: code.replace("-", ""),
        lambda code: code.replace("-", " "),
        lambda code: f"  {code}\r\n\t",
        lambda code: "\t" * 80 + code,
        lambda code: code.replace("o", "0").replace("l", "1").replace("b", "8"),
    ],
)
def test_a_code_is_recognised_however_it_is_retyped(retype):
    for _ in range(20):
        text, stored = new_enrolment_code()
        assert hash_of_typed(ENROLMENT, retype(text)) == stored


def test_a_recovery_code_is_no_enrolment_code():
    text, stored = new_code(RECOVERY)
    assert hash_of_typed(ENROLMENT, text) not in (None, stored)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + "a", lambda c: c[:-1] + "ß"])
def test_what_is_not_a_code_is_none(change):
    assert hash_of_typed(RECOVERY, change(new_code(RECOVERY)[0])) is None


def test_another_last_character_is_another_code():
    text, stored = new_code(RECOVERY)
    other = text[:-1] + ("a" if text[-1] != "a" else "b")
    assert hash_of_typed(RECOVERY, other) not in (None, stored)


@given(st.text(max_size=80))
def test_no_text_breaks_the_reading(text):
    assert isinstance(hash_of_typed(RECOVERY, text), bytes | None)
