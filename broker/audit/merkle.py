"""The Merkle tree over the log's leaf hashes: roots, growth, proofs.

Owns the tree's arithmetic as in RFC 6962 section 2.1 and RFC 9162 section 2.1.
Record number `seq` is the leaf with index `seq - 1`, so a tree's size is the
last sequence number in it. Does not own where hashes are kept: what proofs need
is named (`Node`) and handed in.

A node is a perfect subtree: `Node(height, place)` covers the leaves from
`place << height` up to `(place + 1) << height`. Nodes never change once their
leaves are there. What does change is the right edge, and that is a
`CompactRange`: the largest nodes that cover a tree, left to right, one for each
bit of its size. It is all that growing the tree needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

HASH_BYTES = 32
# Tiles are this many levels high: 256 hashes wide (C2SP tlog-tiles).
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
EMPTY_ROOT = sha256(b"").digest()


class BadProof(ValueError):
    """A proof that proves nothing: wrong length, wrong sizes, or another root. Says which."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Node(NamedTuple):
    """A perfect subtree of 2**height leaves."""

    height: int
    place: int


class Span(NamedTuple):
    """The leaves with indexes `begin` up to, not including, `end`; never empty."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class CompactRange:
    """The right edge of the tree over `size` leaves. `hashes`: largest subtree first."""

    size: int
    hashes: tuple[bytes, ...]

    @classmethod
    def parse(cls, size: int, data: bytes) -> CompactRange:
        """From `to_bytes`. Raises ValueError where it can't be the edge of that many leaves."""
        if size < 0 or len(data) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"{len(data)} bytes are not the edge of a tree of {size} leaves")
        pieces = range(0, len(data), HASH_BYTES)
        return cls(size, tuple(data[at : at + HASH_BYTES] for at in pieces))

    def to_bytes(self) -> bytes:
        """The hashes one after another; the size is stored beside them."""
        return b"".join(self.hashes)

    @property
    def root(self) -> bytes:
        """The tree's root (32 bytes); of no leaves, SHA-256 of nothing."""
        if not self.hashes:
            return EMPTY_ROOT
        return _fold(self.hashes)

    def extend(self, leaves: Iterable[bytes]) -> Growth:
        """The tree with these leaves added: O(leaves + log size) hashes."""
        nodes: dict[Node, bytes] = dict(zip(_nodes(0, self.size), self.hashes, strict=True))
        edge = list(self.hashes)
        size = self.size
        for leaf in leaves:
            height, place, current = 0, size, leaf
            nodes[Node(0, place)] = current
            while place & 1:
                current = node_hash(edge.pop(), current)
                height, place = height + 1, place >> 1
                nodes[Node(height, place)] = current
            edge.append(current)
            size += 1
        return Growth(self, CompactRange(size, tuple(edge)), nodes)


NO_LEAVES = CompactRange(0, ())


@dataclass(frozen=True, slots=True)
class Growth:
    """What adding leaves made. `nodes`: those of `before`'s edge and every one completed."""

    before: CompactRange
    after: CompactRange
    nodes: Mapping[Node, bytes]

    def tile_roots(self) -> list[tuple[Node, bytes]]:
        """The completed nodes that stand in hash tiles over the leaves': one in 256 leaves."""
        return [
            (node, value)
            for node, value in self.nodes.items()
            if node.height
            and node.height % TILE_HEIGHT == 0
            and (node.place + 1) << node.height > self.before.size
        ]

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """The inclusion proof, in the grown tree, of a leaf that was added."""
        return self.inclusions([index])[index]

    def inclusions(self, indexes: Iterable[int]) -> dict[int, tuple[bytes, ...]]:
        """The proofs of several. High up they are the same: each hash is made once."""
        made: dict[Span, bytes] = {}
        proofs = {}
        for index in indexes:
            if not self.before.size <= index < self.after.size:
                raise ValueError(f"leaf {index} was not added here")
            spans = inclusion_spans(index, self.after.size)
            for span in spans:
                if span not in made:
                    made[span] = _fold([self.nodes[node] for node in _nodes(*span)])
            proofs[index] = tuple([made[span] for span in spans])
        return proofs


