"""The access policy file: what it becomes, and that anything else is refused with its cure."""

from __future__ import annotations

import json
from ipaddress import ip_network

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.access.finding import PolicyRefused
from broker.access.parse import parse_policy
from broker.access.policy import (
    EMPTY,
    AccessPolicy,
    Approval,
    DelegatedAdmin,
    Group,
    Mode,
    User,
)
from tests.unit.access.examples import FILE, PROVIDERS, policy


def read(text: str) -> AccessPolicy | PolicyRefused:
    """The policy or its refusal: any other exception is a failure of the test."""
    try:
        return parse_policy(text, providers=PROVIDERS)
    except PolicyRefused as refused:
        return refused


def test_a_whole_file():
    parsed = parse_policy(FILE, providers=PROVIDERS, number=7)
    assert parsed.number == 7
    assert parsed.accounts["prod"].title == "Production"
    test = parsed.accounts["test"]
    assert (test.title, test.region, test.partition) == ("test", "us-east-1", "aws")
    assert parsed.admins == (Group("corp/platform"),)
    assert parsed.auditors == (Group("corp/audit"), User("corp/grace@example.com"))

    reader = parsed.roles["data-reader"]
    assert reader.account is parsed.accounts["prod"]
    assert (reader.role_maximum, reader.default_duration, reader.max_grant) == (14400, 2700, 86400)
    assert reader.external_id == "e-4711"
    assert reader.parameters["bucket"].allowed == ("reports", "logs")
    assert reader.parameters["prefix"].default == "public"
    assert reader.session_policy is not None
    assert reader.session_policy.placeholders == {"bucket", "prefix"}
    assert reader.tags["team"].source == "{{principal.claims.team}}"
    assert (reader.transitive_tags, reader.revocable) == (("team",), True)

    admin = parsed.roles["admin"]
    assert (admin.unscoped, admin.may_chain, admin.revocable) == (True, False, False)
    assert (admin.role_maximum, admin.default_duration, admin.max_grant) == (3600, 3600, 0)
    assert admin.via == ()

    first, second = parsed.entitlements
    assert (first.role, first.to, first.mode) == (
        "data-reader",
        Group("corp/analysts"),
        Mode.STANDING,
    )
    assert (first.max_duration, first.line, second.line) == (7200, 24, 25)
    assert first.require.mfa_within == 8 * 3600
    assert first.require.networks == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert str(first.require.hours) == "Mon-Fri 08:00-20:00 Europe/Berlin"
    assert first.require.reason
    assert second.to == Group("corp/sre")
    assert second.max_duration is None
    assert parsed.organization.maximum_duration == 8 * 3600
    assert parsed.organization.allowed_accounts == frozenset({"111122223333", "444455556666"})
    assert parsed.organization.deny == ({"Effect": "Deny", "Action": "iam:*", "Resource": "*"},)


def test_hops_and_a_generated_external_id():
    hops = "arn:aws:iam::999988887777:role/Hub, arn:aws:iam::111122223333:role/Second"
    text = FILE.replace(
        'external_id: "e-4711"', f"external_id: {{generate: true}}\n    via: [{hops}]"
    )
    role = policy(text).roles["data-reader"]
    assert role.via == tuple(hops.split(", "))
    assert (role.generates_external_id, role.external_id) == (True, None)
    assert not policy().roles["data-reader"].generates_external_id


def test_an_entitlement_on_request():
    text = FILE.replace(
        "{role: admin, to: {group: sre}, mode: standing}",
        "{role: admin, to: {group: sre}, mode: on_request, max_grant: 8h, "
        "approval: {from: {group: sre-leads}, quorum: 2}, break_glass: true}",
    )
    entitlement = policy(text).entitlements[1]
    assert entitlement.mode is Mode.ON_REQUEST
    assert entitlement.approval == Approval(Group("corp/sre-leads"), 2)
    assert (entitlement.max_grant, entitlement.break_glass) == (8 * 3600, True)
    least = FILE.replace("sre}, mode: standing", "sre}, mode: on_request")
    entitlement = policy(least).entitlements[1]
    assert (entitlement.approval, entitlement.max_grant, entitlement.break_glass) == (
        None,
        None,
        False,
    )


