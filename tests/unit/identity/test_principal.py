"""People and workloads: their ids, how addresses are compared, and what counts as fresh."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import MfaRequired, MfaStale
from broker.identity.people import email_key, split_user_name
from broker.identity.principal import AuthContext, Principal, PrincipalKind, new_principal_id
from broker.identity.sessions import Token, TokenKind, new_login_session_id

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def context(mfa_time: datetime | None) -> AuthContext:
    person = Principal("p-1", PrincipalKind.PERSON, "https://idp", "s1", "corp", "ada")
    return AuthContext(person, "ls-1", NOON, mfa_time, NOON + timedelta(hours=12))


@pytest.mark.parametrize("kind", PrincipalKind)
def test_ids_are_random_tell_the_kind_and_are_legal_source_identities(kind):
    ids = {new_principal_id(kind) for _ in range(200)}
    assert len(ids) == 200
    prefix = {PrincipalKind.PERSON: "p", PrincipalKind.WORKLOAD: "w"}[kind]
    assert all(re.fullmatch(rf"{prefix}-[a-z2-7]{{16}}", one) for one in ids)


def test_login_sessions_have_names_of_their_own():
    names = {new_login_session_id() for _ in range(200)}
    assert len(names) == 200
    assert all(re.fullmatch(r"ls-[0-9a-f]{20}", name) for name in names)


@pytest.mark.parametrize("kind", TokenKind)
def test_a_token_holds_256_random_bits_and_is_stored_and_shown_without_them(kind):
    token = Token.new(kind)
    assert re.fullmatch(rf"{kind.value}_[A-Za-z0-9_-]{{43}}", token.text)
    assert Token.parse(token.text) == token
    assert len(token.hash) == 32
    assert repr(token) == f"Token({kind.value}_…)"


@pytest.mark.parametrize("spoil", [lambda t: t[1:], lambda t: f"{t}a", lambda t: f"bkx{t[3:]}"])
def test_what_has_not_a_tokens_shape_is_none(spoil):
    assert Token.parse(spoil(Token.new(TokenKind.ACCESS).text)) is None


@pytest.mark.parametrize(
    ("email", "key"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("AZaz[`{@x", "azaz[`{@x"),
        ("\u212a@x", "\u212a@x"),  # the Kelvin sign is not k
        ("É@x", "É@x"),
    ],
)
def test_addresses_are_compared_with_ascii_letters_lowered(email, key):
    assert email_key(email) == key


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("corp/Ada@example.com", ("corp", "ada@example.com")),
        ("corp/a/b@example.com", ("corp", "a/b@example.com")),
        ("p-aaaaaaaaaaaaaaaa", None),
        ("/ada@example.com", None),
        ("corp/", None),
        ("", None),
    ],
)
def test_a_user_name_is_a_provider_and_an_address_or_an_id(name, parts):
    assert split_user_name(name) == parts


def test_without_a_second_factor_nothing_that_asks_for_one_is_reached():
    assert context(None).lacks_second_factor
    assert not context(NOON).lacks_second_factor
    context(NOON).require_second_factor()
    for ask in (
        context(None).require_second_factor,
        lambda: context(None).require_fresh_factor(NOON),
    ):
        with pytest.raises(MfaRequired, match=r"^A second factor is needed for this\.$"):
            ask()


def test_a_factor_is_fresh_for_less_than_five_minutes():
    shown = context(NOON)
    shown.require_fresh_factor(NOON + timedelta(minutes=5) - timedelta(microseconds=1))
    text = r"^Verify your second factor: the last one is over 0:05:00 old\.$"
    with pytest.raises(MfaStale, match=text):
        shown.require_fresh_factor(NOON + timedelta(minutes=5))
    shown.require_fresh_factor(NOON + timedelta(minutes=59), within=timedelta(hours=1))
    with pytest.raises(MfaStale, match=r"over 1:00:00 old"):
        shown.require_fresh_factor(NOON + timedelta(hours=1), within=timedelta(hours=1))
