"""Signing in: what a browser, a network or a provider may try.

Every refused login answers 403 in the same words, is on record as login.failed with its reason,
and leaves no person, session or token behind.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import RSAKey

from tests.hostile.world import Liar, Person, World, query_of, signed
from tests.oidc.conftest import b64, ec_key

WORDS = "Signing in did not succeed."


def refused(world: World, answer: httpx.Response, before: dict[str, str], seq: int) -> str:
    """That the answer is the constant one and nothing came of it; the recorded reason."""
    assert answer.status_code == 403, answer.text
    assert WORDS in answer.text
    assert not any(
        name.endswith("broker_session") and value for name, value in answer.cookies.items()
    )
    assert world.state() == before
    (record,) = world.records(seq)
    assert (record["type"], record["outcome"]) == ("login.failed", "failure")
    assert record["actor"]["id"] == "anonymous"
    return str(record["detail"]["reason"])


# --- the browser's side ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [{}, {"state": ""}, {"state": "A" * 43}, {"state": "é"}],
    ids=["missing", "empty", "made up", "not ASCII"],
)
def test_state_missing_or_altered(world: World, query: dict[str, str]) -> None:
    """A callback whose state is missing or changed, as a forged link would have it."""
    who = world.visitor()
    world.begin(who)
    before, seq = world.state(), world.head()
    reason = refused(world, world.back(who, code="any", **query), before, seq)
    assert "state" in reason


def test_state_reused(world: World) -> None:
    """A callback URL taken from the history is opened a second time in the same browser."""
    who = world.visitor()
    asked = world.begin(who)
    kept = dict(who.http.cookies)
    assert world.back(who, state=asked["state"], code="any").status_code == 303
    again = world.visitor()
    again.http.cookies.update(kept)
    before, seq = world.state(), world.head()
    reason = refused(world, world.back(again, state=asked["state"], code="any"), before, seq)
    assert reason == "the login attempt is unknown, used or expired"


def test_state_from_another_browser(world: World) -> None:
    """Login CSRF: the attacker's own callback URL is opened by a victim with an attempt open."""
    attacker, victim = world.visitor(), world.visitor()
    asked = world.begin(attacker)
    world.begin(victim)
    before, seq = world.state(), world.head()
    refused(world, world.back(victim, state=asked["state"], code="any"), before, seq)


def test_state_without_any_attempt(world: World) -> None:
    """Login CSRF on a victim who never began to sign in."""
    asked = world.begin(world.visitor())
    before, seq = world.state(), world.head()
    answer = world.back(world.visitor(), state=asked["state"], code="any")
    assert refused(world, answer, before, seq) == "the browser has no login attempt"


@pytest.mark.parametrize(
    "query",
    ["state={s}&code=a&code=b", "state={s}&state={s}&code=a", "state={s}", "state={s}&code="],
)
def test_callback_parameters_repeated_or_missing(world: World, query: str) -> None:
    """A callback that two parsers would read in two ways, or that has no code."""
    who = world.visitor()
    asked = world.begin(who)
    before, seq = world.state(), world.head()
    answer = who.get(f"/login/callback?{query.format(s=asked['state'])}")
    refused(world, answer, before, seq)


@pytest.mark.parametrize("other", [".evil.example", "/", ":443", ""])
def test_callback_of_another_issuer(world: World, other: str) -> None:
    """Mix-up (RFC 9207): the callback names an issuer like the configured one, or none."""
    who = world.visitor()
    asked = world.begin(who)
    before, seq = world.state(), world.head()
    iss = world.corp.issuer + other if other else world.providers["other"].issuer
    answer = world.back(who, state=asked["state"], code="any", iss=iss)
    assert refused(world, answer, before, seq) == "the callback is from another issuer"


def test_error_description_with_script(world: World) -> None:
    """The provider's error text is markup, and would be shown by a page that trusts it."""
    who = world.visitor()
    asked = world.begin(who)
    before, seq = world.state(), world.head()
    payload = "<script>alert(1)</script>\x1b[2J\r\nSet-Cookie: a=b"
    answer = world.back(
        who, state=asked["state"], error="<img src=x onerror=alert(1)>", error_description=payload
    )
    reason = refused(world, answer, before, seq)
    assert reason == "the provider answered with error unreadable"
    assert "alert(1)" not in answer.text
    assert "\x1b" not in world.log()


# --- the ID token ----------------------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, Any]], None]


def claim(**changes: Any) -> Change:
    def alter(header: dict[str, Any], claims: dict[str, Any]) -> None:
        claims.update(changes)
        for name in [name for name, value in changes.items() if value is ...]:
            del claims[name]

    return alter


def head(**changes: Any) -> Change:
    def alter(header: dict[str, Any], claims: dict[str, Any]) -> None:
        header.update(changes)

    return alter


