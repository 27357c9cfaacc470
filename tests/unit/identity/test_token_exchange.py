"""What a CI job's token exchange may say (RFC 8693), and in which words it is refused."""

from __future__ import annotations

import pytest

from broker.identity.oauth import OAuthError
from broker.identity.token_exchange import ISSUED_TOKEN_TYPE, TokenExchange

TYPE = "urn:ietf:params:oauth:token-type:"
GOOD = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token": "a.b.c",
    "subject_token_type": f"{TYPE}jwt",
}


def parse(**changes: str | None) -> TokenExchange:
    merged = {**GOOD, **changes}
    return TokenExchange.parse([(name, text) for name, text in merged.items() if text is not None])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, TokenExchange("a.b.c", None)),
        ({"subject_token_type": f"{TYPE}id_token"}, TokenExchange("a.b.c", None)),
        ({"requested_token_type": ISSUED_TOKEN_TYPE}, TokenExchange("a.b.c", None)),
        ({"scope": ""}, TokenExchange("a.b.c", None)),
        ({"actor_token": "", "audience": "ignored"}, TokenExchange("a.b.c", None)),
        ({"scope": "role:deploy.prod-1_a"}, TokenExchange("a.b.c", "deploy.prod-1_a")),
        ({"scope": "role:" + "a" * 64}, TokenExchange("a.b.c", "a" * 64)),
        # Tokens over the limit of tokens get this far, to be refused on record.
        ({"subject_token": "x" * 4 * 1024 * 1024}, TokenExchange("x" * 4 * 1024 * 1024, None)),
    ],
)
def test_a_request_for_a_job_token_is_read(changes, expected):
    assert parse(**changes) == expected


ACTOR = "A job acts for itself: no actor_token is taken."
SUBJECT_TYPE = "subject_token_type is urn:ietf:params:oauth:token-type:jwt."


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"actor_token": "a"}, "invalid_request", ACTOR),
        ({"actor_token_type": "a"}, "invalid_request", ACTOR),
        (
            {"requested_token_type": f"{TYPE}refresh_token"},
            "invalid_request",
            "Only an access token is issued.",
        ),
        ({"subject_token_type": None}, "invalid_request", SUBJECT_TYPE),
        ({"subject_token_type": f"{TYPE}saml2"}, "invalid_request", SUBJECT_TYPE),
        ({"subject_token": None}, "invalid_request", "The subject_token is missing."),
        ({"subject_token": ""}, "invalid_request", "The subject_token is missing."),
        (
            {"subject_token": "x" * (4 * 1024 * 1024 + 1)},
            "invalid_request",
            "A parameter is over-long.",
        ),
        ({"audience": "x" * 4097}, "invalid_request", "A parameter is over-long."),
        *(
            ({"scope": scope}, "invalid_scope", "A scope here is role:NAME.")
            for scope in (
                "deploy",
                "role:",
                "role:Deploy",
                "role:.a",
                "role:" + "a" * 65,
                "role:a role:b",
                "role:a\n",
                "xrole:a",
                "role:é",
            )
        ),
    ],
)
def test_any_other_request_is_refused_in_words(changes, error, description):
    with pytest.raises(OAuthError) as refused:
        parse(**changes)
    assert (refused.value.error, refused.value.description) == (error, description)
    assert refused.value.redirect_to is None


def test_a_token_given_twice_is_refused():
    with pytest.raises(OAuthError, match="given more than once"):
        TokenExchange.parse([*GOOD.items(), ("subject_token", "d.e.f")])


def test_the_token_is_in_no_repr():
    assert "a.b.c" not in repr(parse())
