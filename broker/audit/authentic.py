"""Comparing a verified log with what was signed: is it whole, and is it the log?

Owns what checkpoints and receipts say of an export or of a directory of tiles,
and the words for it. Does not own the check of the log in itself (`verify`), nor
signatures (`note`): what comes in here is signed, or is called a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, opened, unverified
from broker.audit.merkle import TILE_WIDTH, TreeBuilder
from broker.audit.note import VerifierKey
from broker.audit.receipt import Receipt
from broker.audit.tiles import BadTile, Tile, of_tree, unbundle
from broker.audit.verify import Problem, sequence_number


@dataclass(frozen=True, slots=True)
class Evidence:
    """What to hold a log against. `signed`: the signatures were checked with a trusted key."""

    checkpoints: tuple[Checkpoint, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    signed: bool = False

    @classmethod
    def read(
        cls, notes: Iterable[str], receipts: Iterable[Receipt], keys: Sequence[VerifierKey]
    ) -> Evidence:
        """Without keys, notes are claims. Raises BadNote, BadProof or BadReceipt."""
        checkpoints = [opened(note, keys) if keys else unverified(note) for note in notes]
        kept = tuple(receipts)
        checkpoints += [one.verify(keys) if keys else one.unverified() for one in kept]
        ordered = sorted(checkpoints, key=lambda one: one.size)
        return cls(tuple(ordered), kept, signed=bool(keys))

    @property
    def sizes(self) -> set[int]:
        """Where the verifier is to keep the tree's root."""
        return {checkpoint.size for checkpoint in self.checkpoints}

    @property
    def numbers(self) -> set[int]:
        """The records whose leaf hash the verifier is to keep."""
        return {receipt.seq for receipt in self.receipts}

    @property
    def covered(self) -> int:
        """How many records the largest checkpoint covers."""
        return max(self.sizes, default=0)

    def problem(
        self, records: int, roots: Mapping[int, bytes], leaves: Mapping[int, bytes]
    ) -> Problem | None:
        """The first record that is not what was signed, of a log that is good in itself."""
        return min(self._problems(records, roots, leaves), key=lambda p: p.seq, default=None)

    def _problems(
        self, records: int, roots: Mapping[int, bytes], leaves: Mapping[int, bytes]
    ) -> Iterator[Problem]:
        good = 0
        for checkpoint in self.checkpoints:
            if checkpoint.size > records:
                what = f"the log ends before it, and the checkpoint is of {checkpoint.size} records"
                yield Problem(records + 1, what)
            elif roots[checkpoint.size] == checkpoint.root:
                good = max(good, checkpoint.size)
            else:
                what = (
                    f"somewhere from here to {checkpoint.size} is not what the checkpoint "
                    f"{checkpoint} says"
                )
                yield Problem(good + 1, what)
                break
        for receipt in self.receipts:
            found = leaves.get(receipt.seq)
            if found is not None and found != leaf_hash(receipt.record):
                yield Problem(receipt.seq, "it is not the record that the receipt holds")


# --- A directory of tiles ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TreeVerification:
    """As `verify.Verification`, of a directory of tiles: it has no chain."""

    records: int
    problem: Problem | None
    roots: Mapping[int, bytes]
    leaves: Mapping[int, bytes]


# Gives a file's bytes by its path under `tile/`; None where there is none.
ReadTile: TypeAlias = Callable[[str], bytes | None]


def verify_tiles(
    read: ReadTile, size: int, *, sizes: Iterable[int], numbers: Iterable[int]
) -> TreeVerification:
    """Every record of a tree of `size`, against its tiles of hashes as far as they are there.

    Entry bundles must be there; memory stays flat.
    """
    check = _TileCheck(read, frozenset(sizes), frozenset(numbers))
    problem = None
    try:
        for tile in of_tree(size):
            if tile.level is None:
                check.bundle(tile)
        check.upper_levels()
    except _BadTile as bad:
        problem = Problem(bad.seq, str(bad))
    return TreeVerification(check.tree.size, problem, check.roots, check.leaves)


class _BadTile(Exception):
    def __init__(self, seq: int, what: str) -> None:
        super().__init__(what)
        self.seq = seq


class _TileCheck:
    def __init__(self, read: ReadTile, sizes: frozenset[int], numbers: frozenset[int]) -> None:
        self._read = read
        self._sizes, self._numbers = sizes, numbers
        self.tree = TreeBuilder()
        self.roots: dict[int, bytes] = {0: self.tree.root}
        self.leaves: dict[int, bytes] = {}
        self._level: list[bytes] = []

    def bundle(self, tile: Tile) -> None:
        first = tile.index * TILE_WIDTH + 1
        data = self._read(tile.path)
        if data is None:
            raise _BadTile(first, f"the tile {tile.path} is missing")
        try:
            records = unbundle(data)
        except BadTile as bad:
            raise _BadTile(first, str(bad)) from None
        if len(records) != tile.width:
            raise _BadTile(first, f"the tile {tile.path} holds {len(records)} records")
        hashes = self._read(Tile(0, tile.index, tile.width).path)
        leaves = [leaf_hash(record) for record in records]
        for place, (record, leaf) in enumerate(zip(records, leaves, strict=True)):
            seq = first + place
            if hashes is not None and hashes[place * 32 : place * 32 + 32] != leaf:
                raise _BadTile(seq, "the record does not match its hash in the tile")
            _require_number(record, seq)
            self.tree.add([leaf])
            if seq in self._numbers:
                self.leaves[seq] = leaf
            if seq in self._sizes:
                self.roots[seq] = self.tree.root
        if hashes is not None and len(hashes) != 32 * tile.width:
            raise _BadTile(first, "the tile of hashes has another width")
        if tile.width == TILE_WIDTH:
            whole = TreeBuilder()
            whole.add(leaves)
            self._level.append(whole.root)
        self.roots[self.tree.size] = self.tree.root

    def upper_levels(self) -> None:
        """The tiles over full tiles, as far as they are there."""
        level, span = 1, TILE_WIDTH
        while self._level:
            above: list[bytes] = []
            for at in range(0, len(self._level), TILE_WIDTH):
                hashes = self._level[at : at + TILE_WIDTH]
                tile = Tile(level, at // TILE_WIDTH, len(hashes))
                found = self._read(tile.path)
                if found is not None and found != b"".join(hashes):
                    raise _BadTile(at * span + 1, f"the tile {tile.path} is not over the records")
                if len(hashes) == TILE_WIDTH:
                    whole = TreeBuilder()
                    whole.add(hashes)
                    above.append(whole.root)
            self._level, level, span = above, level + 1, span * TILE_WIDTH


def _require_number(record: bytes, seq: int) -> None:
    try:
        found = sequence_number(record)
    except ValueError as error:
        raise _BadTile(seq, str(error)) from None
    if found != seq:
        raise _BadTile(seq, f"the record says it is number {found}")
