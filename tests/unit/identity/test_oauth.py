from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.oauth import (
    AuthorizationRequest,
    CodeGrant,
    OAuthError,
    challenge_of,
)

# RFC 7636 appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
GOOD = {
    "client_id": "broker-cli",
    "response_type": "code",
    "redirect_uri": "http://127.0.0.1:51004/callback",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "state": "a b+c&d=e/~",
}


def parse(**changes: str | None) -> AuthorizationRequest:
    merged = {**GOOD, **changes}
    pairs = [(name, value) for name, value in merged.items() if value is not None]
    return AuthorizationRequest.parse(pairs, issuer="https://broker.example.com")


def answer(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", dict(parse_qsl(parts.query))


@pytest.mark.parametrize(
    ("redirect_uri", "port"),
    [
        ("http://127.0.0.1:1/callback", 1),
        ("http://127.0.0.1:65535/callback", 65535),
        ("http://[::1]:8400/callback", 8400),
    ],
)
def test_a_request_for_a_loopback_port_is_good(redirect_uri, port):
    request = parse(redirect_uri=redirect_uri)
    assert request.port == port
    assert request.grant("ls-1") == CodeGrant("broker-cli", redirect_uri, CHALLENGE, "ls-1")


@pytest.mark.parametrize(
    "redirect_uri",
    [
        None,
        "",
        "http://localhost:8400/callback",
        "https://127.0.0.1:8400/callback",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:08400/callback",
        "http://127.0.0.1:65536/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:8400/callback/",
        "http://127.0.0.1:8400/",
        "http://127.0.0.1:8400/callback?x=1",
        "http://127.0.0.1:8400/callback#x",
        "http://127.0.0.1:8400@evil.example/callback",
        "http://user@127.0.0.1:8400/callback",
        "http://127.0.0.1.evil.example:8400/callback",
        "http://127.0.0.2:8400/callback",
        "http://0x7f.1:8400/callback",
        "http://[::ffff:127.0.0.1]:8400/callback",
        "http://127.0.0.1:8400/callback\n",
        "HTTP://127.0.0.1:8400/callback",
        "http://127.0.0.1:８４００/callback",  # noqa: RUF001 (full-width digits are the attack)
        "https://evil.example/callback",
    ],
)
def test_any_other_redirect_is_shown_to_the_person_and_never_followed(redirect_uri):
    with pytest.raises(OAuthError) as refused:
        parse(redirect_uri=redirect_uri)
    assert refused.value.redirect_to is None
    assert str(refused.value) == (
        "invalid_request: The redirect_uri must be http://127.0.0.1:PORT/callback or"
        " http://[::1]:PORT/callback."
    )


@pytest.mark.parametrize("client_id", [None, "", "broker-cli ", "other"])
def test_an_unknown_client_is_not_redirected(client_id):
    with pytest.raises(OAuthError) as refused:
        parse(client_id=client_id)
    assert refused.value.redirect_to is None
    assert str(refused.value) == "invalid_request: The client_id is not known."


@pytest.mark.parametrize("state", ["é", "a\nb", "x" * 513, "\x7f"])
def test_a_state_that_can_not_be_returned_verbatim_is_refused(state):
    with pytest.raises(OAuthError) as refused:
        parse(state=state)
    assert refused.value.redirect_to is None
    assert str(refused.value) == "invalid_request: The state is over-long or not ASCII."
    assert parse(state="x" * 512).state == "x" * 512


NOT_CODE = "The response_type must be code."
NO_PKCE = "PKCE with code_challenge_method S256 is required."
NO_CHALLENGE = "The code_challenge must be an S256 challenge."


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"response_type": "token"}, "unsupported_response_type", NOT_CODE),
        ({"response_type": None}, "unsupported_response_type", NOT_CODE),
        ({"response_type": "code id_token"}, "unsupported_response_type", NOT_CODE),
        ({"code_challenge_method": "plain"}, "invalid_request", NO_PKCE),
        ({"code_challenge_method": None}, "invalid_request", NO_PKCE),
        ({"code_challenge": None}, "invalid_request", NO_CHALLENGE),
        ({"code_challenge": CHALLENGE[:-1]}, "invalid_request", NO_CHALLENGE),
        ({"code_challenge": CHALLENGE + "="}, "invalid_request", NO_CHALLENGE),
        ({"code_challenge": CHALLENGE[:-1] + "+"}, "invalid_request", NO_CHALLENGE),
        ({"scope": "admin"}, "invalid_scope", "This server has no scopes."),
    ],
)
def test_other_faults_go_back_to_the_client_with_its_state(changes, error, description):
    with pytest.raises(OAuthError) as refused:
        parse(**changes)
    assert (refused.value.error, refused.value.description) == (error, description)
    target, members = answer(refused.value.redirect_to or "")
    assert target == GOOD["redirect_uri"]
    assert members == {
        "error": error,
        "error_description": description,
        "state": GOOD["state"],
        "iss": "https://broker.example.com",
    }


