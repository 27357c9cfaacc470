"""Tiles: the tree and its records as files that never change (C2SP tlog-tiles).

Owns their names and contents. A tile is up to 256 neighbouring hashes of one
level, a level being eight levels of the tree; an entry bundle is the records
under a tile of level 0. One that is not full yet is named with its width.

    tile/0/x001/234            the leaf hashes of records 315905 to 316160
    tile/1/000.p/17            17 roots of full tiles of level 0
    tile/entries/000.p/3       the first three records
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.audit.merkle import TILE_HEIGHT, TILE_WIDTH

_MAX_LEVEL = 63
_PATH = re.compile(
    r"(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


class BadTile(ValueError):
    """A path that names no tile, or bytes that are no bundle of entries."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`level` None: an entry bundle. `width`: 1 to 256."""

    level: int | None
    index: int
    width: int

    @classmethod
    def parse(cls, path: str) -> Tile:
        """From what follows `tile/`. Raises BadTile for any other spelling."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise BadTile("not the path of a tile")
        level = None if match["level"] == "entries" else int(match["level"])
        index = int(match["index"].replace("x", "").replace("/", ""))
        width = TILE_WIDTH if match["width"] is None else int(match["width"])
        tile = cls(level, index, width)
        # One name a tile: no leading x000, no partial tile that is whole.
        if tile.path != path or (level or 0) > _MAX_LEVEL or width > TILE_WIDTH:
            raise BadTile("not the path of a tile")
        return tile

    @property
    def path(self) -> str:
        """What follows `tile/`."""
        level = "entries" if self.level is None else str(self.level)
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03}")
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"{level}/{'/'.join(groups)}{partial}"

    @property
    def height(self) -> int:
        """The height in the tree of what stands in it."""
        return TILE_HEIGHT * (self.level or 0)

    @property
    def begin(self) -> int:
        """The place, among the nodes of its height, of the first that stands in it."""
        return self.index * TILE_WIDTH

    def fits(self, size: int) -> bool:
        """Whether a tree of that many leaves holds all of it."""
        return (self.begin + self.width) << self.height <= size


def of_tree(size: int) -> list[Tile]:
    """Every tile and entry bundle of a tree of that size."""
    found = []
    for level in range(_MAX_LEVEL + 1):
        count = size >> TILE_HEIGHT * level
        for index in range((count + TILE_WIDTH - 1) // TILE_WIDTH):
            width = min(TILE_WIDTH, count - index * TILE_WIDTH)
            found.append(Tile(level, index, width))
            if level == 0:
                found.append(Tile(None, index, width))
    return found


def bundle(records: Iterable[bytes]) -> bytes:
    """An entry bundle: each record after its length, a big-endian 16-bit number."""
    return b"".join(len(record).to_bytes(2, "big") + record for record in records)


def unbundle(data: bytes) -> Sequence[bytes]:
    """The records of an entry bundle. Raises BadTile where it ends within one."""
    records, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise BadTile("the bundle of entries is cut off")
        records.append(data[at + 2 : end])
        at = end
    return records