class TreeBuilder:
    """The tree's roots, fed with leaves from the first on, at the least cost a leaf."""

    def __init__(self) -> None:
        self._tiles = NO_LEAVES  # the tree over the full tiles' roots
        self._leaves: list[bytes] = []

    @property
    def size(self) -> int:
        return self._tiles.size * TILE_WIDTH + len(self._leaves)

    def add(self, leaves: Iterable[bytes]) -> None:
        self._leaves += leaves
        while len(self._leaves) >= TILE_WIDTH:
            level, self._leaves = self._leaves[:TILE_WIDTH], self._leaves[TILE_WIDTH:]
            while len(level) > 1:
                pairs = zip(level[::2], level[1::2], strict=True)
                level = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
            self._tiles = self._tiles.extend(level).after

    @property
    def root(self) -> bytes:
        """Of the leaves so far."""
        rest = NO_LEAVES.extend(self._leaves).after.hashes
        hashes = self._tiles.hashes + rest
        return _fold(hashes) if hashes else EMPTY_ROOT


def _fold(hashes: Sequence[bytes]) -> bytes:
    """One hash over neighbouring subtrees that grow smaller to the right."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def _nodes(begin: int, end: int) -> list[Node]:
    """The largest nodes that cover the leaves, left to right.

    For what proofs are made of: `begin` is aligned to the span's size rounded up.
    """
    found = []
    while begin < end:
        height = (end - begin).bit_length() - 1
        found.append(Node(height, begin >> height))
        begin += 1 << height
    return found


# --- Making proofs -----------------------------------------------------------------------


def inclusion_spans(index: int, size: int) -> list[Span]:
    """What an inclusion proof's hashes cover, in its order (RFC 9162 section 2.1.3.1).

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    spans = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(begin, middle))
            begin = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """What a consistency proof's hashes cover, in its order (RFC 9162 section 2.1.4.1); none
    from the empty tree or between equal ones. Raises ValueError unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not grow from one of {old}")
    if old in (0, new):
        return []
    spans = []
    begin, end = 0, new
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(begin, middle))
            begin = middle
    if begin:  # else it is the old tree itself, whose root the verifier has
        spans.append(Span(begin, end))
    return spans[::-1]


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (which is over 1)."""
    return 1 << (size - 1).bit_length() - 1


def needed(spans: Iterable[Span]) -> set[Node]:
    """The nodes whose hashes `fill` asks for."""
    return {node for span in spans for node in _nodes(*span)}


def fill(spans: Iterable[Span], nodes: Mapping[Node, bytes]) -> tuple[bytes, ...]:
    """The hashes over the spans. Raises KeyError for a node that is not there."""
    return tuple(_fold([nodes[node] for node in _nodes(*span)]) for span in spans)


# --- Checking proofs ---------------------------------------------------------------------


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to (RFC 9162 section 2.1.3.2). Raises BadProof where it is
    no proof for that leaf of a tree of that size.
    """
    if not 0 <= index < size:
        raise BadProof(f"a tree of {size} records has no record {index + 1}")
    _require_hashes(proof, len(inclusion_spans(index, size)))
    at, last, root = index, size - 1, leaf
    for sibling in proof:
        if at & 1 or at == last:
            root = node_hash(sibling, root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        at, last = at >> 1, last >> 1
    return root


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Raises BadProof unless the leaf stands at `index` in the tree of that size and root."""
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise BadProof(f"record {index + 1} is not in the tree of {size} records")


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raises BadProof unless the new tree begins with the old one (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old <= new:
        raise BadProof(f"the log shrank from {old} records to {new}")
    _require_hashes(proof, len(consistency_spans(old, new)))
    if old == new and old_root != new_root:
        raise BadProof(f"there are two different logs of {old} records")
    if old == 0 and old_root != EMPTY_ROOT:
        raise BadProof("the root of the empty log is another")
    if not proof:
        return
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    path = list(proof)
    # Where the old tree is one node, its root is the first hash, left out of the proof.
    first = old_root if old & (old - 1) == 0 else path.pop(0)
    first_root = second_root = first
    for sibling in path:
        if at & 1 or at == last:
            first_root = node_hash(sibling, first_root)
            second_root = node_hash(sibling, second_root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second_root = node_hash(second_root, sibling)
        at, last = at >> 1, last >> 1
    if first_root != old_root or second_root != new_root:
        raise BadProof(f"the log of {new} records does not begin with that of {old} records")


def _require_hashes(proof: Sequence[bytes], count: int) -> None:
    if len(proof) != count or any(len(one) != HASH_BYTES for one in proof):
        raise BadProof(f"the proof must be {count} hashes of {HASH_BYTES} bytes")
