"""Texts as HCL and YAML have them in double quotes, names that both take, and comments.

Every value comes from an access policy or the command line. Outside ASCII, and
for control characters, both languages share escapes of the same width; a dollar
or percent sign before a brace is HCL's alone.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Iterable

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}
_TEMPLATE = re.compile(r"([$%])(?=\{)")
_WIDTH = 96


def quoted(text: str) -> str:
    """In double quotes, in ASCII, on one line: YAML's, and HCL's but for templates."""
    return '"' + "".join(map(_escaped, text)) + '"'


def hcl(text: str) -> str:
    """As `quoted`, and `${` and `%{` begin no template: their sign is written as an escape."""
    return _TEMPLATE.sub(lambda found: rf"\u{ord(found[1]):04x}", quoted(text))


def identifier(name: str, allowed: str) -> str:
    """The characters of `name` that are `allowed` (a character class), and a hash of all of it
    where that left any out: two names never become one.
    """
    kept = re.sub(f"[^{allowed}]", "", name, flags=re.ASCII)
    if kept == name and kept[:1].isalpha():
        return kept
    return f"Role{kept}{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def comment(texts: Iterable[str], indent: str = "") -> str:
    """Lines behind `#`: nothing in a text ends one."""
    lines: list[str] = []
    for text in texts:
        shown = "".join(c if " " <= c <= "~" else "?" for c in text)
        lines += textwrap.wrap(
            shown, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False
        )
    return "".join(f"{indent}# {line}\n" for line in lines)


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if " " <= character <= "~":
        return character
    number = ord(character)
    return rf"\u{number:04x}" if number <= 0xFFFF else rf"\U{number:08x}"
