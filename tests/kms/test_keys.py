"""The log's key and the sealing keys in KMS: first ones, rotations, and what does not fit."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update

from broker.adapters import kms_sealing, kms_signing
from broker.adapters.key_place import KeyPlace, KmsReference
from broker.adapters.keys import load_sealing, load_signing
from broker.adapters.sealing import FileKeyRing, UnsealFailed
from broker.adapters.signing import SigningKeys
from broker.adapters.store.engine import Database
from broker.adapters.store.log_keys import SqlLogKeys
from broker.adapters.store.schema import audit_log_keys, sealing_keys
from broker.adapters.store.sealing_keys import SqlSealingKeys
from broker.audit.checkpoint import Checkpoint, follow, opened, succession
from broker.audit.delegate import certified
from broker.devstack.aws import Fault
from broker.errors import StartupError
from broker.log_setup import open_delegates
from tests.kms.conftest import Kms, allow
from tests.store.journal_scene import log
from tests.unit.audit.keys import ORIGIN, TestSigner

HEAD = Checkpoint(ORIGIN, 7, bytes(range(32)))
SECRET = b"otpauth-secret"


def place(reference: KmsReference) -> KeyPlace:
    return KeyPlace(reference)


# --- The log's key -------------------------------------------------------------------------------


async def test_the_first_key_of_a_log(kms: Kms, database: Database) -> None:
    reference, store = kms.signing(), SqlLogKeys(database)
    with pytest.raises(StartupError, match="broker migrate"):
        await load_signing(place(reference), database)
    key = await kms_signing.adopt(reference, None, ORIGIN, store)
    signing = await load_signing(place(reference), database)
    assert signing.log.keys == (key,)
    assert opened(HEAD.signed(signing.signer), signing.log.keys) == HEAD
    with pytest.raises(StartupError, match="has a key already"):
        await kms_signing.adopt(kms.signing(), None, ORIGIN, store)
    (rotated,) = [one for one in await log(database) if one["type"] == "keys.rotated"]
    assert rotated["detail"] == {"key": str(key), "previous": None}


async def test_a_delegate_is_certified_by_the_clock_that_dates_records(
    kms: Kms, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else clients would refuse every receipt of a host whose own clock is wrong."""
    reference = kms.signing()
    await kms_signing.adopt(reference, None, ORIGIN, SqlLogKeys(sqlite_database))
    signing = await load_signing(place(reference), sqlite_database)
    for ahead in (timedelta(hours=-3), timedelta(hours=3)):
        monkeypatch.setattr(Database, "now", partial(_now, ahead))
        async with AsyncExitStack() as stack:
            delegates = await open_delegates(signing, sqlite_database, stack)
            assert delegates is not None
            assert delegates.current().certificate == delegates.certificate
            certificate = certified(str(delegates.certificate), signing.log.keys)
            assert certificate.covers(datetime.now(UTC) + ahead)
            assert certificate.covers(datetime.now(UTC) + ahead + timedelta(hours=23))


async def _now(ahead: timedelta, *_: object) -> datetime:
    return datetime.now(UTC) + ahead


async def test_from_a_file_to_kms_and_on_to_another_key_of_kms(
    kms: Kms, sqlite_database: Database, tmp_path: Path
) -> None:
    path, store = tmp_path / "signing", SqlLogKeys(sqlite_database)
    first = SigningKeys.create(path, ORIGIN)
    first = SigningKeys.rotate(path)
    kept = HEAD.signed(first.signer)
    second, third = kms.signing(), kms.signing()

    await kms_signing.hand_over(first, f"file:{path}", second, None, store)
    signing = await load_signing(place(second), sqlite_database)
    assert signing.log.keys[:2] == first.log.keys
    await kms_signing.hand_over(signing, str(second), third, None, store)
    newest = await load_signing(place(third), sqlite_database)

    assert len(newest.log.keys) == 4
    assert opened(kept, newest.log.keys) == HEAD
    assert follow(ORIGIN, first.log.keys[:1], newest.log.successions) == list(newest.log.keys)
    # Who handed over signs no more, and says where the log's key is now.
    for old in (KeyPlace(path), place(second)):
        with pytest.raises(StartupError, match=str(third)):
            await load_signing(old, sqlite_database)
    with pytest.raises(StartupError, match="the log's key already"):
        await kms_signing.hand_over(newest, str(third), second, None, store)


async def test_a_key_that_the_log_did_not_name_is_refused(
    kms: Kms, sqlite_database: Database, tmp_path: Path
) -> None:
    store = SqlLogKeys(sqlite_database)
    first = SigningKeys.create(tmp_path / "signing", ORIGIN)
    await kms_signing.hand_over(first, "file:signing", kms.signing(), None, store)
    with pytest.raises(StartupError, match="is not the log's"):
        await load_signing(place(kms.signing()), sqlite_database)
    SigningKeys.create(tmp_path / "other", ORIGIN)
    with pytest.raises(StartupError, match="is not the log's"):
        await load_signing(KeyPlace(tmp_path / "other"), sqlite_database)


