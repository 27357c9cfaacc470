"""The stored Merkle tree: proofs and tiles, without reading the log again.

Owns what is read for them: leaf hashes from audit_records, at most 256 for each
step of a proof, and the hashes of full tiles from audit_nodes. Does not own the
tree's growth, which is part of every append (`records`, `journal`), nor its
arithmetic (`broker.audit.merkle`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.records import head_missing, read_tree
from broker.adapters.store.schema import audit_head, audit_nodes, audit_records
from broker.audit.merkle import (
    TILE_HEIGHT,
    CompactRange,
    Node,
    Span,
    consistency_spans,
    fill,
    inclusion_spans,
    needed,
    node_hash,
)
from broker.audit.tiles import Tile, bundle
from broker.errors import AuditUnavailable, NotFound


class AuditTree:
    """Reads the tree. Every method raises AuditUnavailable where the database is out or does
    not hold what its head says, and NotFound for what the log has not grown to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def edge(self) -> CompactRange:
        """The tree as it is now."""
        async with self._database.read() as conn:
            return await _edge(conn)

    async def inclusion(self, seq: int, size: int) -> tuple[bytes, tuple[bytes, ...]]:
        """The record's leaf hash, and the proof that it is in the tree over `size` records."""
        if not 1 <= seq <= size:
            raise NotFound(f"No log of {size} records has a record {seq}.")
        async with self._database.read() as conn:
            await _require_size(conn, size)
            proof = await _proof(conn, inclusion_spans(seq - 1, size))
            leaf = Node(0, seq - 1)
            return (await _load(conn, [leaf]))[leaf], proof

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree over `new` records begins with that over `old`."""
        if not 0 <= old <= new:
            raise NotFound("A log does not shrink: ask from the smaller size to the larger.")
        async with self._database.read() as conn:
            await _require_size(conn, new)
            return await _proof(conn, consistency_spans(old, new))

    async def root(self, size: int) -> bytes:
        """The root of the tree as it was with `size` records."""
        async with self._database.read() as conn:
            await _require_size(conn, size)
            if size == 0:
                return CompactRange(0, ()).root
            return (await _proof(conn, [Span(0, size)]))[0]

    async def tile(self, tile: Tile) -> bytes:
        """Its contents: hashes one after another, or an entry bundle."""
        async with self._database.read() as conn:
            if not tile.fits((await _edge(conn)).size):
                raise NotFound("The log has not grown to this tile.")
            if tile.level is None:
                return bundle(await _records(conn, tile.begin, tile.begin + tile.width))
            found = await _stored(conn, tile.height, [(tile.begin, tile.begin + tile.width)])
        return b"".join(_at(found, tile.begin + n, tile.height) for n in range(tile.width))


async def _edge(conn: AsyncConnection) -> CompactRange:
    row = (
        await conn.execute(select(audit_head.c.seq, audit_head.c.tree).where(audit_head.c.id == 1))
    ).one_or_none()
    if row is None:
        raise head_missing()
    return read_tree(row.seq, row.tree)


async def _require_size(conn: AsyncConnection, size: int) -> None:
    if size > (await _edge(conn)).size:
        raise NotFound(f"The log has not grown to {size} records.")


async def _proof(conn: AsyncConnection, spans: list[Span]) -> tuple[bytes, ...]:
    return fill(spans, await _load(conn, needed(spans)))


async def _load(conn: AsyncConnection, nodes: Iterable[Node]) -> dict[Node, bytes]:
    """The nodes, each made from what is stored at the next level down: one query a level."""
    by_height: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        by_height[node.height // TILE_HEIGHT * TILE_HEIGHT].append(node)
    loaded = {}
    for height, wanted in by_height.items():
        spans = {node: _places(node, height) for node in wanted}
        found = await _stored(conn, height, spans.values())
        for node, (begin, end) in spans.items():
            loaded[node] = _root([_at(found, place, height) for place in range(begin, end)])
    return loaded


def _places(node: Node, height: int) -> tuple[int, int]:
    """What a node is made of, as places among the nodes of a lower height."""
    shift = node.height - height
    return node.place << shift, (node.place + 1) << shift


def _root(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = [node_hash(*pair) for pair in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


async def _stored(
    conn: AsyncConnection, height: int, spans: Iterable[tuple[int, int]]
) -> dict[int, bytes]:
    """Stored hashes of one height by their place: leaves, or roots of full tiles."""
    if height == 0:
        seq = audit_records.c.seq
        where = or_(*(seq.between(begin + 1, end) for begin, end in spans))
        rows = (await conn.execute(select(seq - 1, audit_records.c.leaf).where(where))).all()
    else:
        place = audit_nodes.c.place
        where = or_(*(place.between(begin, end - 1) for begin, end in spans))
        where = and_(audit_nodes.c.height == height, where)
        rows = (await conn.execute(select(place, audit_nodes.c.hash).where(where))).all()
    return {row[0]: row[1] for row in rows}


def _at(found: dict[int, bytes], place: int, height: int) -> bytes:
    try:
        return found[place]
    except KeyError:
        raise AuditUnavailable(
            log_detail=f"the tree's hash {place} of height {height} is missing"
        ) from None


async def _records(conn: AsyncConnection, begin: int, end: int) -> list[bytes]:
    columns = audit_records.c
    query = select(columns.seq, columns.record).where(columns.seq.between(begin + 1, end))
    rows = (await conn.execute(query.order_by(columns.seq))).all()
    if len(rows) != end - begin:
        raise AuditUnavailable(log_detail=f"audit records {begin + 1} to {end} are not all there")
    return [row.record for row in rows]
