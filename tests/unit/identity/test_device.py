from __future__ import annotations

import hashlib
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.record import Actor, Event, EventType, Outcome
from broker.identity.device import (
    ALPHABET,
    DeviceRequest,
    NewDeviceLogin,
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
from broker.identity.sessions import LoginSession, TokenKind

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SESSION = LoginSession("ls-1", "p-1", "device", NOW, NOW, NOW, NOW, None, None, None, None)
NOT_VALID = "The device_code is not valid, or was used."
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


def test_a_person_may_add_some_space_but_no_page_of_it():
    assert read_user_code("BCDF-GHJK" + " " * 55) == "BCDF-GHJK"
    assert read_user_code("BCDF-GHJK" + " " * 56) is None


def test_the_two_kinds_of_code_never_hash_alike():
    """What is stored stays what it is: logins that wait go on over an update."""
    user, device = hash_of_user_code("BCDF-GHJK"), hash_of_device_code("BCDF-GHJK")
    assert user == hashlib.sha256(b"broker user code|BCDF-GHJK").digest()
    assert device == hashlib.sha256(b"broker device code|BCDF-GHJK").digest()


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
    assert clean_host_name("é\n" * 40 + "tail") == "?tail"
    assert clean_host_name("é" * 255 + "tail") == "?t", "the rest is not even looked at"
    assert clean_host_name("a" * 65) == "a" * 64
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


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([], "invalid_client: The client_id is not known."),
        ([("client_id", "x")], "invalid_client: The client_id is not known."),
        (
            [("client_id", "broker-cli")] * 2,
            "invalid_request: A parameter is given more than once.",
        ),
        (
            [("client_id", "broker-cli"), ("scope", "x")],
            "invalid_scope: This server has no scopes.",
        ),
    ],
)
def test_another_device_request_is_refused(pairs: list[tuple[str, str]], text: str):
    with pytest.raises(OAuthError) as refused:
        DeviceRequest.parse(pairs)
    assert str(refused.value) == text


async def test_starting_stores_hashes_and_answers_as_rfc_8628_says():
    store = fake_store(True)
    started = await start(store, DeviceRequest("build-7"), ip="192.0.2.1", user_agent="broker/1")
    [new] = store.opened
    assert new == NewDeviceLogin(
        id=new.id,
        device_code_hash=hash_of_device_code(started.device_code),
        user_code_hash=hash_of_user_code(started.user_code),
        host_name="build-7",
        ip="192.0.2.1",
        user_agent="broker/1",
    )
    assert re.fullmatch("dl-[0-9a-f]{20}", new.id)
    assert len(started.device_code) == 43
    assert started.response("https://broker.test/device") == {
        "device_code": started.device_code,
        "user_code": started.user_code,
        "verification_uri": "https://broker.test/device",
        "verification_uri_complete": f"https://broker.test/device?user_code={started.user_code}",
        "expires_in": 600,
        "interval": 5,
    }
    for secret in (started.device_code, started.user_code):
        assert secret not in repr(started)
        assert secret not in repr(new)


async def test_a_user_code_in_use_is_drawn_again_and_not_for_ever():
    store = fake_store(False, False, True)
    await start(store, DeviceRequest(None), ip=None, user_agent=None)
    assert len({new.user_code_hash for new in store.opened}) == 3
    full = fake_store(*[False] * 9)
    with pytest.raises(OAuthError) as refused:
        await start(full, DeviceRequest(None), ip=None, user_agent=None)
    assert str(refused.value) == "temporarily_unavailable: No code is free; try again."
    assert len(full.opened) == 4


@pytest.mark.parametrize(
    ("approve", "type_", "outcome", "detail"),
    [
        (True, EventType.DEVICE_APPROVED, Outcome.SUCCESS, {}),
        (False, EventType.DEVICE_DENIED, Outcome.DENIED, {"reason": "denied_by_person"}),
    ],
)
@pytest.mark.parametrize("found", [True, False])
async def test_a_decision_is_recorded_as_the_persons(approve, type_, outcome, detail, found):
    store = fake_store(found)
    arguments: Any = {"login_session_id": "ls-1", "actor": PERSON, "request_id": "r1"}
    assert await decide(store, "BCDF-GHJK", approve=approve, **arguments) is found
    subject = {"principal": PERSON.id, "login_session": "ls-1"}
    assert store.calls == [
        (
            hash_of_user_code("BCDF-GHJK"),
            {
                "approve": approve,
                "login_session_id": "ls-1",
                "event": Event(type_, PERSON, outcome, subject, detail, "r1"),
            },
        )
    ]


def test_the_grant_is_read_and_its_code_is_not_shown():
    asked = parse_token_request(GRANT.items())
    assert asked == DeviceExchange("d" * 43)
    assert "ddd" not in repr(asked)
    for code in ("", "short", "d" * 44, "\u00fc" * 43):
        with pytest.raises(OAuthError) as refused:
            parse_token_request({**GRANT, "device_code": code}.items())
        assert str(refused.value) == f"invalid_grant: {NOT_VALID}"
    with pytest.raises(OAuthError, match=rf"^invalid_grant: {NOT_VALID}$"):
        parse_token_request([pair for pair in GRANT.items() if pair[0] != "device_code"])


CALLER: Any = {"ip": "192.0.2.8", "user_agent": "broker/1", "request_id": "r1"}


async def test_an_approved_code_becomes_tokens():
    store = fake_store((Polled.OK, SESSION))
    pair = await poll(store, DeviceExchange("d" * 43), **CALLER)
    actor = Actor("anonymous", "anonymous", ip="192.0.2.8", user_agent="broker/1")
    event = Event(EventType.LOGIN_SUCCEEDED, actor, Outcome.SUCCESS, {}, {"client": "device"}, "r1")
    reused = replace(event, type=EventType.SESSION_REVOKED, detail={"reason": "code_reused"})
    assert store.calls == [
        (
            hash_of_device_code("d" * 43),
            {
                "access": pair.access,
                "refresh": pair.refresh,
                "ip": "192.0.2.8",
                "user_agent": "broker/1",
                "event": event,
                "reuse_event": reused,
            },
        )
    ]
    assert (pair.access.kind, pair.refresh.kind) == (TokenKind.ACCESS, TokenKind.REFRESH)
    assert pair.session is SESSION


@pytest.mark.parametrize(
    ("polled", "error", "description"),
    [
        (Polled.PENDING, "authorization_pending", "Nobody has allowed this yet."),
        (Polled.SLOW_DOWN, "slow_down", "Ask five seconds later from now on."),
        (Polled.DENIED, "access_denied", "The login was denied."),
        (Polled.EXPIRED, "expired_token", "The code has expired; start again."),
        (Polled.REFUSED, "invalid_grant", NOT_VALID),
        (Polled.REUSED, "invalid_grant", NOT_VALID),
        (Polled.OK, "invalid_grant", NOT_VALID),
    ],
)
async def test_everything_else_is_an_error_of_the_rfc(polled: Polled, error: str, description: str):
    with pytest.raises(OAuthError) as refused:
        await poll(fake_store((polled, None)), DeviceExchange("d" * 43), **CALLER)
    assert (refused.value.error, refused.value.description) == (error, description)
