from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.record import Actor, Event, EventType, Outcome
from broker.identity.oauth import AuthorizationRequest, CodeGrant, OAuthError, Redeemed
from broker.identity.oauth_token import (
    CodeExchange,
    Refresh,
    create_code,
    exchange_code,
    parse_token_request,
    refresh_tokens,
    revoke,
)
from broker.identity.sessions import LoginSession, Refreshed, Token, TokenKind

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SESSION = LoginSession("ls-1", "p-1", "cli", NOW, NOW, NOW, NOW, None, None, None, None)
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
REDIRECT = "http://127.0.0.1:51004/callback"
REFRESH = Token.new(TokenKind.REFRESH)
EXCHANGE = {
    "grant_type": "authorization_code",
    "client_id": "broker-cli",
    "code": "c0de",
    "redirect_uri": REDIRECT,
    "code_verifier": VERIFIER,
}
ROTATE = {
    "grant_type": "refresh_token",
    "client_id": "broker-cli",
    "refresh_token": REFRESH.text,
}
CALLER = {"ip": "192.0.2.7", "user_agent": "broker/1", "request_id": "r1"}


class FakeStore:
    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.codes: dict[Any, Any] = {}
        self.calls: list[Any] = []

    async def create_code(self, code_hash, grant):
        self.codes[code_hash] = grant

    async def redeem_code(self, code_hash, **arguments):
        self.calls.append((code_hash, arguments))
        return self.outcome

    async def rotate_refresh_token(self, presented, refresh, access, event, reuse_event):
        self.calls.append((presented, refresh, access, event, reuse_event))
        return self.outcome

    async def revoke_token(self, token, event):
        self.calls.append((token, event))


def event(event_type: EventType, **detail: object) -> Event:
    """The store fills in who acts: the client is public, and its token says who."""
    actor = Actor("anonymous", "anonymous", ip="192.0.2.7", user_agent="broker/1")
    return Event(event_type, actor, Outcome.SUCCESS, {}, detail, "r1")


def fake_store(outcome: Any = (Redeemed.OK, SESSION)) -> Any:
    return FakeStore(outcome)


def parse(base: dict[str, str], **changes: str | None) -> Any:
    merged = {**base, **changes}
    return parse_token_request([(k, v) for k, v in merged.items() if v is not None])


def test_both_grants_are_read():
    assert parse(EXCHANGE) == CodeExchange(REDIRECT, "c0de", CHALLENGE)
    assert parse(ROTATE) == Refresh(REFRESH)
    assert "c0de" not in repr(parse(EXCHANGE))
    assert REFRESH.text not in repr(parse(ROTATE))


NO_TYPE = "invalid_request: The grant_type is missing."
NOT_OFFERED = "unsupported_grant_type: This grant_type is not offered."
NO_CLIENT = "invalid_client: The client_id is not known."
ALL_THREE = "invalid_request: code, redirect_uri and code_verifier are all required."
NO_VERIFIER = "invalid_request: The code_verifier is not well-formed."
NO_REFRESH = "invalid_grant: The refresh token is not valid."


@pytest.mark.parametrize(
    ("base", "changes", "text"),
    [
        (EXCHANGE, {"grant_type": None}, NO_TYPE),
        (EXCHANGE, {"grant_type": "password"}, NOT_OFFERED),
        (EXCHANGE, {"client_id": "other"}, NO_CLIENT),
        (EXCHANGE, {"client_id": None}, NO_CLIENT),
        (EXCHANGE, {"code": None}, ALL_THREE),
        (EXCHANGE, {"redirect_uri": ""}, ALL_THREE),
        (EXCHANGE, {"code_verifier": None}, ALL_THREE),
        (EXCHANGE, {"code_verifier": "short"}, NO_VERIFIER),
        (ROTATE, {"refresh_token": None}, NO_REFRESH),
        (ROTATE, {"refresh_token": "bkr_x"}, NO_REFRESH),
        (ROTATE, {"refresh_token": Token.new(TokenKind.ACCESS).text}, NO_REFRESH),
    ],
)
def test_faults_answer_with_the_rfcs_codes(base, changes, text):
    with pytest.raises(OAuthError) as refused:
        parse(base, **changes)
    assert str(refused.value) == text


def test_a_repeated_parameter_is_refused():
    with pytest.raises(OAuthError, match="more than once"):
        parse_token_request([*EXCHANGE.items(), ("code", "other")])


