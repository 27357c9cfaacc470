from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.record import Actor, Event, EventType, Outcome
from broker.errors import NotFound, Suspended
from broker.identity.login import (
    BootstrapAdmin,
    LoggedIn,
    LoginAttempt,
    LoginBinding,
    LoginRejected,
    ProviderIdentity,
)
from broker.identity.login_flow import Callback, LoginFlow, safe_next
from broker.identity.principal import Principal, PrincipalKind
from broker.identity.sessions import LoginSession, Token, TokenKind

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
REDIRECT = "https://broker.example.com/login/callback"
ADA = ProviderIdentity("corp", "https://idp", "s1", "ada", None, False, frozenset())


@dataclass
class FakeProvider:
    name: str = "corp"
    issuer: str = "https://idp"
    reachable: bool = True
    redeemed: list[dict[str, object]] = field(default_factory=list)

    async def authorization_url(self, *, state, nonce, code_challenge, redirect_uri):
        if not self.reachable:
            raise LoginRejected("the provider is not usable")
        return f"https://idp/auth?{state}&{nonce}&{code_challenge}&{redirect_uri}"

    async def identify(self, **arguments):
        self.redeemed.append(arguments)
        if arguments["code"] != "good":
            raise LoginRejected("the ID token is refused: it has expired")
        return ADA


@dataclass
class FakeStore:
    attempts: dict[bytes, LoginAttempt] = field(default_factory=dict)
    failures: list[Event] = field(default_factory=list)
    logins: list[dict[str, object]] = field(default_factory=list)
    suspended: bool = False

    async def open_login_attempt(self, binding_hash, provider, next_path):
        self.attempts[binding_hash] = LoginAttempt(
            binding_hash, provider, next_path, NOW + timedelta(minutes=10)
        )

    async def take_login_attempt(self, binding_hash):
        return self.attempts.pop(binding_hash, None)

    async def log_in(self, identity, **arguments):
        if self.suspended:
            raise Suspended
        self.logins.append({"identity": identity, **arguments})
        principal = Principal("p-1", PrincipalKind.PERSON, "https://idp", "s1", "corp", "ada")
        session = LoginSession(
            "ls-1", "p-1", "browser", NOW, None, NOW, NOW, None, None, None, None
        )
        return LoggedIn(principal, session, False, False)

    async def record_login_failure(self, event):
        self.failures.append(event)


def failed(reason: str, provider: str | None = None) -> Event:
    """Nobody is known yet when a login fails."""
    return Event(
        EventType.LOGIN_FAILED,
        Actor("anonymous", "anonymous", ip="192.0.2.7", user_agent="test"),
        Outcome.FAILURE,
        {} if provider is None else {"provider": provider},
        {"reason": reason},
        "r1",
    )


@dataclass
class Browser:
    flow: LoginFlow
    provider: FakeProvider
    store: FakeStore

    async def begin(self, next_path="/console/roles"):
        return await self.flow.begin("corp", next_path, redirect_uri=REDIRECT)

    async def finish(self, cookie_value, query, replaces=None):
        return await self.flow.finish(
            cookie_value,
            query,
            redirect_uri=REDIRECT,
            replaces=replaces,
            ip="192.0.2.7",
            user_agent="test",
            request_id="r1",
        )


@pytest.fixture
def browser():
    provider, store = FakeProvider(), FakeStore()
    flow = LoginFlow({"corp": provider}, store, (BootstrapAdmin(provider="corp", email="a@b"),))
    return Browser(flow, provider, store)


async def test_a_login_ends_where_it_was_going_with_a_new_browser_token(browser):
    binding, url = await browser.begin()
    assert url == (
        f"https://idp/auth?{binding.state}&{binding.nonce}&{binding.code_challenge}&{REDIRECT}"
    )
    assert browser.store.attempts[binding.hash].provider == "corp"
    old = Token.new(TokenKind.BROWSER)
    finished = await browser.finish(
        binding.cookie_value, [("code", "good"), ("state", binding.state)], replaces=old
    )
    assert finished.next_path == "/console/roles"
    assert browser.store.logins == [
        {
            "identity": ADA,
            "cookie": finished.cookie,
            "ip": "192.0.2.7",
            "user_agent": "test",
            "replaces": old,
            "bootstrap": (BootstrapAdmin(provider="corp", email="a@b"),),
            "request_id": "r1",
        }
    ]
    assert finished.logged_in.principal.id == "p-1"
    assert finished.cookie.kind is TokenKind.BROWSER
    (redeemed,) = browser.provider.redeemed
    assert redeemed == {
        "code": "good",
        "code_verifier": binding.code_verifier,
        "nonce": binding.nonce,
        "redirect_uri": REDIRECT,
        "iss": None,
    }


