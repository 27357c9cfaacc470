"""YAML or JSON text as a tree in which every node knows its line and column.

Owns: the part of YAML that the access policy file uses. It is JSON's data model
in YAML's notation: no anchors, aliases (a few lines of them expand to
gigabytes), tags, merge keys or second documents, no duplicate keys, and none of
YAML 1.1's readings of plain words and numbers (`no`, `1:30`, `0123`, `1e3.`,
dates) that surprise. Does not own: which keys there are (`parse`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import yaml
from yaml.resolver import Resolver

from broker.access.finding import Finding, Level, Path, dotted

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 24
MAX_NODES = 100_000
MAX_FINDINGS = 100

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})", re.ASCII)
_TAG = "tag:yaml.org,2002:"
# libyaml's parser where PyYAML was built with it: the other takes seconds for a large file.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = Resolver()


class Unreadable(Exception):
    """The text can't be read any further; the last finding says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the text, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """`value` is None for null or nothing at all. `sound` is False where a finding says already
    what is wrong with it.
    """

    path: Path
    place: Place
    value: str | int | bool | None
    sound: bool = True


@dataclass(frozen=True, slots=True)
class ListNode:
    path: Path
    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapNode:
    path: Path
    place: Place
    items: dict[str, Node]
    keys: dict[str, Place]


Node = Scalar | ListNode | MapNode


class Findings:
    """Gathers findings, up to MAX_FINDINGS: a hostile file could have one a byte."""

    def __init__(self) -> None:
        self._all: set[Finding] = set()

    def add(
        self,
        place: Place,
        path: Path,
        message: str,
        instead: str,
        level: Level = Level.ERROR,
    ) -> None:
        if len(self._all) < MAX_FINDINGS:
            self._all.add(Finding(place.line, place.column, dotted(path), message, instead, level))

    def at(self, node: Node, message: str, instead: str) -> None:
        self.add(node.place, node.path, message, instead)

    def sorted(self) -> tuple[Finding, ...]:
        return tuple(sorted(self._all))


def read(text: str, findings: Findings) -> Node:
    """The tree of `text`. What is wrong goes to `findings`; raises Unreadable where it stops."""
    start = Place(1, 1)
    try:
        length = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        place = _place_of(text, error.start)
        findings.add(place, (), "a lone surrogate is no character", "leave it out")
        raise Unreadable from error
    if length > MAX_BYTES:
        findings.add(start, (), f"the file has {length} bytes", f"keep it under {MAX_BYTES}")
        raise Unreadable
    try:
        return _Reader(text, findings).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else start
        findings.add(
            place,
            (),
            f"this is not YAML: {error.problem or error.context}",
            "check indentation, brackets and quotes here",
        )
        raise Unreadable from error
    except (ValueError, OverflowError) as error:  # PyYAML's own scanner, of "\UFFFFFFFF"
        findings.add(start, (), "an escape names no character", "write the character itself")
        raise Unreadable from error
    except yaml.reader.ReaderError as error:
        findings.add(
            _unreadable_character(text, start),
            (),
            "a control character may not stand in the file",
            "leave it out, or write it as an escape in double quotes",
        )
        raise Unreadable from error


def plain(node: Node) -> object:
    """The JSON value of a node."""
    if isinstance(node, MapNode):
        return {key: plain(child) for key, child in node.items.items()}
    if isinstance(node, ListNode):
        return [plain(child) for child in node.items]
    return node.value


def sound(node: Node) -> bool:
    """Whether no part of it has a finding from reading."""
    if isinstance(node, MapNode):
        return all(sound(child) for child in node.items.values())
    if isinstance(node, ListNode):
        return all(sound(child) for child in node.items)
    return node.sound


def locate(node: Node, path: Path) -> Place:
    """Where the value at `path` below `node` stands, or the nearest place above it."""
    place = node.place
    for step in path:
        if isinstance(node, MapNode) and isinstance(step, str) and step in node.items:
            place, node = node.keys[step], node.items[step]
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            place = node.place
        else:
            break
    return place


class _Reader:
    """Builds the tree from the parser's events: unlike composed nodes, they show anchors and tags
    before anything has been expanded.
    """

    def __init__(self, text: str, findings: Findings) -> None:
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=_LOADER))
        self._findings = findings
        self._nodes = 0

    def document(self) -> Node:
        event = next(self._events)
        while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            self._stop(event, (), "the file is empty", "begin with version: 1")
        root = self._node(event, (), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._stop(after, (), "a second document begins", "leave out --- and what follows it")
        return root

    def _node(self, event: yaml.Event, path: Path, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, (), f"more than {MAX_NODES} values", "write a smaller file")
        if depth > MAX_DEPTH:
            self._stop(event, path, f"nested deeper than {MAX_DEPTH} levels", "write it flatter")
        if isinstance(event, yaml.AliasEvent):
            self._stop(event, path, "an alias (*name)", "write the value out here")
        if getattr(event, "anchor", None) is not None:
            self._stop(event, path, "an anchor (&name)", "leave it out; no aliases are read")
        if getattr(event, "tag", None) is not None:
            self._stop(event, path, "a tag (!name)", "leave it out")
        if isinstance(event, yaml.MappingStartEvent):
            return self._map(event, path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(child := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(child, (*path, len(items)), depth + 1))
            return ListNode(path, _place(event), tuple(items))
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(event, path, "something else than a value", "write a value")
        return self._scalar(event, path)

    def _map(self, event: yaml.Event, path: Path, depth: int) -> MapNode:
        node = MapNode(path, _place(event), {}, {})
        while not isinstance(start := next(self._events), yaml.MappingEndEvent):
            if not isinstance(start, yaml.ScalarEvent):
                self._stop(start, path, "a key that is no plain word", "write key: value")
            key = self._node(start, path, depth + 1)
            name = self._key(key)
            child = self._node(next(self._events), (*path, name), depth + 1)
            if name in node.items:
                first = node.keys[name].line
                self._findings.add(
                    key.place,
                    child.path,
                    f"{name[:80]!r} stands here twice; the first is in line {first}",
                    "keep one of them",
                )
                continue
            node.items[name] = child
            node.keys[name] = key.place
        return node

    def _key(self, key: Node) -> str:
        value = key.value if isinstance(key, Scalar) else None
        if isinstance(value, str):
            return value
        written = "null" if value is None else str(value).lower()
        self._findings.at(key, f"the key {written} is no string", f'write "{written}" in quotes')
        return written

    def _scalar(self, event: yaml.ScalarEvent, path: Path) -> Scalar:
        place, text = _place(event), event.value
        if event.style not in (None, ""):  # quoted, or a block
            return Scalar(path, place, text)
        kind = _kind(text)
        if kind == "null":
            return Scalar(path, place, None)
        if kind == "bool" and text in ("true", "false"):
            return Scalar(path, place, text == "true")
        if kind == "int" and _INTEGER.fullmatch(text):
            return Scalar(path, place, int(text))
        if kind == "str" and not text.isdigit():
            return Scalar(path, place, text)
        reading = _READINGS.get(kind, "something else than text")
        self._findings.add(
            place,
            path,
            f"YAML reads {text[:80]} without quotes as {reading}",
            f'write "{text[:80]}" in quotes' + _OTHERWISE.get(kind, ""),
        )
        return Scalar(path, place, text, sound=False)

    def _stop(self, event: yaml.Event, path: Path, message: str, instead: str) -> NoReturn:
        self._findings.add(_place(event), path, message, instead)
        raise Unreadable


_READINGS = {
    "bool": "a truth value",
    "int": "a number of another kind",
    "float": "a number with a fraction",
    "timestamp": "a date",
    "merge": "an instruction to merge",
    "str": "text in some versions and a number in others",
}
_OTHERWISE = {"bool": ", or true or false", "int": ", or a plain whole number"}


def _kind(text: str) -> str:
    """What YAML 1.1 takes a plain scalar for: `str`, `int`, `bool`, ..."""
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag.removeprefix(_TAG)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _place_of(text: str, position: int) -> Place:
    before = text[:position]
    return Place(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


def _unreadable_character(text: str, otherwise: Place) -> Place:
    """libyaml counts bytes, PyYAML characters: so look for the character itself."""
    match = yaml.reader.Reader.NON_PRINTABLE.search(text)
    return _place_of(text, match.start()) if match else otherwise