ALTERED: dict[str, Change] = {
    "nonce missing": claim(nonce=...),
    "nonce wrong": claim(nonce="n" * 43),
    "nonce null": claim(nonce=None),
    "nonce a list": claim(nonce=["x"]),
    "aud foreign": claim(aud="another"),
    "aud empty": claim(aud=""),
    "aud an empty list": claim(aud=[]),
    "aud a prefix": claim(aud="broke"),
    "aud several without azp": claim(aud=["broker", "another"]),
    "aud several with another azp": claim(aud=["broker", "another"], azp="another"),
    "aud of numbers": claim(aud=["broker", 1]),
    "aud missing": claim(aud=...),
    "iss with a slash": lambda h, c: c.update(iss=c["iss"] + "/"),
    "iss a prefix": lambda h, c: c.update(iss=c["iss"][:-1]),
    "iss in upper case": lambda h, c: c.update(iss=c["iss"].upper()),
    "iss with a path": lambda h, c: c.update(iss=c["iss"] + "/tenant"),
    "iss a list": lambda h, c: c.update(iss=[c["iss"]]),
    "exp past": claim(exp=1),
    "exp as text": lambda h, c: c.update(exp=str(c["exp"])),
    "exp fractional": lambda h, c: c.update(exp=c["exp"] + 0.5),
    "exp true": claim(exp=True),
    "exp of 400 digits": claim(exp=10**399),
    "exp negative": claim(exp=-1),
    "exp missing": claim(exp=...),
    "iat in the future": lambda h, c: c.update(iat=c["iat"] + 3600),
    "nbf in the future": lambda h, c: c.update(nbf=c["iat"] + 3600),
    "sub with NUL": claim(sub="s\x001"),
    "sub with a line break": claim(sub="s1\n"),
    "sub with a right-to-left override": claim(sub="s\u202e1"),
    "sub a number": claim(sub=1),
    "sub empty": claim(sub=""),
    "sub of 300 characters": claim(sub="s" * 300),
    "sub missing": claim(sub=...),
    "header brings jwk": head(jwk=ec_key(9).as_dict(private=False)),
    "header brings jku": head(jku="https://evil.example/jwks"),
    "header brings x5u": head(x5u="https://evil.example/cert"),
    "header brings x5c": head(x5c=["MIIB"]),
    "header with an unknown crit": head(crit=["exp"], exp=1),
    "header with b64": head(b64=False, crit=["b64"]),
    "kid a path": head(kid="../../dev/null"),
    "kid a number": head(kid=1),
    "kid empty": head(kid=""),
    "kid unknown": head(kid="k2"),
    "at_hash of another token": claim(at_hash="A" * 22),
}


@pytest.mark.parametrize("name", ALTERED)
def test_id_token_altered(world: World, name: str) -> None:
    """The provider signs an ID token with one part wrong: nonce, audience, issuer, times,
    subject, header."""
    world.corp.alter = ALTERED[name]
    assert "the ID token is refused" in failed_login(world)


def test_iss_of_another_configured_provider(world: World) -> None:
    """One configured provider signs a token in the name of another."""
    other = world.providers["other"].issuer
    world.corp.alter = claim(iss=other)
    assert failed_login(world) == "the ID token is refused: it is from another issuer"


_RSA = RSAKey.generate_key(2048)


def _hs256(claims: dict[str, Any], secret: bytes) -> str:
    header = json.dumps({"alg": "HS256", "kid": "k1"}).encode()
    signing_input = f"{b64(header)}.{b64(json.dumps(claims).encode())}"
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), 'sha256'))}"


