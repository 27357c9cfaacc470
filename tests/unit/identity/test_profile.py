from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.id_token import IdTokenClaims
from broker.identity.login import ProviderIdentity
from broker.identity.profile import identity_of, needs_userinfo, read_groups


def identify(
    claims: dict[str, object], userinfo: dict[str, object] | None = None
) -> ProviderIdentity:
    return identity_of(
        IdTokenClaims("s1", None, claims),
        userinfo,
        provider="corp",
        issuer="https://idp",
        groups_claim="groups",
        handle_claim="email",
    )


def test_groups_are_qualified_by_their_provider_and_may_hold_slashes():
    who = identify({"groups": ["sre", "/platform/sre", "Ops & Co"]})
    assert who.groups == {"corp/sre", "corp//platform/sre", "corp/Ops & Co"}


@pytest.mark.parametrize(
    "groups",
    [
        "sre",
        {"sre": True},
        None,
        True,
        ["sre", 7],
        ["sre", None],
        ["sre", ["admin"]],
        ["sre", ""],
        ["sre", "a\nb"],
        ["sre", "a\0"],
        ["sre", "\u202eers"],
        ["sre", "x" * 257],
        [f"g{i}" for i in range(201)],
    ],
)
def test_a_groups_claim_that_can_not_be_used_gives_no_groups_at_all(groups):
    assert identify({"groups": groups}).groups == frozenset()
    # Nor is it looked for elsewhere: the token said something, and it was wrong.
    assert identify({"groups": groups}, {"groups": ["admin"]}).groups == frozenset()


def test_groups_at_the_limits_are_kept():
    assert len(identify({"groups": [f"g{i}" for i in range(200)]}).groups) == 200
    assert len(identify({"groups": ["x" * 256]}).groups) == 1
    assert identify({"groups": []}).groups == frozenset()
    assert identify({}).groups == frozenset()


def test_groups_come_from_userinfo_only_where_the_token_has_none():
    assert identify({}, {"groups": ["a"]}).groups == {"corp/a"}
    assert identify({"groups": ["t"]}, {"groups": ["u"]}).groups == {"corp/t"}
    assert identify({"groups": []}, {"groups": ["u"]}).groups == frozenset()


@pytest.mark.parametrize(
    ("claims", "needed"),
    [
        ({"groups": [], "email": "a@b"}, False),
        ({"groups": None, "email": None}, False),
        ({"groups": []}, True),
        ({"email": "a@b"}, True),
    ],
)
def test_userinfo_is_needed_where_groups_or_mail_are_lacking(claims, needed):
    assert needs_userinfo(IdTokenClaims("s1", None, claims), "groups") is needed


@pytest.mark.parametrize("verified", ["true", "True", 1, None, False, [True]])
def test_an_address_is_verified_by_json_true_alone(verified):
    assert not identify({"email": "a@b.example", "email_verified": verified}).email_verified
    assert identify({"email": "a@b.example", "email_verified": True}).email_verified


def test_verified_never_crosses_from_one_source_to_the_others_address():
    who = identify({"email": "a@b.example"}, {"email": "x@b.example", "email_verified": True})
    assert (who.email, who.email_verified) == ("a@b.example", False)
    who = identify({"email_verified": True}, {"email": "x@b.example"})
    assert (who.email, who.email_verified) == ("x@b.example", False)


@pytest.mark.parametrize(
    "email",
    ["", "a", "a@", "@b", "a b@c", "a@b\nc", "a@b@c", "a\u200b@b", 7, ["a@b"], "x" * 65 + "@b"],
)
def test_what_is_no_address_is_no_address(email):
    who = identify({"email": email, "email_verified": True})
    assert (who.email, who.email_verified) == (None, False)


def test_the_handle_falls_back_to_mail_and_then_subject():
    assert identify({"email": "a@b"}).handle == "a@b"
    assert identify({}).handle == "s1"
    for bad in ("", "x" * 300, "a\nb@c", 7, None):
        assert identify({"email": bad}).handle == "s1"


def test_string_claims_of_the_token_are_kept_for_templates_and_nothing_else():
    who = identify(
        {
            "team": "data",
            "cost_center": "42",
            "number": 7,
            "flag": True,
            "list": ["a"],
            "empty": "",
            "long": "x" * 257,
            "bad": "a\nb",
            "bad name": "x",
            "https://x/y": "x",
            "iss": "x",
            "nonce": "x",
            "sid": "x",
            "at_hash": "x",
        },
        {"office": "Berlin"},
    )
    assert who.claims == {"team": "data", "cost_center": "42"}


def test_a_person_is_kept_whole_as_the_provider_said():
    when = datetime(2026, 11, 24, 12, tzinfo=UTC)
    claims: dict[str, object] = {
        "groups": ["sre"],
        "preferred_username": "ada",
        "email": "ada@corp.example",
        "email_verified": True,
        "team": "x" * 256,
    }
    who = identity_of(
        IdTokenClaims("s1", when, claims),
        {"preferred_username": "other"},
        provider="corp",
        issuer="https://idp",
        groups_claim="groups",
        handle_claim="preferred_username",
    )
    assert who == ProviderIdentity(
        provider="corp",
        issuer="https://idp",
        subject="s1",
        handle="ada",
        email="ada@corp.example",
        email_verified=True,
        groups=frozenset({"corp/sre"}),
        claims={"preferred_username": "ada", "email": "ada@corp.example", "team": "x" * 256},
        auth_time=when,
    )
    named = replace(IdTokenClaims("s1", None, {}), all={"nick": "x" * 128})
    longer = replace(named, all={"nick": "x" * 129})
    for stated, handle in ((named, "x" * 128), (longer, "s1")):
        who = identity_of(
            stated, None, provider="c", issuer="i", groups_claim="g", handle_claim="nick"
        )
        assert who.handle == handle


def test_an_unusable_claim_does_not_hide_those_after_it():
    who = identify({"a b": "x", "acr": "x", "big": "x" * 257, "nonce": "x", "zone": "eu"})
    assert who.claims == {"zone": "eu"}


def test_only_so_many_claims_are_kept():
    kept = identify({f"c{i:03}": "x" for i in reversed(range(500))}).claims
    assert kept == {f"c{i:03}": "x" for i in range(32)}


@given(
    st.dictionaries(
        st.sampled_from(["groups", "email", "email_verified", "team"]) | st.text(max_size=4),
        st.none() | st.text(max_size=9) | st.lists(st.text(max_size=4) | st.integers()),
    )
)
def test_no_claims_break_the_reading(claims):
    who = identify(claims, claims)
    assert all(group.startswith("corp/") and group.isprintable() for group in who.groups)
    assert read_groups(claims.get("groups")) is None or len(who.groups) <= 200
    assert who.handle.isprintable()