async def test_a_code_is_stored_as_its_hash_and_redeemed_by_it():
    store = fake_store()
    request = AuthorizationRequest("broker-cli", REDIRECT, 51004, CHALLENGE, None)
    code = await create_code(store, request, login_session_id="ls-9")
    ((stored, grant),) = store.codes.items()
    assert stored == hashlib.sha256(code.encode()).digest()
    assert len(code) == 43
    assert grant == CodeGrant("broker-cli", REDIRECT, CHALLENGE, "ls-9")
    pair = await exchange_code(store, CodeExchange(REDIRECT, code, CHALLENGE), **CALLER)
    ((redeemed, arguments),) = store.calls
    assert redeemed == stored
    assert arguments == {
        "client_id": "broker-cli",
        "redirect_uri": REDIRECT,
        "code_challenge": CHALLENGE,
        "access": pair.access,
        "refresh": pair.refresh,
        "ip": "192.0.2.7",
        "user_agent": "broker/1",
        "event": event(EventType.LOGIN_SUCCEEDED, client="cli"),
        "reuse_event": event(EventType.SESSION_REVOKED, reason="code_reused"),
    }
    assert pair.session is SESSION
    assert pair.response() == {
        "access_token": pair.access.text,
        "token_type": "Bearer",
        "expires_in": 900,
        "refresh_token": pair.refresh.text,
    }
    assert (pair.access.kind, pair.refresh.kind) == (TokenKind.ACCESS, TokenKind.REFRESH)
    assert pair.access.text not in repr(pair)


@pytest.mark.parametrize("session", [None, SESSION])
@pytest.mark.parametrize("outcome", [Redeemed.REFUSED, Redeemed.REUSED])
async def test_a_code_that_is_not_redeemed_gives_no_tokens_and_no_reason(outcome, session):
    with pytest.raises(OAuthError) as refused:
        await exchange_code(
            fake_store((outcome, session)), CodeExchange(REDIRECT, "c", CHALLENGE), **CALLER
        )
    assert str(refused.value) == "invalid_grant: The code is not valid, was used, or has expired."


async def test_a_refresh_token_is_exchanged_for_a_new_pair():
    store = fake_store((Refreshed.ROTATED, SESSION))
    pair = await refresh_tokens(store, Refresh(REFRESH), **CALLER)
    ((presented, refresh, access, refreshed, reused),) = store.calls
    assert presented is REFRESH
    assert (access, refresh) == (pair.access, pair.refresh)
    assert refresh.text != REFRESH.text
    assert (access.kind, refresh.kind) == (TokenKind.ACCESS, TokenKind.REFRESH)
    assert pair.session is SESSION
    assert refreshed == event(EventType.SESSION_REFRESHED)
    assert reused == event(EventType.SESSION_REVOKED, reason="refresh_reused")


@pytest.mark.parametrize("session", [None, SESSION])
@pytest.mark.parametrize("outcome", [Refreshed.REUSED, Refreshed.REFUSED])
async def test_a_refused_refresh_looks_the_same_whatever_the_cause(outcome, session):
    with pytest.raises(OAuthError) as refused:
        await refresh_tokens(fake_store((outcome, session)), Refresh(REFRESH), **CALLER)
    assert str(refused.value) == "invalid_grant: The refresh token is not valid; log in again."


async def test_revoking_takes_what_clients_hold_and_no_browser_s_cookie():
    store = fake_store()
    access, job = Token.new(TokenKind.ACCESS), Token.new(TokenKind.JOB)
    base = [("client_id", "broker-cli")]
    for text in (access.text, REFRESH.text, job.text):
        await revoke(store, [*base, ("token", text)], **CALLER)
    for text in ("nonsense", Token.new(TokenKind.BROWSER).text):
        await revoke(store, [*base, ("token", text)], **CALLER)
    signed_out = event(EventType.SESSION_REVOKED, reason="signed_out")
    assert store.calls == [(token, signed_out) for token in (access, REFRESH, job)]


async def test_a_job_ends_itself_with_its_token_alone_and_nobody_else_does():
    store = fake_store()
    job = Token.new(TokenKind.JOB)
    await revoke(store, [("token", job.text)], **CALLER)
    assert [token for token, _ in store.calls] == [job]
    of_nobody = [("token", job.text), ("client_id", "other")]
    for form in ([("token", REFRESH.text)], [("token", "x")], of_nobody, []):
        with pytest.raises(OAuthError) as refused:
            await revoke(store, form, **CALLER)
        assert str(refused.value) == "invalid_client: The client_id is not known."
    with pytest.raises(OAuthError) as refused:
        await revoke(store, [("client_id", "broker-cli")], **CALLER)
    assert str(refused.value) == "invalid_request: The token is missing."
    assert len(store.calls) == 1


async def test_a_code_of_any_text_is_looked_for():
    store = fake_store((Redeemed.REFUSED, None))
    with pytest.raises(OAuthError, match="invalid_grant"):
        await exchange_code(store, CodeExchange(REDIRECT, "\udc80", CHALLENGE), **CALLER)
    assert store.calls[0][0] == hashlib.sha256(b"\xed\xb2\x80").digest()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*EXCHANGE, "refresh_token"]) | st.text(max_size=4),
            st.sampled_from([*EXCHANGE.values(), *ROTATE.values()]) | st.text(max_size=50),
        ),
        max_size=8,
    )
)
def test_no_form_raises_anything_but_an_oauth_error(form):
    try:
        assert isinstance(parse_token_request(form), CodeExchange | Refresh)
    except OAuthError:
        return
