"""Offline verification of an export, by anybody, with the standard library alone.

Owns the form of an export line and its check. An export is JSON Lines, one

    {"record": "<the record's exact bytes, as a string>", "leaf": "<hex>", "chain": "<hex>"}

a record, ended by a line feed. The bytes in `record` are what is hashed; they
are never re-serialised. The line around them may have one spelling only: these
separators, lower-case hex, UTF-8, and in strings no escape that JSON does not
demand (as Python's `json.dumps(..., ensure_ascii=False)` writes it). So every
changed byte is found, be it white space or the case of a hex digit.

What this alone cannot find: records missing from the end of an export that
stops at a line's end, and a whole log made up anew. Both need something signed
to compare with (`authentic`), and that is why the word here is "internally
consistent", never "authentic".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NoReturn

from broker.audit.chain import EMPTY, MAX_RECORD_BYTES, Head
from broker.audit.merkle import TreeBuilder
from broker.audit.shapes import Shapes

_PREFIX = '{"record": "'
_LEAF = '", "leaf": "'
_CHAIN = '", "chain": "'
_SUFFIX = '"}'
_TAIL = b'", "leaf": "%b", "chain": "%b"}'
_HASHES = len(_LEAF) + 64 + len(_CHAIN) + 64 + len(_SUFFIX)
# Canonical JSON holds no control characters, so that escaping it again at most doubles it.
MAX_LINE_BYTES = len(_PREFIX) + 2 * MAX_RECORD_BYTES + _HASHES

_escape = json.encoder.encode_basestring


def export_line(record: bytes, leaf: bytes, chain: bytes) -> bytes:
    """One line of an export, line feed included."""
    text = _escape(record.decode("utf-8"))
    return f'{{"record": {text}, "leaf": "{leaf.hex()}", "chain": "{chain.hex()}"}}\n'.encode()


@dataclass(frozen=True, slots=True)
class Problem:
    """The first bad record: the sequence number due at its place, and what is wrong there."""

    seq: int
    what: str

    def __str__(self) -> str:
        return f"record {self.seq}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found: `count` good records from `first`, the last of them at `head`.

    `roots` are the tree's at the sizes asked for and at the head, `leaves` the leaf hashes of
    the numbers asked for, as far as there were good records; a part of a log has no roots.
    """

    count: int
    first: int
    head: Head
    problem: Problem | None
    roots: Mapping[int, bytes] = field(default_factory=dict, compare=False)
    leaves: Mapping[int, bytes] = field(default_factory=dict, compare=False)

    @property
    def consistent(self) -> bool:
        return self.problem is None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"broken at {self.problem}"
        if self.count == 0:
            return "no records"
        return (
            f"internally consistent: records {self.first} to {self.head.seq}, "
            f"chain {self.head.chain.hex()}"
        )


def verify(
    chunks: Iterable[bytes],
    after: Head = EMPTY,
    *,
    sizes: Iterable[int] = (),
    numbers: Iterable[int] = (),
) -> Verification:
    """Check an export that comes in chunks of any size; memory stays flat.

    `after` is the trusted head that the export continues from. `sizes` and `numbers` are
    where to keep roots and leaf hashes for what else is to be compared. Stops at the first
    problem.
    """
    verifier = Verifier(after, sizes=sizes, numbers=numbers)
    for chunk in chunks:
        if not verifier.feed(chunk):
            break
    return verifier.close()


