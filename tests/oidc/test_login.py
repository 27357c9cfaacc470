"""The code flow against a provider over HTTP, honest and not."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import unquote_plus

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import OctKey, RSAKey

from broker.adapters.oidc import OidcProvider, ProviderConfig
from broker.errors import StartupError
from broker.identity.login import LoginBinding, LoginRejected


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_a_person_is_identified(party, idp):
    who = await party.log_in()
    assert (who.provider, who.issuer, who.subject) == ("corp", idp.issuer, "s1")
    assert (who.handle, who.email, who.email_verified) == ("ada@example.com",) * 2 + (True,)
    assert who.groups == {"corp/sre"}
    token_request = next(r for r in idp.requests if r.path == "/token")
    assert token_request.method == "POST"
    assert token_request.form.keys() == {"grant_type", "code", "code_verifier", "redirect_uri"}
    assert token_request.form["code"] == "the-code"
    basic = base64.b64encode(b"broker:s3cr3t").decode()
    assert token_request.headers["authorization"] == f"Basic {basic}"
    assert idp.hits["/userinfo"] == 0


async def test_the_browser_is_sent_with_pkce_state_and_nonce(party, idp):
    binding = LoginBinding.new()
    query = await party.authorize(binding)
    assert query.pop("").startswith(f"{idp.issuer}/authorize?")
    assert query == {
        "response_type": "code",
        "client_id": "broker",
        "redirect_uri": "https://broker.example.com/login/callback",
        "scope": "openid profile email",
        "state": binding.state,
        "nonce": binding.nonce,
        "code_challenge": binding.code_challenge,
        "code_challenge_method": "S256",
    }


async def test_an_authorization_endpoint_with_a_query_keeps_it(party, idp):
    idp.metadata["authorization_endpoint"] = f"{idp.issuer}/authorize?tenant=a"
    query = await party.authorize(LoginBinding.new())
    assert query["tenant"] == "a"
    assert query["client_id"] == "broker"


async def test_the_groups_scope_is_asked_for_where_the_provider_lists_it(party, idp):
    idp.metadata["scopes_supported"] = ["openid", "groups"]
    query = await party.authorize(LoginBinding.new())
    assert query["scope"] == "openid profile email groups"


@pytest.mark.parametrize(
    ("methods", "header", "fields"),
    [
        (..., True, set()),
        (["client_secret_post", "client_secret_basic"], True, set()),
        (["client_secret_post"], False, {"client_id", "client_secret"}),
    ],
)
async def test_the_client_authenticates_as_the_provider_wants(party, idp, methods, header, fields):
    idp.metadata["token_endpoint_auth_methods_supported"] = methods
    await party.log_in()
    (request,) = (r for r in idp.requests if r.path == "/token")
    assert ("authorization" in request.headers) is header
    assert request.form.keys() & {"client_id", "client_secret"} == fields


async def test_a_public_client_sends_its_id_and_no_secret(party, idp):
    party.configure(client_secret=None)
    await party.log_in()
    (request,) = (r for r in idp.requests if r.path == "/token")
    assert "authorization" not in request.headers
    assert request.form["client_id"] == "broker"
    assert "client_secret" not in request.form


async def test_secrets_with_any_character_reach_the_provider_whole(party, idp):
    secret = "p:ä %+&=€/\\"
    party.configure(client_secret=secret)
    await party.log_in()
    (request,) = (r for r in idp.requests if r.path == "/token")
    encoded = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    assert tuple(unquote_plus(part) for part in encoded.split(":")) == ("broker", secret)


async def test_a_provider_that_takes_no_secret_we_can_send_is_refused_at_the_start(party, idp):
    idp.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    with pytest.raises(LoginRejected, match="neither"):
        await party.authorize(LoginBinding.new())


def test_secrets_do_not_show_in_reprs():
    config = ProviderConfig("corp", "https://idp", "broker", "s3cr3t")
    assert "s3cr3t" not in repr(config)


@pytest.mark.parametrize("algorithms", [{"none"}, {"HS256"}, {"RS256", "HS512"}, set(), {"rs256"}])
def test_algorithms_that_must_never_be_trusted_stop_the_start(algorithms):
    with pytest.raises(StartupError, match="oidc corp: algorithms"):
        ProviderConfig("corp", "https://idp", "broker", algorithms=frozenset(algorithms))


async def test_rs256_with_a_published_key_is_accepted(party, idp):
    raw = rsa.generate_private_key(65537, 2048)
    key = RSAKey(raw, raw)
    idp.keys["r1"], idp.signing, idp.header = key, ("r1", key), {"alg": "RS256"}
    assert (await party.log_in()).subject == "s1"


@pytest.mark.parametrize(
    ("iss", "advertised", "accepted"),
    [
        (None, False, True),
        ("right", False, True),
        ("right", True, True),
        (None, True, False),
        ("https://evil.example", False, False),
        ("https://evil.example", True, False),
        ("", True, False),
    ],
)
async def test_the_callbacks_issuer_is_checked_before_the_code_goes_anywhere(
    party, idp, iss, advertised, accepted
):
    idp.metadata["authorization_response_iss_parameter_supported"] = advertised
    iss = idp.issuer if iss == "right" else iss
    if accepted:
        assert (await party.log_in(iss)).subject == "s1"
    else:
        with pytest.raises(LoginRejected, match="issuer"):
            await party.log_in(iss)
        assert idp.hits["/token"] == 0


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": ...}, "nonce"),
        ({"aud": "other"}, "another client"),
        ({"aud": ["broker", "other"]}, "several audiences"),
        ({"azp": "other"}, "another client asked"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"exp": 1}, "expired"),
        ({"at_hash": b64(hashlib.sha256(b"other").digest()[:16])}, "at_hash"),
        ({"sub": "a\u0000b"}, "subject"),
    ],
)
async def test_an_id_token_that_is_not_for_this_login_is_refused(party, idp, claims, reason):
    idp.claims = claims
    with pytest.raises(LoginRejected, match=reason):
        await party.log_in()


async def test_a_right_at_hash_is_accepted(party, idp):
    idp.claims = {"at_hash": b64(hashlib.sha256(b"at").digest()[:16])}
    assert (await party.log_in()).subject == "s1"


async def test_alg_none_is_refused(party, idp):
    idp.header = {"alg": "none"}
    with pytest.raises(LoginRejected, match="refused"):
        await party.log_in()


async def test_hs256_with_the_public_key_as_secret_is_refused(party, idp):
    secret = idp.keys["k1"].as_pem(private=False)
    idp.signing, idp.header = ("k1", OctKey.import_key(secret.hex())), {"alg": "HS256"}
    with pytest.raises(LoginRejected, match="not one configured"):
        await party.log_in()


async def test_a_token_that_brings_its_own_key_is_refused(party, idp):
    attacker = idp.keys["k1"]
    idp.header = {"jwk": attacker.as_dict(private=False)}
    with pytest.raises(LoginRejected, match="key of its own"):
        await party.log_in()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"id_token": ...}, "no ID token"),
        ({"id_token": 7}, "refused"),
        ({"id_token": "a.b.c"}, "refused"),
        ({"access_token": 7}, "malformed"),
        ({"error": "invalid_client"}, "gave no tokens"),
    ],
)
async def test_a_malformed_token_answer_is_refused(party, idp, answer, reason):
    idp.token_answer = answer
    with pytest.raises(LoginRejected, match=reason):
        await party.log_in()


async def test_what_the_token_endpoint_says_goes_to_the_log_alone(party, idp):
    binding = LoginBinding.new()
    await party.authorize(binding)
    idp.challenge = "another"
    with pytest.raises(LoginRejected) as refused:
        await party.provider.identify(
            code="SECRETCODE",
            code_verifier=binding.code_verifier,
            nonce=binding.nonce,
            redirect_uri="https://broker.example.com/login/callback",
            iss=None,
        )
    assert refused.value.reason == "token endpoint: answered 400 and gave no tokens"
    assert "invalid_grant" in (refused.value.log_detail or "")
    for secret in ("SECRETCODE", binding.code_verifier, "s3cr3t"):
        assert secret not in repr(refused.value) + (refused.value.log_detail or "")


async def test_groups_come_from_userinfo_where_the_token_has_none(party, idp):
    idp.claims = {"groups": ...}
    idp.userinfo = {"sub": "s1", "groups": ["data", "a/b"]}
    assert (await party.log_in()).groups == {"corp/data", "corp/a/b"}


async def test_userinfo_about_someone_else_refuses_the_login(party, idp):
    idp.claims = {"groups": ...}
    for other in ({"sub": "s2", "groups": ["admin"]}, {"groups": ["admin"]}, {"sub": ["s1"]}):
        idp.userinfo = other
        with pytest.raises(LoginRejected, match="another subject"):
            await party.log_in()


async def test_userinfo_that_fails_refuses_the_login_rather_than_dropping_groups(party, idp):
    idp.claims = {"groups": ...}
    idp.token_answer = {"access_token": "wrong"}
    with pytest.raises(LoginRejected, match="userinfo: answered 404"):
        await party.log_in()


async def test_an_access_token_that_would_break_the_header_is_refused(party, idp):
    idp.claims = {"groups": ...}
    idp.token_answer = {"access_token": "at\r\nX: y"}
    with pytest.raises(LoginRejected, match="access token is malformed"):
        await party.log_in()
    assert idp.hits["/userinfo"] == 0


async def test_without_a_userinfo_endpoint_there_are_just_no_groups(party, idp):
    idp.metadata["userinfo_endpoint"] = ...
    idp.claims = {"groups": ...}
    assert (await party.log_in()).groups == frozenset()


async def test_an_over_long_groups_claim_gives_none_and_is_logged(party, idp, caplog):
    idp.claims = {"groups": [f"g{i}" for i in range(201)]}
    assert (await party.log_in()).groups == frozenset()
    assert "provider corp: the claim groups" in caplog.text


async def test_the_configured_claims_are_used(party, idp):
    party.configure(groups_claim="roles", handle_claim="preferred_username")
    idp.claims = {"roles": ["ops"], "preferred_username": "ada", "team": "data"}
    who = await party.log_in()
    assert (who.groups, who.handle) == ({"corp/ops"}, "ada")
    assert who.claims["team"] == "data"


def test_a_provider_is_named_before_anything_is_fetched(party, idp):
    assert (party.provider.name, party.provider.issuer) == ("corp", idp.issuer)
    assert isinstance(party.provider, OidcProvider)
    assert idp.requests == []
