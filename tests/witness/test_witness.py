"""Witnesses cosign what continues what they saw, say so when it does not, and are not believed
more than their key has signed.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from broker.adapters.checkpoints import CheckpointPublisher
from broker.adapters.copying import Copying
from broker.adapters.outbound import new_client
from broker.adapters.rollback import (
    Conflict,
    StoredLog,
    check_witnesses,
    record_rollback,
    refusal,
)
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.records import append as append_record
from broker.adapters.store.schema import audit_cosignatures
from broker.adapters.store.tree import AuditTree
from broker.adapters.witness import TlogWitness, WitnessFailed
from broker.audit.checkpoint import Checkpoint, LogKeys, opened
from broker.audit.cosignature import CosignerKey, cosigned_by
from broker.audit.note import BadNote, sign
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from tests.store.journal_scene import event, log, until
from tests.unit.audit.keys import ORIGIN, TestSigner, TestWitness
from tests.witness.strict import Answer, StrictWitness, serving

SIGNER = TestSigner()
KEYS = LogKeys(ORIGIN, (SIGNER.key,), ())


@dataclass
class Broker:
    """As much of a server process as keeps the log, with one witness or more."""

    database: Database
    witnesses: list[TlogWitness]
    failed: list[tuple[str, bool]]
    patience: float = 0.05

    def __post_init__(self) -> None:
        self.tree, self.checkpoints = AuditTree(self.database), SqlCheckpoints(self.database)
        self.journal = GroupCommitJournal(self.database, signer=SIGNER)
        self.copying = Copying(
            self.checkpoints,
            (),
            self.witnesses,
            retry_after=self.patience,
            on_copy=lambda name, failing: self.failed.append((name, failing)),
        )
        self.publisher = CheckpointPublisher(
            checkpoints=self.checkpoints,
            tree=self.tree,
            journal=self.journal,
            signer=SIGNER,
            copying=self.copying,
            every=self.patience,
        )

    async def record(self, count: int = 1) -> None:
        for number in range(count):
            await self.journal.append(event(EventType.LOGIN_SUCCEEDED, n=number))

    async def publish(self, count: int = 1) -> Checkpoint:
        await self.record(count)
        checkpoint = await self.publisher.publish()
        await self.copying.push()
        return checkpoint

    async def cosigned(self, key: CosignerKey) -> bool:
        note = await self.checkpoints.latest()
        if note is None:
            return False
        try:
            cosigned_by(note, key)
        except BadNote:
            return False
        return True

    async def conflicts(self) -> list[Conflict]:
        stored = StoredLog(self.checkpoints, self.tree, AuditRecords(self.database), KEYS)
        return await check_witnesses(self.witnesses, stored, SIGNER)


class Scene:
    """One witness, and brokers over whatever database."""

    def __init__(self, witness: StrictWitness, url: str) -> None:
        self.witness, self.url = witness, url
        self.client = new_client(total_seconds=30)

    def broker(self, database: Database) -> Broker:
        tree = AuditTree(database)
        key = self.witness.signer.key
        return Broker(database, [TlogWitness(self.url, key, self.client, tree.consistency)], [])


@pytest.fixture
def strict() -> Iterator[tuple[StrictWitness, str]]:
    witness = StrictWitness(SIGNER.key)
    with serving(witness) as url:
        yield witness, url


@pytest.fixture
async def scene(strict: tuple[StrictWitness, str]) -> AsyncIterator[Scene]:
    made = Scene(*strict)
    yield made
    await made.client.aclose()


@pytest.fixture
async def broker(scene: Scene, sqlite_database: Database) -> AsyncIterator[Broker]:
    made = scene.broker(sqlite_database)
    await made.journal.start()
    yield made
    await made.publisher.aclose()
    await made.journal.aclose()


# --- Cosigning -----------------------------------------------------------------------------------


async def test_each_checkpoint_is_cosigned_and_says_so(scene: Scene, database: Database) -> None:
    broker = scene.broker(database)
    await broker.journal.start()
    key = scene.witness.signer.key
    for count in (1, 3, 300):
        checkpoint = await broker.publish(count)
        note = await broker.checkpoints.latest()
        assert note is not None
        assert opened(note, KEYS.keys) == checkpoint
        assert cosigned_by(note, key).seconds == scene.witness.clock
        assert scene.witness.latest[ORIGIN] == checkpoint
    assert await broker.conflicts() == []
    assert broker.copying.failing == ()
    await broker.journal.aclose()


async def test_a_process_that_knows_nothing_of_the_witness_learns_where_it_is(
    scene: Scene, broker: Broker
) -> None:
    await broker.publish(5)
    await broker.record(5)
    again = scene.broker(broker.database)
    await again.journal.start()
    await again.publisher.publish()
    await again.copying.push()
    assert await again.cosigned(scene.witness.signer.key)
    assert scene.witness.answered[-2:] == [409, 200]
    await again.journal.aclose()


async def test_two_processes_push_the_same_heads(scene: Scene, broker: Broker) -> None:
    other = scene.broker(broker.database)
    await other.journal.start()
    for _ in range(3):
        await broker.publish(2)
        await other.copying.push()
        await other.publish(2)
        # Behind by now, where it did not look at the newest.
        await broker.copying.push()
    assert broker.copying.failing == other.copying.failing == ()
    assert await broker.cosigned(scene.witness.signer.key)
    await other.journal.aclose()


async def test_cosignatures_are_append_only_and_the_first_stays(
    scene: Scene, broker: Broker
) -> None:
    checkpoint = await broker.publish()
    note = await broker.checkpoints.latest()
    await broker.checkpoints.add_cosignature(
        checkpoint.size, str(scene.witness.signer.key), "— false Zm9v\n"
    )
    assert await broker.checkpoints.latest() == note
    for statement in (update(audit_cosignatures).values(line="x"), delete(audit_cosignatures)):
        with pytest.raises(Exception, match="append-only"):
            async with broker.database.begin() as conn:
                await conn.execute(statement)


async def test_a_witness_that_was_away_cosigns_when_it_is_back(
    scene: Scene, broker: Broker
) -> None:
    scene.witness.twist = lambda _: Answer(503, b"later\n")
    await broker.publish(4)
    assert broker.copying.failing == ("checkpoint copy (witness)",)
    assert broker.failed == [(f"witness:{scene.url}", True)]
    await broker.publisher.start()
    scene.witness.twist = None

    async def back() -> bool:
        return await broker.cosigned(scene.witness.signer.key) and not broker.copying.failing

    await until(back)
    assert broker.failed[-1] == (f"witness:{scene.url}", False)


async def test_a_witness_that_hangs_does_not_hold_up_signing(scene: Scene, broker: Broker) -> None:
    released = threading.Event()

    def hang(answer: Answer) -> Answer:
        released.wait(60)
        return answer

    async def signed() -> bool:
        standing = await broker.checkpoints.standing()
        return standing.records == standing.signed

    scene.witness.twist = hang
    try:
        await broker.publisher.start()
        for _ in range(3):
            await broker.record()
            await until(signed)
    finally:
        released.set()


# --- Answers that are not to be believed ---------------------------------------------------------


def _by_another_key(answer: Answer) -> Answer:
    lines = TestWitness("witness.test/w1", 99).cosign("text\n", 1_790_000_000)
    return replace(answer, status=200, body=lines.encode())


def _falsely(answer: Answer) -> Answer:
    """The right key's name and id over something else."""
    lines = StrictWitness().signer.cosign("other\n1\nAAAA\n", 1_790_000_000)
    return replace(answer, status=200, body=lines.encode())


