from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.record import Actor, EventType, Outcome
from broker.identity.device import (
    ALPHABET,
    DeviceRequest,
    Polled,
    clean_host_name,
    decide,
    hash_of_device_code,
    hash_of_user_code,
    new_user_code,
    poll,
    read_user_code,
    same_network,
    start,
)
from broker.identity.oauth import OAuthError
from broker.identity.oauth_token import DeviceExchange, parse_token_request
from broker.identity.sessions import LoginSession

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SESSION = LoginSession("ls-1", "p-1", "device", NOW, NOW, NOW, NOW, None, None, None, None)
PERSON = Actor("p-aaaaaaaaaaaaaaaa", "person", "ada@example.com", "192.0.2.1")
GRANT = {
    "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
    "client_id": "broker-cli",
    "device_code": "d" * 43,
}


class FakeStore:
    """Says what it is told to, and keeps what it was asked."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.opened: list[Any] = []
        self.calls: list[Any] = []

    async def open_device_login(self, new):
        self.opened.append(new)
        return self.outcomes.pop(0)

    async def decide_device_login(self, user_code_hash, **arguments):
        self.calls.append((user_code_hash, arguments))
        return self.outcomes.pop(0)

    async def poll_device_login(self, device_code_hash, **arguments):
        self.calls.append((device_code_hash, arguments))
        return self.outcomes.pop(0)


def fake_store(*outcomes: Any) -> Any:
    return FakeStore(*outcomes)


def test_a_user_code_is_worth_34_bits_and_spells_nothing():
    assert 8 * math.log2(len(set(ALPHABET))) >= 34
    assert not set(ALPHABET) & set("AEIOUY0123456789")
    codes = {new_user_code() for _ in range(200)}
    assert len(codes) == 200
    for code in codes:
        assert (len(code), code[4]) == (9, "-")
        assert set(code.replace("-", "")) <= set(ALPHABET)


@given(st.text(alphabet=ALPHABET, min_size=8, max_size=8), st.data())
def test_a_code_is_read_however_it_is_grouped(letters: str, data: st.DataObject):
    separator = st.sampled_from(["", " ", "-", "\u2013", "\u00a0", ".", "_"])
    typed = "".join(
        data.draw(separator) + data.draw(st.sampled_from([letter, letter.lower()]))
        for letter in letters
    )
    assert read_user_code(typed) == f"{letters[:4]}-{letters[4:]}"


def test_digits_that_look_like_letters_are_those_letters():
    assert read_user_code("8CDF-6H1Z") == "BCDF-GHLZ"
    assert read_user_code("5555-2222") == "SSSS-ZZZZ"


@given(st.text(max_size=80))
def test_whatever_is_read_as_a_code_is_one_and_reads_as_itself(typed: str):
    code = read_user_code(typed)
    assert code is None or (read_user_code(code) == code and code.isascii())


@pytest.mark.parametrize("typed", ["", "BCDF-GHJ", "BCDF-GHJKL", "ABCD-EFGH", "\u0412CDF-GHJK"])
def test_what_is_no_code_is_none(typed: str):
    assert read_user_code(typed) is None


def test_the_two_kinds_of_code_never_hash_alike():
    assert hash_of_user_code("BCDF-GHJK") != hash_of_device_code("BCDF-GHJK")
    assert len(hash_of_user_code("BCDF-GHJK")) == 32


@given(st.text(max_size=300))
def test_a_host_name_is_a_name_whatever_was_claimed(claimed: str):
    name = clean_host_name(claimed)
    if name is None:
        assert not claimed
    else:
        assert 1 <= len(name) <= 64
        assert all(c.isascii() and (c.isalnum() or c in "._-?") for c in name)


def test_an_honest_host_name_stays_as_it_is():
    assert clean_host_name("build-7.eu_west.example.com") == "build-7.eu_west.example.com"
    assert clean_host_name(None) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.0", "192.0.2.255", True),
        ("192.0.2.255", "192.0.3.0", False),
        ("2001:db8:0:1::", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "2001:db8::1", False),
        ("0.0.0.1", "::1", False),
        (None, None, False),
        ("192.0.2.1", None, False),
        ("nonsense", "nonsense", False),
    ],
)
def test_a_network_is_a_24_or_a_64(one: str | None, other: str | None, same: bool):
    assert same_network(one, other) is same
    assert same_network(other, one) is same


def test_a_device_request_names_the_known_client():
    asked = DeviceRequest.parse([("client_id", "broker-cli"), ("host_name", "a b")])
    assert asked.host_name == "a?b"
    for pairs in (
        [],
        [("client_id", "x")],
        [("client_id", "broker-cli"), ("client_id", "broker-cli")],
        [("client_id", "broker-cli"), ("scope", "x")],
    ):
        with pytest.raises(OAuthError):
            DeviceRequest.parse(pairs)


async def test_starting_stores_hashes_and_answers_as_rfc_8628_says():
    store = fake_store(True)
    started = await start(store, DeviceRequest("build-7"), ip="192.0.2.1", user_agent="broker/1")
    [new] = store.opened
    answer = started.response("https://broker.test/device")
    assert new.device_code_hash == hash_of_device_code(str(answer["device_code"]))
    assert new.user_code_hash == hash_of_user_code(str(answer["user_code"]))
    assert answer["verification_uri"] == "https://broker.test/device"
    assert (answer["expires_in"], answer["interval"]) == (600, 5)
    for secret in (started.device_code, started.user_code):
        assert secret not in repr(started)
        assert secret not in repr(new)


async def test_a_user_code_in_use_is_drawn_again_and_not_for_ever():
    store = fake_store(False, False, True)
    await start(store, DeviceRequest(None), ip=None, user_agent=None)
    assert len({new.user_code_hash for new in store.opened}) == 3
    with pytest.raises(OAuthError, match="temporarily_unavailable"):
        await start(fake_store(*[False] * 9), DeviceRequest(None), ip=None, user_agent=None)


@pytest.mark.parametrize(
    ("approve", "type_", "outcome"),
    [
        (True, EventType.DEVICE_APPROVED, Outcome.SUCCESS),
        (False, EventType.DEVICE_DENIED, Outcome.DENIED),
    ],
)
async def test_a_decision_is_recorded_as_the_persons(
    approve: bool, type_: EventType, outcome: Outcome
):
    store = fake_store(True)
    arguments: Any = {"login_session_id": "ls-1", "actor": PERSON, "request_id": "r1"}
    assert await decide(store, "BCDF-GHJK", approve=approve, **arguments)
    [(code_hash, asked)] = store.calls
    assert code_hash == hash_of_user_code("BCDF-GHJK")
    assert asked["approve"] is approve
    event = asked["event"]
    assert (event.type, event.outcome, event.actor) == (type_, outcome, PERSON)
    assert event.subject == {"principal": PERSON.id, "login_session": "ls-1"}


def test_the_grant_is_read_and_its_code_is_not_shown():
    asked = parse_token_request(GRANT.items())
    assert asked == DeviceExchange("d" * 43)
    assert "ddd" not in repr(asked)
    for code in ("", "short", "d" * 44, "\u00fc" * 43):
        with pytest.raises(OAuthError, match=r"invalid_grant|device_code"):
            parse_token_request({**GRANT, "device_code": code}.items())


CALLER: Any = {"ip": "192.0.2.8", "user_agent": "broker/1", "request_id": "r1"}


async def test_an_approved_code_becomes_tokens():
    store = fake_store((Polled.OK, SESSION))
    pair = await poll(store, DeviceExchange("d" * 43), **CALLER)
    [(code_hash, asked)] = store.calls
    assert code_hash == hash_of_device_code("d" * 43)
    assert (pair.access, pair.refresh, pair.session) == (asked["access"], asked["refresh"], SESSION)
    assert asked["event"].type is EventType.LOGIN_SUCCEEDED
    assert asked["event"].detail == {"client": "device"}
    assert asked["reuse_event"].type is EventType.SESSION_REVOKED


@pytest.mark.parametrize(
    ("polled", "error"),
    [
        (Polled.PENDING, "authorization_pending"),
        (Polled.SLOW_DOWN, "slow_down"),
        (Polled.DENIED, "access_denied"),
        (Polled.EXPIRED, "expired_token"),
        (Polled.REFUSED, "invalid_grant"),
        (Polled.REUSED, "invalid_grant"),
        (Polled.OK, "invalid_grant"),
    ],
)
async def test_everything_else_is_an_error_of_the_rfc(polled: Polled, error: str):
    with pytest.raises(OAuthError) as refused:
        await poll(fake_store((polled, None)), DeviceExchange("d" * 43), **CALLER)
    assert refused.value.error == error
