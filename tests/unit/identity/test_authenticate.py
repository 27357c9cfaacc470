from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Suspended, Unauthenticated
from broker.identity.authenticate import API, BROWSER, CONTAINER, authenticate, bearer
from broker.identity.sessions import Token, TokenKind


class OneSession:
    """A session store in which every token is live."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.looked = 0

    async def authenticate(self, token):
        self.looked += 1
        self.asked = token
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def one_session(answer: Any) -> Any:
    return OneSession(answer)


REACH = {
    TokenKind.ACCESS: API,
    TokenKind.BROWSER: BROWSER,
    TokenKind.CONTAINER: CONTAINER,
    TokenKind.JOB: CONTAINER,
}


@pytest.mark.parametrize("kind", TokenKind)
@pytest.mark.parametrize("accept", [API, BROWSER, CONTAINER])
async def test_a_token_opens_its_own_door_alone(world, kind, accept):
    store = one_session(world.who())
    text = Token.new(kind).text
    if REACH.get(kind) == accept:
        assert await authenticate(store, text, accept) is store.answer
        assert store.asked == Token.parse(text)
    else:
        with pytest.raises(Unauthenticated):
            await authenticate(store, text, accept)
        assert store.looked == 0


@pytest.mark.parametrize("text", [None, "", "bka_", "bka_" + "a" * 42, "bka_" + "a" * 43 + "\n"])
async def test_what_is_no_token_never_reaches_the_database(world, text):
    store = one_session(world.who())
    with pytest.raises(Unauthenticated):
        await authenticate(store, text, API)
    assert store.looked == 0


async def test_a_dead_token_looks_like_no_token():
    text = Token.new(TokenKind.ACCESS).text
    with pytest.raises(Unauthenticated) as dead:
        await authenticate(one_session(None), text, API)
    with pytest.raises(Unauthenticated) as absent:
        await authenticate(one_session(None), None, API)
    assert str(dead.value) == str(absent.value) == "Sign in first."
    with pytest.raises(Suspended):
        await authenticate(one_session(Suspended()), text, API)


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc "])
def test_the_bearer_token_is_read(header):
    assert bearer(header) == "abc"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "abc", "Basic abc", "Bearer a b", "Bearer,abc"]
)
def test_other_headers_hold_no_bearer_token(header):
    assert bearer(header) is None


@given(st.text(max_size=80))
def test_no_header_breaks_the_reading(header):
    assert isinstance(bearer(header), str | None)