async def test_the_database_holds_neither_the_cookie_nor_what_follows_from_it(browser):
    binding, _ = await browser.begin()
    held = repr(browser.store.attempts)
    for secret in (
        binding.cookie_value,
        binding.state,
        binding.nonce,
        binding.code_verifier,
        binding.code_challenge,
    ):
        assert secret not in held
        assert secret not in repr(binding)


async def test_a_provider_that_is_unknown_or_down_leaves_no_attempt(browser):
    with pytest.raises(NotFound):
        await browser.flow.begin("other", "/", redirect_uri=REDIRECT)
    browser.provider.reachable = False
    with pytest.raises(LoginRejected):
        await browser.begin()
    assert browser.store.attempts == {}


async def test_a_callback_must_come_from_the_browser_that_began(browser):
    mine, _ = await browser.begin()
    other, _ = await browser.begin()
    good = ("code", "good")
    state = ("state", mine.state)
    no_attempt = "the browser has no login attempt"
    foreign = "the state is missing or belongs to another browser or attempt"
    refused = [
        (None, [good, state], no_attempt),
        ("", [good, state], no_attempt),
        ("not a cookie", [good, state], no_attempt),
        (other.cookie_value, [good, state], foreign),
        (LoginBinding.new().cookie_value, [good, state], foreign),
        (mine.cookie_value, [good], foreign),
        (mine.cookie_value, [good, ("state", "")], foreign),
        (mine.cookie_value, [good, ("state", mine.state[:-1])], foreign),
        (mine.cookie_value, [good, ("state", mine.state + "=")], foreign),
        (mine.cookie_value, [good, ("state", "\ud800")], foreign),
        (mine.cookie_value, [good, state, state], "the callback repeats state"),
        (mine.cookie_value, [("code", "x" * 8193), state], "the callback's code is over-long"),
    ]
    for cookie, query, reason in refused:
        with pytest.raises(LoginRejected) as rejected:
            await browser.finish(cookie, query)
        assert (rejected.value.reason, str(rejected.value)) == (reason, reason)
        assert browser.store.failures[-1] == failed(reason)
    assert browser.provider.redeemed == []
    assert len(browser.store.failures) == len(refused)
    # None of these spent the honest browser's attempt.
    await browser.finish(mine.cookie_value, [good, ("state", mine.state)])


async def test_a_state_for_another_attempt_of_a_valid_cookie_is_refused(browser):
    mine, _ = await browser.begin()
    stranger = LoginBinding.new()
    with pytest.raises(LoginRejected):
        await browser.finish(stranger.cookie_value, [("code", "good"), ("state", stranger.state)])
    assert mine.hash in browser.store.attempts


async def test_a_callback_works_once(browser):
    binding, _ = await browser.begin()
    query = [("code", "good"), ("state", binding.state)]
    await browser.finish(binding.cookie_value, query)
    with pytest.raises(LoginRejected):
        await browser.finish(binding.cookie_value, query)
    assert browser.store.failures == [failed("the login attempt is unknown, used or expired")]
    assert len(browser.store.logins) == 1


async def test_a_provider_that_went_away_meanwhile_ends_the_login(browser):
    binding, _ = await browser.begin()
    later = replace(browser, flow=LoginFlow({}, browser.store, ()))
    with pytest.raises(LoginRejected):
        await later.finish(binding.cookie_value, [("code", "good"), ("state", binding.state)])
    reason = "the provider of this attempt is no longer configured"
    assert browser.store.failures == [failed(reason, "corp")]


async def test_a_callback_with_neither_code_nor_error_ends_the_login(browser):
    binding, _ = await browser.begin()
    query = [("code", ""), ("state", binding.state), ("iss", "https://idp")]
    with pytest.raises(LoginRejected):
        await browser.finish(binding.cookie_value, query)
    assert browser.store.failures == [failed("the callback has neither code nor error", "corp")]


