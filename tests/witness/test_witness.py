"""Witnesses cosign what continues what they saw, and are not believed more than their key has
signed.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import delete, update

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import audit_cosignatures
from broker.adapters.witness import WitnessFailed
from broker.audit.checkpoint import Checkpoint, opened
from broker.audit.cosignature import cosigned_by
from broker.audit.note import sign
from broker.audit.record import EventType
from tests.store.journal_scene import event, until
from tests.unit.audit.keys import ORIGIN, TestWitness
from tests.witness.scene import KEYS, SIGNER, Broker, Scene
from tests.witness.strict import Answer, StrictWitness

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