def test_delegated_admins_stand_beside_those_without_limits():
    text = FILE.replace(
        "[{group: corp/platform}]",
        "[{group: corp/platform}, {group: a-leads, accounts: [test]}, "
        "{user: ada@example.com, roles: [data-reader]}]",
    )
    parsed = policy(text)
    assert parsed.admins == (Group("corp/platform"),)
    assert parsed.delegated == (
        DelegatedAdmin(Group("corp/a-leads"), frozenset({"test"}), frozenset()),
        DelegatedAdmin(User("corp/ada@example.com"), frozenset(), frozenset({"data-reader"})),
    )


def test_an_external_id_is_in_no_repr():
    assert "e-4711" not in repr(policy())


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_as_well(indent):
    as_json = json.dumps(yaml.safe_load(FILE), indent=indent)
    parsed = policy(as_json)
    assert parsed.roles == policy().roles
    assert parsed.organization == policy().organization
    assert [one.to for one in parsed.entitlements] == [one.to for one in policy().entitlements]


def test_the_least_file():
    assert parse_policy("version: 1", providers=frozenset()) == EMPTY


def test_block_style_durations_in_seconds_and_hours_as_a_list():
    text = (
        FILE.replace("role_maximum: 4h", "role_maximum: 14400")
        .replace("45m", "'2700'")
        .replace('hours: "Mon-Fri 08:00-20:00 Europe/Berlin"', "hours: [Mon 08:00-12:00 UTC]")
    )
    parsed = policy(text)
    assert parsed.roles == policy().roles
    assert str(parsed.entitlements[0].require.hours) == "Mon 08:00-12:00 UTC"


def test_only_letters_of_a_users_address_are_lowered():
    text = 'version: 1\nadmins: [{user: "Lab/Grace@Example.com"}, {user: p-aaaabbbbccccdddd}]'
    parsed = parse_policy(text, providers=frozenset({"Lab", "corp"}))
    assert parsed.admins == (User("Lab/grace@example.com"), User("p-aaaabbbbccccdddd"))


@pytest.mark.parametrize(
    "text", [*('"\\UFFFFFFFF"', '"\\uD800"', "a: \x00", "[" * 10_000, "a: *b"), FILE]
)
def test_pyyamls_own_parser_serves_as_well(text, monkeypatch):
    """Where PyYAML was built without libyaml."""
    expected = read(text)
    monkeypatch.setattr("broker.access.document._LOADER", yaml.SafeLoader)
    result = read(text)
    assert type(result) is type(expected)
    if isinstance(result, AccessPolicy):
        assert result == expected


def _fragments() -> st.SearchStrategy[str]:
    """Pieces of a real file in any order, with other text between."""
    words = FILE.replace("{", " { ").replace("}", " } ").replace("[", " [ ").split(" ")
    pieces = st.sampled_from(
        [*words, "\n", "\n  ", ":", "- ", "&a ", "*a ", "!!x ", "|", "\t", "é", "0"]
    )
    return st.lists(pieces | st.text(max_size=3), max_size=40).map(" ".join)


def _edited() -> st.SearchStrategy[str]:
    """The real file with one stretch replaced."""
    return st.builds(
        lambda at, length, text: FILE[:at] + text + FILE[at + length :],
        st.integers(0, len(FILE)),
        st.integers(0, 40),
        st.text(max_size=8) | st.sampled_from(["{}", "[]", "null", "1", "true", '""', "{{", "x: "]),
    )


@settings(max_examples=700, deadline=None)
@given(text=st.text(max_size=60) | _fragments() | _edited())
def test_nothing_but_a_refusal_is_ever_raised(text):
    result = read(text)
    if isinstance(result, PolicyRefused):
        assert result.findings
        for finding in result.findings:
            assert 1 <= finding.line <= text.count("\n") + text.count("\r") + 2
            assert finding.instead


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def _paths(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    return [path, *(found for key, child in items for found in _paths(child, (*path, key)))]


_TREE = yaml.safe_load(FILE)


@settings(max_examples=700, deadline=None)
@given(path=st.sampled_from(_paths(_TREE)), value=_VALUES)
def test_any_value_in_any_place_is_read_or_refused(path, value):
    tree = json.loads(json.dumps(_TREE))
    if not path:
        tree = value
    else:
        node = tree
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = value
    result = read(json.dumps(tree, ensure_ascii=False))
    assert isinstance(result, AccessPolicy) or result.findings