async def test_a_false_predecessor_in_the_database_is_noticed(
    kms: Kms, sqlite_database: Database
) -> None:
    """Or whoever writes the database could have clients pin a key of their own."""
    reference, store = kms.signing(), SqlLogKeys(sqlite_database)
    key = await kms_signing.adopt(reference, None, ORIGIN, store)
    thief = TestSigner(seed=3)
    async with sqlite_database.begin() as conn:
        for verb in ("update", "delete"):
            await conn.exec_driver_sql(f"DROP TRIGGER audit_log_keys_no_{verb}")
        await conn.execute(update(audit_log_keys).values(position=2, succession="not signed"))
        row = {"position": 1, "origin": ORIGIN, "vkey": str(thief.key), "reference": "x"}
        now = await sqlite_database.now(conn)
        await conn.execute(insert(audit_log_keys).values(**row, created_at=now))
    with pytest.raises(StartupError, match="do not follow each other"):
        await load_signing(place(reference), sqlite_database)
    forged = TestSigner(ORIGIN, 4)  # not the key in KMS, which it claims to have co-signed
    note = succession(ORIGIN, thief, forged).replace(str(forged.key), str(key))
    async with sqlite_database.begin() as conn:
        await conn.execute(
            update(audit_log_keys).where(audit_log_keys.c.position == 2).values(succession=note)
        )
    with pytest.raises(StartupError, match="do not follow each other"):
        await load_signing(place(reference), sqlite_database)


async def test_of_first_keys_made_at_once_one_is_kept(kms: Kms, database: Database) -> None:
    """Replicas that start for the first time."""
    keys, sealing = SqlLogKeys(database), SqlSealingKeys(database)
    signing_key, sealing_key = kms.signing(), kms.sealing()
    made = await asyncio.gather(
        *(kms_signing.adopt(signing_key, None, ORIGIN, keys) for _ in range(4)),
        *(kms_sealing.create(sealing_key, None, sealing) for _ in range(4)),
        return_exceptions=True,
    )
    assert [isinstance(one, StartupError) for one in made].count(False) == 2
    assert len(await sealing.all()) == 1
    assert (await load_signing(place(signing_key), database)).log.keys
    await load_sealing(place(sealing_key), database)


async def test_the_keys_history_is_append_only(kms: Kms, database: Database) -> None:
    await kms_signing.adopt(kms.signing(), None, ORIGIN, SqlLogKeys(database))
    for statement in (update(audit_log_keys).values(vkey="x"), delete(audit_log_keys)):
        with pytest.raises(Exception, match="append-only"):
            async with database.begin() as conn:
                await conn.execute(statement)


async def test_a_rotation_that_kms_refuses_changes_nothing(
    kms: Kms, sqlite_database: Database, tmp_path: Path
) -> None:
    store = SqlLogKeys(sqlite_database)
    first = SigningKeys.create(tmp_path / "signing", ORIGIN)
    kms.grant(allow("GetPublicKey"))
    with pytest.raises(StartupError, match=r"not replaced: .*AccessDenied"):
        await kms_signing.hand_over(first, "file:signing", kms.signing(), None, store)
    assert await store.history() is None
    kept = await load_signing(KeyPlace(tmp_path / "signing"), sqlite_database)
    assert kept.log == first.log


# --- The sealing keys ----------------------------------------------------------------------------


async def test_secrets_are_sealed_under_keys_that_kms_wraps(kms: Kms, database: Database) -> None:
    reference, store = kms.sealing(), SqlSealingKeys(database)
    with pytest.raises(StartupError, match="broker migrate"):
        await load_sealing(place(reference), database)
    await kms_sealing.create(reference, None, store)
    ring = await load_sealing(place(reference), database)
    calls = len(kms.aws.kms.calls)
    sealed = ring.seal(SECRET, purpose="totp", owner="p-1")
    again = await load_sealing(place(reference), database)
    assert again.unseal(sealed, purpose="totp", owner="p-1") == SECRET
    assert kms.aws.kms.calls[calls:] == ["Decrypt"]
    for purpose, owner in (("totp", "p-2"), ("other", "p-1")):
        with pytest.raises(UnsealFailed):
            again.unseal(sealed, purpose=purpose, owner=owner)
    (kept,) = await store.all()
    assert kept.reference == str(reference)
    with pytest.raises(StartupError, match="already"):
        await kms_sealing.create(reference, None, store)


