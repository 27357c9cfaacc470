import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.access.parameter import MAX_VALUE, PatternRefused, check_pattern, longest, problem
from broker.access.policy import Parameter

WIDER = (
    " in the pattern admits more than letters, digits and - _ . = @ + , / :; "
    "write a narrower class, such as [a-z0-9-]{1,40}"
)
UNCLEAR = (
    "the pattern is not understood from {} on; use letters, escaped punctuation, "
    "\\d, \\w, [classes], (?:groups), | and quantifiers"
)


def patterned(pattern: str) -> Parameter:
    return Parameter("x", None, pattern, None)


@pytest.mark.parametrize(
    ("pattern", "width"),
    [
        ("[a-z0-9-]{1,40}", 40),
        ("abc", 3),
        ("", 0),
        ("a+", MAX_VALUE),
        ("a*b?", MAX_VALUE),
        ("a{3}", 3),
        ("a{3,}", MAX_VALUE),
        ("(?:ab|c){2,5}", 10),
        ("(a|(b|cde)f)", 4),
        (r"\d{4}-\d\d", 7),
        (r"\w+?", MAX_VALUE),
        (r"[\w./:=@+,-]{8}", 8),
        (r"[[:alnum:]]{2}", 2),
        (r"a\.b", 3),
    ],
)
def test_patterns_and_the_longest_value_they_admit(pattern, width):
    assert check_pattern(pattern) == width
    assert longest(patterned(pattern)) == width


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            ".*",
            "'.'" + WIDER,
        ),
        (
            "[^/]+",
            "'[^/]'" + WIDER,
        ),
        (
            r"\s",
            "'\\\\s'" + WIDER,
        ),
        (
            "a b",
            "' '" + WIDER,
        ),
        (
            r"\*",
            "'\\\\*'" + WIDER,
        ),
        (
            r"a\$",
            "'\\\\$'" + WIDER,
        ),
        (
            "[a-z*]",
            "'[a-z*]'" + WIDER,
        ),
        (
            "[ -~]",
            "'[ -~]'" + WIDER,
        ),
        (
            "[[:print:]]",
            "'[[:print:]]'" + WIDER,
        ),
        (
            "[[:^alpha:]]",
            "'[[:^alpha:]]'" + WIDER,
        ),
        (
            r"[\W]",
            "'[\\\\W]'" + WIDER,
        ),
        (
            r"[\x{3f}]",
            "'[\\\\x{3f}]'" + WIDER,
        ),
        (
            "a|.",
            "'.'" + WIDER,
        ),
        ("^a$", "the pattern has an anchor; leave ^ and $ out: the whole value must match anyway"),
        (
            "(?i)a",
            UNCLEAR.format("'?i)a'"),
        ),
        (
            "(?P<n>a)",
            UNCLEAR.format("'?P<n>a)'"),
        ),
        (
            r"\pL",
            UNCLEAR.format("'\\\\pL'"),
        ),
        (
            r"\Qa\E",
            UNCLEAR.format("'\\\\Qa\\\\E'"),
        ),
        (
            r"\x41",
            UNCLEAR.format("'\\\\x41'"),
        ),
        (
            "a**",
            UNCLEAR.format("'*'"),
        ),
        (
            "(a",
            UNCLEAR.format("''"),
        ),
        (
            "a)",
            UNCLEAR.format("')'"),
        ),
        (
            "[a",
            UNCLEAR.format("'[a'"),
        ),
        (f"[{'a' * 40}", UNCLEAR.format(repr("[" + "a" * 19))),
        (
            "a{1,2000}",
            "'a{1,2000}' is no pattern of RE2; see https://github.com/google/re2/wiki/Syntax",
        ),
        (
            "(a{1000}){1000}",
            "'(a{1000}){1000}' is no pattern of RE2; see https://github.com/google/re2/wiki/Syntax",
        ),
        ("[z-a]", "'[z-a]' is no pattern of RE2; see https://github.com/google/re2/wiki/Syntax"),
        ("é", "the pattern holds characters outside of ASCII; leave them out"),
        ("a\n", "the pattern holds characters outside of ASCII; leave them out"),
        ("a" * 257, "the pattern is longer than 256 characters; write a shorter one"),
        ("(" * 17 + "a" + ")" * 17, "the pattern's groups are nested too deeply; write it flatter"),
    ],
)
def test_patterns_that_reach_too_far_or_are_none(pattern, message):
    with pytest.raises(PatternRefused) as refused:
        check_pattern(pattern)
    assert f"{refused.value.message}; {refused.value.instead}" == message
    assert str(refused.value) == refused.value.message


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (patterned("[a-z]{1,3}"), "abc", None),
        (patterned("[a-z]{1,3}"), "abcd", "does not match [a-z]{1,3}"),
        (patterned("[a-z]{1,3}"), "xabc", "does not match [a-z]{1,3}"),
        (patterned("[a-z]{1,3}"), "abc\n", "may hold letters, digits and - _ . = @ + , / : only"),
        (patterned("[a-z]{1,3}"), "", "is empty"),
        (patterned("a*"), "", "is empty"),
        (patterned(r"\w+"), "aé", "may hold letters, digits and - _ . = @ + , / : only"),
        (patterned(r"\d+"), "１２", "may hold letters, digits and - _ . = @ + , / : only"),  # noqa: RUF001 - full width
        (patterned("a+"), "a" * 257, "is longer than 256 characters"),
        (Parameter("x", ("a", "b c"), None, None), "b c", None),
        (Parameter("x", ("a", "b"), None, None), "A", "is not one of a, b"),
        (Parameter("x", ("a*",), None, None), "a*", "holds one of * ? $ { } quotes or backslash"),
        (Parameter("x", None, None, None), "a", "does not match None"),
    ],
)
def test_values(parameter, value, message):
    assert problem(parameter, value) == message


