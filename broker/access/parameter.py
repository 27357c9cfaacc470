"""A role's parameters: which values a caller may set.

Owns: the alphabet that every value keeps to, the part of RE2's pattern syntax
a policy may use, and how long a value can get. A pattern only narrows the
alphabet; one that reaches beyond it is refused when the policy is read, so that
its author is not surprised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from broker.access.policy import Parameter
from broker.access.template import value_problem

MAX_VALUE = 256
MAX_PATTERN = 256
_ALPHABET = re.compile(r"[A-Za-z0-9_.=@+,/:-]*", re.ASCII)
_ALPHABET_WORDS = "letters, digits and - _ . = @ + , / :"
_FORBIDDEN = [chr(c) for c in range(128) if not _ALPHABET.fullmatch(chr(c))] + ["é", "世"]
_QUANTIFIER = re.compile(r"[*+?]|\{([0-9]{1,4})(,([0-9]{0,4}))?\}", re.ASCII)
# A literal, an escaped punctuation mark, \d, \w or \s, or a class.
_ATOM = re.compile(
    r"\\[dws]|\\[^A-Za-z0-9]|\[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*\]|[^\\\[\](){}*+?|]"
)
_MAX_NESTING = 16


class PatternRefused(ValueError):
    """The pattern may not be used. `instead` says what to write."""

    def __init__(self, message: str, instead: str) -> None:
        super().__init__(message)
        self.message = message
        self.instead = instead


def problem(parameter: Parameter, value: str) -> str | None:
    """Why `value` may not be the parameter's, or None. Never repeats the value."""
    if len(value) > MAX_VALUE:
        return f"is longer than {MAX_VALUE} characters"
    if parameter.allowed is not None:
        if value not in parameter.allowed:
            return f"is not one of {', '.join(parameter.allowed)}"
        return value_problem(value)
    if not value:
        return "is empty"
    if not _ALPHABET.fullmatch(value):
        return f"may hold {_ALPHABET_WORDS} only"
    if parameter.pattern is None or not _matches(parameter.pattern, value):
        return f"does not match {parameter.pattern}"
    return None


def longest(parameter: Parameter) -> int:
    """The length of the longest value there can be."""
    if parameter.allowed is not None:
        return max((len(value) for value in parameter.allowed), default=0)
    return min(check_pattern(parameter.pattern or ""), MAX_VALUE)


def check_pattern(pattern: str) -> int:
    """The longest match of the pattern, MAX_VALUE where it is unbounded.

    Raises PatternRefused: not RE2, outside of the subset this broker takes, or
    admitting a character that no value may hold.
    """
    if len(pattern) > MAX_PATTERN:
        raise PatternRefused(
            f"the pattern is longer than {MAX_PATTERN} characters", "write a shorter one"
        )
    if not (pattern.isascii() and pattern.isprintable()):
        raise PatternRefused("the pattern holds characters outside of ASCII", "leave them out")
    reader = _Reader(pattern)
    width = reader.alternatives(0)
    if reader.at != len(pattern):
        raise reader.refused()
    try:
        _matches(pattern, "")
    except re2.error as error:
        raise PatternRefused(
            f"{pattern!r} is no pattern of RE2", "see https://github.com/google/re2/wiki/Syntax"
        ) from error
    for atom in sorted(reader.atoms):
        if any(_matches(atom, character) for character in _FORBIDDEN):
            raise PatternRefused(
                f"{atom!r} in the pattern admits more than {_ALPHABET_WORDS}",
                "write a narrower class, such as [a-z0-9-]{1,40}",
            )
    return min(width, MAX_VALUE)


def _matches(pattern: str, value: str) -> bool:
    """A full match. Raises re2.error."""
    return _compiled(pattern).fullmatch(value) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:  # noqa: ANN401 - re2 ships no types
    # re2's own cache is found by options, which cost more to make than the match.
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options=options)


@dataclass(slots=True)
class _Reader:
    """Reads the subset of pattern syntax, gathering its atoms and the width of what it matches."""

    pattern: str
    at: int = 0
    atoms: set[str] = field(default_factory=set)

    def refused(self) -> PatternRefused:
        return PatternRefused(
            f"the pattern is not understood from {self.pattern[self.at :][:20]!r} on",
            "use letters, escaped punctuation, \\d, \\w, [classes], (?:groups), | and quantifiers",
        )

    def alternatives(self, nesting: int) -> int:
        if nesting > _MAX_NESTING:
            raise PatternRefused("the pattern's groups are nested too deeply", "write it flatter")
        widest = self._sequence(nesting)
        while self.pattern[self.at : self.at + 1] == "|":
            self.at += 1
            widest = max(widest, self._sequence(nesting))
        return widest

    def _sequence(self, nesting: int) -> int:
        width = 0
        while self.pattern[self.at : self.at + 1] not in ("", "|", ")"):
            width += self._item(nesting) * self._repeats()
        return width

    def _item(self, nesting: int) -> int:
        if self.pattern[self.at] == "(":
            self.at += 3 if self.pattern.startswith("(?:", self.at) else 1
            width = self.alternatives(nesting + 1)
            if self.pattern[self.at : self.at + 1] != ")":
                raise self.refused()
            self.at += 1
            return width
        if self.pattern[self.at] in "^$":
            raise PatternRefused(
                "the pattern has an anchor", "leave ^ and $ out: the whole value must match anyway"
            )
        atom = _ATOM.match(self.pattern, self.at)
        if atom is None:
            raise self.refused()
        self.at = atom.end()
        self.atoms.add(atom[0])
        return 1

    def _repeats(self) -> int:
        quantifier = _QUANTIFIER.match(self.pattern, self.at)
        if quantifier is None:
            return 1
        self.at = quantifier.end()
        if self.pattern[self.at : self.at + 1] == "?":  # lazy: the same set of full matches
            self.at += 1
        if quantifier[0] == "?":
            return 1
        if quantifier[0] in "*+" or quantifier[3] == "":
            return MAX_VALUE
        return int(quantifier[3] or quantifier[1])
