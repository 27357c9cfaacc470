"""The inline session policy as STS gets it, and the tags beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from broker.access.policy import Organization, Role
from broker.access.session_policy import assemble, compact, denials, hop_policy, size
from broker.access.tags import is_tag_text
from tests.unit.access.examples import policy

READER, ADMIN = policy().roles["data-reader"], policy().roles["admin"]
NO_CHAINING = '{"Effect":"Deny","Action":["sts:AssumeRole","sts:AssumeRoot"],"Resource":"*"}'
DENY = {"Sid": "Iam", "Effect": "Deny", "Action": "iam:*", "Resource": "*"}
DENY_SENT = '{"Effect":"Deny","Action":"iam:*","Resource":"*"}'
READ = {"Sid": "Read", "Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}
READ_SENT = '{"Sid":"Read","Effect":"Allow","Action":"s3:Get*","Resource":"*"}'


def sent(
    role: Role, own: Mapping[str, object] | None, *restrict: Mapping[str, object]
) -> str | None:
    return assemble(role, own, denials(role, Organization(deny=(DENY,)), restrict))


def test_a_hop_may_go_on_and_do_nothing_else():
    assert hop_policy("arn:aws:iam::111122223333:role/Next") == (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow",'
        '"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"],'
        '"Resource":"arn:aws:iam::111122223333:role/Next"}]}'
    )


def test_a_roles_own_statements_come_first_then_the_denials_without_their_names():
    """A Sid is unique in a policy: that of a denial might be the role's own."""
    own = {"Version": "2012-10-17", "Id": "x", "Statement": [READ]}
    restrict = {"Sid": "Read", "Effect": "Deny", "Action": "s3:GetAcl", "Resource": "*"}
    assert sent(READER, own, restrict) == (
        '{"Version":"2012-10-17","Id":"x","Statement":['
        f"{READ_SENT},{DENY_SENT},{NO_CHAINING},"
        '{"Effect":"Deny","Action":"s3:GetAcl","Resource":"*"}]}'
    )


def test_a_lone_statement_becomes_the_first_of_the_list():
    own = {"Version": "2012-10-17", "Statement": READ}
    assert sent(READER, own) == (
        f'{{"Version":"2012-10-17","Statement":[{READ_SENT},{DENY_SENT},{NO_CHAINING}]}}'
    )


def test_an_unscoped_role_keeps_its_rights_beside_the_denials():
    everything = '{"Effect":"Allow","Action":"*","Resource":"*"}'
    assert sent(ADMIN, None) == (
        f'{{"Version":"2012-10-17","Statement":[{everything},{DENY_SENT},{NO_CHAINING}]}}'
    )


def test_managed_policies_alone_are_narrowed_by_denials_and_widened_by_nothing():
    managed = replace(READER, session_policy=None)
    assert sent(managed, None) == (
        f'{{"Version":"2012-10-17","Statement":[{DENY_SENT},{NO_CHAINING}]}}'
    )


def test_a_role_that_may_chain_is_denied_less():
    chains = replace(ADMIN, may_chain=True)
    assert denials(chains, Organization()) == []
    assert denials(ADMIN, Organization()) == [json.loads(NO_CHAINING)]
    # With nothing of its own and nothing to deny there is no inline policy at all.
    assert assemble(chains, None, []) is None
    assert assemble(chains, {"Version": "2012-10-17", "Statement": [READ]}, []) == (
        f'{{"Version":"2012-10-17","Statement":[{READ_SENT}]}}'
    )


def test_what_is_sent_is_short_ascii_json():
    assert compact({"a": [1, True, None, "é"]}) == '{"a":[1,true,null,"\\u00e9"]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        compact(float("nan"))


@pytest.mark.parametrize(
    ("inline", "managed", "counted"),
    [(None, (), 0), ("12345", (), 5), (None, ("123", "12"), 5), ("1234", ("123", "12"), 9)],
)
def test_what_counts_against_the_limit(inline, managed, counted):
    assert size(inline, managed) == counted


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("Team 1_.:/=+-@", True),
        ("équipe", True),
        ("世界", True),
        ("١٢", True),  # digits of another script
        ("a\u2003b", True),  # a wide space is a separator as well
        ("é_.:/=+-@", True),
        ("a!", False),
        ("é!", False),
        ("!é", False),
        ("a\n", False),
        ("a\tb", False),
        ("a*", False),
        ("a\u0301", False),  # a mark by itself is no letter
        ("€", False),
    ],
)
def test_what_aws_takes_as_a_tags_text(text, fits):
    assert is_tag_text(text) is fits