HOSTILE = {
    "another key": _by_another_key,
    "false": _falsely,
    "garbage": lambda _: Answer(200, bytes(range(256))),
    "nothing": lambda _: Answer(200, b""),
    "html": lambda _: Answer(200, b"<html>\n\n\xe2\x80\x94 a b\n</html>\n"),
    "a note of its own": lambda _: Answer(200, sign("x\n1\ny\n", SIGNER).encode()),
    "huge": lambda _: Answer(200, b"\xe2\x80\x94 w AAAAAAAA\n" * 300_000),
    "redirect": lambda _: Answer(307, location="http://127.0.0.1:9/add-checkpoint"),
    "forbidden": lambda _: Answer(403),
    "unknown": lambda _: Answer(404),
    "ever another size": lambda _: Answer(409, b"1\n", "text/x.tlog.size"),
    "no size": lambda _: Answer(409, b"many\n", "text/x.tlog.size"),
    "negative": lambda _: Answer(409, b"-1\n", "text/x.tlog.size"),
    "endless size": lambda _: Answer(409, b"9" * 5000, "text/x.tlog.size"),
    "teapot": lambda _: Answer(418),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_answer_is_a_failed_copy_and_nothing_else(
    scene: Scene, broker: Broker, kind: str
) -> None:
    scene.witness.twist = HOSTILE[kind]
    checkpoint = await broker.publish(3)
    note = await broker.checkpoints.latest()
    assert note == checkpoint.signed(SIGNER)
    assert broker.copying.failing == ("checkpoint copy (witness)",)
    await broker.journal.append(event(EventType.LOGIN_SUCCEEDED))


async def test_a_cosignature_of_a_longer_text_is_none(scene: Scene, database: Database) -> None:
    """An answer is added to the note, and one that begins with an empty line makes it another text,
    which the witness can well sign. Kept, it would be false for ever to whoever asks for it.
    """
    note = Checkpoint(ORIGIN, 3, bytes(32)).signed(SIGNER)
    line = scene.witness.signer.cosign(note, 1_790_000_000)
    assert cosigned_by(f"{note}\n{line}", scene.witness.signer.key).line == line
    scene.witness.twist = lambda _: Answer(200, f"\n{line}".encode())
    with pytest.raises(WitnessFailed, match="its answer is no cosignature"):
        await scene.broker(database).witnesses[0].cosign(note)


async def test_lines_of_other_keys_beside_the_right_one_are_left_out(
    scene: Scene, broker: Broker
) -> None:
    other = TestWitness("elsewhere.test", 33)

    def twist(answer: Answer) -> Answer:
        line = other.cosign("x\n", 1).encode() if answer.status == 200 else b""
        return replace(answer, body=line + answer.body)

    scene.witness.twist = twist
    await broker.publish()
    note = await broker.checkpoints.latest()
    assert note is not None
    assert "elsewhere.test" not in note
    assert cosigned_by(note, scene.witness.signer.key).seconds == scene.witness.clock


async def test_a_log_that_the_witness_does_not_know_starts_all_the_same(
    scene: Scene, broker: Broker
) -> None:
    scene.witness.logs.clear()
    await broker.publish()
    assert await broker.conflicts() == []
    assert broker.copying.failing


# --- When the broker starts ----------------------------------------------------------------------


async def older(
    scene: Scene, sqlite_url: str, tmp_path: Path, *, at_dump: int = 3, after: int = 4
) -> None:
    """Leave the database as it was before the witness saw the newest head."""
    path, dump = Path(sqlite_url.partition("///")[2]), tmp_path / "dump.db"
    for count, last in ((at_dump, False), (after, True)):
        database = Database.open(sqlite_url)
        broker = scene.broker(database)
        await broker.journal.start()
        if count:
            await broker.publish(count)
        await broker.journal.aclose()
        await database.aclose()
        if not last:
            shutil.copy(path, dump)
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    shutil.copy(dump, path)


@pytest.mark.parametrize("at_dump", [0, 3])
async def test_an_older_database_is_refused_by_what_the_witness_saw(
    scene: Scene, sqlite_url: str, tmp_path: Path, at_dump: int
) -> None:
    """Also one that is empty."""
    await older(scene, sqlite_url, tmp_path, at_dump=at_dump)
    seen = scene.witness.latest[ORIGIN]
    database = Database.open(sqlite_url)
    broker = scene.broker(database)
    ((name, conflict),) = await broker.conflicts()
    assert (name, conflict.size) == (f"witness:{scene.url}", seen.size)
    message = str(refusal([(name, conflict)], 4))
    assert f"{ORIGIN} {seen.size}" in message
    assert "--accept-rollback" in message
    await database.aclose()


async def test_a_fork_is_refused_whether_shorter_as_long_or_longer(
    scene: Scene, sqlite_url: str, tmp_path: Path
) -> None:
    await older(scene, sqlite_url, tmp_path)
    seen = scene.witness.latest[ORIGIN].size
    database = Database.open(sqlite_url)
    broker = scene.broker(database)
    await broker.journal.start()
    for size in (seen - 1, seen, seen + 5):
        now = (await broker.tree.edge()).size
        await broker.record(size - now - 1)
        checkpoint = await broker.publisher.publish()
        assert checkpoint.size == size
        ((_, conflict),) = await broker.conflicts()
        assert conflict.size == seen
        # At run time it is a failing copy: no witness stops a broker that runs.
        await broker.copying.push()
        assert broker.copying.failing
        broker = replace_copying(scene, broker)
    await broker.journal.aclose()
    await database.aclose()


def replace_copying(scene: Scene, broker: Broker) -> Broker:
    """The same, with nothing remembered."""
    again = scene.broker(broker.database)
    again.journal = broker.journal
    again.publisher._journal = broker.journal
    return again


async def test_a_loss_that_was_accepted_is_not_asked_about_again_unless_it_grows(
    scene: Scene, sqlite_url: str, tmp_path: Path
) -> None:
    await older(scene, sqlite_url, tmp_path)
    database = Database.open(sqlite_url)
    broker = scene.broker(database)
    await broker.journal.start()
    conflicts = await broker.conflicts()
    await record_rollback(conflicts, journal=broker.journal, records=5)
    # Not before it is signed: the record alone anybody with the database could write.
    assert await broker.conflicts() == conflicts
    await broker.publisher.publish()
    assert await broker.conflicts() == []
    scene.witness.latest[ORIGIN] = Checkpoint(ORIGIN, 10_000, bytes(32))
    ((_, conflict),) = await scene.broker(database).conflicts()
    assert conflict.size == 10_000
    (accepted,) = [one for one in await log(database) if one["type"] == "audit.rollback_accepted"]
    assert accepted["detail"]["copy"] == f"witness:{scene.url}"
    await broker.journal.aclose()
    await database.aclose()


async def test_an_acceptance_written_into_the_records_afterwards_counts_for_nothing(
    scene: Scene, sqlite_url: str, tmp_path: Path
) -> None:
    await older(scene, sqlite_url, tmp_path)
    database = Database.open(sqlite_url)
    broker = scene.broker(database)
    ((name, conflict),) = await broker.conflicts()
    forged = Event(
        EventType.AUDIT_ROLLBACK_ACCEPTED,
        SYSTEM,
        Outcome.SUCCESS,
        detail={"copy": name, "expected_size": conflict.size},
    )
    async with database.begin() as conn:
        await append_record(conn, [forged])
    assert await broker.conflicts() == [(name, conflict)]
    await database.aclose()


async def test_a_witness_that_can_not_be_reached_does_not_stop_the_start(
    scene: Scene, broker: Broker
) -> None:
    await broker.publish()
    scene.witness.twist = lambda _: Answer(500)
    assert await broker.conflicts() == []
    broker.witnesses[0].url = "http://127.0.0.1:9"
    assert await broker.conflicts() == []


async def test_witnesses_are_asked_at_once(scene: Scene, broker: Broker) -> None:
    await broker.publish()
    second = StrictWitness(SIGNER.key, name="witness.test/w2", seed=22)
    met = threading.Barrier(2)

    def meeting(witness: StrictWitness) -> Callable[[Answer], Answer]:
        """Its next answer waits for the other's, the ones after it for nobody."""

        def wait(answer: Answer) -> Answer:
            witness.twist = None
            met.wait(60)
            return answer

        return wait

    scene.witness.twist, second.twist = meeting(scene.witness), meeting(second)
    client = new_client(total_seconds=60)
    with serving(second) as url:
        prove = broker.tree.consistency
        broker.witnesses[:] = [
            TlogWitness(scene.url, scene.witness.signer.key, client, prove),
            TlogWitness(url, second.signer.key, client, prove),
        ]
        assert await broker.conflicts() == []
    await client.aclose()
    assert not met.broken
    assert await broker.cosigned(second.signer.key)
