"""Recognising records that look like records seen before, without parsing them.

Owns a shortcut of `verify`, and nothing that decides: it accepts a subset of
what the strict way accepts, several times faster, and leaves all else to it.

A shape is a record without its values: its members' names, in order and
nesting, and whether each value is a string or a number. The strict way has
found that this record is one JSON object, without duplicate members, with a
number of its own; any other record with the same shape is that too. So a shape
becomes a regular expression in which names and structure are literal, strings
and integers are slots, and the number is a group. It matches the bytes of the
export's line, where quotes and backslashes are escaped once more.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PREFIX = b'{"record": "'
_START = len(_PREFIX)
# A file of ever new shapes must not cost memory or time: beyond these it goes the strict way.
_MAX_SHAPES = 256
_MAX_SHAPES_A_TYPE = 8
_MAX_SHAPE_CHARACTERS = 8192
_TYPE = b'\\"type\\":'
_TYPE_WITHIN = 120  # bytes from the record's end: `type` and `v` are its last members

_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")|(?P<integer>-?[0-9]+)|(?P<word>true|false|null)'
    r"|(?P<mark>[{}\[\]:,])",
    re.DOTALL,
)
# Strings as the line spells them: plain characters, or also the canonical escapes, each with
# its backslash doubled: \" \\ \b \f \n \r \t and \u00XX for the other control characters.
_ESCAPE = rb'\\\\(?:\\["\\]|[bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))'
_PLAIN_STRING = rb'\\"[^"\\\x00-\x1f\x80-\xff]*+\\"'
_ANY = rb'[^"\\\x00-\x1f]*+'
_ANY_STRING = rb'\\"' + _ANY + rb"(?:" + _ESCAPE + _ANY + rb')*+\\"'
_INTEGER = rb"-?(?:0|[1-9][0-9]{0,14}+)"
_NUMBER = rb"([1-9][0-9]{0,14}+)"


class _Shape(NamedTuple):
    """`plain`: its strings are ASCII without escapes, so every backslash is the line's own."""

    pattern: re.Pattern[bytes]
    plain: bool


class Shapes:
    """The shapes seen so far, by record type, the one that matched last first."""

    def __init__(self) -> None:
        self._by_type: dict[bytes, list[_Shape]] = {}
        self._count = 0

    def recognise(self, line: bytes, end: int) -> tuple[bytes, int] | None:
        """The record's bytes and number, from the line up to `end`, where its string closes.

        None: not recognised, which says nothing about it.
        """
        at = line.rfind(_TYPE, end - _TYPE_WITHIN, end)
        shapes = self._by_type.get(line[at:end])
        if shapes is None:
            return None
        for place, (pattern, plain) in enumerate(shapes):
            match = pattern.fullmatch(line, 0, end)
            if match is None:
                continue
            if place:
                shapes.insert(0, shapes.pop(place))
            if plain:
                return line[_START:end].translate(None, b"\\"), int(match[1])
            return _unescaped(line[_START:end]), int(match[1])
        return None

    def learn(self, line: bytes, end: int, record: str) -> None:
        """Remember the shape of a record that the strict way has accepted."""
        at = line.rfind(_TYPE, end - _TYPE_WITHIN, end)
        if at < 0 or self._count >= _MAX_SHAPES or len(record) > _MAX_SHAPE_CHARACTERS:
            return
        known = self._by_type.setdefault(line[at:end], [])
        plain = "\\" not in record and record.isascii()
        source = _pattern(record, _PLAIN_STRING if plain else _ANY_STRING)
        if source is not None and len(known) < _MAX_SHAPES_A_TYPE:
            known.insert(0, _Shape(re.compile(source), plain))
            self._count += 1


def _unescaped(written: bytes) -> bytes:
    """Raises UnicodeDecodeError."""
    if not written.isascii():
        written.decode("utf-8")
    # Between doubled backslashes, each one left is a quote's.
    return b"\\".join(part.translate(None, b"\\") for part in written.split(b"\\\\"))


def _pattern(record: str, string: bytes) -> bytes | None:
    """The shape, with `string` for the slots of strings. None for what has no shape to speak of:
    spaces between tokens, or no number of its own.
    """
    parts = [re.escape(_PREFIX)]
    at, depth, is_number, numbered = 0, 0, False, False
    while at < len(record):
        token = _TOKEN.match(record, at)
        if token is None:
            return None
        text, at = token[0], token.end()
        if token.lastgroup == "string" and record.startswith(":", at):
            is_number = depth == 1 and text == '"seq"'
            parts.append(_literal(text))
        elif token.lastgroup == "string":
            parts.append(string)
        elif token.lastgroup == "integer":
            parts.append(_NUMBER if is_number else _INTEGER)
            numbered, is_number = numbered or is_number, False
        else:
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text, 0)
            parts.append(_literal(text))
    return b"".join(parts) if numbered else None


def _literal(text: str) -> bytes:
    """As the line spells it."""
    return re.escape(text.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8"))
