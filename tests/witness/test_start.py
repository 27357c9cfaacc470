"""What a witness saw before is asked when the broker starts, and settles whether it does."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.adapters.outbound import new_client
from broker.adapters.rollback import (
    record_rollback,
    refusal,
)
from broker.adapters.store.engine import Database
from broker.adapters.store.records import append as append_record
from broker.adapters.witness import TlogWitness
from broker.audit.checkpoint import Checkpoint
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from tests.store.journal_scene import log
from tests.unit.audit.keys import ORIGIN
from tests.witness.scene import SIGNER, Broker, Scene
from tests.witness.strict import Answer, StrictWitness, serving


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