async def test_after_a_rotation_old_secrets_open_and_new_ones_are_under_the_new_key(
    kms: Kms, sqlite_database: Database
) -> None:
    (first, record), second = kms.create("SYMMETRIC_DEFAULT"), kms.sealing()
    store = SqlSealingKeys(sqlite_database)
    await kms_sealing.create(first, None, store)
    old = (await load_sealing(place(first), sqlite_database)).seal(
        SECRET, purpose="totp", owner="p-1"
    )
    await kms_sealing.rotate(first, None, store)
    await kms_sealing.move(first, None, second, None, store)
    with pytest.raises(StartupError, match=str(second)):
        await load_sealing(place(first), sqlite_database)
    record.enabled = False  # nothing needs it any more
    ring = await load_sealing(place(second), sqlite_database)
    assert ring.unseal(old, purpose="totp", owner="p-1") == SECRET
    assert not ring.is_current(old)
    assert ring.is_current(ring.reseal(old, purpose="totp", owner="p-1"))


async def test_a_rotation_with_the_settings_of_before_a_move_locks_nobody_out(
    kms: Kms, database: Database
) -> None:
    """No setting would open keys of both."""
    first, second, store = kms.sealing(), kms.sealing(), SqlSealingKeys(database)
    await kms_sealing.create(first, None, store)
    await kms_sealing.move(first, None, second, None, store)
    kept = await store.all()
    with pytest.raises(StartupError, match=str(second)):
        await kms_sealing.rotate(first, None, store)
    assert await store.all() == kept
    assert (await load_sealing(place(second), database)).current == kept[-1].id


async def test_of_a_move_and_a_rotation_at_once_one_comes_first(
    kms: Kms, postgresql_database: Database
) -> None:
    first, second, store = kms.sealing(), kms.sealing(), SqlSealingKeys(postgresql_database)
    await kms_sealing.create(first, None, store)
    for _ in range(4):
        done = await asyncio.gather(
            kms_sealing.move(first, None, second, None, store),
            kms_sealing.rotate(first, None, store),
            kms_sealing.rotate(first, None, store),
            return_exceptions=True,
        )
        assert all(one is None or isinstance(one, StartupError) for one in done), done
        (reference,) = {one.reference for one in await store.all()}
        first, second = KmsReference.parse(reference), kms.sealing()


async def test_the_keys_of_a_file_move_to_kms(
    kms: Kms, sqlite_database: Database, tmp_path: Path
) -> None:
    path, reference = tmp_path / "sealing", kms.sealing()
    old = FileKeyRing.create(path).seal(SECRET, purpose="totp", owner="p-1")
    FileKeyRing.rotate(path)
    await kms_sealing.move_file(path, reference, None, SqlSealingKeys(sqlite_database))
    with pytest.raises(StartupError, match=str(reference)):
        await load_sealing(KeyPlace(path), sqlite_database)
    path.unlink()
    ring = await load_sealing(place(reference), sqlite_database)
    assert ring.unseal(old, purpose="totp", owner="p-1") == SECRET
    assert not ring.is_current(old)


async def test_a_wrapped_key_opens_in_no_other_rows_place(
    kms: Kms, sqlite_database: Database
) -> None:
    reference, store = kms.sealing(), SqlSealingKeys(sqlite_database)
    await kms_sealing.create(reference, None, store)
    await kms_sealing.rotate(reference, None, store)
    first, second = await store.all()
    async with sqlite_database.begin() as conn:
        await conn.execute(
            update(sealing_keys).where(sealing_keys.c.id == first.id).values(wrapped=second.wrapped)
        )
    with pytest.raises(StartupError, match="InvalidCiphertext"):
        await load_sealing(place(reference), sqlite_database)


async def test_a_key_that_another_key_of_kms_wrapped_is_not_opened(
    kms: Kms, sqlite_database: Database
) -> None:
    """An attacker's own, which they may let the broker use, put among the old ones."""
    reference, theirs, store = kms.sealing(), kms.sealing(), SqlSealingKeys(sqlite_database)
    await kms_sealing.create(theirs, None, store)
    (planted,) = await store.all()
    await kms_sealing.move(theirs, None, reference, None, store)
    async with sqlite_database.begin() as conn:
        values = {"reference": planted.reference, "wrapped": planted.wrapped}
        await conn.execute(
            update(sealing_keys).where(sealing_keys.c.id == planted.id).values(**values)
        )
    calls = len(kms.aws.kms.calls)
    with pytest.raises(StartupError, match=str(theirs)):
        await load_sealing(place(reference), sqlite_database)
    assert kms.aws.kms.calls[calls:] == []


@pytest.mark.parametrize("fault", [Fault.THROTTLE, Fault.DROP_BEFORE, Fault.OTHER_KEY])
async def test_without_kms_no_ring_is_loaded(
    kms: Kms, sqlite_database: Database, fault: Fault
) -> None:
    reference = kms.sealing()
    await kms_sealing.create(reference, None, SqlSealingKeys(sqlite_database))
    kms.aws.faults.add(fault, action="kms:Decrypt", times=None)
    with pytest.raises(StartupError, match="sealing keys can't be used: KMS Decrypt"):
        await load_sealing(place(reference), sqlite_database)
