"""How a place in a policy is written, and what is proposed instead of an unknown word."""

from __future__ import annotations

import pytest

from broker.access.finding import Finding, Level, PolicyRefused, dotted, nearest


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("roles",), "roles"),
        (("Statement", 0, "Action", 12), "Statement[0].Action[12]"),
        ((0, "a"), "[0].a"),
        ((0, 1), "[0][1]"),
    ],
)
def test_a_path_as_people_read_it(path, text):
    assert dotted(path) == text


KNOWN = ("accounts", "max_duration", "mode")


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("acounts", "did you mean accounts?"),
        ("Accounts", "did you mean accounts?"),
        ("ACCOUNTS", "did you mean accounts?"),
        ("maxDuration", "did you mean max_duration?"),
        ("MAX-DURATION", "did you mean max_duration?"),
        ("MAX_DURATION", "did you mean max_duration?"),
        ("MODE", "did you mean mode?"),
        ("quite-another", "write one of: accounts, max_duration, mode"),
        (7, "write one of: accounts, max_duration, mode"),
        (None, "write one of: accounts, max_duration, mode"),
    ],
)
def test_the_nearest_of_the_known_words_is_proposed(word, instead):
    assert nearest(word, KNOWN) == instead


def test_findings_as_text():
    first = Finding(3, 7, "roles.a", "it is wrong", "write b")
    second = Finding(4, 1, "", "it is worse", "write c", Level.WARNING)
    assert str(first) == "line 3, column 7 (roles.a): it is wrong; write b"
    assert str(second) == "line 4, column 1: it is worse; write c"
    assert str(PolicyRefused((first, second))) == f"{first}\n{second}"
    assert PolicyRefused((first, second)).findings == (first, second)
    assert second.as_json()["level"] == "warning"
    assert sorted([second, first]) == [first, second]