@pytest.mark.parametrize("name", ["client_id", "redirect_uri", "code_challenge", "state", "x"])
def test_a_repeated_parameter_is_refused_without_a_redirect(name):
    with pytest.raises(OAuthError) as refused:
        AuthorizationRequest.parse([*GOOD.items(), (name, "1"), (name, "2")])
    assert refused.value.redirect_to is None
    assert str(refused.value) == "invalid_request: A parameter is given more than once."


@pytest.mark.parametrize("pair", [("x", "v" * 4097), ("n" * 4097, "v"), ("n" * 4097, "")])
def test_an_over_long_parameter_is_refused_without_a_redirect(pair):
    with pytest.raises(OAuthError) as refused:
        AuthorizationRequest.parse([*GOOD.items(), pair])
    assert refused.value.redirect_to is None
    assert str(refused.value) == "invalid_request: A parameter is over-long."
    longest = [("x", "v" * 4096), ("n" * 4096, "v")]
    assert AuthorizationRequest.parse([*GOOD.items(), *longest]) == parse()


def test_a_request_is_read_whole():
    assert parse() == AuthorizationRequest(
        "broker-cli", GOOD["redirect_uri"], 51004, CHALLENGE, GOOD["state"]
    )


def test_unknown_parameters_are_ignored_and_empty_ones_absent():
    assert parse(prompt="consent", scope="") == parse()


def test_the_answers_carry_code_or_refusal_the_state_verbatim_and_the_issuer():
    state = "a b+c&d=e%20/~\\\"'"
    request = parse(state=state)
    target, members = answer(request.approved("the code", "https://b"))
    assert target == GOOD["redirect_uri"]
    assert members == {"code": "the code", "state": state, "iss": "https://b"}
    target, members = answer(request.denied("https://b"))
    assert target == GOOD["redirect_uri"]
    assert members == {"error": "access_denied", "state": state, "iss": "https://b"}
    _, members = answer(parse(state=None).approved("c", "https://b"))
    assert members == {"code": "c", "iss": "https://b"}


def test_the_rfc_7636_example():
    assert challenge_of(VERIFIER) == CHALLENGE


@pytest.mark.parametrize(
    "verifier", ["", "a" * 42, "a" * 129, "a" * 42 + "+", "a" * 42 + "é", "a" * 43 + "\n"]
)
def test_a_verifier_of_the_wrong_shape_has_no_challenge(verifier):
    assert challenge_of(verifier) is None


pairs = st.lists(
    st.tuples(
        st.sampled_from([*GOOD, "scope"]) | st.text(max_size=5),
        st.sampled_from(list(GOOD.values())) | st.text(max_size=60),
    ),
    max_size=10,
)


@given(pairs)
def test_no_query_raises_anything_but_an_oauth_error(query):
    try:
        request = AuthorizationRequest.parse(query)
    except OAuthError as error:
        target = error.redirect_to
        assert target is None or target.startswith("http://127.0.0.1:51004/callback?")
    else:
        assert request.code_challenge == CHALLENGE or len(request.code_challenge) == 43
