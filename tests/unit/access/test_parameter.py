import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.access.parameter import MAX_VALUE, PatternRefused, check_pattern, longest, problem
from broker.access.policy import Parameter


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
        (".*", "admits more than"),
        ("[^/]+", "admits more than"),
        (r"\s", "admits more than"),
        ("a b", "admits more than"),
        (r"\*", "admits more than"),
        (r"a\$", "admits more than"),
        ("[a-z*]", "admits more than"),
        ("[ -~]", "admits more than"),
        ("[[:print:]]", "admits more than"),
        ("[[:^alpha:]]", "admits more than"),
        (r"[\W]", "admits more than"),
        (r"[\x{3f}]", "admits more than"),
        ("a|.", "admits more than"),
        ("^a$", "an anchor"),
        ("(?i)a", "is not understood"),
        ("(?P<n>a)", "is not understood"),
        (r"\pL", "is not understood"),
        (r"\Qa\E", "is not understood"),
        (r"\x41", "is not understood"),
        ("a**", "is not understood"),
        ("(a", "is not understood"),
        ("a)", "is not understood"),
        ("[a", "is not understood"),
        ("a{1,2000}", "is no pattern of RE2"),
        ("(a{1000}){1000}", "is no pattern of RE2"),
        ("[z-a]", "is no pattern of RE2"),
        ("é", "outside of ASCII"),
        ("a\n", "outside of ASCII"),
        ("a" * 257, "longer than 256"),
        ("(" * 17 + "a" + ")" * 17, "nested too deeply"),
    ],
)
def test_patterns_that_reach_too_far_or_are_none(pattern, message):
    with pytest.raises(PatternRefused, match=message) as refused:
        check_pattern(pattern)
    assert refused.value.instead


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (patterned("[a-z]{1,3}"), "abc", None),
        (patterned("[a-z]{1,3}"), "abcd", "does not match [a-z]{1,3}"),
        (patterned("[a-z]{1,3}"), "xabc", "does not match"),
        (patterned("[a-z]{1,3}"), "abc\n", "may hold letters, digits"),
        (patterned("[a-z]{1,3}"), "", "is empty"),
        (patterned("a*"), "", "is empty"),
        (patterned(r"\w+"), "aé", "may hold letters, digits"),
        (patterned(r"\d+"), "１２", "may hold letters, digits"),  # noqa: RUF001 - full width
        (patterned("a+"), "a" * 257, "is longer than 256"),
        (Parameter("x", ("a", "b c"), None, None), "b c", None),
        (Parameter("x", ("a", "b"), None, None), "A", "is not one of a, b"),
        (Parameter("x", ("a*",), None, None), "a*", "holds one of"),
        (Parameter("x", None, None, None), "a", "does not match"),
    ],
)
def test_values(parameter, value, message):
    fault = problem(parameter, value)
    if message is None:
        assert fault is None
    else:
        assert fault is not None
        assert message in fault


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
