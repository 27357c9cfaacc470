"""JSON from people who may lie: one reading only, and bounded work.

Owns: what is refused before a document is looked at. Two parsers may read a
repeated member, a lone surrogate or NaN in two ways; whoever checks one reading
and acts on the other is fooled. Does not own: what the members mean.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import msgspec

MAX_DEPTH = 16

# The closing quote is optional and nothing is tried twice: of a string that never ends, each quote
# in it would else be a new start, and 16 KiB of them cost seconds.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
# Printable ASCII without the backslash, and without what opens something.
_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b"\\{[")
_LONG = 2**63
_LEAVES: frozenset[type] = frozenset({bool, type(None)})


class MalformedJson(ValueError):
    """Not a JSON object, or one that could be read in two ways. Never quotes the document."""


def parse_object(document: bytes, *, max_depth: int = MAX_DEPTH) -> Mapping[str, object]:
    """The JSON object in `document` (UTF-8, RFC 8259); the caller has bounded its size.

    Raises MalformedJson, and nothing else: for what is not an object, a repeated member at any
    depth, deeper nesting than `max_depth`, NaN and infinities, numbers beyond 308 digits, and
    strings that are not Unicode text.
    """
    plain = _plain_object(document, max_depth)
    if plain is not None:
        return plain
    _check_depth(document, max_depth)
    try:
        value = json.loads(
            document.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, MalformedJson):
            raise
        # Without the cause: the parser's error holds the whole document.
        raise MalformedJson("not JSON") from None
    if not isinstance(value, dict):
        raise MalformedJson("not an object")
    _check_text(value)
    return value


def _plain_object(document: bytes, max_depth: int) -> Mapping[str, object] | None:
    """The same, several times as fast, for what honest issuers send: printable ASCII without
    escapes, whole numbers, no space after a quote. None for everything else, which is judged
    the long way.

    Each member's name then ends in `":`, and a string that begins with a colon can only make
    these more: with no more of them than members were read, none was repeated.
    """
    # Brackets inside of strings count too: at worst it is judged the long way.
    brackets = document.translate(None, _PLAIN)
    if len(brackets) > max_depth or brackets.strip(b"{[") or b'" ' in document:
        return None
    try:
        value = msgspec.json.decode(document)
    except msgspec.DecodeError:
        return None
    if type(value) is not dict or _members(value) != document.count(b'":'):
        return None
    return value


def _members(value: Mapping[str, object] | list[object]) -> int:
    """How many members the objects in `value` have, at every depth; -1 where one holds a number
    with a fraction, or one of many digits.
    """
    children: Iterable[Any] = value.values() if isinstance(value, dict) else value
    count = len(value) if isinstance(value, dict) else 0
    for child in children:
        kind = type(child)
        if kind is str:
            continue
        if kind is int:
            if not -_LONG < child < _LONG:
                return -1
        elif kind is dict or kind is list:
            inner = _members(child)
            if inner < 0:
                return -1
            count += inner
        elif kind not in _LEAVES:
            return -1
    return count


def _check_depth(document: bytes, max_depth: int) -> None:
    """Before the parser, which recurses. Text that is not JSON may count wrongly: it is
    refused by the parser anyway, which guards its own stack.
    """
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", document)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > max_depth:
            raise MalformedJson("nested too deeply")


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(members)
    if len(unique) != len(members):
        raise MalformedJson("a member is repeated")
    return unique


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedJson("NaN and infinities are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedJson("a number is too large")
    return number


def _bounded(text: str) -> int:
    if len(text) > 308:
        raise MalformedJson("a number is too large")
    return int(text)


def _check_text(value: object) -> None:
    """Lone surrogates: legal as JSON escapes, impossible to store, compare or send on."""
    match value:
        case str():
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise MalformedJson("a string is not Unicode text")
        case dict():
            for name, member in value.items():
                _check_text(name)
                _check_text(member)
        case list():
            for item in value:
                _check_text(item)
        case _:
            pass