_PEM = (
    ec.derive_private_key(1, ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)


def _body(claims: dict[str, Any], old: str, new: str) -> bytes:
    text = json.dumps(claims)
    assert old in text
    return text.replace(old, new, 1).encode()


KEY = ec_key(1)
KID = {"alg": "ES256", "kid": "k1"}
FORGED: dict[str, Callable[[dict[str, Any]], str]] = {
    "alg none": lambda c: signed({"alg": "none", "kid": "k1"}, c, None),
    "alg nOnE": lambda c: signed({"alg": "nOnE", "kid": "k1"}, c, None),
    "alg none with a signature": lambda c: signed({"alg": "none", "kid": "k1"}, c, KEY, "ES256"),
    "alg missing": lambda c: signed({"kid": "k1"}, c, KEY, "ES256"),
    "HS256 with the public key": lambda c: _hs256(c, _PEM),
    "HS256 with the client secret": lambda c: _hs256(c, b"client-secret"),
    "RS512 where it is not configured": lambda c: signed({"alg": "RS512", "kid": "k1"}, c, _RSA),
    "RS256 under an EC key's id": lambda c: signed({"alg": "RS256", "kid": "k1"}, c, _RSA),
    "another key under the same id": lambda c: signed(KID, c, ec_key(7)),
    "signature cut off": lambda c: signed(KID, c, KEY).rpartition(".")[0] + ".",
    "signature of another token": lambda c: (
        signed(KID, c, KEY).rpartition(".")[0]
        + "."
        + signed(KID, {**c, "x": 1}, KEY).rpartition(".")[2]
    ),
    "four parts": lambda c: signed(KID, c, KEY) + ".AAAA",
    "five parts, as if encrypted": lambda c: "AAAA.AAAA.AAAA.AAAA.AAAA",
    "padded base64": lambda c: signed(KID, c, KEY) + "=",
    "JSON serialization": lambda c: json.dumps({"payload": "e30", "signatures": []}),
    "exp NaN": lambda c: signed(KID, _body(c, f'"exp": {c["exp"]}', '"exp": NaN'), KEY),
    "exp 1e999": lambda c: signed(KID, _body(c, f'"exp": {c["exp"]}', '"exp": 1e999'), KEY),
    "exp of 400 nines": lambda c: signed(
        KID, _body(c, f'"exp": {c["exp"]}', '"exp": ' + "9" * 400), KEY
    ),
    "sub a surrogate": lambda c: signed(KID, _body(c, '"sub": "s1"', '"sub": "\\ud800"'), KEY),
    "sub twice": lambda c: signed(KID, _body(c, '"sub": "s1"', '"sub": "s1", "sub": "root"'), KEY),
    "sub twice by an escape": lambda c: signed(
        KID, _body(c, '"sub": "s1"', '"sub": "s1", "\\u0073ub": "root"'), KEY
    ),
    "alg twice": lambda c: signed(b'{"alg":"none","alg":"ES256","kid":"k1"}', c, KEY, "ES256"),
    "claims a list": lambda c: signed(KID, [c], KEY),
    "claims nested 1,000 deep": lambda c: signed(KID, b"[" * 1000 + b"]" * 1000, KEY),
    "16 KiB of escaped quotes": lambda c: signed(KID, b'{"a":"' + b'\\"' * 5900, KEY),
    "over 16 KiB": lambda c: signed(KID, {**c, "x": "y" * 20_000}, KEY),
}


@pytest.mark.parametrize("name", FORGED)
def test_id_token_forged(world: World, name: str) -> None:
    """A token with no signature, somebody else's, or one over bytes that read in two ways."""
    world.corp.forge = FORGED[name]
    assert "the ID token is refused" in failed_login(world)


def test_no_kid_with_one_key(world: World) -> None:
    """Without a key id the choice is clear where the issuer has one key: no attack, a control."""
    world.corp.alter = lambda header, claims: header.pop("kid")
    assert world.sign_in("nokid").id.startswith("p-")


def test_no_kid_with_several_keys(world: World) -> None:
    """Without a key id, of several keys none is tried in turn."""
    idp = world.providers["keyless"]
    idp.keys = {"a": ec_key(1), "b": ec_key(2)}
    idp.signing = (None, ec_key(1))
    reason = failed_login(world, "keyless")
    assert reason == "the ID token is refused: several keys of the issuer fit the token's header"


def test_ever_new_unknown_kids(world: World) -> None:
    """Tokens with ever new key ids must not turn into as many requests for keys."""
    world.sign_in("kids", "other")
    idp = world.providers["other"]
    before, people = idp.hits["/jwks"], world.state()
    who, began = world.visitor(), time.monotonic()
    for number in range(1000):
        # Twenty-five an address: the limit on logins would hide more, and more addresses would
        # use up the minute's places for first refusals, which the next tests look at.
        who.http.headers["x-forwarded-for"] = f"198.19.0.{number // 25 + 1}"
        asked = world.begin(who, "other")
        idp.alter = head(kid=f"unknown-{number}")
        assert world.back(who, state=asked["state"], code="any").status_code == 403
    assert idp.hits["/jwks"] - before <= 1 + (time.monotonic() - began) // 60
    assert world.state() == people


# --- the provider's documents ----------------------------------------------------------------


async def _huge(writer: Any) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
    for _ in range(800):
        writer.write(b" " * 65536)
        await writer.drain()


async def _drip(writer: Any) -> None:
    import asyncio  # noqa: PLC0415 -- what this provider does, and nobody else here

    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


def _other_issuer(idp: Liar) -> None:
    idp.metadata = {"issuer": "https://other.example.com"}


def _redirect(idp: Liar) -> None:
    idp.replace(
        "/.well-known/openid-configuration",
        {},
        status=302,
        headers={"Location": "http://169.254.169.254/latest/meta-data"},
    )


def _insecure_endpoint(idp: Liar) -> None:
    idp.metadata = {"token_endpoint": "http://evil.example/token"}


def _is_huge(idp: Liar) -> None:
    idp.replace("/.well-known/openid-configuration", raw=_huge)


def _drips(idp: Liar) -> None:
    idp.replace("/.well-known/openid-configuration", raw=_drip)


def _is_deep(idp: Liar) -> None:
    idp.replace("/.well-known/openid-configuration", b'{"a":' * 100_000)


def _never_ends_a_string(idp: Liar) -> None:
    idp.replace("/.well-known/openid-configuration", b'{"a":"' + b'\\"' * 500_000)


@pytest.mark.parametrize(
    "lie",
    [
        _other_issuer,
        _redirect,
        _insecure_endpoint,
        _is_huge,
        _drips,
        _is_deep,
        _never_ends_a_string,
    ],
)
def test_discovery_that_lies(world: World, lie: Callable[[Liar], None]) -> None:
    """Discovery that redirects to another host, names another issuer or a plain-http endpoint,
    drips, is 50 MB, nests without end or never ends a string."""
    lie(world.providers["hollow"])
    before, seq = world.state(), world.head()
    answer = world.visitor().get("/login", params={"provider": "hollow"})
    assert answer.status_code == 403
    assert WORDS in answer.text
    assert "location" not in answer.headers
    assert (world.state(), world.records(seq)) == (before, [])
    assert world.client().get("/readyz").status_code == 200


def test_userinfo_of_another_subject(world: World) -> None:
    """Token substitution: userinfo answers for somebody else, who is in better groups."""
    world.corp.alter = claim(groups=...)
    world.corp.userinfo = {"sub": "root", "groups": ["platform"]}
    assert failed_login(world) == "userinfo is about another subject than the ID token"


@pytest.mark.parametrize("path", ["/token", "/userinfo", "/jwks"])
def test_endpoints_that_redirect(world: World, path: str) -> None:
    """An endpoint that redirects the broker's secret or token to another host."""
    world.corp.alter = claim(groups=...)
    if path == "/jwks":
        world.corp.alter = head(kid="never-seen")
    world.corp.replace(path, {}, status=307, headers={"Location": "https://evil.example/"})
    reason = failed_login(world)
    assert "redirect" in reason or path == "/jwks"


# --- several providers -----------------------------------------------------------------------


def test_same_subject_email_and_group_at_two_providers(world: World) -> None:
    """A second provider vouches for the same subject, e-mail and group names as the first."""
    one = world.sign_in("twin", "corp", groups=["platform"])
    two = world.sign_in("twin", "other", groups=["platform"])
    assert one.id != two.id
    assert world.enrol(two).status_code == 200
    two.log_the_terminal_in()
    me = two.api("GET", "/v1/me").json()
    assert (me["groups"], me["rights"]) == (["other/platform"], [])
    assert two.api("GET", "/v1/access").status_code == 403
    assert two.ask().status_code == 404


def test_session_is_new_at_each_sign_in(world: World) -> None:
    """Session fixation: a session cookie planted before the login is worth nothing after it."""
    planted = world.sign_in("fixer")
    cookie = dict(planted.http.cookies)
    victim = world.visitor()
    victim.http.cookies.set("broker_session", cookie["broker_session"], domain="127.0.0.1")
    world.sign_in("victim", who=victim)
    attacker = world.visitor()
    attacker.http.cookies.set("broker_session", cookie["broker_session"], domain="127.0.0.1")
    assert attacker.get("/mfa/enroll").headers["location"].startswith("/login")
    assert victim.http.cookies.get("broker_session") != cookie["broker_session"]


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/\r\nLocation: https://evil.example",
        "/%0d%0aSet-Cookie:a=b",
        "/mfa/../../evil",
        "/mfa/%2e%2e/x",
        "/oauth/authorize@evil.example",
        "javascript:alert(1)",
        "/mfa#@evil.example",
        "\u2215\u2215evil.example",
        "/\t/evil.example",
        "",
    ],
)
def test_open_redirect_by_next(world: World, target: str) -> None:
    """`next` leads a freshly signed-in person to another site."""
    who = world.visitor()
    world.corp.claims = {"sub": "redirected"}
    asked = world.begin(who, next=target)
    answer = world.back(who, state=asked["state"], code="any")
    assert answer.status_code == 303
    assert query_of(answer)["next"] == "/"
    assert answer.headers["location"].startswith("/mfa")
    page = who.get("/mfa/enroll", params={"next": target})
    assert "evil" not in page.text
    assert "javascript:" not in page.text


def failed_login(world: World, provider: str = "corp", who: Person | None = None) -> str:
    """One whole login that must fail; the recorded reason."""
    who = who or world.visitor()
    asked = world.begin(who, provider)
    before, seq = world.state(), world.head()
    return refused(world, world.back(who, state=asked["state"], code="any"), before, seq)
