"""Why an ID token is refused: each check in its own words, which the operator's log shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.identity.id_token import (
    MAX_TOKEN_BYTES,
    Expected,
    TokenRejected,
    UnverifiedToken,
    check_claims,
)
from broker.identity.verification_keys import VerificationKeys
from tests.unit.identity.test_id_token import (
    ALGORITHMS,
    CLIENT,
    ES,
    EXPECTED,
    HUGE,
    ISSUER,
    NONCE,
    NOW,
    T,
    b64,
    claims,
    ec_key,
    public,
    sign,
)

OWN_KEY = "its header brings a key of its own"
CRITICAL = "its header has critical extensions"
ALGORITHM = "its algorithm is not one configured for the provider"
KEY_ID = "its key id is not a short string"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        *(({**ES, member: "x"}, OWN_KEY) for member in ("jwk", "jku", "x5u", "x5c")),
        ({**ES, "crit": ["exp"]}, CRITICAL),
        ({**ES, "b64": False}, CRITICAL),
        *(({"alg": odd}, ALGORITHM) for odd in ("none", "ES384", None, ["ES256"])),
        ({}, ALGORITHM),
        *(({**ES, "kid": odd}, KEY_ID) for odd in (7, None, "", "k" * 513)),
        (b"[]", "its header is malformed: not an object"),
        (b"\xff", "its header is malformed: not JSON"),
    ],
)
def test_a_header_is_refused_by_what_it_asks(header, reason):
    with pytest.raises(TokenRejected) as refused:
        UnverifiedToken.parse(sign(header, claims(), ec_key(), "ES256"), ALGORITHMS)
    assert refused.value.reason == str(refused.value) == reason


HEADER, CLAIMS = b64(json.dumps(ES).encode()), b64(b"{}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "it is not ASCII text"),
        (b"a.b.c", "it is not ASCII text"),
        ("a.b.é", "it is not ASCII text"),
        ("a" * (MAX_TOKEN_BYTES + 1), "it is over 16 KiB"),
        ("a" * MAX_TOKEN_BYTES, "it does not have three parts"),
        ("a.b", "it does not have three parts"),
        ("a.b.c.d", "it does not have three parts"),
        (f"{HEADER}.{CLAIMS}.", "a part is empty"),
        (f"{HEADER}..AA", "a part is empty"),
        (f"{HEADER}.{CLAIMS}.A", "a part is not base64url"),
        *((f"{HEADER}.{CLAIMS}.{odd}", "a part is not base64url") for odd in ("A+A", "A/A", "AA=")),
        (f"{HEADER}.{CLAIMS}.AB", "a part is not canonical base64url"),
        (f"{HEADER}.{CLAIMS}.AAB", "a part is not canonical base64url"),
        (f"{HEADER}.{b64(b'7')}.AA", "its claims is malformed: not an object"),
    ],
)
def test_a_text_that_is_no_token_is_refused_by_its_shape(text, reason):
    with pytest.raises(TokenRejected) as refused:
        UnverifiedToken.parse(text, ALGORITHMS)
    assert refused.value.reason == reason


def test_a_token_is_read_into_its_parts_and_believed_by_nobody_yet():
    assert UnverifiedToken.parse(f"{HEADER}.{CLAIMS}.-_-_", ALGORITHMS) == UnverifiedToken(
        "ES256", "e", {}, f"{HEADER}.{CLAIMS}".encode(), b"\xfb\xff\xbf"
    )


def test_a_token_is_read_up_to_the_limits_of_its_parts():
    header = b64(json.dumps({"alg": "ES256", "kid": "k" * 512}).encode())
    assert UnverifiedToken.parse(f"{header}.{CLAIMS}.AAA", ALGORITHMS).key_id == "k" * 512
    token = f"{HEADER}.{b64(b'{ }')}."
    token += "A" * (MAX_TOKEN_BYTES - len(token))
    assert set(UnverifiedToken.parse(token, ALGORITHMS).signature) == {0}


def times(name: str) -> list[tuple[dict[str, Any], str]]:
    odd = (True, T + 0.5, str(T), None, -1, HUGE, 253402300800)
    return [({name: value}, f"its {name} is not a time in whole seconds") for value in odd]


AUDIENCE = "its audience is malformed"
SUBJECT = "its subject is not a string of 1 to 255 characters"
PRINTABLE = "its subject is not printable ASCII"
NOT_NONCE = "its nonce is not this login's"
NOT_A_TIME = "its auth_time is not a time"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(({n: ...}, f"it has no {n}") for n in ("iss", "aud", "sub", "nonce", "iat", "exp")),
        ({"iss": ISSUER + "/"}, "it is from another issuer"),
        *(({"aud": odd}, AUDIENCE) for odd in ([], [CLIENT, 7], {CLIENT: 1}, [CLIENT] * 101)),
        ({"aud": "other"}, "it is for another client"),
        ({"aud": ["other"]}, "it is for another client"),
        (
            {"aud": [CLIENT, "other"]},
            "it has several audiences and does not say which one asked",
        ),
        ({"azp": "other"}, "another client asked for it"),
        ({"azp": None}, "another client asked for it"),
        *(({"nonce": odd}, NOT_NONCE) for odd in (NONCE + "x", "", None, [NONCE])),
        ({"exp": T - 30}, "it has expired"),
        ({"iat": T + 31}, "its iat lies in the future; compare the clocks"),
        ({"nbf": T + 31}, "its nbf lies in the future; compare the clocks"),
        ({"auth_time": T + 31}, "its auth_time lies in the future; compare the clocks"),
        *times("exp"),
        *times("iat"),
        *times("nbf"),
        *(({"auth_time": odd}, NOT_A_TIME) for odd in (True, str(T), None, -1, HUGE, 253402300800)),
        *(({"sub": odd}, SUBJECT) for odd in ("", "x" * 256, 7, None)),
        *(({"sub": odd}, PRINTABLE) for odd in ("a\0b", "a\nb", "é", "\x7f")),
    ],
)
def test_a_claim_is_refused_by_its_name(changes, reason):
    with pytest.raises(TokenRejected) as refused:
        check_claims(claims(**changes), EXPECTED)
    assert refused.value.reason == str(refused.value) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [CLIENT] * 100, "azp": CLIENT},
        {"exp": 253402300799},
        {"iat": 0, "nbf": 0, "auth_time": 0},
        {"auth_time": T + 30},
        {"sub": "x"},
    ],
)
def test_claims_at_their_limits_are_kept_whole(changes):
    stated = claims(**changes)
    checked = check_claims(stated, EXPECTED)
    assert checked.all == stated
    assert checked.subject == stated["sub"]


def test_an_access_token_that_the_id_token_does_not_name_is_refused():
    expected = Expected(ISSUER, CLIENT, NOW, "ES256", NONCE, "the token")
    assert check_claims(claims(), expected).auth_time is None
    assert check_claims(claims(at_hash=7), EXPECTED).subject, "there is no access token to compare"
    with pytest.raises(TokenRejected) as refused:
        check_claims(claims(at_hash=7), expected)
    assert refused.value.reason == "its at_hash is another access token's"


def test_a_signature_of_another_key_is_refused_in_words():
    key = VerificationKeys.parse({"keys": [public(ec_key(8))]}).keys[0]
    with pytest.raises(TokenRejected) as refused:
        UnverifiedToken.parse(sign(ES, claims(), ec_key()), ALGORITHMS).verify(key)
    assert refused.value.reason == "its signature is not the issuer's"
