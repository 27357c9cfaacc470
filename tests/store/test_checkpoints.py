"""The log signs its head, and notices when its database is not the one it signed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from sqlalchemy import delete, text, update

from broker.adapters.checkpoint_copies import Copy, FileCopy, S3Copy, parse
from broker.adapters.checkpoints import CheckpointPublisher
from broker.adapters.copying import Copying
from broker.adapters.rollback import check_copies, record_rollback, refusal
from broker.adapters.store.checkpoints import SqlCheckpoints, Standing
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.schema import audit_checkpoints, audit_head, audit_records
from broker.adapters.store.tree import AuditTree
from broker.audit.checkpoint import Checkpoint, LogKeys, opened
from broker.audit.note import CannotSign
from broker.audit.record import EventType
from broker.devstack.aws import AwsStandIn
from broker.errors import AuditUnavailable, StartupError
from tests.store.journal_scene import event, log, until
from tests.unit.audit.keys import ORIGIN, TestSigner

_REGION = "us-east-1"
SIGNER = TestSigner()
KEYS = LogKeys(ORIGIN, (SIGNER.key,), ())


class Broker:
    """As much of a server process as keeps the log."""

    def __init__(self, database: Database, *copies: Copy, every: float = 0.05):
        self.database = database
        self.copies = copies
        self.tree, self.checkpoints = AuditTree(database), SqlCheckpoints(database)
        self.journal = GroupCommitJournal(database, signer=SIGNER)
        self.copying = Copying(self.checkpoints, copies, retry_after=every)
        self.publisher = CheckpointPublisher(
            checkpoints=self.checkpoints,
            tree=self.tree,
            journal=self.journal,
            signer=SIGNER,
            copying=self.copying,
            every=every,
        )

    async def __aenter__(self) -> Broker:
        await self.journal.start()
        return self

    async def __aexit__(self, *fault: object) -> None:
        await self.publisher.aclose()
        await self.journal.aclose()

    async def record(self, count: int = 1) -> None:
        for number in range(count):
            await self.journal.append(event(EventType.LOGIN_SUCCEEDED, n=number))

    async def publish(self) -> Checkpoint:
        """Sign the head, and have it copied at once."""
        checkpoint = await self.publisher.publish()
        await self.copying.push()
        return checkpoint

    async def all_signed(self) -> bool:
        standing = await self.checkpoints.standing()
        return standing.records == standing.signed

    async def conflicts(self) -> list[str]:
        found = await check_copies(
            self.copies, checkpoints=self.checkpoints, tree=self.tree, keys=KEYS
        )
        return [name for name, _ in found]


@pytest.fixture
async def broker(database: Database) -> AsyncIterator[Broker]:
    async with Broker(database) as made:
        yield made


async def test_what_is_new_is_signed_and_an_idle_log_stays_idle(broker: Broker) -> None:
    await broker.publisher.start()
    assert await broker.checkpoints.latest() is None
    await broker.record(3)
    await until(broker.all_signed)
    standing = await broker.checkpoints.standing()
    note = await broker.checkpoints.latest()
    assert note is not None
    checkpoint = opened(note, KEYS.keys)
    edge = await broker.tree.edge()
    assert (checkpoint.size, checkpoint.root) == (edge.size, edge.root)
    await asyncio.sleep(0.3)  # many looks of the publisher
    assert await broker.checkpoints.standing() == standing
    signed = [one for one in await log(broker.database) if one["type"] == "audit.checkpoint"]
    root = await broker.tree.root(signed[-1]["detail"]["size"])
    assert signed[-1]["detail"]["root"] == root.hex()
    assert signed[-1]["detail"]["key"] == SIGNER.key.key_id.hex()


async def test_many_records_are_signed_before_the_time_is_up(database: Database) -> None:
    async with Broker(database, every=5.0) as broker:
        broker.publisher._records = 20
        broker.publisher._poll = 0.01
        await broker.publisher.start()
        await broker.record(25)
        await until(broker.all_signed)


async def test_two_processes_sign_one_log(database_url: str) -> None:
    first, second = Database.open(database_url), Database.open(database_url)
    async with Broker(first) as one, Broker(second) as two:
        await one.publisher.start()
        await two.publisher.start()
        await asyncio.gather(one.record(30), two.record(30))
        await until(one.all_signed)
        await asyncio.sleep(0.2)
        assert await two.all_signed()
        assert await one.conflicts() == []
    await first.aclose()
    await second.aclose()


async def test_stopping_signs_the_rest(database: Database) -> None:
    async with Broker(database, every=10.0) as broker:
        await broker.publisher.start()
        await broker.record(2)
    assert await broker.checkpoints.standing() == Standing(3, 3)


async def test_of_two_processes_that_sign_at_once_the_one_that_covers_more_is_the_newest(
    broker: Broker,
) -> None:
    """Whichever is stored last: a client that saw the larger one would take the other for a cut."""
    await broker.record(4)
    notes = {size: f"note of {size}" for size in (3, 4)}
    await broker.checkpoints.add(4, notes[4])
    await broker.checkpoints.add(3, notes[3])
    assert await broker.checkpoints.latest() == notes[4]
    assert await broker.checkpoints.standing() == Standing(4, 4)


class _Unreachable(TestSigner):
    """A key that is out of reach while `out`."""

    out = True
    asked = 0

    def sign(self, message: bytes) -> bytes:
        self.asked += 1
        if self.out:
            raise CannotSign("the key is out of reach")
        return super().sign(message)


async def test_while_the_key_is_out_of_reach_one_head_waits_for_it(
    sqlite_database: Database,
) -> None:
    signer = _Unreachable()
    async with Broker(sqlite_database) as broker:
        broker.publisher._signer = signer
        await broker.publisher.start()
        await broker.record(3)

        async def tried() -> bool:
            return signer.asked >= 3

        await until(tried)
        assert broker.publisher.problems == ("signing of checkpoints",)
        assert await broker.checkpoints.latest() is None
        heads = [one for one in await log(broker.database) if one["type"] == "audit.checkpoint"]
        assert len(heads) == 1
        signer.out = False
        await until(broker.all_signed)

        async def well() -> bool:
            return not broker.publisher.problems

        await until(well)


async def test_checkpoints_are_append_only(broker: Broker) -> None:
    await broker.record()
    await broker.publish()
    for statement in (update(audit_checkpoints).values(note="x"), delete(audit_checkpoints)):
        with pytest.raises(Exception, match="append-only"):
            async with broker.database.begin() as conn:
                await conn.execute(statement)


def test_what_is_no_place_for_copies_is_refused() -> None:
    for reference in ("", "file:", "directory:", "s3:bucket", "s3://", "s3://UPPER/x", "ftp:x"):
        with pytest.raises(ValueError, match="write file:PATH"):
            parse(reference)


# --- Copies outside ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_copies_hold_the_newest_checkpoint(
    sqlite_database: Database, tmp_path: Path, kind: str
) -> None:
    copy = parse(f"{kind}:{tmp_path}/outside/place")
    async with Broker(sqlite_database, copy) as broker:
        assert await copy.latest() is None
        for _ in range(3):
            await broker.record()
            await broker.publish()
            assert await copy.latest() == await broker.checkpoints.latest()
        assert await broker.conflicts() == []
    kept = [path for path in (tmp_path / "outside").rglob("*") if path.is_file()]
    assert len(kept) == (1 if kind == "file" else 3)


class _Odd:
    """A copy with a fault of its own."""

    name = "odd:place"

    async def push(self, note: str) -> None:
        raise RuntimeError(note)

    async def latest(self) -> str | None:
        return None


async def test_a_copy_with_a_fault_of_its_own_keeps_no_other_from_its_own(
    sqlite_database: Database, tmp_path: Path
) -> None:
    copy = FileCopy(tmp_path / "checkpoint")
    async with Broker(sqlite_database) as broker:
        copying = Copying(broker.checkpoints, [_Odd(), copy, _Odd()])
        await broker.record()
        await broker.publish()
        await copying.push()
        assert await copy.latest() == await broker.checkpoints.latest()
        assert copying.failing == ("checkpoint copy (odd)",)


async def test_a_copy_that_fails_stops_nothing_and_is_tried_again(
    sqlite_database: Database, tmp_path: Path
) -> None:
    wall = tmp_path / "wall"
    wall.write_text("no directory")
    copy = FileCopy(wall / "checkpoint")
    async with Broker(sqlite_database, copy) as broker:
        await broker.publisher.start()
        await broker.record()
        await until(broker.all_signed)
        wall.unlink()

        async def copied() -> bool:
            return await copy.latest() == await broker.checkpoints.latest()

        await until(copied)


@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_a_database_restored_from_an_older_dump_is_refused_until_accepted(
    sqlite_url: str, tmp_path: Path, kind: str
) -> None:
    copy = parse(f"{kind}:{tmp_path}/outside/place")
    path = Path(sqlite_url.partition("///")[2])
    dump = tmp_path / "dump.db"

    database = Database.open(sqlite_url)
    async with Broker(database, copy) as broker:
        await broker.record(5)
        await broker.publish()
    await database.aclose()
    shutil.copy(path, dump)
    database = Database.open(sqlite_url)
    async with Broker(database, copy) as broker:
        await broker.record(5)
        await broker.publish()
    await database.aclose()

    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    shutil.copy(dump, path)
    database = Database.open(sqlite_url)
    async with Broker(database, copy) as broker:
        conflicts = await check_copies(
            [copy], checkpoints=broker.checkpoints, tree=broker.tree, keys=KEYS
        )
        ((name, expected),) = conflicts
        assert (name, expected.size) == (copy.name, 12)
        records = (await broker.tree.edge()).size
        message = str(refusal(conflicts, records))
        assert str(expected) in message
        assert "--accept-rollback" in message
        # Growing past it makes it no better: it is another log.
        await broker.record(10)
        assert await broker.conflicts() == [copy.name]
        await record_rollback(conflicts, journal=broker.journal, records=records)
        await broker.publish()
        assert await broker.conflicts() == []
        (accepted,) = [
            one for one in await log(database) if one["type"] == "audit.rollback_accepted"
        ]
        assert accepted["detail"]["expected_size"] == 12
        assert accepted["detail"]["found_size"] == 6
    await database.aclose()


async def test_records_cut_from_the_end_are_noticed_without_any_copy(
    sqlite_database: Database,
) -> None:
    async with Broker(sqlite_database) as broker:
        await broker.record(4)
        before = await broker.tree.edge()
        await broker.record(4)
        await broker.publish()
        await cut(sqlite_database, before.size, before.to_bytes())
        assert await broker.conflicts() == ["the database"]


async def cut(database: Database, size: int, tree: bytes) -> None:
    async with database.begin() as conn:
        await conn.execute(text("DROP TRIGGER audit_records_no_delete"))
        await conn.execute(delete(audit_records).where(audit_records.c.seq > size))
        await conn.execute(update(audit_head).values(seq=size, tree=tree))


async def test_a_database_that_goes_back_under_a_running_broker_halts_it(
    sqlite_database: Database,
) -> None:
    async with Broker(sqlite_database) as broker:
        await broker.record(4)
        before = await broker.tree.edge()
        await broker.record(4)
        await broker.publisher.start()
        await until(broker.all_signed)
        await cut(sqlite_database, before.size, before.to_bytes())

        async def halted() -> bool:
            try:
                await broker.record()
            except AuditUnavailable as refused:
                return "went back" in (refused.log_detail or "")
            return False

        # What slips in before the look is on record; after it nothing is.
        broker.publisher._seen += 1000
        await until(halted)


async def test_a_copy_signed_by_a_stranger_is_refused(
    sqlite_database: Database, tmp_path: Path
) -> None:
    copy = FileCopy(tmp_path / "checkpoint")
    async with Broker(sqlite_database, copy) as broker:
        await broker.record()
        checkpoint = await broker.publish()
        await copy.push(checkpoint.signed(TestSigner(seed=8)))
        with pytest.raises(StartupError, match="not of this log's keys"):
            await broker.conflicts()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with Object Lock, and its owner's client.

    In a stand-in of its own: moto's `mock_aws` would empty every other one of this process.
    """
    allow = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    with AwsStandIn.start() as aws:
        owner = aws.hub_credentials(
            "user", name="owner", policy={"Version": "2012-10-17", "Statement": [allow]}
        )
        for name, value in owner.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", aws.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", _REGION)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers other keys
        client = boto3.client("s3")
        client.create_bucket(Bucket="heads", ObjectLockEnabledForBucket=True)
        yield client


