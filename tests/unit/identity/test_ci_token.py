"""A CI job's token: every protocol claim, and one name for ever."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from broker.identity.ci_token import (
    CiToken,
    KeysUnavailable,
    check_ci_token,
    token_sha256,
    unverified_issuer,
)
from broker.identity.id_token import TokenRejected, UnverifiedToken

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
T = int(NOW.timestamp())
LEEWAY = 30
LIFETIME = 3600
LATEST = 253402300799  # the last second of the year 9999
ISSUER = "https://ci.example.com/acme"
SIGNED = b"header.claims"


def claims(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "iss": ISSUER,
        "aud": "https://broker.example.com",
        "iat": T,
        "exp": T + 300,
        "jti": "job-7",
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def check(
    stated: dict[str, object],
    *,
    signed: bytes = SIGNED,
    issuer: str = ISSUER,
    lifetime: int = LIFETIME,
    now: datetime = NOW,
) -> CiToken:
    return check_ci_token(stated, signing_input=signed, issuer=issuer, lifetime=lifetime, now=now)


def test_a_good_token_is_its_issuers_word_and_named_by_its_id():
    stated = claims(sub="repo:acme/app", nbf=T)
    assert check(stated) == CiToken(
        issuer=ISSUER,
        audience="https://broker.example.com",
        claims=stated,
        # Stored names must stay what they are: or every token could be used a second time.
        key=hashlib.sha256(b"jti:27:https://ci.example.com/acme:job-7").digest(),
        has_id=True,
        exp=T + 300,
    )


def test_a_token_without_an_id_is_named_by_what_was_signed():
    token = check(claims(jti=...))
    assert not token.has_id
    assert token.key == hashlib.sha256(b"signed:27:%b:%b" % (ISSUER.encode(), SIGNED)).digest()
    assert check(claims(jti=...), signed=b"header.other").key != token.key


def test_no_two_issuers_and_ids_have_one_name():
    one = check(claims(iss="https://ci/a", jti="b:c"), issuer="https://ci/a")
    other = check(claims(iss="https://ci/a:b", jti="c"), issuer="https://ci/a:b")
    assert one.key != other.key


def test_it_need_not_be_remembered_once_it_is_refused_as_expired():
    token = check(claims())
    assert token.forgotten_at == datetime(2026, 11, 24, 12, 5, LEEWAY, tzinfo=UTC)
    with pytest.raises(TokenRejected, match=r"^it has expired$"):
        check(claims(), now=token.forgotten_at)


EXPIRED = "it has expired"
FUTURE_IAT = "its iat lies in the future; compare the clocks"
FUTURE_NBF = "its nbf lies in the future; compare the clocks"
TOO_LONG = "it lives longer than this platform's tokens do"
NOT_SHORT = "its jti is not a short string"
SEVERAL = "it is for several audiences, or for none"
NO_AUDIENCE = "it names no audience"
NO_TIMES: tuple[object, ...] = (True, None, -1, T + 300.0, str(T + 300), [T], 10**20, LATEST + 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": ISSUER + "/"}, "it is from another issuer"),
        ({"iss": ...}, "it is from another issuer"),
        ({"iss": [ISSUER]}, "it is from another issuer"),
        ({"exp": T - LEEWAY, "iat": T - 60}, EXPIRED),
        ({"exp": 0, "iat": 0}, EXPIRED),
        ({"iat": T + LEEWAY + 1}, FUTURE_IAT),
        ({"nbf": T + LEEWAY + 1}, FUTURE_NBF),
        ({"exp": T + LIFETIME + LEEWAY + 1}, TOO_LONG),
        ({"exp": LATEST}, TOO_LONG),
        ({"exp": T, "iat": T}, TOO_LONG),
        ({"exp": T, "iat": T + 10}, TOO_LONG),
        *(({"jti": odd}, NOT_SHORT) for odd in ("", "x" * 513, 7, None, ["job-7"])),
        *(({"aud": odd}, SEVERAL) for odd in ([], ["a", "b"], [["a"]])),
        *(({"aud": odd}, NO_AUDIENCE) for odd in (..., "", None, 7, {"a": 1}, "x" * 513, [""])),
        *(({name: ...}, f"it has no {name}") for name in ("exp", "iat")),
        *(
            ({name: odd}, f"its {name} is not a time in whole seconds")
            for name in ("exp", "iat", "nbf")
            for odd in NO_TIMES
        ),
    ],
)
def test_a_wrong_claim_is_refused_by_its_name(changes, reason):
    with pytest.raises(TokenRejected) as refused:
        check(claims(**changes))
    assert refused.value.reason == str(refused.value) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": T - LEEWAY + 1, "iat": T - 60},
        {"iat": T + LEEWAY},
        {"nbf": T + LEEWAY},
        {"nbf": 0},
        {"exp": T + LIFETIME + LEEWAY},
        {"exp": T + 1},
        {"jti": "x" * 512},
        {"jti": "x"},
        {"aud": ["https://broker.example.com"]},
        {"aud": "x"},
        {"aud": "x" * 512},
    ],
)
def test_claims_at_their_limits_are_accepted(changes):
    stated = claims(**changes)
    token = check(stated)
    assert [token.audience] == (
        stated["aud"] if isinstance(stated["aud"], list) else [stated["aud"]]
    )
    assert token.exp == stated["exp"]


def test_a_token_may_live_to_the_end_of_time_that_can_be_told():
    assert check(claims(exp=LATEST), lifetime=LATEST).exp == LATEST
    long_ago = datetime.fromtimestamp(0, UTC)
    assert check(claims(iat=0, exp=1), now=long_ago).exp == 1


def unverified(stated: dict[str, object]) -> UnverifiedToken:
    return UnverifiedToken("RS256", None, stated, SIGNED, b"signature")


@pytest.mark.parametrize("issuer", [ISSUER, "x", "x" * 512])
def test_the_issuer_that_a_token_claims_is_looked_up(issuer):
    assert unverified_issuer(unverified({"iss": issuer})) == issuer


@pytest.mark.parametrize("stated", [{}, *({"iss": odd} for odd in ("", "x" * 513, 7, None, ["x"]))])
def test_a_token_without_an_issuer_is_refused(stated):
    with pytest.raises(TokenRejected, match=r"^it names no issuer$"):
        unverified_issuer(unverified(stated))


def test_records_name_a_token_by_its_hash_whatever_its_text():
    assert token_sha256("a.b.c") == hashlib.sha256(b"a.b.c").hexdigest()
    assert token_sha256("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()
    assert token_sha256("\udcff") == hashlib.sha256(b"\xed\xb3\xbf").hexdigest()


def test_the_reason_why_keys_are_out_is_for_the_record():
    unavailable = KeysUnavailable("the key set is over 1 MiB")
    assert unavailable.reason == str(unavailable) == "the key set is over 1 MiB"
