"""An analyser's findings, at their places in the policy: with an analyser made for the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from broker.access.analysis import (
    MAX_STATEMENTS,
    Advice,
    AnalysisUnavailable,
    analysed,
    rendered_statements,
)
from broker.access.finding import Level, dotted
from broker.access.policy import AccessPolicy
from tests.unit.access.examples import FILE, policy

RESOURCE = "arn:aws:s3:::reports/public/*"
SCOPE = 'Action: ["s3:GetObject"], Resource: "arn:aws:s3:::{{bucket}}/{{prefix}}/*"}'


def told(parsed: AccessPolicy, *advice: Advice) -> list[str]:
    found = list(analysed(parsed, lambda text: advice))
    assert all(level is Level.WARNING for _, _, _, level in found)
    return [f"{dotted(path)}: {message}; {instead}" for path, message, instead, _ in found]


def scoped(statement: str) -> AccessPolicy:
    """The file with this one statement, whose placeholders are used by a tag as well."""
    text = FILE.replace("{Effect: Allow, " + SCOPE, statement)
    return policy(text.replace('tags: {team: "', 'tags: {p: "{{prefix}}{{bucket}}", team: "'))


def test_each_statement_is_asked_about_alone_with_admissible_values():
    asked: list[object] = []

    def analyse(text: str) -> tuple[Advice, ...]:
        asked.append(json.loads(text))
        return ()

    second = '{Effect: Deny, NotAction: "s3:*", NotResource: "arn:aws:s3:::{{principal.id}}"}'
    assert not list(analysed(scoped("{Effect: Allow, " + SCOPE + ", " + second), analyse))
    first: dict[str, object] = {
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": RESOURCE,
    }
    other = {"Effect": "Deny", "NotAction": "s3:*", "NotResource": "arn:aws:s3:::sample"}
    assert asked == [
        {"Version": "2012-10-17", "Statement": [first]},
        {"Version": "2012-10-17", "Statement": [other]},
    ]


@pytest.mark.parametrize(
    ("pattern", "sample"),
    [
        ("[a-z0-9-]{1,40}", "sample"),
        ("[0-9]", "1"),
        ("[a-c]", "a"),
        ("[0-9]{4}-[0-9]{2}-[0-9]{2}", "2026-01-01"),
        ("[0-9]{8}", "12345678"),
        ("[A-Z]+", "AAAA"),
        ("i-[0-9a-f]{17}", "i-0123456789abcdef0"),
        ("[a-z]+/[a-z]+", "a/b"),
        ("[a-z]+:[a-z]+", "a:b"),
        ("x{30}", "sample"),  # nothing fits: better a wrong value than none
    ],
)
def test_a_sample_fits_the_pattern_where_one_does(pattern, sample):
    text = FILE.replace(", default: public", "").replace("[a-z0-9-]{1,40}", pattern)
    ((_, statement),) = rendered_statements(policy(text).roles["data-reader"])
    assert statement["Resource"] == f"arn:aws:s3:::reports/{sample}/*"


def test_a_lone_statement_stands_under_its_key():
    text = FILE.replace("Statement: [{Effect", "Statement: {Effect").replace('/*"}]}', '/*"}}')
    (found,) = rendered_statements(policy(text).roles["data-reader"])
    assert found == (
        ("Statement",),
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": RESOURCE},
    )
    assert list(rendered_statements(policy().roles["admin"])) == []
    assert told(policy(text), Advice("BAD", "", None)) == [
        f"roles.data-reader.session_policy.Statement: parliament finds bad; {CHECK}"
    ]


CHECK = "check it against AWS's service authorization reference"
START = "roles.data-reader.session_policy.Statement[0]"
WHOLE = (
    '{Effect: Allow, Action: ["s3:GetObject", "s3:Put"], Resource: "arn:aws:s3:::x", '
    'Condition: {StringEquals: {"aws:x": "y"}}}'
)


@pytest.mark.parametrize(
    ("advice", "place"),
    [
        (Advice("UNKNOWN_ACTION", "x", "s3:Put"), ".Action[1]"),
        (Advice("UNKNOWN_ACTION", "x", "s3:GetObject"), ".Action[0]"),
        (Advice("UNKNOWN_ACTION", "x", "s3:Other"), ""),
        (Advice("UNKNOWN_ACTION", "x", None), ""),
        (Advice("INVALID_ARN", "x", "arn:aws:s3:::x"), ".Resource"),
        (Advice("RESOURCE_MISMATCH", "x", None), ".Resource"),
        (Advice("UNKNOWN_CONDITION_FOR_ACTION", "x", None), ".Condition"),
        (Advice("UNKNOWN_OPERATOR", "x", "StringIs"), ".Condition"),
        (Advice("UNKNOWN_CONDITION_OF_RESOURCE", "x", None), ".Condition"),
    ],
)
def test_a_finding_stands_at_what_it_is_about_or_near_it(advice, place):
    said = advice.issue.replace("_", " ").lower()
    assert told(scoped(WHOLE), advice) == [f"{START}{place}: parliament finds {said}: x; {CHECK}"]


@pytest.mark.parametrize(
    ("advice", "place"),
    [
        (Advice("A", "", "s3:Put"), ".NotAction"),
        (Advice("A", "", "arn:aws:s3:::x"), ".NotResource[0]"),
        (Advice("RESOURCE_MISMATCH", "", None), ""),
        (Advice("CONDITION", "", None), ""),
        (Advice("A", "", None), ""),
    ],
)
def test_what_a_statement_does_not_have_is_no_place(advice, place):
    parsed = scoped('{Effect: Deny, NotAction: "s3:Put", NotResource: ["arn:aws:s3:::x"]}')
    said = advice.issue.replace("_", " ").lower()
    assert told(parsed, advice) == [f"{START}{place}: parliament finds {said}; {CHECK}"]


def test_all_findings_of_a_statement_are_told():
    assert told(scoped(WHOLE), Advice("A_B", "one", None), Advice("C", "two", None)) == [
        f"{START}: parliament finds a b: one; {CHECK}",
        f"{START}: parliament finds c: two; {CHECK}",
    ]


def many(count: int) -> AccessPolicy:
    role = (
        '  r{0}: {{account: prod, role_arn: "arn:aws:iam::111122223333:role/R{0}", session_policy: '
        '{{Version: "2012-10-17", Statement: [{{Effect: Allow, Action: "s3:GetObject", '
        'Resource: "*"}}]}}}}\n'
    )
    roles = "".join(role.format(number) for number in range(count))
    return policy(FILE.replace("  admin: {acc", f"{roles}  admin: {{acc"))


def test_the_rest_is_said_to_be_unread():
    """`data-reader` has one statement, and comes first."""

    def asked(count: int) -> Iterator[Any]:
        return analysed(many(count), lambda text: ())

    assert list(asked(MAX_STATEMENTS - 1)) == []
    (said,) = asked(MAX_STATEMENTS)
    assert said == (
        ("roles", f"r{MAX_STATEMENTS - 1}"),
        "only the first 300 statements were analysed",
        "lint a smaller file",
        Level.WARNING,
    )


def test_an_analyser_that_fails_is_asked_no_more():
    asked: list[str] = []

    def analyse(text: str) -> tuple[Advice, ...]:
        asked.append(text)
        raise AnalysisUnavailable("it is not installed")

    assert list(analysed(many(3), analyse)) == [
        (
            (),
            "the session policies were not analysed by parliament: it is not installed",
            "install the server's packages anew; all else was checked",
            Level.WARNING,
        )
    ]
    assert len(asked) == 1
