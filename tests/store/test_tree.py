"""The stored tree grows with every append, whoever appends, and proves what is in the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError

from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.records import AuditRecords, append
from broker.adapters.store.schema import audit_head, audit_nodes, audit_records
from broker.adapters.store.tree import AuditTree
from broker.audit.chain import leaf_hash
from broker.audit.merkle import (
    NO_LEAVES,
    CompactRange,
    verify_consistency,
    verify_inclusion,
)
from broker.audit.record import EventType
from broker.audit.tiles import Tile, of_tree, unbundle
from broker.errors import AuditUnavailable, NotFound
from tests.store.journal_scene import add_person, event, intent, outcome
from tests.unit.audit.keys import ORIGIN, TestSigner

SIGNER = TestSigner()


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[GroupCommitJournal]:
    await add_person(database)
    made = GroupCommitJournal(database, signer=SIGNER)
    await made.start()
    yield made
    await made.aclose()


async def fill_log(database: Database, count: int) -> list[bytes]:
    """That many records, in appends of different sizes; their leaf hashes."""
    rest, step = count, 1
    while rest:
        async with database.begin() as conn:
            batch = min(step, rest)
            await append(conn, [event(EventType.LOGIN_SUCCEEDED, n=n) for n in range(batch)])
        rest, step = rest - batch, step * 3
    return [row.leaf async for row in AuditRecords(database).export()]


async def test_an_empty_log_has_an_empty_tree(database: Database) -> None:
    tree = AuditTree(database)
    assert await tree.edge() == NO_LEAVES
    assert await tree.root(0) == NO_LEAVES.root
    assert await tree.consistency(0, 0) == ()
    for asking in (tree.inclusion(1, 1), tree.consistency(0, 1), tree.tile(Tile(0, 0, 1))):
        with pytest.raises(NotFound):
            await asking


async def test_the_tree_is_the_log_whoever_appends(
    database: Database, journal: GroupCommitJournal
) -> None:
    async def mutate(number: int) -> None:
        async with database.begin() as conn:
            await append(conn, [event(EventType.LOGIN_SUCCEEDED, n=number)] * 3)

    async def issue() -> None:
        one = intent()
        await journal.request(one)
        await journal.conclude(outcome(one))

    await asyncio.gather(*(issue() for _ in range(60)), *(mutate(n) for n in range(20)))
    await journal.request(intent())
    assert await journal.reap(0) == 1
    leaves = [row.leaf async for row in AuditRecords(database).export()]
    assert len(leaves) == 60 * 2 + 20 * 3 + 2
    assert await AuditTree(database).edge() == NO_LEAVES.extend(leaves).after


async def test_every_proof_verifies_against_roots_made_from_the_records(
    database: Database,
) -> None:
    leaves = await fill_log(database, 1000)
    tree = AuditTree(database)
    edges = {n: NO_LEAVES.extend(leaves[:n]).after for n in (1, 2, 255, 256, 257, 513, 768, 1000)}
    for size, edge in edges.items():
        assert await tree.root(size) == edge.root
        for seq in {1, size // 2 + 1, size, random.randint(1, size)}:
            leaf, path = await tree.inclusion(seq, size)
            assert leaf == leaves[seq - 1]
            verify_inclusion(leaf, seq - 1, size, path, edge.root)
        for old, old_edge in edges.items():
            if old <= size:
                proof = await tree.consistency(old, size)
                verify_consistency(old, size, old_edge.root, edge.root, proof)
    for seq, size in ((0, 5), (6, 5), (-1, 5), (1, 1001)):
        with pytest.raises(NotFound):
            await tree.inclusion(seq, size)
    for old, new in ((-1, 5), (6, 5), (5, 1001)):
        with pytest.raises(NotFound):
            await tree.consistency(old, new)


async def test_tiles_hold_the_whole_tree(database: Database) -> None:
    leaves = await fill_log(database, 600)
    tree = AuditTree(database)
    contents = {tile.path: await tree.tile(tile) for tile in of_tree(600)}
    assert list(contents) == [
        "0/000",
        "entries/000",
        "0/001",
        "entries/001",
        "0/002.p/88",
        "entries/002.p/88",
        "1/000.p/2",
    ]
    assert contents["0/000"] + contents["0/001"] + contents["0/002.p/88"] == b"".join(leaves)
    full = [NO_LEAVES.extend(leaves[at : at + 256]).after.root for at in (0, 256)]
    assert contents["1/000.p/2"] == b"".join(full)
    entries = [contents[path] for path in contents if path.startswith("entries/")]
    assert [leaf_hash(one) for data in entries for one in unbundle(data)] == leaves
    for beyond in (Tile(0, 2, 89), Tile(0, 2, 256), Tile(1, 0, 3), Tile(2, 0, 1), Tile(0, 9, 1)):
        with pytest.raises(NotFound):
            await tree.tile(beyond)


async def test_a_proof_reads_little_of_the_log(sqlite_database: Database) -> None:
    """Full tiles stand for their leaves: with those leaves gone, proofs are still made."""
    leaves = await fill_log(sqlite_database, 1200)
    async with sqlite_database.begin() as conn:
        await conn.exec_driver_sql("DROP TRIGGER audit_records_no_delete")
        await conn.execute(delete(audit_records).where(audit_records.c.seq <= 1024 - 256))
    _, path = await AuditTree(sqlite_database).inclusion(1200, 1200)
    root = NO_LEAVES.extend(leaves).after.root
    verify_inclusion(leaves[-1], 1199, 1200, path, root)
    with pytest.raises(AuditUnavailable) as missing:
        await AuditTree(sqlite_database).inclusion(1, 1200)
    assert "is missing" in (missing.value.log_detail or "")


async def test_a_head_whose_tree_is_of_another_size_stops_every_append(
    database: Database, journal: GroupCommitJournal
) -> None:
    await journal.append(event(EventType.LOGIN_SUCCEEDED))
    async with database.begin() as conn:
        await conn.execute(
            update(audit_head).values(tree=CompactRange(3, (bytes(32),) * 2).to_bytes())
        )
    with pytest.raises(AuditUnavailable):
        await journal.append(event(EventType.LOGIN_SUCCEEDED))
    with pytest.raises(AuditUnavailable):
        async with database.begin() as conn:
            await append(conn, [event(EventType.LOGIN_SUCCEEDED)])
    with pytest.raises(AuditUnavailable):
        await AuditTree(database).edge()


async def test_the_hashes_of_tiles_are_append_only(database: Database) -> None:
    await fill_log(database, 256)
    for statement in (update(audit_nodes).values(hash=bytes(32)), delete(audit_nodes)):
        with pytest.raises(DBAPIError, match="append-only"):
            async with database.begin() as conn:
                await conn.execute(statement)
    async with database.read() as conn:
        assert len((await conn.execute(select(audit_nodes))).all()) == 1


async def test_every_issuance_gets_a_receipt_that_verifies(
    database: Database, journal: GroupCommitJournal
) -> None:
    async def issue() -> tuple[str, int, int]:
        one = intent()
        await journal.request(one)
        concluded = await journal.conclude(outcome(one))
        assert concluded.receipt is not None
        checkpoint = concluded.receipt.verify([SIGNER.key])
        assert checkpoint.origin == ORIGIN
        members = concluded.receipt.members()
        assert members["type"] == "issuance.issued"
        assert members["subject"]["issuance"] == one.id  # type: ignore[index]
        assert concluded.receipt.seq == concluded.appended.seq
        return concluded.receipt.checkpoint, concluded.appended.seq, checkpoint.size

    receipts = await asyncio.gather(*(issue() for _ in range(100)))
    # One signature a flush.
    assert len({note for note, _, _ in receipts}) < 50
    edge = await AuditTree(database).edge()
    assert max(size for _, _, size in receipts) <= edge.size


async def test_nothing_withheld_gets_a_receipt(
    database: Database, journal: GroupCommitJournal
) -> None:
    one = intent(login_session_id="ls-gone")
    await journal.request(one)
    concluded = await journal.conclude(outcome(one))
    assert (concluded.reason, concluded.receipt) == ("session_ended", None)