class Verifier:
    """The same, fed by hand."""

    def __init__(
        self, after: Head = EMPTY, *, sizes: Iterable[int] = (), numbers: Iterable[int] = ()
    ) -> None:
        self._first = after.seq + 1
        self._seq = after.seq
        self._chain = after.chain
        self._rest = b""
        self._problem: Problem | None = None
        self._shapes = Shapes()
        self._tree = TreeBuilder() if after == EMPTY else None
        self._sizes, self._numbers = frozenset(sizes), frozenset(numbers)
        # Leaf hashes of good records, not in the tree yet.
        self._waiting: list[bytes] = []
        self._watched = self._sizes | self._numbers
        self._roots: dict[int, bytes] = {}
        self._leaves: dict[int, bytes] = {}
        if self._tree is not None and 0 in self._sizes:
            self._roots[0] = self._tree.root

    def feed(self, chunk: bytes) -> bool:
        """Check the lines that this chunk completes. False: a problem was found, stop."""
        if self._problem is not None:
            return False
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        try:
            self._check(lines)
            if len(self._rest) > MAX_LINE_BYTES:
                _refuse_line("the line is too long")
        except (ValueError, RecursionError) as error:
            self._problem = Problem(self._seq + 1, _explain(error))
        return self._problem is None

    def close(self) -> Verification:
        if self._problem is None and self._rest:
            self._problem = Problem(self._seq + 1, "the line is cut off: no line feed at its end")
        count = self._seq - self._first + 1
        head = Head(self._seq, self._chain)
        self._grow()
        if self._tree is not None:
            self._roots[self._seq] = self._tree.root
        return Verification(count, self._first, head, self._problem, self._roots, self._leaves)

    def _check(self, lines: list[bytes]) -> None:
        """The fast way through what is usual; whatever it does not know goes the strict way,
        which alone refuses.
        """
        recognise, watched = self._shapes.recognise, self._watched
        previous, waiting = self._chain, self._waiting
        for line in lines:
            end = len(line) - _HASHES
            known = recognise(line, end)
            record, seq = self._strictly(line) if known is None else known
            leaf = sha256(b"\x00" + record).digest()
            chain = sha256(b"\x02" + previous + leaf).digest()
            written = (leaf + chain).hex().encode()
            if line[end:] != _TAIL % (written[:64], written[64:]):
                self._explain_hashes(line, leaf)
            if seq != self._seq + 1:
                _refuse_line(f"the record says it is number {seq}")
            self._seq = seq
            self._chain = previous = chain
            waiting.append(leaf)
            if seq in watched:
                self._keep(seq, leaf)
        self._grow()

    def _strictly(self, line: bytes) -> tuple[bytes, int]:
        """The record, when it is one JSON object whose number can be read. A new shape is
        learnt.
        """
        text = _parse_line(line)
        record = text.encode("utf-8")
        # First what anybody can change: a wrong hash explains whatever else is odd.
        leaf = sha256(b"\x00" + record).digest()
        chain = sha256(b"\x02" + self._chain + leaf).hexdigest().encode()
        if not line.endswith(_TAIL % (leaf.hex().encode(), chain)):
            self._explain_hashes(line, leaf)
        seq = _sequence_number(text)
        self._shapes.learn(line, len(line) - _HASHES, text)
        return record, seq

    def _explain_hashes(self, line: bytes, leaf: bytes) -> NoReturn:
        if (_LEAF + leaf.hex()).encode() not in line[-_HASHES:]:
            _refuse_line("the leaf hash does not match the record's bytes")
        _refuse_line("the chain hash does not follow from the record before")

    def _grow(self) -> None:
        if self._tree is not None:
            self._tree.add(self._waiting)
        self._waiting.clear()

    def _keep(self, seq: int, leaf: bytes) -> None:
        if seq in self._numbers:
            self._leaves[seq] = leaf
        if seq in self._sizes and self._tree is not None:
            self._grow()
            self._roots[seq] = self._tree.root


class _BadLine(ValueError):
    """A line that is not what it must be; the text says how."""


def _refuse_line(what: str) -> NoReturn:
    raise _BadLine(what)


def _explain(error: Exception) -> str:
    if isinstance(error, _BadLine):
        return str(error)
    if isinstance(error, UnicodeError):
        return "the line is not UTF-8"
    return "the line is not well-formed JSON"


def _parse_line(line: bytes) -> str:
    """The record's text. Raises ValueError unless the line is spelled exactly as `export_line`
    spells it.
    """
    if len(line) > MAX_LINE_BYTES:
        _refuse_line("the line is too long")
    text = line.decode("utf-8")
    hashes = len(text) - _HASHES
    if (
        hashes < len(_PREFIX)
        or not text.startswith(_PREFIX)
        or text[hashes : hashes + 12] != _LEAF
        or text[-79:-66] != _CHAIN
        or text[-2:] != _SUFFIX
    ):
        _refuse_line("the line does not have the form of an export line")
    written = text[len(_PREFIX) : hashes]
    # Quotes are all that most records have escaped: this is several times faster than
    # scanning, and the comparison below judges both.
    record = written.replace('\\"', '"')
    if "\\" in record:
        record = json.loads(f'"{written}"')
    if _escape(record) != f'"{written}"':
        _refuse_line("the record is not escaped in the one way that is allowed")
    return record


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse_line("the record has a duplicate member")
    return members


def _refuse_number(text: str) -> NoReturn:
    _refuse_line(f"the record holds a number that is not an integer: {text[:40]}")


_scan_record = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_float=_refuse_number,
    parse_constant=_refuse_number,
).raw_decode


def sequence_number(record: bytes) -> int:
    """`seq` of a record that stands alone. Raises ValueError, which says what is wrong with it."""
    try:
        return _sequence_number(record.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(_explain(error).replace("the line", "the record")) from None


def _sequence_number(record: str) -> int:
    """`seq` of a record's text, which must be one JSON object and nothing around it."""
    members, end = _scan_record(record)
    if not isinstance(members, dict) or end != len(record):
        _refuse_line("the record is not one JSON object")
    seq = members.get("seq")
    if type(seq) is not int:  # a bool is an int to isinstance
        _refuse_line("the record has no sequence number")
    return seq