@pytest.mark.parametrize(
    ("pattern", "width"),
    [
        ("a|bc|d", 2),
        ("(?:a)(bc)", 3),
        ("(?:a|bc)(?:d|ef)?", 4),
        ("a??b", 2),
        ("a{2}?b", 3),
        ("a{0,3}b{1}", 4),
        ("(?:(?:a{2}){3}){4}", 24),
        ("a{200}b{100}", MAX_VALUE),  # no value is longer
        ("(" * 16 + "a" + ")" * 16, 1),
        ("a" * 256, 256),
        ("", 0),
        ("a|", 1),
        ("[]a]", 1),
        ("[a\\-z]", 1),
    ],
)
def test_the_width_is_that_of_the_widest_way_through(pattern, width):
    if pattern == "[]a]":  # RE2 takes ] for itself there, and no value may hold it
        with pytest.raises(PatternRefused, match="admits more than"):
            check_pattern(pattern)
    else:
        assert check_pattern(pattern) == width


def test_the_longest_of_listed_values():
    assert longest(Parameter("x", ("a", "abc", "ab"), None, None)) == 3
    assert longest(Parameter("x", (), None, None)) == 0
    assert longest(Parameter("x", None, None, None)) == 0


@pytest.mark.parametrize("value", ["a" * 256, "b"])
def test_a_value_may_be_as_long_as_the_limit(value):
    assert problem(patterned("a+|b"), value) is None
    assert problem(Parameter("x", (value,), None, None), value) is None


_PIECES = ["a", "-", ".", r"\.", "[a-c]", "[^a]", r"\d", r"\s", "(", ")", "|", "*", "+", "?", "{2}"]


@settings(max_examples=400, deadline=None)
@given(pattern=st.lists(st.sampled_from(_PIECES), max_size=10).map("".join), data=st.data())
def test_no_accepted_pattern_matches_a_forbidden_character_or_more_than_its_width(pattern, data):
    """Python's own re is the oracle: for this alphabet of pieces it agrees with RE2."""
    try:
        width = check_pattern(pattern)
    except PatternRefused:
        return
    value = data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    assert re.fullmatch(r"[A-Za-z0-9_.=@+,/:-]*", value)
    assert width == MAX_VALUE or len(value) <= width
    if 0 < len(value) <= MAX_VALUE:
        assert problem(patterned(pattern), value) is None