async def test_who_claims_to_answer_is_told_to_the_provider(browser):
    binding, _ = await browser.begin()
    query = [("code", "good"), ("state", binding.state), ("iss", "https://idp"), ("code2", "x")]
    await browser.finish(binding.cookie_value, query)
    assert browser.provider.redeemed[0]["iss"] == "https://idp"


async def test_the_providers_error_is_recorded_without_its_words(browser):
    binding, _ = await browser.begin()
    query = [
        ("error", "access_denied"),
        ("error_description", "call +1-555 to unlock"),
        ("state", binding.state),
    ]
    with pytest.raises(LoginRejected) as rejected:
        await browser.finish(binding.cookie_value, query)
    reason = "the provider answered with error access_denied"
    assert browser.store.failures == [failed(reason, "corp")]
    assert rejected.value.log_detail == "'call +1-555 to unlock'"


async def test_a_providers_long_words_are_cut_and_missing_ones_are_none(browser):
    for words, shown in (("x" * 8192, repr("x" * 500)), ("", "''")):
        binding, _ = await browser.begin()
        query = [("error", "e"), ("error_description", words), ("state", binding.state)]
        with pytest.raises(LoginRejected) as rejected:
            await browser.finish(binding.cookie_value, query)
        assert rejected.value.log_detail == shown


async def test_an_error_code_that_is_not_one_is_not_repeated(browser):
    binding, _ = await browser.begin()
    query = [("error", "<script>\r\n"), ("state", binding.state)]
    with pytest.raises(LoginRejected):
        await browser.finish(binding.cookie_value, query)
    reason = "the provider answered with error unreadable"
    assert browser.store.failures == [failed(reason, "corp")]


async def test_a_refused_token_is_recorded_without_code_or_secrets(browser):
    binding, _ = await browser.begin()
    query = [("code", "SECRETCODE"), ("state", binding.state)]
    with pytest.raises(LoginRejected):
        await browser.finish(binding.cookie_value, query)
    (event,) = browser.store.failures
    assert event == failed("the ID token is refused: it has expired", "corp")
    for secret in ("SECRETCODE", binding.state, binding.cookie_value):
        assert secret not in repr(event)


async def test_a_suspended_person_is_told_so(browser):
    browser.store.suspended = True
    binding, _ = await browser.begin()
    with pytest.raises(Suspended):
        await browser.finish(binding.cookie_value, [("code", "good"), ("state", binding.state)])


@pytest.mark.parametrize(
    "path",
    [
        "/oauth/authorize?client_id=broker-cli&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcallback",
        "/device",
        "/device?user_code=ABCD-EFGH",
        "/mfa/enroll",
        "/console",
        "/console/roles/data-reader",
        "/console?next=/../x%2f%5c",
        "/device?" + "x" * 4088,
        "/",
    ],
)
def test_the_brokers_own_pages_are_kept(path):
    assert safe_next(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "https://evil.example/console",
        "javascript:alert(1)",
        "console",
        "/console\r\nSet-Cookie: a=b",
        "/console\x00",
        "/console#@evil.example",
        "/consoles",
        "/login",
        "/signout",
        "/v1/me",
        "/console/../signout",
        "/console/%2e%2E/signout",
        "/console/..%2fsignout",
        "/console/..%5Csignout",
        "/console/./x",
        "/mfa//evil.example\\",
        " /console",
        "/c\u043ensole",
        "/device?" + "x" * 4089,
    ],
)
def test_everything_else_goes_home(path):
    assert safe_next(path) == "/"


@given(st.text(max_size=60) | st.text("/\\.%25cFevil:@?#console\r\n\t", max_size=40))
def test_no_text_leads_off_the_site(text):
    path = safe_next(text)
    parts = urlsplit(path)
    assert (parts.scheme, parts.netloc) == ("", "")
    assert path.startswith("/")
    assert not path.startswith(("//", "/\\"))
    assert path.isprintable()
    assert "\\" not in path


@given(st.lists(st.tuples(st.sampled_from(["code", "state", "x"]) | st.text(), st.text())))
def test_no_query_breaks_the_callback(query):
    try:
        Callback.parse(query)
    except LoginRejected:
        names = [name for name, _ in query if name in {"code", "state", "iss", "error"}]
        assert len(names) != len(set(names)) or "error_description" in dict(query)
