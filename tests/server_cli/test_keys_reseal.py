"""`broker keys rotate` and `reseal`, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from broker.adapters.sealing import FileKeyRing, UnsealFailed
from broker.adapters.store.engine import Database
from broker.adapters.store.schema import factors, principals
from broker.identity.totp import Sealed
from broker.server_cli import configuration, main
from tests.store.journal_scene import log

SECRET = b"JBSWY3DPEHPK3PXP"
PEOPLE = 205  # more than a batch


@pytest.fixture(autouse=True)
def no_logging_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in this process: they must not set up its logging for ever."""
    monkeypatch.setattr(configuration, "configure_logging", lambda _level: None)


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> Path:
    file = tmp_path / "broker.toml"
    file.write_text(
        '[server]\npublic_url = "http://127.0.0.1:8080"\n'
        f"[database]\nurl = {json.dumps(database_url)}\n"
        f"[keys]\nsealing = {json.dumps(f'file:{tmp_path}/sealing.json')}\n"
        f"signing = {json.dumps(f'file:{tmp_path}/signing.json')}\n"
        '[[oidc]]\nname = "corp"\nissuer = "https://idp.test"\nclient_id = "broker"\n'
    )
    return file


async def sealed_in(database: Database) -> dict[str, Sealed]:
    async with database.read() as conn:
        rows = (await conn.execute(select(factors))).all()
    return {r.principal_id: Sealed(r.key_id, r.version, r.nonce, r.ciphertext) for r in rows}


async def people_with_factors(database: Database, ring: FileKeyRing, count: int) -> list[str]:
    now = datetime.now(UTC)
    ids = [f"p-{number:03}" for number in range(count)]
    people = [
        {
            "id": name, "kind": "person", "issuer": "i", "subject": name, "provider": "corp",
            "handle": name, "email_verified": False, "groups": [], "claims": {}, "created_at": now,
        }
        for name in ids
    ]  # fmt: skip
    theirs = [
        {
            "id": f"f-{name}", "principal_id": name, "kind": "totp", "created_at": now,
            "last_step": -1, **asdict(ring.seal(SECRET, purpose="totp", owner=name)),
        }
        for name in ids
    ]  # fmt: skip
    async with database.begin() as conn:
        await conn.execute(insert(principals), people)
        await conn.execute(insert(factors), theirs)
    return ids


async def resealed(database: Database) -> list[dict[str, Any]]:
    return [r["detail"] for r in await log(database) if r["type"] == "keys.resealed"]


async def broker(config: Path, *words: str) -> int:
    """In a thread, since the command has an event loop of its own."""
    return await asyncio.to_thread(main, [*words, "--config", str(config)])


async def test_every_secret_is_sealed_again_and_opens_as_before(
    config: Path, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await broker(config, "keys", "init") == 0
    first = FileKeyRing.load(tmp_path / "sealing.json")
    people = await people_with_factors(database, first, PEOPLE)
    assert await broker(config, "keys", "rotate") == 0
    assert "broker keys reseal" in capsys.readouterr().out

    assert await broker(config, "keys", "reseal") == 0
    ring = FileKeyRing.load(tmp_path / "sealing.json")
    assert f"Secrets sealed again: {PEOPLE}." in capsys.readouterr().out
    sealed = await sealed_in(database)
    assert sorted(sealed) == sorted(people)
    assert {one.key_id for one in sealed.values()} == {ring.current} != {first.current}
    for who, one in sealed.items():
        assert ring.unseal(one, purpose="totp", owner=who) == SECRET
        with pytest.raises(UnsealFailed):
            first.unseal(one, purpose="totp", owner=who)
    # In batches, each with its record; and there is nothing left to do.
    details = await resealed(database)
    assert {detail["key"] for detail in details} == {ring.current}
    assert sum(detail["secrets"] for detail in details) == PEOPLE
    assert await broker(config, "keys", "reseal") == 0
    assert "Secrets sealed again: 0." in capsys.readouterr().out
    assert await resealed(database) == details


async def test_a_secret_that_nothing_opens_is_named_and_left_alone(
    config: Path, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await broker(config, "keys", "init")
    first = FileKeyRing.load(tmp_path / "sealing.json")
    lost, moved, well = await people_with_factors(database, first, 3)
    others = (await sealed_in(database))[well]
    async with database.begin() as conn:
        await conn.execute(
            update(factors).where(factors.c.principal_id == lost).values(key_id="k-lost")
        )
        # Somebody who can write to the database gave them another's secret.
        theirs = {"nonce": others.nonce, "ciphertext": others.ciphertext}
        await conn.execute(update(factors).where(factors.c.principal_id == moved).values(**theirs))
    before = await sealed_in(database)
    await broker(config, "keys", "rotate")
    capsys.readouterr()

    assert await broker(config, "keys", "reseal") == 1
    told = capsys.readouterr()
    assert "Secrets sealed again: 1." in told.out
    assert all(f"broker mfa reset {who}" in told.err for who in (lost, moved))
    after = await sealed_in(database)
    assert [after[who] for who in (lost, moved)] == [before[who] for who in (lost, moved)]
    assert after[well] != before[well]


async def test_what_can_not_be_meant_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await broker(config, "keys", "reseal") == 1
    assert "sealing.json" in capsys.readouterr().err
    assert await broker(config, "keys", "reseal", "--signing") == 1
    assert "leave out --signing" in capsys.readouterr().err
    assert await broker(config, "keys", "reseal", "--to", "awskms:arn:aws:kms:x:1:key/y") == 1
    assert "--to is for `broker keys rotate`" in capsys.readouterr().err
