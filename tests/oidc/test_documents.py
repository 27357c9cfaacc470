"""Discovery and keys: what is refused, what is cached, and how often a provider is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.oidc_documents import ProviderDocuments, parse_metadata
from broker.adapters.outbound import FetchFailed
from broker.identity.login import LoginBinding, LoginRejected
from broker.identity.verification_keys import NoSuitableKey

DISCOVERY = "/.well-known/openid-configuration"
HOUR = 3600.0


async def begin(party: Any) -> Any:
    return await party.authorize(LoginBinding.new())


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": ...},
        {"issuer": None},
        {"authorization_endpoint": ...},
        {"token_endpoint": ...},
        {"jwks_uri": ...},
        {"jwks_uri": 7},
        {"token_endpoint": "http://evil.example/token"},
        {"token_endpoint": "http://127.0.0.1.evil.example/token"},
        {"token_endpoint": "http://user:pw@127.0.0.1/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "/token"},
        {"token_endpoint": "https://"},
        {"token_endpoint": "https://[bad/token"},
        {"token_endpoint": "https://a:99999/token"},
        {"token_endpoint": "https://a/to ken"},
        {"token_endpoint": "https://a/token#x"},
        {"token_endpoint": "https://a/" + "x" * 3000},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"userinfo_endpoint": None},
        {"userinfo_endpoint": "http://evil.example/userinfo"},
    ],
)
async def test_a_discovery_document_that_can_not_be_trusted_is_refused(party, idp, metadata):
    idp.metadata = metadata
    with pytest.raises(LoginRejected, match="discovery"):
        await begin(party)


async def test_the_issuer_must_match_to_the_letter(party, idp):
    for wrong in (f"{idp.issuer}/", idp.issuer.replace("http", "HTTP"), f"{idp.issuer}/tenant"):
        idp.metadata = {"issuer": wrong}
        with pytest.raises(LoginRejected, match="another issuer"):
            await begin(party)


async def test_an_issuer_with_a_path_or_a_slash_has_its_document_below_it(party, idp):
    for tenant in ("/tenant/", "/tenant"):
        issuer = f"{idp.issuer}{tenant}"
        idp.metadata = {"issuer": issuer}
        idp.replace(f"/tenant{DISCOVERY}", idp.document())
        party.configure(issuer=issuer)
        assert (await begin(party))["client_id"] == "broker"


def document(issuer: str, **changes: object) -> dict[str, object]:
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    return {"issuer": issuer, **{name: f"{issuer}/{name}" for name in names}, **changes}


def test_an_https_issuer_must_have_https_endpoints_alone():
    issuer = "https://idp.example.com"
    assert parse_metadata(document(issuer), issuer).token_endpoint.startswith("https:")
    for plain in ("http://idp.example.com/jwks", "http://127.0.0.1/jwks", "http://localhost/j"):
        with pytest.raises(FetchFailed, match="jwks_uri"):
            parse_metadata(document(issuer, jwks_uri=plain), issuer)
    with pytest.raises(FetchFailed):
        parse_metadata(document("http://idp.example.com"), "http://idp.example.com")


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "issuer",
                "authorization_endpoint",
                "token_endpoint",
                "jwks_uri",
                "userinfo_endpoint",
                "scopes_supported",
                "token_endpoint_auth_methods_supported",
                "authorization_response_iss_parameter_supported",
            ]
        ),
        st.none()
        | st.booleans()
        | st.text()
        | st.lists(st.text() | st.integers())
        | st.text("htps:/[]@#%\\ a1.", max_size=20),
    )
)
def test_no_document_raises_anything_else(odd):
    issuer = "https://idp.example.com"
    try:
        metadata = parse_metadata({**document(issuer), **odd}, issuer)
    except FetchFailed:
        return
    assert metadata.token_endpoint.startswith("https://")


async def test_discovery_is_fetched_at_the_first_login_and_then_once_an_hour(party, idp):
    assert idp.requests == []
    for _ in range(3):
        await begin(party)
    party.clock.seconds += HOUR - 1
    await begin(party)
    assert idp.hits[DISCOVERY] == 1
    party.clock.seconds += 1
    await begin(party)
    assert idp.hits[DISCOVERY] == 2


async def test_a_hundred_first_logins_at_once_are_one_fetch(party, idp):
    await asyncio.gather(*(begin(party) for _ in range(100)))
    assert idp.hits[DISCOVERY] == 1


async def test_a_caller_who_leaves_does_not_fail_the_others(party, idp):
    first = asyncio.create_task(begin(party))
    others = [asyncio.create_task(begin(party)) for _ in range(5)]
    await idp.asked(DISCOVERY, 1)
    first.cancel()
    await asyncio.gather(*others)
    assert first.cancelled()
    assert idp.hits[DISCOVERY] == 1


async def test_a_provider_that_is_down_fails_the_login_and_recovers(party, idp):
    port = int(idp.issuer.rpartition(":")[2])
    await idp.stop()
    with pytest.raises(LoginRejected, match="no connection"):
        await begin(party)
    await idp.start(port)
    assert (await party.log_in()).subject == "s1"


async def test_an_old_discovery_document_serves_for_a_day_while_the_provider_is_down(
    party, idp, caplog
):
    await begin(party)
    idp.replace(DISCOVERY, {"error": "down"}, status=503)
    party.clock.seconds += HOUR
    for _ in range(10):
        await begin(party)
    assert idp.hits[DISCOVERY] == 2
    assert "still using the old one" in caplog.text
    party.clock.seconds += 23 * HOUR
    with pytest.raises(LoginRejected, match="answered 503"):
        await begin(party)


async def test_a_document_that_turns_hostile_does_not_replace_the_good_one(party, idp):
    await begin(party)
    idp.metadata = {"issuer": "https://evil.example"}
    party.clock.seconds += HOUR
    assert (await begin(party))[""].startswith(f"{idp.issuer}/authorize?")


async def test_a_rotated_key_is_picked_up_at_once(party, idp):
    await party.log_in()
    idp.rotate("k2", 2)
    await party.log_in()
    assert idp.hits["/jwks"] == 2


async def test_a_key_changed_under_the_same_id_is_picked_up(party, idp):
    await party.log_in()
    idp.rotate("k1", 2)
    await party.log_in()
    assert idp.hits["/jwks"] == 2


async def test_a_rotated_key_without_an_id_is_picked_up(party, idp):
    idp.rotate(None, 1)
    await party.log_in()
    idp.rotate(None, 2)
    await party.log_in()
    assert idp.hits["/jwks"] == 2


async def test_a_thousand_unknown_key_ids_cause_one_fetch_a_minute(party, idp):
    documents = ProviderDocuments(idp.issuer, party.client, party.clock)
    await documents.key("k1", "ES256")
    for minute in (1, 2):
        asked = (documents.key(f"unknown-{minute}-{n}", "ES256") for n in range(1000))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} == {NoSuitableKey}
        assert idp.hits["/jwks"] == 1 + minute
        party.clock.seconds += 60
    assert (await documents.key("k1", "ES256")).key_id == "k1"


async def test_logins_with_an_unknown_key_id_are_refused_and_good_ones_still_pass(party, idp):
    await party.log_in()
    signing = idp.signing
    for attempt in range(10):
        idp.signing = (f"unknown-{attempt}", signing[1])
        with pytest.raises(LoginRejected, match="no key"):
            await party.log_in()
    idp.signing = signing
    assert (await party.log_in()).subject == "s1"
    assert idp.hits["/jwks"] == 2


async def test_forged_signatures_cause_one_fetch_a_minute(party, idp):
    await party.log_in()
    published = idp.keys
    idp.rotate("k1", 9)
    idp.keys = published
    for _ in range(20):
        with pytest.raises(LoginRejected, match="signature"):
            await party.log_in()
    assert idp.hits["/jwks"] == 2


async def test_an_empty_key_set_does_not_replace_the_good_one(party, idp):
    await party.log_in()
    idp.replace("/jwks", {"keys": []})
    party.clock.seconds += 600
    assert (await party.log_in()).subject == "s1"
    assert idp.hits["/jwks"] == 2


async def test_a_withdrawn_key_stops_to_count(party, idp):
    await party.log_in()
    stolen = idp.signing
    idp.rotate("k2", 2)
    idp.signing = stolen
    party.clock.seconds += 600
    with pytest.raises(LoginRejected, match="no key"):
        await party.log_in()


async def test_old_keys_serve_for_an_hour_at_most(party, idp):
    await party.log_in()
    idp.replace("/jwks", {"error": "down"}, status=500)
    party.clock.seconds += HOUR - 1
    assert (await party.log_in()).subject == "s1"
    party.clock.seconds += 1
    with pytest.raises(LoginRejected, match="key set: answered 500"):
        await party.log_in()


@pytest.mark.parametrize(
    "keys", [{"keys": []}, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, {}, {"keys": [{}] * 101}]
)
async def test_a_key_set_without_a_usable_key_refuses_the_login(party, idp, keys):
    idp.replace("/jwks", keys)
    with pytest.raises(LoginRejected, match="key set"):
        await party.log_in()


async def test_two_providers_keep_their_own_keys(party, idp):
    """A token of another configured provider is no good here, whatever it says."""
    await party.log_in()
    idp.rotate("k1", 5)
    idp.claims = {"iss": "https://other.example"}
    with pytest.raises(LoginRejected, match="another issuer"):
        await party.log_in()
