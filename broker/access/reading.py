"""Typed values out of the nodes of an access policy file.

Owns: what a text, a duration, a flag or a list is, and the finding when it is
not. Every reader takes an absent node (None) as absent and gives None for it
and for whatever has a finding, so that reading goes on and finds all faults.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from broker.access.document import Findings, ListNode, MapNode, Node, Scalar
from broker.access.finding import nearest

_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Section:
    """An object of the file with known keys. Others are refused: a right that is narrowed or
    widened by them is another right without them.
    """

    def __init__(self, findings: Findings, node: Node, known: Sequence[str], example: str) -> None:
        self.findings = findings
        self.whole = node
        self._items = entries(findings, node, example)
        for key, child in self._items.items():
            place = node.keys[key] if isinstance(node, MapNode) else child.place
            if key not in known:
                shown = f"{key[:80]!r} is unknown here"
                findings.add(place, child.path, shown, nearest(key, known))

    def get(self, key: str) -> Node | None:
        return self._items.get(key)

    def need(self, key: str, example: str) -> Node | None:
        node = self._items.get(key)
        if node is None and isinstance(self.whole, MapNode):
            self.findings.at(self.whole, f"{key} is missing", f"write {example}")
        return node


def entries(findings: Findings, node: Node | None, example: str) -> dict[str, Node]:
    """The entries of an object whose keys are names."""
    if node is None:
        return {}
    if isinstance(node, MapNode):
        return node.items
    if not (isinstance(node, Scalar) and not node.sound):
        findings.at(node, "here stands an object of keys and values", f"write {example}")
    return {}


def listed(findings: Findings, node: Node | None, what: str, example: str) -> tuple[Node, ...]:
    if node is None:
        return ()
    if isinstance(node, ListNode):
        return node.items
    if not (isinstance(node, Scalar) and not node.sound):
        findings.at(node, f"{what} is a list", f"write {example}")
    return ()


def text(
    findings: Findings,
    node: Node | None,
    what: str,
    example: str,
    pattern: re.Pattern[str] | None = None,
) -> str | None:
    """One printable line, matching `pattern` in full."""
    if node is None or (isinstance(node, Scalar) and not node.sound):
        return None
    if not isinstance(node, Scalar) or node.value is None:
        empty = isinstance(node, Scalar)
        findings.at(node, f"{what} is {'empty' if empty else 'text'}", f"write {example}")
        return None
    if not isinstance(node.value, str):
        kind = "a truth value" if isinstance(node.value, bool) else "a number"
        written = str(node.value).lower()
        findings.at(node, f"{what} is text, not {kind}", f'write "{written}" in quotes')
        return None
    if not node.value.isprintable():
        findings.at(node, f"{what} holds a line break or control character", "write one line")
        return None
    if pattern is not None and not pattern.fullmatch(node.value):
        findings.at(node, f"{node.value[:80]!r} is no {what}", f"write {example}")
        return None
    return node.value


def flag(findings: Findings, node: Node | None, what: str) -> bool:
    """False where absent."""
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    if node is not None and not (isinstance(node, Scalar) and not node.sound):
        findings.at(node, f"{what} is true or false", f"write {what}: true, or leave it out")
    return False


def duration(
    findings: Findings, node: Node | None, what: str, least: int, most: int, example: str
) -> int | None:
    """Seconds, of `45m`, `8h`, `3d` or a number of seconds, within `least` and `most`."""
    if node is None or (isinstance(node, Scalar) and not node.sound):
        return None
    value = node.value if isinstance(node, Scalar) else None
    seconds = _seconds(value)
    if seconds is None:
        findings.at(node, f"{what} is no duration", f"write {example}, 45m, 3d or seconds")
        return None
    if not least <= seconds <= most:
        findings.at(
            node,
            f"{what} is {seconds} s, outside of {least} to {most} s",
            f"write one within, such as {example}",
        )
        return None
    return seconds


def _seconds(value: str | int | bool | None) -> int | None:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return int(match[1]) * _UNITS[match[2]]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return None


def texts(
    findings: Findings, node: Node | None, what: str, example: str
) -> Iterator[tuple[Node, str]]:
    """The strings of a list, with their nodes; repeated ones are found."""
    seen: set[str] = set()
    for item in listed(findings, node, what, example):
        value = text(findings, item, f"an entry of {what}", example)
        if value is None:
            continue
        if value in seen:
            findings.at(item, f"{value[:80]!r} stands in {what} twice", "keep one of them")
            continue
        seen.add(value)
        yield item, value