async def test_copies_in_s3_are_locked_and_the_newest_is_found(bucket: Any) -> None:
    copy = S3Copy("heads", "broker/")
    assert await copy.latest() is None
    for note in ("first", "second"):
        await copy.push(note)
        assert await copy.latest() == note
    first, _ = bucket.list_objects_v2(Bucket="heads")["Contents"]
    locked = bucket.head_object(Bucket="heads", Key=first["Key"])
    assert locked["ObjectLockMode"] == "COMPLIANCE"
    assert locked["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=399)
    bucket.put_object(Bucket="heads", Key="idle/20200101T000000.000000Z-00", Body=b"long ago")
    assert await S3Copy("heads", "idle/").latest() == "long ago"


async def test_how_long_a_copy_in_s3_is_locked_is_a_setting(bucket: Any) -> None:
    copy = parse("s3://heads/short/", retention=timedelta(days=7))
    await copy.push("note")
    (kept,) = bucket.list_objects_v2(Bucket="heads", Prefix="short/")["Contents"]
    locked = bucket.head_object(Bucket="heads", Key=kept["Key"])["ObjectLockRetainUntilDate"]
    assert timedelta(days=6) < locked - datetime.now(UTC) < timedelta(days=8)


async def test_s3_that_refuses_is_an_unreachable_place(bucket: Any) -> None:
    for asking in (S3Copy("nobody", "x/").push("note"), S3Copy("nobody", "x/").latest()):
        with pytest.raises(OSError, match="NoSuchBucket"):
            await asking
