"""Which of an issuer's keys may verify, and why none was chosen."""

from __future__ import annotations

from typing import Any

import pytest

from broker.identity.verification_keys import (
    KEY_TYPE_OF_ALGORITHM,
    NoSuitableKey,
    VerificationKey,
    VerificationKeys,
)
from tests.unit.identity.test_id_token import b64, ec_key, ed_key, public, rsa_key


def parsed(*entries: dict[str, Any]) -> tuple[VerificationKey, ...]:
    return VerificationKeys.parse({"keys": list(entries)}).keys


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "the key set has no list of keys"),
        ({"keys": {}}, "the key set has no list of keys"),
        ({"keys": [{}] * 101}, "the key set has over 100 keys"),
    ],
)
def test_what_is_no_key_set_is_refused_in_words(document, reason):
    with pytest.raises(NoSuitableKey) as refused:
        VerificationKeys.parse(document)
    assert refused.value.reason == str(refused.value) == reason
    assert VerificationKeys.parse({"keys": [{}] * 100}).keys == ()


def test_a_set_without_one_key_for_the_token_says_why():
    one, other = public(ec_key(), kid="a"), public(ec_key(8), kid="a")
    none = r"^no key of the issuer fits the token's header$"
    for key_id, algorithm in (("b", "ES256"), ("a", "RS256"), (None, "RS256"), ("a", "none")):
        with pytest.raises(NoSuitableKey, match=none):
            VerificationKeys.parse({"keys": [one]}).select(key_id, algorithm)
    several = r"^several keys of the issuer fit the token's header$"
    for key_id in ("a", None):
        with pytest.raises(NoSuitableKey, match=several):
            VerificationKeys.parse({"keys": [one, other]}).select(key_id, "ES256")


def test_a_key_is_read_with_what_limits_it():
    found = parsed(
        public(rsa_key(), kid="k" * 512, alg="PS256"),
        public(ec_key(), use="sig", key_ops=["verify", "sign"]),
        public(ed_key(), kid="e"),
    )
    assert [(one.key_id, one.key_type, one.curve, one.algorithm) for one in found] == [
        ("k" * 512, "RSA", None, "PS256"),
        (None, "EC", "P-256", None),
        ("e", "OKP", "Ed25519", None),
    ]
    assert parsed(public(ec_key(), kid="k" * 513)) == ()


def test_a_key_fits_the_algorithms_of_its_type_and_curve_alone():
    found = parsed(
        public(rsa_key()), public(rsa_key(), alg="RS512"), public(ec_key()), public(ed_key())
    )
    names = [*KEY_TYPE_OF_ALGORITHM, "none", "HS256", "ES256K"]
    assert [{name for name in names if key.fits(name)} for key in found] == [
        {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
        {"RS512"},
        {"ES256"},
        {"EdDSA", "Ed25519"},
    ]


@pytest.mark.parametrize("bits", [2047, 2048, 8192, 8193])
def test_rsa_keys_have_2048_to_8192_bits(bits):
    modulus = (1 << bits - 1) | 1
    entry = {"kty": "RSA", "n": b64(modulus.to_bytes((bits + 7) // 8, "big")), "e": "AQAB"}
    assert len(parsed(entry)) == (1 if 2048 <= bits <= 8192 else 0)


def test_a_signature_is_checked_by_the_key_it_fits_and_breaks_nothing():
    (key,) = parsed(public(ec_key()))
    for signature in (b"", b"x", bytes(64), bytes(65)):
        assert not key.verify(b"header.claims", signature, "ES256")
    assert not key.verify(b"header.claims", bytes(64), "RS256")
    (other_curve,) = parsed({**public(ec_key()), "alg": "ES384"})
    assert not other_curve.verify(b"header.claims", bytes(96), "ES384")
    members = {"n": b64(b"\xff" * 256), "e": "AQAB"}
    for lacking in ("n", "e"):
        entry = {"kty": "RSA", **members}
        del entry[lacking]
        assert parsed(entry) == ()
        assert parsed({"kty": "RSA", **members, lacking: 7}) == ()
